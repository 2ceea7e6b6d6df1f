"""Matrices of eight bits, where their numbers are unusual."""

from __future__ import annotations

import numpy as np
import pytest

from umx_np.errors import WeightsError
from umx_np.weights.quantization import dequantize, quantize


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-30, 1.0, 1e30, 3e38])
def test_any_size(size):
    rows = size * np.array([[1.0, -0.5, 0.25], [0.0, 0.0, 0.0], [-0.1, 0.1, 0.01]], np.float32)
    rows.flags.writeable = False
    with np.errstate(all="raise", under="ignore"):
        back = dequantize(quantize({"w": rows}))["w"]
    # Below the normal numbers a scale itself is rounded.
    limit = np.abs(rows).max(axis=1, keepdims=True) / 254 * 1.001 + 127 * 1e-45
    assert (np.abs(back - rows) <= limit).all()
    assert back.dtype == np.float32
    assert (back[1] == 0.0).all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty(shape):
    assert dequantize(quantize({"w": np.zeros(shape)}))["w"].shape == shape


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(value):
    with pytest.raises(WeightsError, match="'w' holds NaN or infinity"):
        quantize({"w": np.array([[1.0, value]])})


def test_too_large_for_the_scales():
    with pytest.raises(WeightsError, match="'w' holds numbers too large"):
        quantize({"w": np.array([[1e39, 0.0]])})


def test_the_rest_stays():
    state = {"v": np.ones(3), "n": np.array(4), "i": np.ones((2, 2), np.int64)}
    stored = quantize(state)
    assert {name: array.dtype for name, array in stored.items()} == {
        "v": np.float32,
        "n": np.int64,
        "i": np.int64,
    }
