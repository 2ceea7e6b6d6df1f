"""Training data: the datasets of Open-Unmix, their augmentations, batches and statistics.

- `load_datasets` makes the training and validation set that options describe; the options are
  added to a parser by `add_dataset_options`.
- A dataset (`UnmixDataset`) makes numbered items from the random numbers it is handed, so nothing
  depends on who makes them or when.
- `Loader` puts them into batches ahead of time; `get_statistics` looks at all of them once.

``umx-np data`` inspects a dataset. docs/training-data.md shows the formats. Names are imported when
they are first used, because options are parsed before anything heavy is needed.
"""

from __future__ import annotations

import lazy_loader

# The names are those of __init__.pyi, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
