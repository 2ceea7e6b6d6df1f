"""Networks whose sizes fit no vector."""

from __future__ import annotations

from typing import Any

import umx_np
from umx_np.config import ModelConfig

CONFIGS = [
    ModelConfig(nb_bins=33, hidden_size=8, max_bin=20),
    ModelConfig(nb_bins=33, hidden_size=10, nb_layers=1, unidirectional=True),
    ModelConfig(nb_bins=17, hidden_size=34, nb_channels=1, nb_layers=2),
]


def model_of(config: ModelConfig, **options: Any) -> umx_np.OpenUnmix:
    """Return a model of an architecture."""
    return umx_np.OpenUnmix(
        config.nb_bins,
        config.nb_channels,
        config.hidden_size,
        config.nb_layers,
        config.unidirectional,
        max_bin=config.max_bin,
        **options,
    )
