"""The losses: mean squared error of magnitudes, and its logarithm for each excerpt."""

from __future__ import annotations

import numpy as np

from .._support.threads import parallel_map, resolve_threads
from ..errors import ShapeError

# Elements that one thread takes at a time. Smaller parts stay in its cache, but threads that hand
# the interpreter to each other more often take twice as long.
_PART = 2**18

# An error that is this share of the mixture's energy (-20 dB) is small: below it the logarithm
# levels off, or excerpts without the target would outweigh all others.
SMALL_ERROR = 0.01


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
    d_y = _gradient_memory(y, target, out)
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


def relative_error_db(error: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Errors relative to the energy of their mixtures, in dB, levelling off at -20 dB.

    Parameters
    ----------
    error, energy : ndarray
        Mean squares of the error and of the mixture; an error in silence counts as a small one.

    Returns
    -------
    ndarray
    """
    share = np.divide(error, energy, out=np.zeros_like(error), where=energy > 0)
    return 10.0 * np.log10(share + SMALL_ERROR)


def log_mse_loss(
    y: np.ndarray,
    target: np.ndarray,
    mixture: np.ndarray,
    *,
    threads: int | None = None,
    out: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """Mean over the excerpts of their relative error in dB, and its gradient.

    Loud and soft excerpts count the same, as they do in the signal-to-distortion ratio.

    Parameters
    ----------
    y : ndarray [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]
        Estimate.
    target, mixture : ndarray [shape as `y`]
        What it should be, and what the target was mixed into.
    threads, out
        As for `mse_loss`.

    Returns
    -------
    loss : float
        In dB, see `relative_error_db`.
    d_y : ndarray [shape as `y`]
        Gradient of the loss with respect to `y`.

    Raises
    ------
    ShapeError
        As for `mse_loss`.
    """
    if not y.shape == target.shape == mixture.shape or y.ndim != 4:
        raise ShapeError(
            f"y has shape={y.shape}, target has shape={target.shape}, mixture has "
            f"shape={mixture.shape}; they must be the same, (nb_frames, nb_samples, nb_channels, "
            "nb_bins)"
        )
    d_y = _gradient_memory(y, target, out)
    errors = np.geterr()
    nb_frames, nb_samples = y.shape[:2]
    squares, energies = np.empty((2, nb_frames, nb_samples))

    def one_frame(frame: int) -> None:
        with np.errstate(**errors):
            difference = np.subtract(y[frame], target[frame], out=d_y[frame])
            squares[frame] = np.square(difference).sum(axis=(1, 2))
            energies[frame] = np.square(mixture[frame]).sum(axis=(1, 2))

    threads = resolve_threads(threads)
    parallel_map(threads, one_frame, range(nb_frames))
    size = max(y.size // max(nb_samples, 1), 1)
    error, energy = squares.sum(axis=0) / size, energies.sum(axis=0) / size
    # d/dy of 10 log10(error / energy + small)
    slope = 20.0 / np.log(10.0) / (nb_samples * size)
    floor = error + SMALL_ERROR * energy
    weight = np.divide(slope, floor, out=np.zeros_like(floor), where=energy > 0)
    factor = weight.astype(d_y.dtype)[:, None, None]

    def scale(frame: int) -> None:
        d_y[frame] *= factor

    parallel_map(threads, scale, range(nb_frames))
    return float(relative_error_db(error, energy).mean()), d_y


def _gradient_memory(y: np.ndarray, target: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """`out` if it fits, or new memory."""
    dtype = np.result_type(y, target)
    if out is None:
        return np.empty(y.shape, dtype)
    if out.shape != y.shape or out.dtype != dtype or not out.flags.c_contiguous:
        raise ShapeError(
            f"out has shape={out.shape}, dtype={out.dtype}; it must be contiguous, with "
            f"shape={y.shape} and dtype={dtype}"
        )
    return out
