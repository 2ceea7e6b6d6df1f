"""Outputs are compared before any time is believed."""

from __future__ import annotations

import numpy as np

# What is reported where two outputs are the same to the last bit; JSON has no infinity.
_IDENTICAL_DB = 300.0


class BenchmarkError(Exception):
    """A benchmark cannot go on; the message says why."""


class OutputsDiffer(BenchmarkError):  # noqa: N818 - it is what happened
    """Two programs that should compute the same do not."""


def snr_db(expected: np.ndarray, actual: np.ndarray) -> float:
    """Level of a signal over that of the difference of another one from it.

    Parameters
    ----------
    expected, actual : ndarray
        Real or complex, of the same shape.

    Returns
    -------
    float
        In decibels, at most 300; minus infinity if either holds NaN or infinity, or if silence was
        expected and something came.

    Raises
    ------
    OutputsDiffer
        If the shapes differ.
    """
    expected, actual = np.asarray(expected), np.asarray(actual)
    if expected.shape != actual.shape:
        raise OutputsDiffer(f"shapes differ: {expected.shape} expected, {actual.shape} came")
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        return -np.inf
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    signal = float(np.linalg.norm(expected.astype(wide, copy=False).ravel()))
    error = float(np.linalg.norm((expected.astype(wide) - actual).ravel()))
    if error == 0.0:
        return _IDENTICAL_DB
    if signal == 0.0:
        return -np.inf
    return min(20.0 * float(np.log10(signal / error)), _IDENTICAL_DB)


def require(
    what: str, expected: np.ndarray, actual: np.ndarray, *, at_least_db: float
) -> dict[str, float | str]:
    """Compare two outputs.

    Parameters
    ----------
    what : str
        What is compared with what, for the message and the record.
    expected, actual : ndarray
        The outputs.
    at_least_db : float
        Smallest signal-to-noise ratio that passes.

    Returns
    -------
    dict
        ``what``, ``snr_db`` and ``at_least_db``, for the JSON file.

    Raises
    ------
    OutputsDiffer
        If the ratio is smaller, or there is a NaN anywhere.
    """
    ratio = snr_db(expected, actual)
    # Written so that NaN cannot pass.
    if not ratio >= at_least_db:
        raise OutputsDiffer(
            f"{what}: outputs differ, {ratio:.1f} dB where {at_least_db:g} dB are required"
        )
    return {"what": what, "snr_db": round(ratio, 1), "at_least_db": at_least_db}
