"""Products of eight bits against whole numbers in NumPy, on every level."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close
from helpers.int8_levels import LEVELS, Program
from tolerances import TOL

from umx_np._kernels.cpu import Int8Weights
from umx_np.layers.int8 import linear_int8, lstm_scan_int8, quantise, restore

# Around the tiles of every level, groups of four and blocks of 512 columns.
SHAPES = [(1, 1, 1), (5, 3, 7), (13, 257, 33), (7, 33, 4), (49, 512, 65), (2, 511, 2)]
LONG = [(25, 1487, 40), (3, 513, 33)]
KINDS = ["noise", "silence", "huge", "tiny", "one loud bin", "largest", "mixed"]


def activations(kind: str, m: int, k: int) -> np.ndarray:
    rng = np.random.default_rng(m + k)
    a = rng.standard_normal((m, k)).astype(np.float32)
    if kind == "silence":
        a[:] = 0.0
    if kind == "huge":
        a *= np.float32(1e33)
    if kind == "tiny":
        a *= np.float32(1e-33)
    if kind == "one loud bin":
        a[:, k // 2] = 1e6
    if kind == "largest":
        a = np.where(rng.random((m, k)) < 0.5, np.float32(-3), np.float32(3))
        a[::2] = 3.0
    if kind == "mixed":
        a[::3] *= np.float32(1e-37)
        a[1::3, : k // 2] = 0.0
    return a


def weights(kind: str, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    w = rng.integers(-127, 128, (n, k)).astype(np.int8)
    if kind == "largest":
        # -128 is no weight of ours, but may be in a file.
        w = np.where(rng.random((n, k)) < 0.5, -128, 127).astype(np.int8)
        w[::2] = -128
    w[n // 2] = 0
    return w, rng.uniform(0.0, 0.1, n).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_products_to_the_bit(kernels, m, k, n, kind):
    a, (w, scale) = activations(kind, m, k), weights(kind, n, k)
    out = np.full((m, n), np.nan, np.float32)
    kernels.gemm(a, kernels.pack_linear(w, scale=scale), out)
    np.testing.assert_array_equal(out, linear_int8(a, w, scale))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "k", "n"), LONG)
def test_several_blocks(kernels, m, k, n, kind):
    """Sums of blocks are added in float32, where levels may fuse the last product."""
    a, (w, scale) = activations(kind, m, k), weights(kind, n, k)
    out = np.full((m, n), np.nan, np.float32)
    kernels.gemm(a, kernels.pack_linear(w, scale=scale), out)
    assert_close(out, linear_int8(a, w, scale), TOL["int8"]["float32"], dtype=np.float32)


def test_nothing_saturates(kernels):
    """The largest sums that there are, of one sign, come out exactly."""
    a = np.full((6, 512), 127.0, np.float32)
    a[1] *= -1
    a[2, ::2] *= -1
    w = np.full((40, 512), 127, np.int8)
    w[1], w[2, 1::2] = -128, -127
    out = np.empty((6, 40), np.float32)
    kernels.gemm(a, kernels.pack_linear(w, scale=np.ones(40, np.float32)), out)
    np.testing.assert_array_equal(out, a.astype(np.int64) @ w.astype(np.int64).T)
    assert out.max() == 512 * 127 * 128


@pytest.mark.parametrize("act", [None, "tanh", "relu"])
def test_prologue_and_epilogue(kernels, act):
    rng = np.random.default_rng(0)
    a, gain = rng.standard_normal((2, 19, 700)).astype(np.float32)
    shift, a_scale = rng.standard_normal((2, 700)).astype(np.float32)
    (w, w_scale), (scale, bias) = weights("noise", 45, 700), rng.standard_normal((2, 45))
    w_scale *= np.float32(0.01)
    out = np.empty((19, 45), np.float32)
    kernels.gemm(
        a,
        kernels.pack_linear(w, scale=w_scale),
        out,
        a_shift=shift,
        a_scale=a_scale,
        scale=scale.astype(np.float32),
        bias=bias.astype(np.float32),
        act=act,
        gain=gain[:, :45],
    )
    expected = linear_int8((a + shift) * a_scale, w, w_scale).astype(np.float64)
    activate = {None: lambda x: x, "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[act]
    expected = activate(expected * scale.astype(np.float32) + bias.astype(np.float32))
    assert_close(out, expected * gain[:, :45], TOL["int8"]["float32"], dtype=np.float32)


def test_rows_and_parts(kernels):
    """A row is rounded by itself: alone, in any block and in any order it gives the same bits."""
    a, (w, scale) = activations("mixed", 50, 300), weights("noise", 33, 300)
    packed, whole = kernels.pack_linear(w, scale=scale), np.empty((50, 33), np.float32)
    kernels.gemm(a, packed, whole)
    for rows in (slice(0, 1), slice(3, 50), slice(49, 50)):
        some = np.empty_like(whole[rows])
        kernels.gemm(a[rows], packed, some)
        np.testing.assert_array_equal(some, whole[rows])
    first, second = (kernels.pack_linear(part, scale=scale) for part in (w[:, :100], w[:, 100:]))
    kernels.gemm(a[:, :100], first, whole, finish=False)
    kernels.gemm(a[:, 100:], second, whole, accumulate=True)
    expected = linear_int8(a[:, :100], w[:, :100], scale) + linear_int8(
        a[:, 100:], w[:, 100:], scale
    )
    assert_close(whole, expected, TOL["int8"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_row_shows(kernels, broken):
    a, (w, scale) = activations("noise", 9, 40), weights("noise", 20, 40)
    a[4, 17] = broken
    out = np.empty((9, 20), np.float32)
    kernels.gemm(a, kernels.pack_linear(w, scale=scale), out)
    assert list(np.flatnonzero(np.isnan(out).all(axis=1))) == [4]
    assert np.isfinite(np.delete(out, 4, axis=0)).all()


def scan_case(hidden: int, *, largest: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(hidden)
    shape = (4 * hidden, hidden)
    w = rng.integers(-127, 128, shape).astype(np.int8)
    if largest:
        w = np.where(rng.random(shape) < 0.5, -128, 127).astype(np.int8)
    scale = (rng.uniform(0, 2, 4 * hidden) / (127 * np.sqrt(hidden))).astype(np.float32)
    return rng.standard_normal((30, 4 * hidden)).astype(np.float32), w, scale


@pytest.mark.parametrize("hidden", [1, 5, 32, 33, 100])
@pytest.mark.parametrize("largest", [False, True])
def test_scan(kernels, hidden, largest):
    """Frame by frame from the state of the kernel: the last bit of a state may round to a step."""
    gates, w, scale = scan_case(hidden, largest=largest)
    packed_gates = np.ascontiguousarray(kernels.pack_gates(gates.T, hidden).T)
    packed = kernels.pack_recurrent(w, scale=scale)
    h, c = np.zeros((2, kernels.padded_size(hidden)), np.float32)
    out = np.full((30, hidden), np.nan, np.float32)
    for t in range(30):
        state = h[:hidden].copy(), c[:hidden].copy()
        kernels.lstm_scan(packed_gates[t : t + 1], packed, h, c, out[t : t + 1])
        expected = lstm_scan_int8(gates[t : t + 1], w, scale, *state)
        assert_close(out[t : t + 1], expected, TOL["lstm_scan"]["int8"], dtype=np.float32)
        assert_close(c[:hidden], state[1], TOL["lstm_scan"]["int8"], dtype=np.float32)
    assert not h[hidden:].any()
    assert not c[hidden:].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_blocks_carry_the_state(kernels, reverse):
    gates, w, scale = scan_case(33)
    gates = np.ascontiguousarray(kernels.pack_gates(gates.T, 33).T)
    packed = kernels.pack_recurrent(w, scale=scale)
    results = []
    for spans in ([(0, 30)], [(0, 1), (1, 17), (17, 30)]):
        h, c = np.zeros((2, kernels.padded_size(33)), np.float32)
        out = np.full((30, 33), np.nan, np.float32)
        for start, stop in reversed(spans) if reverse else spans:
            kernels.lstm_scan(gates[start:stop], packed, h, c, out[start:stop], reverse=reverse)
        results.append(out)
    np.testing.assert_array_equal(*results)


def test_largest_sum_of_a_scan(kernels):
    """A step from h = 1 with weights of one sign: gates of exactly 600 * 127 * 127 steps."""
    hidden = 600
    padded = kernels.padded_size(hidden)
    w = np.full((4 * hidden, hidden), 127, np.int8)
    w[::2] = -127
    scale = np.full(4 * hidden, 1e-6, np.float32)
    gates = np.zeros((1, 4 * padded), np.float32)
    out = np.empty((1, hidden), np.float32)
    h, c = np.zeros(padded, np.float32), np.zeros(padded, np.float32)
    h[:hidden] = 1.0
    kernels.lstm_scan(gates, kernels.pack_recurrent(w, scale=scale), h, c, out)
    expected = lstm_scan_int8(
        np.zeros((1, 4 * hidden), np.float32),
        w,
        scale,
        np.ones(hidden, np.float32),
        np.zeros(hidden, np.float32),
    )
    assert_close(out, expected, TOL["lstm_scan"]["int8"], dtype=np.float32)


def test_what_is_rounded_stays(kernels):
    """Rounding again what was rounded changes nothing, so that it may be stored in between."""
    for kind in KINDS:
        q, scale = quantise(activations(kind, 11, 700))
        np.testing.assert_array_equal(quantise(restore(q, scale))[0], q)
        assert np.abs(q.astype(int)).max() <= 127


def test_wrong_weights_are_refused(kernels):
    w, scale = weights("noise", 8, 2)
    with pytest.raises(TypeError, match="pack_linear"):
        Int8Weights()
    for pack in (kernels.pack_linear, kernels.pack_recurrent):
        with pytest.raises(ValueError, match="one a row"):
            pack(w, scale=scale[1:])
        with pytest.raises(ValueError, match="one a row"):
            pack(w, scale=scale.astype(np.float64))
        with pytest.raises(ValueError, match="int8 of 2 dimensions"):
            pack(w.astype(np.float32), scale=scale)
    packed, a = kernels.pack_linear(w, scale=scale), np.ones((3, 2), np.float32)
    assert not packed.panels.flags.writeable
    with pytest.raises(ValueError, match="packed weights"):
        kernels.gemm(np.ones((3, 3), np.float32), packed, np.empty((3, 8), np.float32))
    with pytest.raises(ValueError, match="packed weights"):
        kernels.gemm(a, packed, np.empty((3, 900), np.float32))
    padded = kernels.padded_size(2)
    gates, state = np.zeros((3, 4 * padded), np.float32), np.zeros((2, padded), np.float32)
    with pytest.raises(ValueError, match="recurrent weights"):
        kernels.lstm_scan(gates, packed, *state, np.empty((3, 2), np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEVELS)
def test_levels_of_other_processors(name, tmp_path):
    """VNNI and AVX512BW with their instructions written out in C, ARM under qemu, plain C."""
    program = Program(name, tmp_path)
    for kind in ("noise", "largest", "mixed"):
        for m, k, n in [(5, 3, 7), (13, 257, 33), (3, 512, 65), (2, 513, 33)]:
            a, (w, scale) = activations(kind, m, k), weights(kind, n, k)
            out, expected = program.linear(a, w, scale), linear_int8(a, w, scale)
            if k <= 512:
                np.testing.assert_array_equal(out, expected, err_msg=f"{kind} {m, k, n}")
            assert_close(out, expected, TOL["int8"]["float32"], dtype=np.float32)
    for hidden in (1, 5, 33, 100):
        for largest in (False, True):
            gates, w, scale = scan_case(hidden, largest=largest)
            gates = gates[:4]  # of many, a state might be just between two steps
            h, c = np.zeros((2, hidden), np.float32)
            expected = lstm_scan_int8(gates, w, scale, h, c)
            out = program.scan(gates, w, scale)
            assert_close(out, expected, TOL["lstm_scan"]["int8"], dtype=np.float32)
