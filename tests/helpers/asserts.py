"""Comparisons of arrays that a NaN, a wrong dtype or a wrong shape cannot pass."""

from __future__ import annotations

import numpy as np
from tolerances import Tolerance

# Largest error over its bound that each tolerance has met, for ``pytest --measure``.
largest: dict[int, tuple[float, float]] = {}


def relative_l2(actual: np.ndarray, desired: np.ndarray) -> float:
    """Norm of the difference over the norm of `desired`; NaN and infinity count as infinite.

    Computed in double precision. If `desired` is zero everywhere the result is 0 for an exact
    match and infinity otherwise.
    """
    actual, desired = _as_double(actual), _as_double(desired)
    if actual.shape != desired.shape:
        raise AssertionError(f"shapes differ: {actual.shape} is not {desired.shape}")
    if not (np.isfinite(actual).all() and np.isfinite(desired).all()):
        return np.inf
    error, norm = np.linalg.norm(actual - desired), np.linalg.norm(desired)
    if error == 0.0:
        return 0.0
    return float(error / norm) if norm > 0.0 else np.inf


def snr_db(actual: np.ndarray, desired: np.ndarray) -> float:
    """Level of `desired` over the difference in dB; minus infinity where anything is not finite."""
    error = relative_l2(actual, desired)
    with np.errstate(divide="ignore"):
        return float(-20.0 * np.log10(error))


def assert_finite(actual: np.ndarray, *, shape: tuple[int, ...], dtype: object) -> None:
    """Check shape and dtype, and that no value is NaN or infinite."""
    assert isinstance(actual, np.ndarray), f"{type(actual)} is not an array"
    assert actual.shape == tuple(shape), f"shape {actual.shape} is not {tuple(shape)}"
    assert actual.dtype == np.dtype(dtype), f"dtype {actual.dtype} is not {np.dtype(dtype)}"
    bad = int(np.count_nonzero(~np.isfinite(actual)))
    assert bad == 0, f"{bad} of {actual.size} values are not finite"


def assert_close(
    actual: np.ndarray, desired: np.ndarray, tolerance: Tolerance, *, dtype: object
) -> None:
    """Check dtype, shape, finiteness and value.

    The root mean square of the difference must not exceed
    ``tolerance.atol + tolerance.rtol * rms(desired)``. At tolerances of 1e-5 and less a single
    value that is plainly wrong is enough to exceed it.

    Parameters
    ----------
    actual : ndarray
        What the package computed.
    desired : ndarray
        The oracle's result, in any floating or complex dtype.
    tolerance : Tolerance
        From `tolerances.TOL`.
    dtype : dtype
        The dtype that `actual` must have.
    """
    desired = np.asarray(desired)
    assert_finite(actual, shape=desired.shape, dtype=dtype)
    assert np.isfinite(desired).all(), "the expected values are not finite"
    reference = _as_double(desired)
    error = _rms(_as_double(actual) - reference)
    bound = tolerance.atol + tolerance.rtol * _rms(reference)
    _record(tolerance, error, bound, relative_l2(actual, desired))
    assert error <= bound, (
        f"rms error {error:.3g} exceeds {bound:.3g} "
        f"(relative error {relative_l2(actual, desired):.3g}; {tolerance.why})"
    )


def _record(tolerance: Tolerance, error: float, bound: float, relative: float) -> None:
    share = error / bound if bound > 0.0 else 0.0
    if share >= largest.get(id(tolerance), (0.0, 0.0))[0]:
        largest[id(tolerance)] = (share, relative)


def _as_double(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def _rms(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.abs(array) ** 2))) if array.size else 0.0
