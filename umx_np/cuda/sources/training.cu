// Training of the network: everything around the matrix products and the recurrent scans, but for
// what training_steps.cu has.
//
// Arrays of activations have R rows, one for each sample of each frame, and F features; a row may be
// followed by some padding (`stride` from one to the next). Magnitudes have C channels of N bins in
// a row, of which the network reads K.
//
// Every kernel: Precision float32, sums float64. Benchmark: benchmarks/gpu/run.py
#include "column_sums.cuh"

// Written so that NaN stays NaN.
__device__ __forceinline__ float positive(float value) { return value < 0.0f ? 0.0f : value; }

__device__ __forceinline__ float inverse_deviation(float variance, float eps) {
    return 1.0f / sqrtf(variance + eps);
}

// -- input and fc1 -----------------------------------------------------------------------------

/* Computes      out[r, c, k] = x[r, c, k] + mean[k], of the bins that the network reads
 * Arguments     x (R, C, N) IN, mean (K) IN, out (R, stride >= C K) OUT
 * Accumulates   =
 * Parallel over bins (x) and rows (y, in strides)
 * Oracle        umx_np.layers.scaling.input_scaling_forward, without the scale: it goes to the weights
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
shift_input(const float* __restrict__ x, const float* __restrict__ mean, float* __restrict__ out,
            int nb_rows, int nb_channels, int nb_bins, int nb_read, int stride) {
    const int k = blockIdx.x * THREADS + threadIdx.x;
    if (k >= nb_read) return;
    const float shift = mean[k];
    for (int row = blockIdx.y; row < nb_rows; row += gridDim.y)
        for (int c = 0; c < nb_channels; c++)
            out[(size_t)row * stride + c * nb_read + k] =
                x[((size_t)row * nb_channels + c) * nb_bins + k] + shift;
}

/* Computes      out[h, c, k] = weight[h, c, k] scale[k]
 * Arguments     weight (H, C, K) IN, scale (K) IN, out (H, stride >= C K) OUT
 * Accumulates   =
 * Parallel over bins (x) and rows (y, in strides)
 * Oracle        umx_np.layers.scaling.input_scaling_forward
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
scale_weight(const float* __restrict__ weight, const float* __restrict__ scale,
             float* __restrict__ out, int nb_rows, int nb_channels, int nb_read, int stride) {
    const int k = blockIdx.x * THREADS + threadIdx.x;
    if (k >= nb_read) return;
    const float factor = scale[k];
    for (int row = blockIdx.y; row < nb_rows; row += gridDim.y)
        for (int c = 0; c < nb_channels; c++)
            out[(size_t)row * stride + c * nb_read + k] =
                weight[((size_t)row * nb_channels + c) * nb_read + k] * factor;
}

/* Computes      with W' = W scale, z1 = W' (x + mean) and G = d_z1^T (x + mean), the gradient of W':
 *               d_W = G scale,  d_scale[k] = sum over h and c of W G,
 *               d_mean[k] = scale[k] sum over h and c of W sums[h]
 * Arguments     gradient (H, stride) IN G, weight (H, C, K) IN, scale (K) IN
 *               sums (H) IN  sums over the rows of d_z1, or null: in training mode they are 0, since
 *               the batch norm takes any mean away
 *               d_weight (H, C, K), d_scale (K), d_mean (K) OUT
 *               partials (pieces, 2, K) scratch, counters (tiles) zero
 * Accumulates   =
 * Parallel over tiles of bins (x) and pieces of h (y)
 * Oracle        umx_np.layers.linear.linear_backward, umx_np.layers.scaling.input_scaling_backward
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
input_gradients(const float* __restrict__ gradient, const float* __restrict__ weight,
                const float* __restrict__ scale, const float* __restrict__ sums,
                float* __restrict__ d_weight, float* __restrict__ d_scale,
                float* __restrict__ d_mean, double* partials, unsigned* counters, int hidden,
                int nb_channels, int nb_read, int stride) {
    UMX_SHARED(memory);
    const Tile tile(memory, hidden, nb_read);
    const int k = tile.column;
    const float factor = tile.inside ? scale[k] : 0.0f;
    double scales = 0.0, means = 0.0;
    if (tile.inside)
        for (int h = tile.first + threadIdx.y; h < tile.stop; h += LANES)
            for (int c = 0; c < nb_channels; c++) {
                const int place = (h * nb_channels + c) * nb_read + k;
                const float g = gradient[h * stride + c * nb_read + k];
                d_weight[place] = g * factor;
                scales += (double)weight[place] * g;
            }
    if (tile.inside && sums)
        for (int h = tile.first + threadIdx.y; h < tile.stop; h += LANES)
            for (int c = 0; c < nb_channels; c++)
                means += (double)sums[h] * weight[(h * nb_channels + c) * nb_read + k];
    tile.put(scales, partials, k, 2 * nb_read);
    tile.put(means, partials, nb_read + k, 2 * nb_read);
    if (!tile.is_last(counters)) return;
    scales = tile.total(partials, k, 2 * nb_read);
    means = tile.total(partials, nb_read + k, 2 * nb_read);
    if (tile.writes()) {
        d_scale[k] = (float)scales;
        d_mean[k] = (float)(means * factor);
    }
}

// -- batch norm --------------------------------------------------------------------------------

/* Computes      mean and biased variance of each column; moves the running statistics a step
 *               towards them, of which the variance follows the unbiased one
 * Arguments     z (R, stride) IN, mean, variance (F) OUT, running_mean, running_variance (F) INOUT
 *               partials (pieces, 2, F) scratch, counters (tiles) zero
 * Accumulates   mean, variance =
 * Parallel over tiles of features (x) and pieces of rows (y)
 * Precision     sums of the distances from the first row, whose squares do not drown
 * Oracle        umx_np.layers.batchnorm.batch_statistics, update_running_statistics
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
batch_statistics(const float* __restrict__ z, float* __restrict__ mean,
                 float* __restrict__ variance, float* running_mean, float* running_variance,
                 double* partials, unsigned* counters, int nb_rows, int nb_features, int stride,
                 float momentum) {
    UMX_SHARED(memory);
    const Tile tile(memory, nb_rows, nb_features);
    const double shift = tile.inside ? z[tile.column] : 0.0f;
    double sum = 0.0, squares = 0.0;
    if (tile.inside)
        for (int row = tile.first + threadIdx.y; row < tile.stop; row += LANES) {
            const double distance = z[(size_t)row * stride + tile.column] - shift;
            sum += distance;
            squares += distance * distance;
        }
    tile.put(sum, partials, tile.column, 2 * nb_features);
    tile.put(squares, partials, nb_features + tile.column, 2 * nb_features);
    if (!tile.is_last(counters)) return;
    sum = tile.total(partials, tile.column, 2 * nb_features) / nb_rows;
    squares = tile.total(partials, nb_features + tile.column, 2 * nb_features) / nb_rows;
    if (!tile.writes()) return;
    const double spread = squares - sum * sum;
    const float center = (float)(shift + sum), width = (float)(spread < 0.0 ? 0.0 : spread);
    mean[tile.column] = center;
    variance[tile.column] = width;
    const float unbiased = width * ((float)nb_rows / (nb_rows - 1));
    running_mean[tile.column] += momentum * (center - running_mean[tile.column]);
    running_variance[tile.column] += momentum * (unbiased - running_variance[tile.column]);
}

/* Computes      out = act(weight (z - mean) s + bias) with s = 1 / sqrt(variance + eps) and tanh, or
 *               ReLU, for act
 * Arguments     z (R, F) IN, mean, variance, weight, bias (F) IN, out (R, stride) OUT
 * Accumulates   =
 * Parallel over tiles of features (x) and pieces of rows (y)
 * Oracle        umx_np.layers.batchnorm.batchnorm_forward, umx_np.layers.activation
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
normalise(const float* __restrict__ z, const float* __restrict__ mean,
          const float* __restrict__ variance, const float* __restrict__ weight,
          const float* __restrict__ bias, float* __restrict__ out, int nb_rows, int nb_features,
          int stride, float eps, int relu) {
    const int column = blockIdx.x * COLUMNS + threadIdx.x;
    if (column >= nb_features) return;
    const float scale = weight[column] * inverse_deviation(variance[column], eps);
    const float shift = bias[column] - mean[column] * scale;
    const int first = blockIdx.y * PIECE, stop = minimum(first + PIECE, nb_rows);
    for (int row = first + threadIdx.y; row < stop; row += LANES) {
        const float value = fmaf(z[(size_t)row * nb_features + column], scale, shift);
        out[(size_t)row * stride + column] = relu ? positive(value) : tanhf(value);
    }
}

// Gradient before an activation, from that of its output y.
__device__ __forceinline__ float through(float d, float y, bool relu) {
    if (relu) return y > 0.0f ? d : 0.0f;
    return d * (1.0f - y * y);
}

/* Computes      with g the gradient before the activation and x^ = (z - mean) s:
 *               d_weight = sum g x^,  d_bias = sum g
 * Arguments     d (R, stride_d) IN  gradient of the activation's output;  y (R, stride_y) IN  output
 *               z (R, F) IN;  mean, variance (F) IN;  d_weight, d_bias (F) OUT
 *               partials (pieces, 2, F) scratch, counters (tiles) zero
 * Accumulates   =
 * Parallel over tiles of features (x) and pieces of rows (y)
 * Oracle        umx_np.layers.batchnorm.batchnorm_backward, umx_np.layers.activation
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
norm_sums(const float* d, const float* y, const float* z, const float* mean, const float* variance,
          float* d_weight, float* d_bias, double* partials, unsigned* counters, int nb_rows,
          int nb_features, int stride_d, int stride_y, float eps, int relu) {
    UMX_SHARED(memory);
    const Tile tile(memory, nb_rows, nb_features);
    const int column = tile.column;
    double sum = 0.0, product = 0.0;
    if (tile.inside) {
        const float center = mean[column], s = inverse_deviation(variance[column], eps);
        for (int row = tile.first + threadIdx.y; row < tile.stop; row += LANES) {
            const float g = through(d[(size_t)row * stride_d + column],
                                    y[(size_t)row * stride_y + column], relu);
            sum += g;
            product += (double)g * ((z[(size_t)row * nb_features + column] - center) * s);
        }
    }
    tile.put(sum, partials, column, 2 * nb_features);
    tile.put(product, partials, nb_features + column, 2 * nb_features);
    if (!tile.is_last(counters)) return;
    sum = tile.total(partials, column, 2 * nb_features);
    product = tile.total(partials, nb_features + column, 2 * nb_features);
    if (tile.writes()) {
        d_bias[column] = (float)sum;
        d_weight[column] = (float)product;
    }
}

/* Computes      d_z = weight s (g - mean(g) - x^ mean(g x^)), without the means unless `training`
 * Arguments     d (R, stride_d) INOUT  in: gradient of the activation's output, out: d_z
 *               y, z, mean, variance as for the sums;  weight (F) IN
 *               d_weight, d_bias (F) IN  the sums
 * Aliasing      none
 * Accumulates   =
 * Parallel over tiles of features (x) and pieces of rows (y)
 * Oracle        umx_np.layers.batchnorm.batchnorm_backward, umx_np.layers.activation
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
norm_backward(float* d, const float* y, const float* z, const float* mean, const float* variance,
              const float* weight, const float* d_weight, const float* d_bias, int nb_rows,
              int nb_features, int stride_d, int stride_y, float eps, int relu, int training) {
    const int column = blockIdx.x * COLUMNS + threadIdx.x;
    if (column >= nb_features) return;
    const float center = mean[column], s = inverse_deviation(variance[column], eps);
    const float a = weight[column] * s;
    const float b = training ? a * (d_bias[column] / nb_rows) : 0.0f;
    const float c = training ? a * s * (d_weight[column] / nb_rows) : 0.0f;
    const int first = blockIdx.y * PIECE, stop = minimum(first + PIECE, nb_rows);
    for (int row = first + threadIdx.y; row < stop; row += LANES) {
        float* place = d + (size_t)row * stride_d + column;
        const float g = through(*place, y[(size_t)row * stride_y + column], relu);
        *place = a * g - b - c * (z[(size_t)row * nb_features + column] - center);
    }
}

// -- bn3, output scaling, mask -----------------------------------------------------------------

// Parameters of one feature f = c N + k of the output; u = gain z + offset is the mask before ReLU.
struct Output {
    float gain, offset;

    __device__ Output(float mean, float variance, float weight, float bias, float scale, float shift,
                      float eps) {
        const float normal = weight * inverse_deviation(variance, eps);
        gain = normal * scale;
        offset = (bias - mean * normal) * scale + shift;
    }

    __device__ float mask(float z) const { return fmaf(z, gain, offset); }
};

/* Computes      y = relu(gain z + offset) x, where gain and offset are bn3 and the output scaling
 * Arguments     z (R, stride) IN, x (R, C, N) IN, mean, variance, weight, bias (C N) IN,
 *               scale, shift (N) IN, y (R, C, N) OUT
 * Aliasing      none
 * Accumulates   =
 * Parallel over tiles of features (x) and pieces of rows (y)
 * Oracle        umx_np.layers.scaling.output_scaling_forward, mask_forward
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
decode(const float* __restrict__ z, const float* __restrict__ x, const float* __restrict__ mean,
       const float* __restrict__ variance, const float* __restrict__ weight,
       const float* __restrict__ bias, const float* __restrict__ scale,
       const float* __restrict__ shift, float* __restrict__ y, int nb_rows, int nb_channels,
       int nb_bins, int stride, float eps) {
    const int column = blockIdx.x * COLUMNS + threadIdx.x, nb_features = nb_channels * nb_bins;
    if (column >= nb_features) return;
    const Output output(mean[column], variance[column], weight[column], bias[column],
                        scale[column % nb_bins], shift[column % nb_bins], eps);
    const int first = blockIdx.y * PIECE, stop = minimum(first + PIECE, nb_rows);
    for (int row = first + threadIdx.y; row < stop; row += LANES) {
        const size_t place = (size_t)row * nb_features + column;
        y[place] = positive(output.mask(z[(size_t)row * stride + column])) * x[place];
    }
}

/* Computes      with d_u the gradient of the mask before ReLU and x^ = (z - mean) s:
 *               total = sum d_u,  product = sum d_u x^, and from them the gradients of what follows:
 *               d_weight = scale product,  d_bias = scale total, and over the channels
 *               d_scale = sum (weight product + bias total),  d_shift = sum total
 * Arguments     d_y, x (R, C, N) IN, z (R, stride) IN, the rest as for `decode`
 *               sums (2, C N) OUT  total and product
 *               d_weight, d_bias (C N), d_scale, d_shift (N) OUT
 *               partials (pieces, 2, C N) scratch, counters (tiles) zero
 * Accumulates   =
 * Parallel over tiles of bins (x), each with all channels, and pieces of rows (y)
 * Oracle        umx_np.layers.scaling.mask_backward, output_scaling_backward, umx_np.layers.batchnorm
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
decode_sums(const float* __restrict__ d_y, const float* __restrict__ x,
            const float* __restrict__ z, const float* __restrict__ mean,
            const float* __restrict__ variance, const float* __restrict__ weight,
            const float* __restrict__ bias, const float* __restrict__ scale,
            const float* __restrict__ shift, float* __restrict__ sums,
            float* __restrict__ d_weight, float* __restrict__ d_bias, float* __restrict__ d_scale,
            float* __restrict__ d_shift, double* partials, unsigned* counters, int nb_rows,
            int nb_channels, int nb_bins, int stride, float eps) {
    UMX_SHARED(memory);
    const Tile tile(memory, nb_rows, nb_bins);
    const int k = tile.column, nb_features = nb_channels * nb_bins;
    for (int c = 0; c < nb_channels; c++) {
        const int f = c * nb_bins + k;
        double sum = 0.0, product = 0.0;
        if (tile.inside) {
            const Output output(mean[f], variance[f], weight[f], bias[f], scale[k], shift[k], eps);
            const float center = mean[f], s = inverse_deviation(variance[f], eps);
            for (int row = tile.first + threadIdx.y; row < tile.stop; row += LANES) {
                const size_t place = (size_t)row * nb_features + f;
                const float value = z[(size_t)row * stride + f];
                const float d_u = output.mask(value) > 0.0f ? d_y[place] * x[place] : 0.0f;
                sum += d_u;
                product += (double)d_u * ((value - center) * s);
            }
        }
        tile.put(sum, partials, f, 2 * nb_features);
        tile.put(product, partials, nb_features + f, 2 * nb_features);
    }
    if (!tile.is_last(counters)) return;
    double scales = 0.0, shifts = 0.0;
    for (int c = 0; c < nb_channels; c++) {
        const int f = c * nb_bins + k;
        const double sum = tile.total(partials, f, 2 * nb_features);
        const double product = tile.total(partials, nb_features + f, 2 * nb_features);
        if (!tile.writes()) continue;
        sums[f] = (float)sum;
        sums[nb_features + f] = (float)product;
        d_weight[f] = (float)(scale[k] * product);
        d_bias[f] = (float)(scale[k] * sum);
        scales += weight[f] * product + bias[f] * sum;
        shifts += sum;
    }
    if (tile.writes()) {
        d_scale[k] = (float)scales;
        d_shift[k] = (float)shifts;
    }
}

/* Computes      d_z = gain (d_u - total / R - x^ product / R), without the sums unless `training`
 * Arguments     d_y, x (R, C, N) IN, z (R, stride) INOUT  in: z, out: d_z
 *               sums (2, C N) IN, the rest as for `decode`
 * Accumulates   =
 * Parallel over tiles of features (x) and pieces of rows (y)
 * Oracle        umx_np.layers.scaling, umx_np.layers.batchnorm.batchnorm_backward
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
decode_backward(const float* __restrict__ d_y, const float* __restrict__ x, float* __restrict__ z,
                const float* __restrict__ mean, const float* __restrict__ variance,
                const float* __restrict__ weight, const float* __restrict__ bias,
                const float* __restrict__ scale, const float* __restrict__ shift,
                const float* __restrict__ sums, int nb_rows, int nb_channels, int nb_bins,
                int stride, float eps, int training) {
    const int column = blockIdx.x * COLUMNS + threadIdx.x, nb_features = nb_channels * nb_bins;
    if (column >= nb_features) return;
    const Output output(mean[column], variance[column], weight[column], bias[column],
                        scale[column % nb_bins], shift[column % nb_bins], eps);
    const float center = mean[column], s = inverse_deviation(variance[column], eps);
    const float a = training ? output.gain * (sums[column] / nb_rows) : 0.0f;
    const float b = training ? output.gain * s * (sums[nb_features + column] / nb_rows) : 0.0f;
    const int first = blockIdx.y * PIECE, stop = minimum(first + PIECE, nb_rows);
    for (int row = first + threadIdx.y; row < stop; row += LANES) {
        const size_t place = (size_t)row * nb_features + column;
        float* value = z + (size_t)row * stride + column;
        const float d_u = output.mask(*value) > 0.0f ? d_y[place] * x[place] : 0.0f;
        *value = output.gain * d_u - a - b * (*value - center);
    }
}
