"""Vectors as values of Numba, and the compiled functions of them."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="needs the extra 'train'")

from umx_np.numba_engine import bins, lanes, lstm  # noqa: E402
from umx_np.numba_engine.lanes import load, store  # noqa: E402
from umx_np.numba_engine.tiles import tile_product  # noqa: E402


@numba.njit
def _arithmetic(x, y, out):
    for k in range(0, len(x), 4):
        a, b = load(x, k, 4), load(y, k, 4)
        store(out, k, (1.0 - a) * b + a * 2.0 - b)


@numba.njit
def _sigmoid(x, out):
    for k in range(0, len(x), 8):
        store(out, k, lanes.sigmoid(load(x, k, 8)))


@numba.njit
def _tanh(x, out):
    for k in range(0, len(x), 8):
        store(out, k, lanes.tanh(load(x, k, 8)))


@numba.njit
def _positive(x, y, out):
    store(out, 0, lanes.positive(load(x, 0, 8)))
    store(out, 8, lanes.where_positive(load(x, 0, 8), load(y, 0, 8)))


@numba.njit
def _product(sums, w, x, nb_k, again):
    if again:
        tile_product((sums, 1, 5), (w, 3), (x, 2), nb_k, 0, 6, 4, 0)
    else:
        tile_product((sums, 1, 5), (w, 3), (x, 2), nb_k, 1, 6, 4, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arithmetic(dtype):
    x, y = np.random.default_rng(0).standard_normal((2, 16)).astype(dtype)
    out = np.empty_like(x)
    _arithmetic(x, y, out)
    np.testing.assert_allclose(out, (1 - x) * y + x * 2 - y, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kernel", "exact"), [(_sigmoid, lambda x: 1 / (1 + np.exp(-x))), (_tanh, np.tanh)]
)
def test_elementary_functions(kernel, exact, dtype):
    near, far = np.linspace(-20, 20, 40000), np.geomspace(1e-30, 80, 4000)
    x = np.concatenate([near, far, -far, [0.0, -0.0, 500.0, -500.0, np.inf, -np.inf, 88.0, -88.0]])
    x = x.astype(dtype)
    out = np.empty_like(x)
    kernel(x, out)
    with np.errstate(over="ignore"):
        error = np.abs(out - exact(x.astype(np.float64)))
    assert error.max() < (2e-7 if dtype == np.float32 else 4e-16)
    if kernel is _tanh and dtype == np.float32:
        # Also relative to small values, where the gates spend their time.
        small = (np.abs(x) < 0.5) & (x != 0)
        assert (error[small] / np.abs(np.tanh(x[small].astype(np.float64)))).max() < 3e-7


@pytest.mark.parametrize("kernel", [_sigmoid, _tanh])
def test_not_a_number_stays_one(kernel):
    x = np.zeros(8, np.float32)
    x[3] = np.nan
    out = np.empty_like(x)
    kernel(x, out)
    assert np.isnan(out[3])
    assert np.isfinite(np.delete(out, 3)).all()


def test_positive():
    x = np.array([-1.0, 0.0, 2.0, np.nan, -0.0, 1e-40, np.inf, -np.inf], np.float32)
    y = np.arange(8, dtype=np.float32)
    out = np.empty(16, np.float32)
    _positive(x, y, out)
    np.testing.assert_array_equal(out[:8], np.maximum(x, 0))
    np.testing.assert_array_equal(out[8:], y * (x > 0))


@pytest.mark.parametrize("nb_k", [0, 1, 7])
@pytest.mark.parametrize("again", [True, False])
def test_tile_product(nb_k, again):
    rng = np.random.default_rng(0)
    sums = rng.standard_normal((6, 5))
    before = sums.copy()
    w, x = rng.standard_normal((nb_k, 6)), rng.standard_normal((nb_k, 4))
    # What lies before the operands is not read, nor what lies between the rows of the tile written.
    flat = np.concatenate([[7.0], sums.reshape(-1)])
    _product(
        flat,
        np.concatenate([np.full(3, np.nan), w.reshape(-1)]),
        np.concatenate([np.full(2, np.nan), x.reshape(-1)]),
        nb_k,
        again,
    )
    sums = flat[1:].reshape(6, 5)
    np.testing.assert_allclose(sums[:, :4], again * before[:, :4] + w.T @ x, atol=1e-14)
    np.testing.assert_array_equal(sums[:, 4], before[:, 4])
    assert flat[0] == 7.0


@pytest.mark.parametrize("hidden", [1, 4, 7, 32])
def test_packing(hidden):
    W = np.random.default_rng(0).standard_normal((4 * hidden, hidden))
    tiles = -(-hidden // 4)
    forward = lstm.pack_forward(W, 16).reshape(tiles, hidden, 4, 4)
    for gate, unit, k in ((0, 0, 0), (3, hidden - 1, hidden - 1), (2, hidden // 2, 0)):
        assert forward[unit // 4, k, gate, unit % 4] == W[gate * hidden + unit, k]
    backward = lstm.pack_backward(W, 16).reshape(-1, 4 * hidden, 16)
    for row, k in ((0, 0), (4 * hidden - 1, hidden - 1)):
        assert backward[k // 16, row, k % 16] == W[row, k]


def test_tiles_for_batches():
    """As many lanes as a register has, fewer for few samples and for threads without work."""
    double = np.dtype(np.float64)
    for nb_samples in (1, 3, 5, 16, 40):
        rows, wide = lstm.tile_shape(nb_samples, 2, 2, double)
        assert rows % 4 == 0
        assert wide >= 4
        assert lstm.padded_samples(nb_samples, wide) % wide == 0
    assert lstm.tile_shape(1, 2, 2, np.dtype(np.float32)).lanes == 4
    assert lstm.padded_samples(5, 4) == 8


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
@pytest.mark.parametrize("total", [1, 70, 513, 4098, 20000])
def test_columns_of_a_task(threads, total):
    """Whole vectors, so that at most the last task has a rest; a task a thread if that is wide."""
    kernels = bins.bin_kernels(np.dtype(np.float32))
    columns = kernels.columns(total, threads)
    assert columns % kernels.lanes == 0
    assert 512 <= columns <= 2064
    if columns not in (512, 2064):
        assert -(-total // columns) <= threads
