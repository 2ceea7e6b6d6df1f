"""Features side by side: the skip connection around the LSTM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def concatenate_forward(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join arrays [shape=(..., nb_features)] along the last axis."""
    return np.concatenate(parts, axis=-1)


def concatenate_backward(d_y: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Cut the gradient into the parts, which have `sizes` features."""
    return np.split(d_y, np.cumsum(sizes)[:-1], axis=-1)
