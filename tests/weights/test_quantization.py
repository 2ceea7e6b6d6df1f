"""Matrices of eight bits, where their numbers are unusual."""

from __future__ import annotations

import numpy as np
import pytest

from umx_np.config import ModelConfig
from umx_np.errors import WeightsError
from umx_np.testing import random_state
from umx_np.weights import check_state
from umx_np.weights.quantization import check_quantized, dequantize, eight_bits, quantize

CONFIG = ModelConfig(nb_bins=9, hidden_size=6, max_bin=7)


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


@pytest.mark.parametrize("stored", [False, True])
def test_a_network_in_eight_bits(stored):
    """What is stored in eight bits is passed on as it is, other matrices are rounded."""
    state = random_state(CONFIG, seed=0)
    given = quantize(state) if stored else state
    checked = check_quantized({f"module.{name}": array for name, array in given.items()}, CONFIG)
    expected = quantize(check_state(state, CONFIG))
    assert list(checked) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(checked[name], array)
        assert checked[name].dtype == array.dtype
        if array.dtype == np.int8:
            assert (checked[name] is given.get(name)) == stored
    weight, scale = eight_bits(state, "fc1.weight")
    np.testing.assert_array_equal(weight, expected["fc1.weight"])
    np.testing.assert_array_equal(scale, expected["fc1.weight_scale"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fc1.weight_scale", np.ones(5, np.float32), "is no scale for each row of 'fc1.weight'"),
        ("fc1.weight_scale", np.ones(6, np.int64), "is no scale for each row of 'fc1.weight'"),
        ("fc1.weight_scale", np.full(6, np.nan, np.float32), "'fc1.weight_scale' holds NaN"),
        ("fc1.weight", np.ones((6, 3), np.int8), "'fc1.weight' has shape=(6, 3)"),
        ("fc1.weight", np.ones((6, 14), np.int64), "'fc1.weight' has dtype=int64|do not belong"),
        ("fc2.bias_scale", np.ones(6, np.float32), "do not belong to this architecture"),
        ("fc3.weight", None, "tensors are missing: 'fc3.weight'"),
        ("input_mean", np.full(7, np.inf), "'input_mean' holds NaN or infinity"),
    ],
)
def test_a_damaged_network_in_eight_bits(name, value, message):
    state = quantize(random_state(CONFIG, seed=0))
    state[name] = value
    if value is None:
        del state[name]
    with pytest.raises(WeightsError) as caught:
        check_quantized(state, CONFIG)
    assert any(part in str(caught.value) for part in message.split("|"))
