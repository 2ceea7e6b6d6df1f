"""The loss: mean squared error of magnitudes."""

from __future__ import annotations

import numpy as np

from ..errors import ShapeError


def mse_loss(y: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of the squared differences, and its gradient.

    Parameters
    ----------
    y : ndarray
        Estimate.
    target : ndarray [shape as `y`]
        What it should be.

    Returns
    -------
    loss : float
    d_y : ndarray [shape as `y`]
        Gradient of the loss with respect to `y`: ``2 (y - target) / y.size``.

    Raises
    ------
    ShapeError
        If the shapes differ; broadcasting would hide a mistake.

    Examples
    --------
    >>> mse_loss(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    (2.0, array([0., 2.]))
    """
    if y.shape != target.shape:
        raise ShapeError(f"y has shape={y.shape}, target has shape={target.shape}")
    difference = y - target
    flat = difference.reshape(-1)
    # Summed in parts: a float32 sum over millions of squares would lose digits.
    loss = sum(
        float(np.dot(part, part)) for part in np.array_split(flat, max(1, flat.size // 2**16))
    )
    d_y = difference * y.dtype.type(2.0 / max(y.size, 1))
    return loss / max(y.size, 1), d_y
