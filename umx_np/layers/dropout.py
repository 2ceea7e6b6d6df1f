"""Dropout: features are left out at random and the others made larger to make up for it."""

from __future__ import annotations

import numpy as np


def dropout_mask(
    rng: np.random.Generator, rate: float, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """Draw a mask of 0 and ``1 / (1 - rate)``.

    Parameters
    ----------
    rng : Generator
        Source of the random numbers; 16 bits are drawn for each element.
    rate : float
        Probability of a 0, rounded to a multiple of 2⁻¹⁶.
    shape : tuple of int
        Shape of the mask.
    dtype : dtype
        Of the mask; the numbers drawn do not depend on it.

    Returns
    -------
    ndarray [shape=shape]
    """
    keep = rng.integers(0, 1 << 16, shape, dtype=np.uint16) >= round(rate * (1 << 16))
    return keep * np.dtype(dtype).type(1.0 / (1.0 - rate))


def dropout_forward(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Multiply with a mask from `dropout_mask`."""
    return x * mask


def dropout_backward(d_y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Gradient of the input."""
    return d_y * mask
