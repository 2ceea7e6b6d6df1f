"""Public names of `umx_np.audio`: imported lazily, and seen by type checkers."""

from .arrays import read as read
from .arrays import write as write
from .layout import Layout as Layout
from .layout import preprocess as preprocess
from .reader import AudioReader as AudioReader
from .resampling import StreamResampler as StreamResampler
from .resampling import nb_resampled as nb_resampled
from .resampling import resample as resample
from .sink import written_suffixes as written_suffixes
from .stem_files import write_stem_file as write_stem_file
from .writer import StemWriter as StemWriter
from .writer import commit_together as commit_together
from .writer import finish_together as finish_together
