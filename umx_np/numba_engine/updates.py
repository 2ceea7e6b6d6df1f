"""One walk through memory for a step of an optimiser on some elements."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .compiling import compiled, once


# Computes      one step of Adam; see umx_np.optim.adam_update
# Arguments     p, m, v (n,) INOUT, g (n,) IN; the rest: see umx_np.backends.updates.AdamScalars
# Aliasing      none
# Accumulates   `=`
# Parallel over elements, by the caller
# Precision     that of the arrays
# Oracle        umx_np.optim.adam_update
# Benchmark     benchmarks/compare/train_step.py
def _adam(p, g, m, v, scalars):
    keep, decay, rest1, beta2, rest2, rate, root, eps = scalars
    for k in range(len(p)):
        value = p[k] * keep
        gradient = g[k] + decay * value
        first = m[k] + rest1 * (gradient - m[k])
        second = v[k] * beta2 + rest2 * (gradient * gradient)
        m[k] = first
        v[k] = second
        p[k] = value - rate * (first / (np.sqrt(second) / root + eps))


# Computes      one step of stochastic gradient descent; see umx_np.optim.sgd_update
# Arguments     p (n,) INOUT, g (n,) IN, u (n,) INOUT momentum; the rest: see
#               umx_np.backends.updates.SgdScalars
# Aliasing      none
# Accumulates   `=`
# Parallel over elements, by the caller
# Precision     that of the arrays
# Oracle        umx_np.optim.sgd_update
# Benchmark     benchmarks/compare/train_step.py
def _sgd(p, g, u, lr, momentum, keep, take, decay, nesterov):
    for k in range(len(p)):
        gradient = g[k] + decay * p[k]
        velocity = keep * u[k] + take * gradient
        u[k] = velocity
        p[k] -= lr * (gradient + momentum * velocity if nesterov else velocity)


class UpdateKernels:
    """The kernels of this file for one dtype."""

    def __init__(self, dtype: np.dtype) -> None:
        real = numba.from_dtype(dtype)
        vector = numba.types.Array(real, 1, "C")
        self.adam: Any = compiled(_adam, [(vector,) * 4 + (numba.types.UniTuple(real, 8),)])
        self.sgd: Any = compiled(_sgd, [(vector,) * 3 + (real,) * 5 + (numba.types.boolean,)])


@once
def update_kernels(dtype: np.dtype) -> UpdateKernels:
    """Compile the kernels for a dtype, once."""
    return UpdateKernels(dtype)
