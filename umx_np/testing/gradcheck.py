"""Check gradients written by hand against differences of the function itself.

A gradient has as many numbers as its argument; to difference along every one of them would take as
many calls. Along a *random direction* v all of them are checked at once: the derivative of
``f(x + s v)`` at s = 0 must be the gradient times v. A wrong number anywhere changes it.

The function may return an array. It is multiplied with random weights and summed, so that the
checked derivative depends on every output, and the weights are what the backward pass is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import ShapeError

Function = Callable[..., tuple[Any, Callable[[np.ndarray], Mapping[str, np.ndarray]]]]

# Steps relative to the size of the argument. The error of the formula falls with the fourth power
# of the step, that of rounding grows with its inverse; small steps are for functions with kinks.
_STEPS = (1e-3, 1e-4, 1e-5, 1e-6)
# Two estimates that differ by more than this share of the tolerance are not from a smooth stretch.
_SMOOTH = 0.25
# Rounding errors of a sum of many terms, in units of the last place of the sum of magnitudes.
_ROUNDING = 64.0


class GradientError(AssertionError):
    """A gradient does not fit the function; the message is the report."""


@dataclass(frozen=True)
class Direction:
    """One derivative, found in two ways.

    Attributes
    ----------
    argument : str
        Name of the argument that was moved.
    numeric, analytic : float
        From differences and from the gradient.
    tolerance : float
        How far they may be apart.
    step : float
        Of the differences; NaN where every step met a kink.
    """

    argument: str
    numeric: float
    analytic: float
    tolerance: float
    step: float

    @property
    def good(self) -> bool:
        """Whether they agree. NaN never does."""
        return bool(abs(self.numeric - self.analytic) <= self.tolerance)

    def __str__(self) -> str:
        size = max(abs(self.numeric), abs(self.analytic))
        error = abs(self.numeric - self.analytic) / size if size > 0 else 0.0
        verdict = "ok" if self.good else "WRONG"
        if np.isnan(self.step):
            verdict = "KINK in every direction; move the argument away from it"
        return (
            f"{self.argument:24} differences {self.numeric: .12e}  gradient {self.analytic: .12e}  "
            f"relative error {error:.1e}  {verdict}"
        )


def gradcheck(
    function: Function,
    arguments: Mapping[str, Any],
    *,
    only: Sequence[str] | None = None,
    rtol: float = 1e-6,
    directions: int = 2,
    seed: int = 0,
) -> list[Direction]:
    """Check the gradients of a function by fourth-order central differences in float64.

    Parameters
    ----------
    function : callable
        Called with the arguments by name. Returns the result, an array or a number, and a function
        that takes the gradient of the result and returns the gradients of the arguments by name.
    arguments : mapping of str to object
        Where to check. Arrays of float64 are checked, other objects handed on. They are not
        modified, and the function must not modify them either.
    only : sequence of str, optional
        Names of the arrays to check; all of them by default.
    rtol : float
        Largest relative error of a derivative. An allowance for rounding is added to it.
    directions : int
        Random directions for each argument.
    seed : int
        Of the directions and of the weights of the outputs.

    Returns
    -------
    list of Direction
        What was compared.

    Raises
    ------
    GradientError
        If a derivative differs, is not finite, or cannot be found because every direction meets a
        kink; the message names the argument. Also if a gradient is missing, has another shape than
        its argument, or if the function modifies its arguments.
    ShapeError
        If there is nothing to check, or an array is float32, whose rounding would hide mistakes.

    Notes
    -----
    The derivative along v is (8 (f(h v) − f(−h v)) − (f(2h v) − f(−2h v))) / (12 h), whose error is
    of the order of h⁴. It is computed for h and h/2. Where the two disagree the function is not
    smooth within 2h, because a ReLU changes sign for instance, and smaller steps are tried, then
    other directions.

    Examples
    --------
    >>> def square(x):
    ...     return x**2, lambda d_y: {"x": 2 * x * d_y}
    >>> report = gradcheck(square, {"x": np.linspace(-1.0, 1.0, 5)})
    >>> def wrong(x):
    ...     return x**2, lambda d_y: {"x": x * d_y}
    >>> gradcheck(wrong, {"x": np.linspace(-1.0, 1.0, 5)})
    Traceback (most recent call last):
        ...
    umx_np.testing.gradcheck.GradientError: ...
    """
    names = _names_to_check(arguments, only)
    rng = np.random.default_rng(seed)
    copies = {name: _copied(value) for name, value in arguments.items()}
    result, backward = function(**copies)
    weights = rng.standard_normal(np.shape(result))
    gradients = backward(weights)
    for name, value in arguments.items():
        if isinstance(value, np.ndarray) and not np.array_equal(copies[name], value, True):
            raise GradientError(f"the function modifies its argument {name!r}")
    for name in names:
        if name not in gradients:
            raise GradientError(f"there is no gradient of {name!r}")
        if np.shape(gradients[name]) != arguments[name].shape:
            raise GradientError(
                f"the gradient of {name!r} has shape={np.shape(gradients[name])} instead of "
                f"{arguments[name].shape}"
            )

    def along(name: str, direction: np.ndarray, distance: float) -> tuple[float, float]:
        """Weighted sum of the result at a distance, and the sum of its magnitudes."""
        moved = {key: _copied(value) for key, value in arguments.items()}
        moved[name] = arguments[name] + distance * direction
        terms = weights * function(**moved)[0]
        return float(np.sum(terms)), float(np.sum(np.abs(terms)))

    report = [
        _check(name, arguments[name], np.asarray(gradients[name]), along, rng, rtol)
        for name in names
        for _ in range(directions)
    ]
    if not all(row.good for row in report):
        raise GradientError("gradients do not fit:\n" + "\n".join(map(str, report)))
    return report


def _names_to_check(arguments: Mapping[str, Any], only: Sequence[str] | None) -> list[str]:
    arrays = [name for name, value in arguments.items() if isinstance(value, np.ndarray)]
    floats = [name for name in arrays if arguments[name].dtype.kind == "f"]
    names = floats if only is None else list(only)
    for name in names:
        if name not in floats:
            raise ShapeError(f"only={name!r} is not an array of floats among the arguments")
        if arguments[name].dtype != np.float64:
            raise ShapeError(
                f"argument {name!r} has dtype={arguments[name].dtype}; check in float64"
            )
    if not names:
        raise ShapeError("there is no array of floats to check")
    return names


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _check(
    name: str,
    argument: np.ndarray,
    gradient: np.ndarray,
    along: Callable[[str, np.ndarray, float], tuple[float, float]],
    rng: np.random.Generator,
    rtol: float,
) -> Direction:
    """Try directions and steps until the function is smooth along one."""
    size = float(np.sqrt(np.mean(argument**2))) if argument.size else 0.0
    row = Direction(name, np.nan, np.nan, 0.0, np.nan)
    for _ in range(8):
        direction = rng.standard_normal(argument.shape) * (size or 1.0)
        analytic = float(np.sum(gradient * direction))
        center, _ = along(name, direction, 0.0)
        for step in _STEPS:
            coarse = _differences(along, name, direction, step, center)
            fine = _differences(along, name, direction, step / 2, center)
            rounding = _ROUNDING * np.finfo(np.float64).eps * fine.magnitude / step
            numeric = fine.slope
            if not np.isfinite(numeric) or not np.isfinite(analytic):
                return Direction(name, numeric, analytic, 0.0, step)
            # A kink beside the centre changes the slope from one step to the other, one in the
            # centre keeps the bend from becoming half as large.
            smooth = _SMOOTH * rtol * abs(numeric) + rounding
            bend = abs(2.0 * fine.bend - coarse.bend)
            if abs(numeric - coarse.slope) <= smooth and bend <= smooth:
                return Direction(name, numeric, analytic, rtol * abs(numeric) + rounding, step)
        row = Direction(name, numeric, analytic, -1.0, np.nan)
    return row


class _Differences(NamedTuple):
    """Slope to the fourth order, bend (difference of the slopes on both sides), sum of terms."""

    slope: float
    bend: float
    magnitude: float


def _differences(
    along: Callable[[str, np.ndarray, float], tuple[float, float]],
    name: str,
    direction: np.ndarray,
    step: float,
    center: float,
) -> _Differences:
    values = [along(name, direction, k * step) for k in (1, -1, 2, -2)]
    (a, magnitude), (b, _), (c, _), (d, _) = values
    slope = (8.0 * (a - b) - (c - d)) / (12.0 * step)
    return _Differences(slope, (a - 2.0 * center + b) / step, magnitude)
