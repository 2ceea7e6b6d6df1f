"""Public names of `umx_np.training`: what is imported lazily, and what type checkers see."""

from .checkpoint import TrainingError as TrainingError
from .config import TrainConfig as TrainConfig
from .end_to_end import WaveformSeparator as WaveformSeparator
from .records import EpochReport as EpochReport
from .trainer import Trainer as Trainer
from .trainer import TrainResult as TrainResult
