"""Matrix products by cuBLAS on row-major views."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError

# Name of cuBLAS's compute type, and the compute capability it needs. Operands stay float32 in
# memory and are rounded on their way into the tensor cores.
MATH = {
    "float32": ("CUBLAS_COMPUTE_32F", (0, 0)),
    "tf32": ("CUBLAS_COMPUTE_32F_FAST_TF32", (8, 0)),
    "bf16": ("CUBLAS_COMPUTE_32F_FAST_16BF", (8, 0)),
}


class _Operand:
    """An argument as cuBLAS takes it: where its matrices are and how far apart."""

    def __init__(self, name: str, array: Any) -> None:
        shape, strides = array.shape, array.strides
        if array.dtype != np.float32 or len(shape) not in (2, 3):
            raise ShapeError(f"{name} must be float32 with 2 or 3 axes, not {array.dtype} {shape}")
        self.batch = shape[0] if len(shape) == 3 else None
        self.rows, self.columns = shape[-2:]
        # The stride of an axis of length 1 means nothing.
        row_bytes = strides[-2] if self.rows > 1 else 4 * max(1, self.columns)
        batch_bytes = strides[0] if self.batch is not None and self.batch > 1 else 0
        if (
            (self.columns > 1 and strides[-1] != 4)
            or row_bytes < 4 * self.columns
            or row_bytes % 4
            or batch_bytes < 0
            or batch_bytes % 4
        ):
            raise ShapeError(
                f"{name} must have contiguous rows that do not overlap, not shape={shape} "
                f"strides={strides}"
            )
        self.row_stride = max(1, row_bytes // 4)
        self.batch_stride = batch_bytes // 4
        self.pointer = array.data.ptr


def gemm(
    xp: Any, a: Any, b: Any, out: Any, *, trans_a: bool, trans_b: bool, accumulate: bool, math: str
) -> None:
    """Compute what `Device.gemm` says, on the current card."""
    first, second, product = _Operand("a", a), _Operand("b", b), _Operand("out", out)
    rows, inner = (first.columns, first.rows) if trans_a else (first.rows, first.columns)
    inner_b, columns = (second.columns, second.rows) if trans_b else (second.rows, second.columns)
    if (
        inner != inner_b
        or (rows, columns) != (product.rows, product.columns)
        or first.batch not in (None, product.batch)
        or second.batch not in (None, product.batch)
    ):
        raise ShapeError(
            f"a.shape={a.shape} trans_a={trans_a}, b.shape={b.shape} trans_b={trans_b} and "
            f"out.shape={out.shape} do not fit"
        )
    if out.size == 0:
        return
    if inner == 0:
        if not accumulate:
            out.fill(0)
        return
    if product.batch is not None and product.batch > 1 and product.batch_stride == 0:
        raise ShapeError(f"out.shape={out.shape}: its matrices are the same memory")

    cublas = xp.cuda.cublas
    real = xp.cuda.runtime.CUDA_R_32F
    scales = np.array([1.0, float(accumulate)], np.float32)
    at_alpha, at_beta = scales.ctypes.data, scales.ctypes.data + scales.itemsize
    operations = [
        cublas.CUBLAS_OP_T if trans else cublas.CUBLAS_OP_N for trans in (trans_b, trans_a)
    ]
    how = (getattr(cublas, MATH[math][0]), cublas.CUBLAS_GEMM_DEFAULT)
    # cuBLAS counts along columns. So it takes each of these matrices for its transpose, and
    # out^T = op(b)^T op(a)^T has the operands in the other order.
    handle = xp.cuda.device.get_cublas_handle()
    head = (handle, *operations, columns, rows, inner, at_alpha)
    matrices = (second, first, product)
    places: list[tuple[Any, ...]] = [(m.pointer, real, m.row_stride) for m in matrices]
    if product.batch is None:
        b, a, c = places
        cublas.gemmEx(*head, *b, *a, at_beta, *c, *how)
    else:
        b, a, c = ((*place, m.batch_stride) for place, m in zip(places, matrices, strict=True))
        cublas.gemmStridedBatchedEx(*head, *b, *a, at_beta, *c, product.batch, *how)
