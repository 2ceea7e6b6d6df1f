"""What the golden training file was made from; numbers that no version of NumPy changes."""

from __future__ import annotations

from typing import Any

import numpy as np

from umx_np.config import ModelConfig
from umx_np.testing import random_state
from umx_np.testing.random_models import typical_magnitude, uniform
from umx_np.weights.bundle import TargetWeights

CONFIG = ModelConfig(nb_bins=33, hidden_size=12, max_bin=21)
STEPS = 10
GRADIENT_BATCH = 77
OPTIONS: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 1e-3, "weight_decay": 1e-5},
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
}


def weights() -> TargetWeights:
    """Initial weights."""
    return TargetWeights(CONFIG, random_state(CONFIG, seed=81))


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Mixture and target of a step [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]."""
    shape = (6, 3, CONFIG.nb_channels, CONFIG.nb_bins)
    x = typical_magnitude(CONFIG.nb_bins) * uniform(82 + step, "mixture", shape, 0.0, 2.0)
    return x, x * uniform(82 + step, "share", shape, 0.0, 1.0)
