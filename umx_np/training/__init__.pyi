"""Public names of `umx_np.training`: imported lazily, and seen by type checkers."""

from .checkpoint import TrainingError as TrainingError
from .config import TrainConfig as TrainConfig
from .end_to_end import WaveformSeparator as WaveformSeparator
from .records import EpochReport as EpochReport
from .trainer import Trainer as Trainer
from .trainer import TrainResult as TrainResult
