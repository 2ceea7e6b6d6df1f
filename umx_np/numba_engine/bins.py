"""The wide end of the network: frame-major arrays whose contiguous axis is channels times bins.

The output layer of a stereo model has 4098 features, and an activation for 16 samples of 255 frames
takes 67 MB. What matters is how often memory is walked through. Tasks are ranges of columns; they
walk along the rows within their range, some kB at a time, so sums over rows stay in the first-level
cache. Columns are taken `lanes` at a time; the rest of a range, where it is not a multiple, is
computed by the same kernels with one lane.

Notation: row n of N = frames x samples, column k of K = channels x bins, z = fc3's output,
u = z * gain + offset (batch norm and output scaling in one), y = relu(u) * mix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .compiling import build_number, compiled, once, vector_registers
from .lanes import load, positive, store, where_positive

# Rows whose sums are kept in the dtype of the arrays before they are added up in float64.
_BLOCK = 32
# Of a task. Each of its rows is in other pages of memory, and the longer its part of them is, the
# less it waits: with 2064 columns in place of 512 these passes took 0.7 times as long. Sums over
# 2064 columns still fit into the first-level cache.
_FEWEST_COLUMNS, _MOST_COLUMNS = 512, 2064


# Computes      out[n, c, k] = x[n, c, k] + mean[k] for the bins that the network reads
# Arguments     x (N, C, bins) IN, mean (input bins,) IN, out (N, C, input bins) OUT,
#               rows [start, stop)
# Aliasing      none
# Accumulates   `=`
# Parallel over rows, by the caller
# Precision     that of the arrays
# Oracle        umx_np.layers.scaling.input_scaling_forward
# Benchmark     benchmarks/compare/train_step.py
def _shift_input(x, mean, out, start, stop):
    for n in range(start, stop):
        for c in range(x.shape[1]):
            for k in range(len(mean)):
                out[n, c, k] = x[n, c, k] + mean[k]


# Computes      sums of z - shift and of its square over the rows, for each column
# Arguments     z (N, K) IN flat, shift (K,) IN, sums (2, K) INOUT float64, N, K,
#               columns [start, stop), scratch (2, K) INOUT
# Aliasing      none
# Accumulates   sums `+=`
# Parallel over columns, by the caller
# Precision     sums of 32 rows in the dtype of z, then float64
# Oracle        umx_np.layers.batchnorm.batch_statistics
# Benchmark     benchmarks/compare/train_step.py
def _make_statistics(lanes: int, build: int) -> Callable:
    def column_statistics(z, shift, sums, nb_rows, nb_columns, start, stop, scratch):
        if build < 0:  # names the version of this folder; see compiling.build_number
            return
        for block in range(0, nb_rows, _BLOCK):
            for k in range(start, stop):
                scratch[k] = 0
                scratch[nb_columns + k] = 0
            for n in range(block, min(block + _BLOCK, nb_rows)):
                for k in range(start, stop, lanes):
                    distance = load(z, n * nb_columns + k, lanes) - load(shift, k, lanes)
                    store(scratch, k, load(scratch, k, lanes) + distance)
                    squares = load(scratch, nb_columns + k, lanes) + distance * distance
                    store(scratch, nb_columns + k, squares)
            for k in range(start, stop):
                sums[k] += scratch[k]
                sums[nb_columns + k] += scratch[nb_columns + k]

    return column_statistics


# Computes      y = relu(z * gain + offset) * mix
# Arguments     z, mix (N, K) IN flat, gain, offset (K,) IN, y (N, K) OUT, N, K,
#               columns [start, stop)
# Aliasing      none
# Accumulates   `=`
# Parallel over columns, by the caller
# Precision     that of the arrays
# Oracle        umx_np.backends.reference_engine, the last lines of the forward pass
# Benchmark     benchmarks/compare/train_step.py
def _make_decode(lanes: int, build: int) -> Callable:
    def decode(z, mix, gain, offset, y, nb_rows, nb_columns, start, stop):
        if build < 0:
            return
        for n in range(nb_rows):
            for k in range(start, stop, lanes):
                at = n * nb_columns + k
                u = load(z, at, lanes) * load(gain, k, lanes) + load(offset, k, lanes)
                store(y, at, positive(u) * load(mix, at, lanes))

    return decode


# Computes      with d_u = d_y mix [u > 0]: the sums over the rows of d_u and of d_u x^, where
#               x^ = (z - mean) s
# Arguments     wide = d_y, mix, z (N, K) IN flat;
#               features = gain, offset, mean, inverse_std (K,) IN;
#               sums (2, K) INOUT float64; N, K, columns [start, stop); scratch (2, K) INOUT
# Aliasing      none
# Accumulates   sums `+=`
# Parallel over columns, by the caller
# Precision     sums of 32 rows in the dtype of z, then float64
# Oracle        umx_np.layers.batchnorm.batchnorm_backward, umx_np.layers.scaling
# Benchmark     benchmarks/compare/train_step.py
def _make_decode_sums(lanes: int, build: int) -> Callable:
    def decode_sums(wide, features, sums, nb_rows, nb_columns, start, stop, scratch):
        if build < 0:
            return
        d_y, mix, z = wide
        gain, offset, mean, inverse_std = features
        for block in range(0, nb_rows, _BLOCK):
            for k in range(start, stop):
                scratch[k] = 0
                scratch[nb_columns + k] = 0
            for n in range(block, min(block + _BLOCK, nb_rows)):
                for k in range(start, stop, lanes):
                    at = n * nb_columns + k
                    value = load(z, at, lanes)
                    u = value * load(gain, k, lanes) + load(offset, k, lanes)
                    d_u = where_positive(u, load(d_y, at, lanes) * load(mix, at, lanes))
                    x_hat = (value - load(mean, k, lanes)) * load(inverse_std, k, lanes)
                    store(scratch, k, load(scratch, k, lanes) + d_u)
                    products = load(scratch, nb_columns + k, lanes) + d_u * x_hat
                    store(scratch, nb_columns + k, products)
            for k in range(start, stop):
                sums[k] += scratch[k]
                sums[nb_columns + k] += scratch[nb_columns + k]

    return decode_sums


# Computes      d_z = gain d_u - first - (z - mean) second, with
#               first = gain mean(d_u), second = gain s mean(d_u x^) in training and 0 otherwise
# Arguments     wide = d_y, mix (N, K) IN flat, z (N, K) INOUT out: d_z;
#               features = gain, offset, mean, first, second (K,) IN; N, K, columns [start, stop)
# Aliasing      none
# Accumulates   `=`
# Parallel over columns, by the caller
# Precision     that of the arrays
# Oracle        umx_np.layers.batchnorm.batchnorm_backward, umx_np.layers.scaling
# Benchmark     benchmarks/compare/train_step.py
def _make_decode_backward(lanes: int, build: int) -> Callable:
    def decode_backward(wide, features, nb_rows, nb_columns, start, stop):
        if build < 0:
            return
        d_y, mix, z = wide
        gain, offset, mean, first, second = features
        for n in range(nb_rows):
            for k in range(start, stop, lanes):
                at = n * nb_columns + k
                value, a = load(z, at, lanes), load(gain, k, lanes)
                u = value * a + load(offset, k, lanes)
                d_u = where_positive(u, load(d_y, at, lanes) * load(mix, at, lanes))
                moved = (value - load(mean, k, lanes)) * load(second, k, lanes)
                store(z, at, d_u * a - load(first, k, lanes) - moved)

    return decode_backward


class BinKernels:
    """The kernels of this file for one dtype, and how columns are dealt out."""

    def __init__(self, dtype: np.dtype) -> None:
        real = numba.from_dtype(dtype)
        self.lanes = max(vector_registers()[1] // dtype.itemsize, 4)
        flat, size = numba.types.Array(real, 1, "C"), numba.types.int64
        double = numba.types.Array(numba.float64, 1, "C")
        cube = numba.types.Array(real, 3, "C")
        self.shift_input: Any = compiled(_shift_input, [(cube, flat, cube, size, size)])
        build = build_number()

        def by_columns(make: Callable, *types: Any) -> Callable:
            wide, narrow = (
                compiled(make(lanes, build), [types], fastmath=False) for lanes in (self.lanes, 1)
            )
            position = max(i for i, kind in enumerate(types) if kind is size)

            def call(*arguments: Any) -> None:
                start, stop = arguments[position - 1], arguments[position]
                middle = start + (stop - start) // self.lanes * self.lanes
                for kernel, low, high in ((wide, start, middle), (narrow, middle, stop)):
                    if low < high:
                        kernel(*arguments[: position - 1], low, high, *arguments[position + 1 :])

            return call

        sizes = (size,) * 4
        self.statistics = by_columns(_make_statistics, flat, flat, double, *sizes, flat)
        self.decode = by_columns(_make_decode, *(flat,) * 5, *sizes)
        three, four, five = (numba.types.UniTuple(flat, count) for count in (3, 4, 5))
        self.decode_sums = by_columns(_make_decode_sums, three, four, double, *sizes, flat)
        self.decode_backward = by_columns(_make_decode_backward, three, five, *sizes)

    def columns(self, total: int, threads: int) -> int:
        """Columns of a task, whole vectors: a part of a row for each thread, within limits."""
        share = -(-total // (threads * self.lanes)) * self.lanes
        return min(max(share, _FEWEST_COLUMNS), _MOST_COLUMNS)


@once
def bin_kernels(dtype: np.dtype) -> BinKernels:
    """Compile the kernels for a dtype, once."""
    return BinKernels(dtype)
