"""The only place with numbers: how far a result may be from its oracle, and why so far.

``TOL[operation][dtype]`` bounds the root mean square of the error:
``atol + rtol * rms(expected)``. `dtype` is the precision of the computation under test. Where a
bound is set by measurement it is at most ten times the largest error seen, which `why` gives.
"""

from __future__ import annotations

from typing import NamedTuple


class Tolerance(NamedTuple):
    """Largest allowed root mean square of an error."""

    rtol: float
    atol: float
    why: str


def decibels(level: float) -> float:
    """Relative error whose level is `level` dB below the signal."""
    return 10.0 ** (-level / 20.0)


_GUESS = "not yet measured"

TOL: dict[str, dict[str, Tolerance]] = {
    "stft": {
        "float32": Tolerance(1e-6, 0.0, _GUESS),
        "float64": Tolerance(1e-13, 0.0, _GUESS),
    },
    "istft": {
        "float32": Tolerance(1e-6, 0.0, _GUESS),
        "float64": Tolerance(1e-13, 0.0, _GUESS),
    },
    "filterbank_torch": {"float64": Tolerance(1e-13, 0.0, _GUESS)},
    "filterbank_asteroid": {"float64": Tolerance(1e-5, 0.0, _GUESS)},
    "network": {
        "float32": Tolerance(1e-5, 0.0, _GUESS),
        "float64": Tolerance(1e-12, 0.0, _GUESS),
    },
    "wiener": {
        "float32": Tolerance(decibels(110.0), 0.0, _GUESS),
        "float64": Tolerance(1e-10, 0.0, _GUESS),
    },
    "wiener_near_mono": {
        "float32": Tolerance(decibels(110.0), 0.0, _GUESS),
        "float64": Tolerance(1e-8, 0.0, _GUESS),
    },
    "separator": {
        "float32": Tolerance(decibels(100.0), 0.0, _GUESS),
        "float64": Tolerance(1e-10, 0.0, _GUESS),
    },
    "separator_asteroid": {"float32": Tolerance(decibels(100.0), 0.0, _GUESS)},
    "separator_near_mono": {"float32": Tolerance(decibels(80.0), 0.0, _GUESS)},
    "sum_of_stems": {"float32": Tolerance(1e-6, 0.0, _GUESS)},
    "threads": {"float32": Tolerance(1e-6, 0.0, _GUESS)},
}
