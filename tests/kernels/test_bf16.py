"""Kernels with bfloat16 weights against NumPy on numbers rounded beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close
from helpers.bfloat16 import rounded
from tolerances import TOL

from umx_np._kernels.cpu import round_to_bf16
from umx_np.layers.lstm import lstm_scan


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def widened(halves: np.ndarray) -> np.ndarray:
    """Float32 numbers of which these are the upper halves."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def test_rounding_is_to_nearest_even():
    values = np.array([1.0, 1.0 + 2.0**-8, 1.0 + 3 * 2.0**-8, -0.0, np.inf], np.float32)
    expected = np.array([1.0, 1.0, 1.0 + 2.0**-6, -0.0, np.inf], np.float32)
    for result in (rounded(values), widened(round_to_bf16(values))):
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(np.signbit(result), np.signbit(expected))
    assert np.isnan(widened(round_to_bf16(np.array([np.nan], np.float32))))[0]
    x = normal(10000)
    assert np.abs(rounded(x) / x - 1).max() <= 2.0**-8
    bits = np.random.default_rng(0).integers(0, 1 << 32, 10000, dtype=np.uint32).view(np.float32)
    for some in (x, bits[np.isfinite(bits)]):
        np.testing.assert_array_equal(widened(round_to_bf16(some)), rounded(some))


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (5, 3, 7), (13, 513, 33), (25, 1100, 65)])
@pytest.mark.parametrize("options", [False, True])
def test_product(kernels, m, k, n, options):
    a, weight = normal(m, k), normal(n, k, seed=1)
    packed = kernels.pack_linear(weight, bf16=True)
    out = np.full((m, n), np.nan, np.float32)
    if not kernels.has_bf16_gemm:
        with pytest.raises(ValueError, match="no bfloat16 products"):
            kernels.gemm(a, packed, out)
        return
    extra = {}
    expected = rounded(a).astype(np.float64) @ rounded(weight).astype(np.float64).T
    if options:
        shift, scale = normal(k, seed=2), normal(k, seed=3)
        bias, gain = normal(n, seed=4), normal(m, n, seed=5)
        extra = {"a_shift": shift, "a_scale": scale, "bias": bias, "gain": gain, "act": "relu"}
        a_in = rounded((a + shift) * scale).astype(np.float64)
        expected = np.maximum(a_in @ rounded(weight).astype(np.float64).T + bias, 0) * gain
    kernels.gemm(a, packed, out, **extra)
    assert_close(out, expected, TOL["gemm"]["bfloat16"], dtype=np.float32)


@pytest.mark.parametrize("hidden", [1, 5, 32, 33, 100])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan(kernels, hidden, reverse):
    """Only the weights are rounded: the state keeps 16 bits or all of them."""
    rng = np.random.default_rng(hidden)
    bound = 2.0 / np.sqrt(hidden)
    weight = rng.uniform(-bound, bound, (4 * hidden, hidden)).astype(np.float32)
    gates = normal(30, 4 * hidden, seed=1)
    state = [np.zeros(kernels.padded_size(hidden), np.float32) for _ in range(2)]
    out = np.full((30, hidden), np.nan, np.float32)
    kernels.lstm_scan(
        np.ascontiguousarray(kernels.pack_gates(gates.T, hidden).T),
        kernels.pack_recurrent(weight, bf16=True),
        *state,
        out,
        reverse=reverse,
    )
    expected = lstm_scan(
        gates.astype(np.float64),
        rounded(weight).astype(np.float64),
        np.zeros(hidden),
        np.zeros(hidden),
        reverse=reverse,
    )
    assert_close(out, expected, TOL["lstm_scan"]["bfloat16"], dtype=np.float32)
