// What a network computes between its matrix products: float32, one pass over memory each.
//
// Batches are the networks that run side by side. Every kernel: Parallel over columns (x of the
// grid) and rows of all batches (y, in strides). Benchmark: benchmarks/gpu/run.py
#include "common.cuh"

enum { TANH, RELU, MASK };  // what `finish` ends with; MASK is ReLU and the product with the mixture

/* Computes      out[n, t, c, b] = (mags[t, c, b] + shift[n, c, b]) * gain[n, c, b]
 * Arguments     mags (nb_rows, nb_channels, nb_bins) IN, 0 beyond the last bin,
 *               shift, gain (nb_batches, nb_channels, nb_read) IN; a gain of 0 makes a bin that the
 *               network does not read 0,
 *               out (nb_batches, nb_rows, nb_channels, nb_read) OUT
 * Accumulates   =
 * Oracle        umx_np.backends.reference.ReferenceNetwork.encode
 */
extern "C" __global__ void normalise(const float* __restrict__ mags,
                                     const float* __restrict__ shift,
                                     const float* __restrict__ gain, float* __restrict__ out,
                                     int nb_batches, int nb_rows, int nb_channels, int nb_bins,
                                     int nb_read) {
    const int width = nb_channels * nb_read;
    const int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= width) return;
    const int b = k % nb_read;
    const float* source = mags + k / nb_read * nb_bins + b;
    for (long long row = blockIdx.y; row < (long long)nb_batches * nb_rows; row += gridDim.y) {
        const long long n = row / nb_rows, t = row % nb_rows;
        const float value = b < nb_bins ? source[t * nb_channels * nb_bins] : 0.0f;
        out[row * width + k] = (value + shift[n * width + k]) * gain[n * width + k];
    }
}

/* Computes      out[n, t, k] = ending(x[n, t, k] * scale[n, k] + bias[n, k]), for MASK times
 *               mixture[t, k]
 * Arguments     x (nb_batches, nb_rows, width) IN, scale, bias (nb_batches, width) IN,
 *               mixture (nb_rows, width) IN, read for MASK only,
 *               out as x, OUT, with batches out_batch and rows out_row numbers apart
 * Aliasing      out may be x
 * Accumulates   =
 * Oracle        umx_np.backends.reference.ReferenceNetwork
 */
extern "C" __global__ void finish(const float* x, const float* __restrict__ scale,
                                  const float* __restrict__ bias,
                                  const float* __restrict__ mixture, float* out, int nb_batches,
                                  int nb_rows, int width, long long out_batch, long long out_row,
                                  int ending) {
    const int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= width) return;
    for (long long row = blockIdx.y; row < (long long)nb_batches * nb_rows; row += gridDim.y) {
        const long long n = row / nb_rows, t = row % nb_rows;
        float value = fmaf(x[row * width + k], scale[n * width + k], bias[n * width + k]);
        value = ending == TANH ? tanhf(value) : fmaxf(value, 0.0f);
        if (ending == MASK) value *= mixture[t * width + k];
        out[n * out_batch + t * out_row + k] = value;
    }
}
