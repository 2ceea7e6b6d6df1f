"""One launch for a step of an optimiser on all parameters; compiled by Numba."""

from __future__ import annotations

import math

from numba import cuda


# Computes      one step of Adam; see umx_np.optim.adam_update
# Arguments     p, m, v (n,) INOUT, g (n,) IN
#               go (1,) IN  what to multiply the gradient with: if it is NaN nothing is changed
#               the rest: see umx_np.backends._updates.AdamScalars
# Aliasing      none
# Accumulates   `=`
# Parallel over elements
# Precision     that of the arrays and scalars
# Oracle        umx_np.optim.adam_update
# Benchmark     benchmarks/gpu/run.py
@cuda.jit
def adam(p, g, m, v, go, keep, decay, rest1, beta2, rest2, rate, root, eps):
    """Adam, and AdamW."""
    factor = go[0]
    if math.isnan(factor):
        return
    for k in range(cuda.grid(1), p.size, cuda.gridsize(1)):
        value = p[k] * keep
        gradient = g[k] * factor + decay * value
        first = m[k] + rest1 * (gradient - m[k])
        second = v[k] * beta2 + rest2 * (gradient * gradient)
        m[k] = first
        v[k] = second
        p[k] = value - rate * (first / (math.sqrt(second) / root + eps))


# Computes      one step of stochastic gradient descent; see umx_np.optim.sgd_update
# Arguments     p (n,) INOUT, g (n,) IN, u (n,) INOUT velocity, go (1,) IN as for Adam
#               the rest: see umx_np.backends._updates.SgdScalars
# Aliasing      u may be g if there is no momentum: it is not written then
# Accumulates   `=`
# Parallel over elements
# Precision     that of the arrays and scalars
# Oracle        umx_np.optim.sgd_update
# Benchmark     benchmarks/gpu/run.py
@cuda.jit
def sgd(p, g, u, go, lr, momentum, keep, take, decay, nesterov):
    """Stochastic gradient descent, with momentum or without."""
    factor = go[0]
    if math.isnan(factor):
        return
    for k in range(cuda.grid(1), p.size, cuda.gridsize(1)):
        gradient = g[k] * factor + decay * p[k]
        step = gradient
        if momentum > 0:
            velocity = keep * u[k] + take * gradient
            u[k] = velocity
            step = gradient + momentum * velocity if nesterov else velocity
        p[k] -= lr * step
