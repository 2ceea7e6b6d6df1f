"""Our own matrix product against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close
from helpers.bfloat16 import rounded
from tolerances import TOL

pytest.importorskip("numba", reason="needs the extra 'train'")

from umx_np.numba_engine import gemm, running

SIZES = [(1, 1, 1), (16, 16, 16), (5, 7, 3), (33, 70, 300), (400, 100, 1029), (40, 3, 520)]


def operands(m, n, k, a_transposed, b_transposed, dtype):
    rng = np.random.default_rng(m)
    a = rng.standard_normal((k, m) if a_transposed else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if b_transposed else (k, n)).astype(dtype)
    return (a.T if a_transposed else a), (b.T if b_transposed else b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("a_transposed", [True, False])
@pytest.mark.parametrize("b_transposed", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_against_numpy(size, a_transposed, b_transposed, dtype):
    a, b = operands(*size, a_transposed, b_transposed, dtype)
    m, n, _ = size
    out = np.full((m, n), np.nan, dtype)
    gemm.gemm_kernel(np.dtype(dtype))(a, b, out, slice(0, m), slice(0, n))
    expected = a.astype(np.float64) @ b.astype(np.float64)
    assert_close(out, expected, TOL["train_gemm"][np.dtype(dtype).name], dtype=dtype)


needs_pairs = pytest.mark.skipif(not gemm.has_pairs(), reason="needs AVX512-BF16")


@needs_pairs
@pytest.mark.parametrize("a_transposed", [True, False])
@pytest.mark.parametrize("b_transposed", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_mixed_precision_is_the_product_of_rounded_operands(size, a_transposed, b_transposed):
    a, b = operands(*size, a_transposed, b_transposed, np.float32)
    m, n, _ = size
    out = np.full((m, n), np.nan, np.float32)
    gemm.gemm_kernel(np.dtype(np.float32), True)(a, b, out, slice(0, m), slice(0, n))
    exact = [rounded(np.ascontiguousarray(x)).astype(np.float64) for x in (a, b)]
    assert_close(out, exact[0] @ exact[1], TOL["train_gemm"]["float32"], dtype=np.float32)


@needs_pairs
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_mixed_precision_hides_nothing(value):
    """What is no number stays none, in its row only, also at the end of an odd length."""
    a, b = np.ones((20, 17), np.float32), np.ones((17, 20), np.float32)
    a[3, 16] = value
    out = np.empty((20, 20), np.float32)
    gemm.gemm_kernel(np.dtype(np.float32), True)(a, b, out, slice(0, 20), slice(0, 20))
    np.testing.assert_array_equal(out[3], np.full(20, rounded(a[3:4, 16:])[0, 0] + 16))
    assert (np.delete(out, 3, axis=0) == 17).all()


@pytest.mark.parametrize("transposed", [True, False])
def test_parts_and_views(transposed):
    """Only the asked for part is written; operands may be cut out of larger arrays."""
    a, b = operands(50, 45, 40, transposed, transposed, np.float64)
    a, b = a[3:45, 2:30], b[5:33, 1:40]
    out = np.full((42, 50), 7.0)
    view = out[:, 4:43]
    kernel = gemm.gemm_kernel(np.dtype(np.float64))
    for rows in (slice(0, 20), slice(20, 42)):
        kernel(a, b, view, rows, slice(10, 39))
    np.testing.assert_allclose(view[:, 10:], (a @ b)[:, 10:], atol=1e-12)
    assert (out[:, :14] == 7.0).all()
    assert (out[:, 43:] == 7.0).all()


def test_nothing_to_add_up():
    out = np.full((3, 4), np.nan)
    kernel = gemm.gemm_kernel(np.dtype(np.float64))
    kernel(np.empty((3, 0)), np.empty((0, 4)), out, slice(0, 3), slice(0, 4))
    assert not out.any()


def test_one_row_or_column():
    kernel = gemm.gemm_kernel(np.dtype(np.float64))
    a, column = np.arange(12.0).reshape(3, 4), np.ones((4, 1))
    out = np.empty((3, 1))
    kernel(a, column, out, slice(0, 3), slice(0, 1))
    np.testing.assert_array_equal(out, a @ column)
    out = np.empty((1, 4))
    kernel(a[:1, ::1], np.eye(4), out, slice(0, 1), slice(0, 4))
    np.testing.assert_array_equal(out, a[:1])


def test_strides_that_do_not_fit():
    kernel = gemm.gemm_kernel(np.dtype(np.float64))
    a = np.ones((8, 8))[::2, ::2]
    with pytest.raises(ValueError, match="neither rows nor columns"):
        kernel(a, np.ones((4, 4)), np.empty((4, 4)), slice(0, 4), slice(0, 4))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("is_faster", [True, False])
def test_runner(threads, is_faster, monkeypatch):
    """With our kernel and with BLAS, on any number of threads."""
    monkeypatch.setattr(running, "is_faster", lambda: is_faster)
    runner = running.Runner(np.dtype(np.float64), threads)
    for size in SIZES:
        a, b = operands(*size, True, False, np.float64)
        with runner.own_threads():
            out = runner.product(a, b)
            again = runner.product(a, b, keep=True)
        np.testing.assert_allclose(out, a @ b, atol=1e-12)
        np.testing.assert_array_equal(out, again)
        runner.give(out)
        assert runner.take(*out.shape) is out
        runner.give(out)
    runner.begin(1, 2)
    assert runner.take(*out.shape) is not out
