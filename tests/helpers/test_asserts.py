"""A comparison that lets something slip through would make every other test worthless."""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import Tolerance

from helpers.asserts import assert_close, assert_finite, relative_l2, snr_db

LOOSE = Tolerance(rtol=0.5, atol=0.5, why="test")
TIGHT = Tolerance(rtol=1e-6, atol=0.0, why="test")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_never_passes(bad):
    good = np.ones(5)
    broken = np.array([1.0, 1.0, bad, 1.0, 1.0])
    assert relative_l2(broken, good) == np.inf
    assert snr_db(broken, good) == -np.inf
    for actual, desired in ((broken, good), (good, broken), (broken, broken)):
        with pytest.raises(AssertionError, match="finite"):
            assert_close(actual, desired, LOOSE, dtype=np.float64)


def test_shape_and_dtype_are_checked():
    ones = np.ones((2, 3))
    assert_close(ones, ones, TIGHT, dtype=np.float64)
    with pytest.raises(AssertionError, match="shape"):
        assert_close(ones.T, ones, LOOSE, dtype=np.float64)
    with pytest.raises(AssertionError, match="shape"):
        assert_close(ones[:1], ones, LOOSE, dtype=np.float64)
    with pytest.raises(AssertionError, match="dtype"):
        assert_close(ones.astype(np.float32), ones, LOOSE, dtype=np.float64)
    with pytest.raises(AssertionError, match="array"):
        assert_finite([1.0], shape=(1,), dtype=np.float64)


def test_one_wrong_value_among_many_fails():
    desired = np.random.default_rng(0).standard_normal(1_000_000)
    actual = desired.copy()
    actual[1234] += 0.1
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close(actual, desired, Tolerance(1e-5, 0.0, "test"), dtype=np.float64)


def test_complex_and_zero():
    zeros = np.zeros(4, np.complex64)
    assert_close(zeros, zeros, TIGHT, dtype=np.complex64)
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close(zeros + 1e-9j, zeros, TIGHT, dtype=np.complex64)
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close(zeros + 1.0, zeros + 1.0j, TIGHT, dtype=np.complex64)


def test_levels():
    desired = np.ones(10)
    assert relative_l2(desired * 1.001, desired) == pytest.approx(1e-3)
    assert snr_db(desired * 1.001, desired) == pytest.approx(60.0)
    assert snr_db(desired, desired) == np.inf
    assert relative_l2(np.ones(3), np.zeros(3)) == np.inf
