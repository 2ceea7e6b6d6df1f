"""The loss: mean squared error of magnitudes."""

from __future__ import annotations

import numpy as np

from ..backends._pool import parallel_map, resolve_threads
from ..errors import ShapeError

# Elements that one thread takes at a time. Smaller parts stay in its cache, but threads that hand
# the interpreter to each other more often take twice as long.
_PART = 2**18


def mse_loss(
    y: np.ndarray,
    target: np.ndarray,
    *,
    threads: int | None = None,
    out: np.ndarray | None = None,
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
    out : ndarray or None
        Where to put the gradient, which may be `y`: fresh memory takes longer than the loss.

    Returns
    -------
    loss : float
    d_y : ndarray [shape as `y`]
        Gradient of the loss with respect to `y`: ``2 (y - target) / y.size``.

    Raises
    ------
    ShapeError
        If the shapes differ, because broadcasting would hide a mistake; or if `out` does not fit.

    Examples
    --------
    >>> mse_loss(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    (2.0, array([0., 2.]))
    """
    if y.shape != target.shape:
        raise ShapeError(f"y has shape={y.shape}, target has shape={target.shape}")
    count = max(y.size, 1)
    dtype = np.result_type(y, target)
    d_y = np.empty(y.shape, dtype) if out is None else out
    if d_y.shape != y.shape or d_y.dtype != dtype or not d_y.flags.c_contiguous:
        raise ShapeError(
            f"out has shape={d_y.shape}, dtype={d_y.dtype}; it must be contiguous, with "
            f"shape={y.shape} and dtype={dtype}"
        )
    gradients = d_y.reshape(-1)
    estimates, targets = (np.ascontiguousarray(array).reshape(-1) for array in (y, target))

    errors = np.geterr()  # the caller's; each thread has its own

    def some_squares(start: int) -> float:
        part = slice(start, start + _PART)
        with np.errstate(**errors):
            difference = np.subtract(estimates[part], targets[part], out=gradients[part])
            # Not a product of BLAS, which would use threads of its own; and NumPy adds up pairwise.
            squares = float(np.sum(difference * difference))
            difference *= difference.dtype.type(2.0 / count)
        return squares

    parts = range(0, y.size, _PART)
    return sum(parallel_map(resolve_threads(threads), some_squares, parts)) / count, d_y
