"""The packed matrix product against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close, assert_finite
from tolerances import TOL

BOUND = TOL["gemm"]["float32"]
# Around the tiles of every level (6, 8 or 12 rows; 2 to 32 columns) and the depth blocks of 256.
SHAPES = [
    (1, 1, 1),
    (5, 3, 7),
    (12, 256, 32),
    (13, 257, 33),
    (97, 600, 65),
    (2, 512, 2),
    (7, 33, 4),
]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def exact(a: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) @ weight.astype(np.float64).T


@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_plain_product(kernels, m, k, n):
    a, weight = normal(m, k), normal(n, k, seed=1)
    out = np.full((m, n), np.nan, np.float32)
    kernels.gemm(a, kernels.pack_linear(weight), out)
    assert_close(out, exact(a, weight), BOUND, dtype=np.float32)


@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
@pytest.mark.parametrize("act", [None, "tanh", "relu"])
def test_prologue_and_epilogue(kernels, m, k, n, act):
    a, weight, gain = normal(m, k), normal(n, k, seed=1), normal(m, n, seed=2)
    shift, a_scale = normal(k, seed=3), normal(k, seed=4)
    scale, bias = normal(n, seed=5), normal(n, seed=6)
    out = np.empty((m, n), np.float32)
    kernels.gemm(
        a,
        kernels.pack_linear(weight),
        out,
        a_shift=shift,
        a_scale=a_scale,
        scale=scale,
        bias=bias,
        act=act,
        gain=gain,
    )
    expected = exact((a.astype(np.float64) + shift) * a_scale, weight) * scale + bias
    activate = {None: lambda x: x, "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[act]
    assert_close(out, activate(expected) * gain, BOUND, dtype=np.float32)


def test_sum_over_parts(kernels):
    """Two products onto each other are the product of the parts side by side."""
    a, weight = normal(20, 300), normal(45, 300, seed=1)
    out = np.full((20, 45), np.nan, np.float32)
    first = kernels.pack_linear(weight[:, :100])
    second = kernels.pack_linear(weight[:, 100:])
    bias = normal(45, seed=2)
    kernels.gemm(np.ascontiguousarray(a[:, :100]), first, out, finish=False, bias=bias)
    kernels.gemm(a[:, 100:], second, out, accumulate=True, bias=bias)
    assert_close(out, exact(a, weight) + bias, BOUND, dtype=np.float32)


def test_rows_apart_and_read_only(kernels):
    storage = normal(10, 50)
    storage.flags.writeable = False
    a = storage[:, 5:25]
    weight = kernels.pack_linear(normal(9, 20, seed=1))
    target = np.zeros((10, 40), np.float32)
    kernels.gemm(a, weight, target[:, 3:12])
    assert_close(target[:, 3:12], exact(a, normal(9, 20, seed=1)), BOUND, dtype=np.float32)
    assert not target[:, :3].any()
    assert not target[:, 12:].any()


def test_packing_is_reversible(kernels):
    for n, k in [(1, 1), (33, 5), (64, 64)]:
        weight = normal(n, k)
        np.testing.assert_array_equal(kernels.unpack_linear(kernels.pack_linear(weight), n), weight)


@pytest.mark.parametrize("amplitude", [0.0, 1e-30, 1e-20, 1e15])
def test_amplitudes(kernels, amplitude):
    a, weight = normal(13, 40) * np.float32(amplitude), normal(17, 40, seed=1)
    out = np.empty((13, 17), np.float32)
    kernels.gemm(a, kernels.pack_linear(weight), out)
    assert_close(out, exact(a, weight), BOUND, dtype=np.float32)


@pytest.mark.parametrize("act", ["tanh", "relu", None])
def test_nan_reaches_the_output(kernels, act):
    """A broken weight must show, not vanish in an activation."""
    a = np.ones((3, 4), np.float32)
    weight = np.ones((40, 4), np.float32)
    weight[[5, 39], 2] = np.nan
    out = np.empty((3, 40), np.float32)
    kernels.gemm(a, kernels.pack_linear(weight), out, act=act)
    broken = np.isnan(out).all(axis=0)
    assert list(np.flatnonzero(broken)) == [5, 39]
    assert_finite(out[:, ~broken], shape=(3, 38), dtype=np.float32)


def test_wrong_shapes_are_refused(kernels):
    a, weight = normal(3, 4), kernels.pack_linear(normal(5, 4))
    with pytest.raises(ValueError, match="packed weights"):
        kernels.gemm(a, weight, np.empty((3, 900), np.float32))
    with pytest.raises(ValueError, match="out has 2 rows, a has 3"):
        kernels.gemm(a, weight, np.empty((2, 5), np.float32))
    with pytest.raises(ValueError, match="bias has length 4, 5 is needed"):
        kernels.gemm(a, weight, np.empty((3, 5), np.float32), bias=normal(4))
    with pytest.raises(ValueError, match="columns of a must be adjacent in memory, they are 12"):
        kernels.gemm(normal(4, 3).T, weight, np.empty((3, 5), np.float32))
