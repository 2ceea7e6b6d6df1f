"""Matrix products of whole sequences, for processors on which they beat BLAS.

With 32 registers of 512 bits a tile of 16 rows by 16 columns of sums, alone, runs at 116 GFLOP/s on
a Zen 4 core. Whole products of the shapes of a training step reach 104 to 111 with it, 100 to 108
with OpenBLAS. Elsewhere `umx_np.numba_engine.running` calls BLAS.

Blocks, as usual: for a stretch of k, all columns of the task are packed to panels, then some rows
at a time. A panel of columns (32 kB) is used again at once by all panels of these rows (400 kB, in
the second-level cache). Packing reads either operand in either orientation: where the 16 numbers of
a panel are neighbours they are copied, where those along k are, squares are transposed. All
products of the forward pass but the first have 512 numbers along k and are written once.

In mixed precision the numbers of a panel are then rounded to bfloat16, two along k in the place of
one, and sums stay in float32: twice as many products an instruction on processors that have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba
import numpy as np

from .compiling import aligned_empty, build_number, compiled, inlined, once, vector_registers
from .lanes import load, store, transpose
from .tiles import pairs, tile_product

_DEPTH = 512  # of k in a block
_ROWS = 192  # in a block
_PANELS = 8  # copied together, so that memory is read in stretches of some lines


# target[panel][k][lanes] from numbers [low, high) across and [k0, k1) along k
@inlined
def _pack(source, ld, is_along_k, target, low, high, k0, k1, lanes):
    depth = k1 - k0
    whole = (high - low) // lanes
    if is_along_k:
        for panel in range(whole):
            first, place = (low + panel * lanes) * ld, panel * depth * lanes
            squares = depth // lanes * lanes
            for k in range(0, squares, lanes):
                to = place + k * lanes
                transpose(source, first + k0 + k, ld, target, to, lanes, lanes)
            for k in range(squares, depth):
                for j in range(lanes):
                    target[place + k * lanes + j] = source[first + j * ld + k0 + k]
    else:
        for group in range(0, whole, _PANELS):
            for k in range(depth):
                for panel in range(group, min(group + _PANELS, whole)):
                    values = load(source, (k0 + k) * ld + low + panel * lanes, lanes)
                    store(target, (panel * depth + k) * lanes, values)
    edge_from = low + whole * lanes
    if edge_from < high:  # a panel that is not full
        for k in range(depth):
            for j in range(lanes):
                to = (whole * depth + k) * lanes + j
                target[to] = 0
                if edge_from + j < high:
                    across, along = edge_from + j, k0 + k
                    at = across * ld + along if is_along_k else along * ld + across
                    target[to] = source[at]


# Two numbers along k, rounded to bfloat16, in the place of one; the new length of a panel
@inlined
def _pair(target, edge, nb_panels, depth, lanes):
    length = (depth + 1) // 2
    for panel in range(nb_panels):
        for k in range(length):
            at, to = panel * depth + 2 * k, panel * length + k
            first_half = load(target, at * lanes, lanes)
            if 2 * k + 1 < depth:
                second_half = load(target, (at + 1) * lanes, lanes)
            else:
                edge[:lanes] = 0
                second_half = load(edge, 0, lanes)
            store(target, to * lanes, pairs(first_half, second_half))
    return length


# The numbers of a tile that lie within out, added up if it is not the first
@inlined
def _put_edge(edge, out, at, ldo, nb_rows, nb_columns, is_first, lanes):
    for r in range(nb_rows):
        for c in range(nb_columns):
            value = edge[r * lanes + c]
            if not is_first:
                value += out[at + r * ldo + c]
            out[at + r * ldo + c] = value


# Computes      out = a b for rows [m0, m1) and columns [n0, n1)
# Arguments     a    IN, numbers of a (M, K) from its first one on
#               b    IN, numbers of b (K, N)
#               out  OUT, numbers of out (M, N), whose rows are contiguous
#               distances       of two rows of a, b and out in memory
#               a_rows, b_rows  whether the rows of a and b are contiguous, or else their columns
#               sizes           nb_k, m0, m1, n0, n1
#               pack  scratch, aligned: `scratch_size` numbers
# Aliasing      none; tasks write different parts of out
# Accumulates   `=`
# Parallel over parts of out, by the caller
# Precision     that of the arrays; sums of 512 products, one after the other, are added up.
#               Of pairs: operands have 8 bits, sums 24
# Oracle        numpy.matmul
# Benchmark     benchmarks/compare/train_step.py
def _make_gemm(rows: int, lanes: int, of_pairs: bool, build: int) -> Callable:
    paired = int(of_pairs)

    def gemm(a, b, out, distances, a_rows, b_rows, sizes, pack):
        if build < 0:  # names the version of this folder; see compiling.build_number
            return
        lda, ldb, ldo = distances
        nb_k, m0, m1, n0, n1 = sizes
        nb_panels = (n1 - n0 + lanes - 1) // lanes
        edge = pack[: rows * lanes]
        a_pack = pack[rows * lanes : rows * lanes + _ROWS * _DEPTH]
        b_pack = pack[rows * lanes + _ROWS * _DEPTH :]
        for k0 in range(0, nb_k, _DEPTH):
            k1 = min(k0 + _DEPTH, nb_k)
            # First the columns are packed, then each block of rows is packed and multiplied.
            for block in range(-1, (m1 - m0 + _ROWS - 1) // _ROWS):
                if block < 0:
                    source, ld, is_along_k, target = b, ldb, not b_rows, b_pack
                    low, high = n0, n1
                else:
                    source, ld, is_along_k, target = a, lda, a_rows, a_pack
                    low = m0 + block * _ROWS
                    high = min(low + _ROWS, m1)
                _pack(source, ld, is_along_k, target, low, high, k0, k1, lanes)
                length = k1 - k0  # of a panel, in numbers or pairs of them
                if of_pairs:
                    length = _pair(target, edge, (high - low + lanes - 1) // lanes, length, lanes)
                if block < 0:
                    continue
                for panel in range(nb_panels):
                    column, x = n0 + panel * lanes, (b_pack, panel * length * lanes)
                    for row in range(low, high, rows):
                        w = (a_pack, (row - low) * length)
                        at = row * ldo + column
                        if row + rows > high or column + lanes > n1:
                            tile = (edge, 0, lanes)
                            tile_product(tile, w, x, length, 1, rows, lanes, paired)
                            nb_rows, nb_columns = min(rows, high - row), min(lanes, n1 - column)
                            _put_edge(edge, out, at, ldo, nb_rows, nb_columns, k0 == 0, lanes)
                        elif k0 == 0:
                            tile_product((out, at, ldo), w, x, length, 1, rows, lanes, paired)
                        else:
                            tile_product((out, at, ldo), w, x, length, 0, rows, lanes, paired)

    return gemm


class Gemm:
    """The kernel for one dtype.

    Parameters
    ----------
    dtype : dtype
        Of the arrays.
    of_pairs : bool
        Round the operands to bfloat16; for float32 where `has_pairs`.
    """

    def __init__(self, dtype: np.dtype, of_pairs: bool = False) -> None:
        self.dtype = dtype
        self.lanes = max(vector_registers()[1] // dtype.itemsize, 4)
        flat, size, flag = (
            numba.types.Array(numba.from_dtype(dtype), 1, "C"),
            numba.types.int64,
            numba.types.boolean,
        )
        three, five = (numba.types.UniTuple(size, count) for count in (3, 5))
        types = (flat, flat, flat, three, flag, flag, five, flat)
        # Rows and lanes are the same number: packing transposes squares.
        kernel = _make_gemm(self.lanes, self.lanes, of_pairs, build_number())
        self._kernel: Any = compiled(kernel, [types], fastmath=False)

    def __call__(
        self, a: np.ndarray, b: np.ndarray, out: np.ndarray, rows: slice, columns: slice
    ) -> None:
        """Compute ``out[rows, columns] = a[rows] @ b[:, columns]``.

        Parameters
        ----------
        a, b : ndarray [shape=(m, k), (k, n)]
            Each with contiguous rows or contiguous columns.
        out : ndarray [shape=(m, n)]
            With contiguous rows.
        rows, columns : slice
            With start and stop.
        """
        nb_k, lanes = a.shape[1], self.lanes
        if nb_k == 0:
            out[rows, columns] = 0
            return
        numbers, parts = [], []
        for matrix in (a, b, out):
            memory, distance, has_rows = _as_memory(matrix)
            numbers.append(memory)
            parts.append((distance, has_rows))
        nb_panels = -(-(columns.stop - columns.start) // lanes)
        size = lanes * lanes + _ROWS * _DEPTH + nb_panels * lanes * min(nb_k, _DEPTH)
        self._kernel(
            *numbers,
            tuple(distance for distance, _ in parts),
            parts[0][1],
            parts[1][1],
            (nb_k, rows.start, rows.stop, columns.start, columns.stop),
            aligned_empty((size,), self.dtype),
        )


def _as_memory(matrix: np.ndarray) -> tuple[np.ndarray, int, bool]:
    """All numbers from the first one on, the distance of lines, and whether lines are rows.

    Raises
    ------
    ValueError
        If neither rows nor columns are contiguous.
    """
    size = matrix.itemsize
    has_rows = matrix.strides[1] == size or matrix.shape[1] == 1
    lines = matrix if has_rows else matrix.T
    if (lines.strides[1] != size and lines.shape[1] > 1) or lines.strides[0] % size:
        raise ValueError(f"strides={matrix.strides}: neither rows nor columns are contiguous")
    distance = lines.strides[0] // size
    count = (len(lines) - 1) * distance + lines.shape[1]
    return np.lib.stride_tricks.as_strided(lines, (count,), (size,)), distance, has_rows


def is_faster() -> bool:
    """Whether this processor has the registers that the tiles are made for."""
    return vector_registers() == (32, 64)


def has_pairs() -> bool:
    """Whether processor and compiler multiply pairs of bfloat16 and add up in float32."""
    # LLVM's function for it took integers in place of bfloat16 before version 16.
    knows = llvmlite.binding.llvm_version_info >= (16,)
    has = llvmlite.binding.get_host_cpu_features().get("avx512bf16")
    return knows and is_faster() and bool(has)


@once
def gemm_kernel(dtype: np.dtype, of_pairs: bool = False) -> Gemm:
    """Compile the kernel for a dtype, once."""
    return Gemm(dtype, of_pairs)
