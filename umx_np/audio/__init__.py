"""Sound files and arrays: reading, writing, resampling, and the layouts callers use.

- `AudioReader` and `StemWriter` move a song through memory block by block.
- `read` and `write` do the same for whole arrays.
- `preprocess` and `Layout` take an array of any usual layout to ``(nb_samples, nb_channels,
  nb_timesteps)`` and bring stems back to the layout of the caller.
"""

from .layout import Layout, preprocess
from .reader import AudioReader, read
from .resampling import StreamResampler, nb_resampled, resample
from .sink import written_suffixes
from .writer import StemWriter, commit_together, write

__all__ = [
    "AudioReader",
    "Layout",
    "StemWriter",
    "StreamResampler",
    "commit_together",
    "nb_resampled",
    "preprocess",
    "read",
    "resample",
    "write",
    "written_suffixes",
]
