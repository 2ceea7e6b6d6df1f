"""Sound files and arrays: reading, writing, resampling, and the layouts callers use.

- `AudioReader` and `StemWriter` move a song through memory block by block.
- `read` and `write` do the same for whole arrays.
- `preprocess` and `Layout` take an array of any usual layout to ``(nb_samples, nb_channels,
  nb_timesteps)`` and bring stems back to the layout of the caller.
"""

from __future__ import annotations

import lazy_loader

# The names are those of __init__.pyi, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
