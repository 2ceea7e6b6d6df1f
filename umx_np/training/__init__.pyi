"""Public names of `umx_np.training`: imported lazily, and seen by type checkers."""

from .checkpoint import TrainingError as TrainingError
from .config import JointConfig as JointConfig
from .config import TrainConfig as TrainConfig
from .end_to_end import WaveformSeparator as WaveformSeparator
from .joint import JointTrainer as JointTrainer
from .joint import waveform_loss as waveform_loss
from .records import EpochReport as EpochReport
from .records import TrainResult as TrainResult
from .trainer import Trainer as Trainer
