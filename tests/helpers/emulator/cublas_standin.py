"""The matrix products of cuBLAS, on addresses, column after column."""

from __future__ import annotations

import ctypes

import numpy as np

from .arrays import use_at
from .streams import operate

CUBLAS_OP_N = 0
CUBLAS_OP_T = 1
CUBLAS_GEMM_DEFAULT = -1
CUBLAS_COMPUTE_32F = 68
CUBLAS_COMPUTE_32F_FAST_16BF = 75
CUBLAS_COMPUTE_32F_FAST_TF32 = 77

_BITS = {CUBLAS_COMPUTE_32F: 0, CUBLAS_COMPUTE_32F_FAST_TF32: 13, CUBLAS_COMPUTE_32F_FAST_16BF: 16}


class CUBLASError(RuntimeError):
    """A call with arguments that cuBLAS refuses."""


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Round float32 to the nearest value without the last `bits` bits, ties to even."""
    if not bits:
        return values
    pattern = np.ascontiguousarray(values).view(np.uint32)
    odd = (pattern >> bits) & 1
    half = np.uint32((1 << (bits - 1)) - 1)
    kept = (pattern + half + odd) >> np.uint32(bits) << np.uint32(bits)
    return np.where(np.isfinite(values), kept.view(np.float32), values)


def _matrix(pointer: int, rows: int, columns: int, stride: int) -> np.ndarray:
    if stride < max(1, rows):
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")
    count = (columns - 1) * stride + rows
    memory = (ctypes.c_float * count).from_address(pointer)
    flat = np.frombuffer(memory, np.float32)
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (4, 4 * stride))


def gemmEx(  # noqa: N802
    handle, transa, transb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc,
    compute, algorithm,
) -> None:  # fmt: skip
    """C = alpha op(A) op(B) + beta C of float32."""
    if (a_type, b_type, c_type) != (0, 0, 0) or min(m, n, k) < 1 or algorithm != -1:
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")
    operate("gemm", [use_at(a), use_at(b)], [use_at(c)])
    first = _matrix(a, *((k, m) if transa else (m, k)), lda)
    second = _matrix(b, *((n, k) if transb else (k, n)), ldb)
    result = _matrix(c, m, n, ldc)
    bits = _BITS[compute]
    first = rounded(first.T if transa else first, bits)
    second = rounded(second.T if transb else second, bits)
    scale_product, scale_old = (
        ctypes.c_float.from_address(pointer).value for pointer in (alpha, beta)
    )
    product = scale_product * np.matmul(first.astype(np.float64), second)
    # With beta = 0 the old values are not read: they may be NaN.
    result[...] = product if scale_old == 0.0 else product + scale_old * result


def gemmStridedBatchedEx(  # noqa: N802
    handle, transa, transb, m, n, k, alpha, a, a_type, lda, stride_a, b, b_type, ldb, stride_b,
    beta, c, c_type, ldc, stride_c, count, compute, algorithm,
) -> None:  # fmt: skip
    """`gemmEx` for matrices that follow each other at fixed distances."""
    for i in range(count):
        gemmEx(
            handle, transa, transb, m, n, k, alpha, a + 4 * i * stride_a, a_type, lda,
            b + 4 * i * stride_b, b_type, ldb, beta, c + 4 * i * stride_c, c_type, ldc, compute,
            algorithm,
        )  # fmt: skip
