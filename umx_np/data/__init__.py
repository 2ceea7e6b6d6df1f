"""Training data: the datasets of Open-Unmix, their augmentations, batches and statistics.

- `load_datasets` makes the training and validation set that options describe; the options are
  added to a parser by `add_dataset_options`.
- A dataset (`UnmixDataset`) makes numbered items from the random numbers it is handed, so nothing
  depends on who makes them or when.
- `Loader` puts them into batches ahead of time; `get_statistics` looks at all of them once.

``python -m umx_np.data`` inspects a dataset. docs/training-data.md shows the formats.
"""

from ..errors import DataError
from .aligned import AlignedDataset
from .augmentations import (
    Compose,
    aug_from_str,
    channelswap,
    force_stereo,
    gain,
    polarity,
    tilt,
    width,
)
from .base import UnmixDataset, item_rng
from .loader import Loader
from .musdb18 import MUSDBDataset
from .options import DATASETS, add_dataset_options, load_datasets, parse_dataset_options
from .sourcefolder import SourceFolderDataset
from .statistics import get_statistics
from .stems import StemsDataset
from .trackfolder import FixedSourcesTrackFolderDataset
from .trackfolder_var import VariableSourcesTrackFolderDataset

__all__ = [
    "DATASETS",
    "AlignedDataset",
    "Compose",
    "DataError",
    "FixedSourcesTrackFolderDataset",
    "Loader",
    "MUSDBDataset",
    "SourceFolderDataset",
    "StemsDataset",
    "UnmixDataset",
    "VariableSourcesTrackFolderDataset",
    "add_dataset_options",
    "aug_from_str",
    "channelswap",
    "force_stereo",
    "gain",
    "get_statistics",
    "item_rng",
    "load_datasets",
    "parse_dataset_options",
    "polarity",
    "tilt",
    "width",
]
