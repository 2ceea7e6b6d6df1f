"""The public gradient checker itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from umx_np.errors import ShapeError
from umx_np.testing import GradientError, gradcheck


def relu(x: np.ndarray) -> tuple[np.ndarray, Any]:
    return np.maximum(x, 0), lambda d_y: {"x": d_y * (x > 0)}


def test_reports_what_it_compared():
    report = gradcheck(relu, {"x": np.linspace(-1, 1, 8)}, directions=3)
    assert [row.argument for row in report] == ["x"] * 3
    assert all(row.good and row.step == 1e-3 for row in report)
    assert "ok" in str(report[0])


def test_accuracy():
    """Fourth order: twelve digits and more of a smooth function."""

    def function(x: np.ndarray) -> tuple[np.ndarray, Any]:
        return np.exp(x), lambda d_y: {"x": d_y * np.exp(x)}

    for row in gradcheck(function, {"x": np.linspace(-1, 1, 50)}, rtol=1e-10):
        assert row.numeric == pytest.approx(row.analytic, rel=1e-10)


def test_names_the_wrong_argument():
    def function(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Any]:
        return a * b, lambda d_y: {"a": d_y * b, "b": d_y * a * 1.0001}

    arguments = {"a": np.arange(1.0, 5.0), "b": np.arange(2.0, 6.0)}
    with pytest.raises(GradientError, match=r"(?s)a .* ok.*b .* WRONG"):
        gradcheck(function, arguments)
    gradcheck(function, arguments, only=["a"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad):
    def function(x: np.ndarray) -> tuple[np.ndarray, Any]:
        return x**2, lambda d_y: {"x": np.where(x == x[0], bad, 2 * x * d_y)}

    with pytest.raises(GradientError, match="WRONG"):
        gradcheck(function, {"x": np.arange(3.0)})


def test_kink_is_stepped_closer_to():
    """A kink within the largest step is no reason to fail, but for a smaller step."""
    x = np.array([2e-5, 1.0, -1.0])
    report = gradcheck(relu, {"x": x})
    assert all(row.step < 1e-3 for row in report)


def test_kink_that_cannot_be_avoided():
    with pytest.raises(GradientError, match="KINK"):
        gradcheck(relu, {"x": np.zeros(3)})


def test_missing_gradient_and_shape():
    with pytest.raises(GradientError, match="no gradient of 'x'"):
        gradcheck(lambda x: (x, lambda d_y: {}), {"x": np.ones(2)})
    with pytest.raises(GradientError, match=r"shape=\(1,\) instead of \(2,\)"):
        gradcheck(lambda x: (x, lambda d_y: {"x": d_y[:1]}), {"x": np.ones(2)})


def test_arguments_stay_as_they_are():
    def function(x: np.ndarray) -> tuple[np.ndarray, Any]:
        x += 1.0
        return x, lambda d_y: {"x": d_y}

    x = np.ones(2)
    with pytest.raises(GradientError, match="modifies its argument 'x'"):
        gradcheck(function, {"x": x})
    assert np.array_equal(x, np.ones(2))


def test_other_arguments_are_handed_on():
    def function(x: np.ndarray, power: int) -> tuple[np.ndarray, Any]:
        return x**power, lambda d_y: {"x": d_y * power * x ** (power - 1)}

    gradcheck(function, {"x": np.arange(1.0, 4.0), "power": 3})


def test_what_cannot_be_checked():
    with pytest.raises(ShapeError, match="float64"):
        gradcheck(relu, {"x": np.ones(2, np.float32)})
    with pytest.raises(ShapeError, match="no array"):
        gradcheck(relu, {"x": 3})
    with pytest.raises(ShapeError, match="only='z'"):
        gradcheck(relu, {"x": np.ones(2)}, only=["z"])


def test_zero_gradient():
    """A derivative of exactly 0 is compared with the rounding of the differences."""

    def function(x: np.ndarray) -> tuple[np.ndarray, Any]:
        y = np.array([1.0, 2.0]) + (x - x.mean()).sum()
        return y, lambda d_y: {"x": np.zeros_like(x)}

    gradcheck(function, {"x": np.array([0.3, 1.7, 2.9])})
