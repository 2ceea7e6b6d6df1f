"""Batch norm and activation of feature-major activations: a feature is a contiguous row.

A row of 4080 numbers (16 samples of 255 frames) is 16 kB, so that the second walk along it finds it
in the first-level cache. Tasks are ranges of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .compiling import compiled, once

TANH, RELU = 0, 1


# Computes      mean and biased variance of each row
# Arguments     z (F, N) IN, mean (F,) OUT, variance (F,) OUT, rows [start, stop)
# Aliasing      none
# Accumulates   `=`
# Parallel over rows, by the caller
# Precision     sums in float64
# Oracle        umx_np.layers.batchnorm.batch_statistics
# Benchmark     benchmarks/compare/train_step.py
def _row_statistics(z, mean, variance, start, stop):
    nb_columns = z.shape[1]
    for row in range(start, stop):
        total = 0.0
        for k in range(nb_columns):
            total += np.float64(z[row, k])
        center = total / nb_columns
        squares = 0.0
        for k in range(nb_columns):
            distance = np.float64(z[row, k]) - center
            squares += distance * distance
        mean[row] = center
        variance[row] = squares / nb_columns


# Computes      out = z * scale + shift; with `relu` the positive part of it
# Arguments     z (F, N) IN, scale (F,) IN, shift (F,) IN, relu, out (F, N) OUT, rows [start, stop)
# Aliasing      out may be z
# Accumulates   `=`
# Parallel over rows, by the caller
# Precision     that of the arrays
# Oracle        umx_np.layers.batchnorm.batchnorm_forward, umx_np.layers.activation.relu_forward
# Benchmark     benchmarks/compare/train_step.py
def _row_normalise(z, scale, shift, relu, out, start, stop):
    for row in range(start, stop):
        a, b = scale[row], shift[row]
        if relu:
            for k in range(z.shape[1]):
                value = z[row, k] * a + b
                # Written so that NaN stays NaN.
                out[row, k] = value * 0 if value < 0 else value
        else:
            for k in range(z.shape[1]):
                out[row, k] = z[row, k] * a + b


# Computes      gradient through activation and batch norm: with g the gradient before the
#               activation and x^ = (z - mean) s,  d_weight += sum g x^,  d_bias += sum g,
#               d_z = weight s (g - mean(g) - x^ mean(g x^)), without the means unless `training`
# Arguments     d (F, N) INOUT  in: d_y, out: d_z
#               y (F, N) IN  output of the activation;  z (F, N) IN
#               norm = mean, inverse_std, weight (F,) IN;  activation TANH or RELU;  training
#               gradients = d_weight, d_bias (F,) INOUT;  rows [start, stop)
# Aliasing      none
# Accumulates   d_weight, d_bias `+=`; d `=`
# Parallel over rows, by the caller
# Precision     sums in float64
# Oracle        umx_np.layers.batchnorm.batchnorm_backward, umx_np.layers.activation
# Benchmark     benchmarks/compare/train_step.py
def _row_backward(d, y, z, norm, activation, training, gradients, start, stop):
    mean, inverse_std, weight = norm
    d_weight, d_bias = gradients
    nb_columns = d.shape[1]
    for row in range(start, stop):
        if activation == TANH:
            for k in range(nb_columns):
                d[row, k] *= 1 - y[row, k] * y[row, k]
        else:
            for k in range(nb_columns):
                d[row, k] = d[row, k] if y[row, k] > 0 else d[row, k] * 0
        center, s = mean[row], inverse_std[row]
        total = 0.0
        product = 0.0
        for k in range(nb_columns):
            total += np.float64(d[row, k])
            product += np.float64(d[row, k]) * np.float64((z[row, k] - center) * s)
        d_bias[row] += total
        d_weight[row] += product
        a = weight[row] * s
        if training:
            b = a * d.dtype.type(total / nb_columns)
            c = a * s * d.dtype.type(product / nb_columns)
            for k in range(nb_columns):
                d[row, k] = a * d[row, k] - b - c * (z[row, k] - center)
        else:
            for k in range(nb_columns):
                d[row, k] *= a


class FeatureKernels:
    """The kernels of this file for one dtype."""

    def __init__(self, dtype: np.dtype) -> None:
        real = numba.from_dtype(dtype)
        matrix, vector = numba.types.Array(real, 2, "C"), numba.types.Array(real, 1, "C")
        size, flag = numba.types.int64, numba.types.boolean

        def one(kernel: Callable, *types: Any) -> Any:
            return compiled(kernel, [types])

        self.statistics = one(_row_statistics, matrix, vector, vector, size, size)
        self.normalise = one(_row_normalise, matrix, vector, vector, flag, matrix, size, size)
        self.backward = one(
            _row_backward,
            matrix,
            matrix,
            matrix,
            numba.types.UniTuple(vector, 3),
            size,
            flag,
            numba.types.UniTuple(vector, 2),
            size,
            size,
        )


@once
def feature_kernels(dtype: np.dtype) -> FeatureKernels:
    """Compile the kernels for a dtype, once."""
    return FeatureKernels(dtype)
