// Steps of the optimisers: one launch for all parameters.
//
// Every kernel: Parallel over elements. Precision float32. Benchmark: benchmarks/gpu/run.py
#include "column_sums.cuh"

/* Computes      one step of Adam; the scalars are those of umx_np.backends.updates.AdamScalars
 * Arguments     p, m, v (n) INOUT, g (n) IN
 *               go (1) IN  what to multiply the gradient with: if it is NaN nothing is changed
 * Aliasing      none
 * Accumulates   =
 * Oracle        umx_np.optim.adam_update
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
adam(float* __restrict__ p, const float* __restrict__ g, float* __restrict__ m,
     float* __restrict__ v, const float* __restrict__ go, long long count, float keep, float decay,
     float rest1, float beta2, float rest2, float rate, float root, float eps) {
    const float factor = *go;
    if (factor != factor) return;
    const long long first = (long long)blockIdx.x * FLAT_PIECE;
    for (int i = threadIdx.x; i < FLAT_PIECE && first + i < count; i += THREADS) {
        const long long k = first + i;
        const float value = p[k] * keep, gradient = g[k] * factor + decay * value;
        const float mean = m[k] + rest1 * (gradient - m[k]);
        const float square = v[k] * beta2 + rest2 * (gradient * gradient);
        m[k] = mean;
        v[k] = square;
        p[k] = value - rate * (mean / (sqrtf(square) / root + eps));
    }
}

/* Computes      one step of stochastic gradient descent, with momentum or without; the scalars are
 *               those of umx_np.backends.updates.SgdScalars
 * Arguments     p (n) INOUT, g (n) IN, u (n) INOUT velocity or null without momentum
 *               go (1) IN  as for adam
 * Aliasing      none
 * Accumulates   =
 * Oracle        umx_np.optim.sgd_update
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
sgd(float* __restrict__ p, const float* __restrict__ g, float* __restrict__ u,
    const float* __restrict__ go, long long count, float lr, float momentum, float keep, float take,
    float decay, int nesterov) {
    const float factor = *go;
    if (factor != factor) return;
    const long long first = (long long)blockIdx.x * FLAT_PIECE;
    for (int i = threadIdx.x; i < FLAT_PIECE && first + i < count; i += THREADS) {
        const long long k = first + i;
        const float gradient = g[k] * factor + decay * p[k];
        float step = gradient;
        if (u) {
            const float velocity = keep * u[k] + take * gradient;
            u[k] = velocity;
            step = nesterov ? gradient + momentum * velocity : velocity;
        }
        p[k] -= lr * step;
    }
}
