"""Training: the run, its files, and the way back into it.

    config = TrainConfig(target="vocals", output="open-unmix")
    Trainer(config, train_dataset, valid_dataset).fit()

`JointTrainer` trains the networks of all targets together, on the waveforms of the stems.

``python -m umx_np.train`` does the same from the command line; see docs/training.md. Names are
imported when they are first used, because options are parsed before anything heavy is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import TrainingError

if TYPE_CHECKING:
    from .config import JointConfig, TrainConfig
    from .end_to_end import WaveformSeparator
    from .joint import JointTrainer, waveform_loss
    from .records import EpochReport, TrainResult
    from .trainer import Trainer

_HOMES = {
    "EpochReport": "records",
    "JointConfig": "config",
    "JointTrainer": "joint",
    "TrainConfig": "config",
    "TrainResult": "records",
    "Trainer": "trainer",
    "WaveformSeparator": "end_to_end",
    "waveform_loss": "joint",
}

__all__ = [
    "EpochReport",
    "JointConfig",
    "JointTrainer",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "TrainingError",
    "WaveformSeparator",
    "waveform_loss",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
