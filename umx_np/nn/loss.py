"""The loss: mean squared error of magnitudes."""

from __future__ import annotations

import numpy as np

from ..backends._pool import parallel_map, resolve_threads
from ..errors import ShapeError

# Elements whose squares are summed at a time: a float32 sum over millions would lose digits, and
# three arrays of this size stay in the second-level cache from one operation to the next.
_PART = 2**16


def mse_loss(
    y: np.ndarray, target: np.ndarray, *, threads: int | None = None
) -> tuple[float, np.ndarray]:
    """Mean of the squared differences, and its gradient.

    Parameters
    ----------
    y : ndarray
        Estimate.
    target : ndarray [shape as `y`]
        What it should be.
    threads : int or None
        Threads to compute on; None means all cores that this process may use. The result does not
        depend on it.

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
    count = max(y.size, 1)
    d_y = np.empty(y.shape, np.result_type(y, target))
    estimates, targets, gradients = (
        np.ascontiguousarray(array).reshape(-1) for array in (y, target, d_y)
    )

    errors = np.geterr()  # the caller's; each thread has its own

    def some_squares(start: int) -> float:
        part = slice(start, start + _PART)
        with np.errstate(**errors):
            difference = np.subtract(estimates[part], targets[part], out=gradients[part])
            # Not a product of BLAS, which would use threads of its own.
            squares = float(np.einsum("i,i->", difference, difference))
            difference *= difference.dtype.type(2.0 / count)
        return squares

    parts = range(0, y.size, _PART)
    return sum(parallel_map(resolve_threads(threads), some_squares, parts)) / count, d_y
