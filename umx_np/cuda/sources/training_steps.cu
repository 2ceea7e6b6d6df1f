// Training: biases, dropout, loss, gradients, and the level of batches.
//
// Every kernel: Precision float32, sums float64. Benchmark: benchmarks/gpu/run.py
#include "column_sums.cuh"

// -- recurrent layers --------------------------------------------------------------------------

/* Computes      d_bias[s] = sum over rows of d_gates[s], for both biases
 * Arguments     d_gates (S, R, G) IN
 *               d_bias_ih, d_bias_hh (G) OUT of the first direction, the others `distance` apart
 *               partials (pieces, S G) scratch, counters (S tiles) zero
 * Accumulates   =
 * Parallel over tiles of gates (x), pieces of rows (y), directions (z)
 * Oracle        umx_np.layers.lstm.lstm_backward, B8
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
bias_gradients(const float* __restrict__ d_gates, float* __restrict__ d_bias_ih,
               float* __restrict__ d_bias_hh, double* partials, unsigned* counters, int nb_rows,
               int nb_gates, long long distance) {
    UMX_SHARED(memory);
    const Tile tile(memory, nb_rows, nb_gates);
    const int s = blockIdx.z, index = s * nb_gates + tile.column, nb_sums = gridDim.z * nb_gates;
    double sum = 0.0;
    if (tile.inside)
        for (int row = tile.first + threadIdx.y; row < tile.stop; row += LANES)
            sum += d_gates[((size_t)s * nb_rows + row) * nb_gates + tile.column];
    tile.put(sum, partials, index, nb_sums);
    if (!tile.is_last(counters)) return;
    sum = tile.total(partials, index, nb_sums);
    if (tile.writes()) {
        d_bias_ih[s * distance + tile.column] = (float)sum;
        d_bias_hh[s * distance + tile.column] = (float)sum;
    }
}

// One block of Philox 4x32 with 10 rounds, by Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", 2011: four numbers that are a function of a counter and a key.
struct Philox {
    unsigned words[4];

    __device__ Philox(u64 counter, unsigned stream, u64 key) {
        unsigned low = (unsigned)key, high = (unsigned)(key >> 32);
        words[0] = (unsigned)counter;
        words[1] = (unsigned)(counter >> 32);
        words[2] = stream;
        words[3] = 0;
#pragma unroll
        for (int round = 0; round < 10; round++) {
            const u64 first = (u64)0xD2511F53u * words[0], second = (u64)0xCD9E8D57u * words[2];
            const unsigned a = (unsigned)(second >> 32) ^ words[1] ^ low;
            const unsigned c = (unsigned)(first >> 32) ^ words[3] ^ high;
            words[0] = a;
            words[1] = (unsigned)second;
            words[2] = c;
            words[3] = (unsigned)first;
            low += 0x9E3779B9u;
            high += 0xBB67AE85u;
        }
    }
};

/* Computes      out[i] = x[i] scale where the random number of i is at least `threshold`, else 0
 * Arguments     x (n) IN, out (n) OUT;  stream tells the layers of a key apart
 * Aliasing      out may be x
 * Accumulates   =
 * Parallel over elements, four of them a thread, a quarter of the array apart
 * Oracle        umx_np.layers.dropout.dropout_forward, dropout_backward; the mask depends on key,
 *               stream and n alone, and none is stored: the backward pass draws it again
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
dropout(const float* x, float* out, long long count, u64 key, unsigned stream, unsigned threshold,
        float scale) {
    const long long i = (long long)blockIdx.x * THREADS + threadIdx.x, quarter = (count + 3) / 4;
    if (i >= quarter) return;
    const Philox random(i, stream, key);
#pragma unroll
    for (int part = 0; part < 4; part++) {
        const long long place = i + part * quarter;
        if (place < count) out[place] = random.words[part] >= threshold ? x[place] * scale : 0.0f;
    }
}

// -- loss and gradients ------------------------------------------------------------------------

// Rows of a piece of an excerpt.
#define EXCERPT_ROWS 4

// A sum of squares of float32 as such a number: infinite where it would be.
__device__ __forceinline__ double single(double value) {
    const float rounded = (float)value;
    return rounded - rounded == 0.0f ? value : rounded;
}

// Factor of gradients that come from a number: 1 if it is finite, else NaN.
__device__ __forceinline__ float go_on(double value) { return (float)(1.0 + (value - value)); }

/* Computes      loss = sum (y - target)^2 / n,  d_y = 2 (y - target) / n
 * Arguments     y, target (n) IN, d_y (n) OUT or null
 *               loss (1) OUT float64;  go (1) OUT 1 if the loss is a number, else NaN
 *               partials (blocks) scratch, counter (1) zero
 * Aliasing      d_y may be y
 * Accumulates   =
 * Parallel over elements
 * Oracle        umx_np.nn.loss.mse_loss
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
squared_error(const float* y, const float* __restrict__ target, float* d_y, double* loss, float* go,
              double* partials, unsigned* counter, long long count) {
    UMX_SHARED(memory);
    const Strip strip(memory);
    const float factor = (float)(2.0 / count);
    const long long first = (long long)blockIdx.x * FLAT_PIECE;
    double sum = 0.0;
    for (int i = threadIdx.x; i < FLAT_PIECE && first + i < count; i += THREADS) {
        const float difference = y[first + i] - target[first + i];
        sum += (double)difference * difference;
        if (d_y) d_y[first + i] = difference * factor;
    }
    strip.put(sum, partials);
    if (!strip.is_last(counter)) return;
    sum = single(strip.total(partials) / count);
    if (threadIdx.x == 0) {
        *loss = sum;
        *go = go_on(sum);
    }
}

/* Computes      for each excerpt the means of (y - target)^2 and of mixture^2. Excerpt e has the rows
 *               e excerpt_stride + j row_stride, j < nb_rows, that are less than `limit`.
 * Arguments     y, target, mixture (rows, F) IN, errors, energies (E) OUT float64
 *               partials (pieces, 2, E) scratch, counters (E) zero
 * Accumulates   =
 * Parallel over pieces of EXCERPT_ROWS rows (x) and excerpts (y)
 * Oracle        umx_np.nn.loss.log_mse_loss
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
excerpt_errors(const float* __restrict__ y, const float* __restrict__ target,
               const float* __restrict__ mixture, double* errors, double* energies,
               double* partials, unsigned* counters, int nb_rows, int row_stride,
               int excerpt_stride, int limit, int nb_features) {
    UMX_SHARED(memory);
    const Strip strip(memory);
    const int excerpt = blockIdx.y, start = excerpt * excerpt_stride;
    const int there = minimum(nb_rows, (limit - start + row_stride - 1) / row_stride);
    const int first = blockIdx.x * EXCERPT_ROWS, stop = minimum(first + EXCERPT_ROWS, there);
    double error = 0.0, energy = 0.0;
    for (int j = first; j < stop; j++) {
        const size_t row = (size_t)(start + j * row_stride) * nb_features;
        for (int f = threadIdx.x; f < nb_features; f += THREADS) {
            const float difference = y[row + f] - target[row + f], loud = mixture[row + f];
            error += (double)difference * difference;
            energy += (double)loud * loud;
        }
    }
    double* own = partials + (size_t)excerpt * 2 * gridDim.x;
    strip.put(error, own);
    strip.put(energy, own + gridDim.x);
    if (!strip.is_last(counters + excerpt)) return;
    error = strip.total(own);
    energy = strip.total(own + gridDim.x);
    if (threadIdx.x == 0) {
        const double size = (double)there * nb_features;
        errors[excerpt] = single(error / size);
        energies[excerpt] = single(energy / size);
    }
}

/* Computes      loss = mean over the excerpts of 10 log10(error / energy + small), where an energy of 0
 *               makes the quotient 0;  d_y = its gradient
 * Arguments     y, target (T, E, F) IN, errors, energies (E) IN, d_y (T, E, F) OUT
 *               loss (1) OUT float64, go (1) OUT as for squared_error
 * Aliasing      d_y may be y
 * Accumulates   =
 * Parallel over pieces of EXCERPT_ROWS frames (x) and excerpts (y)
 * Oracle        umx_np.nn.loss.log_mse_loss
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
log_error_gradient(const float* y, const float* __restrict__ target,
                   const double* __restrict__ errors, const double* __restrict__ energies,
                   float* d_y, double* loss, float* go, int nb_frames, int nb_excerpts,
                   int nb_features, double small) {
    const int excerpt = blockIdx.y;
    const double energy = energies[excerpt], ten = 2.302585092994046;
    const double slope = 20.0 / ten / ((double)nb_excerpts * nb_frames * nb_features);
    const float factor = energy > 0.0 ? (float)(slope / (errors[excerpt] + small * energy)) : 0.0f;
    const int first = blockIdx.x * EXCERPT_ROWS, stop = minimum(first + EXCERPT_ROWS, nb_frames);
    for (int t = first; t < stop; t++) {
        const size_t row = ((size_t)t * nb_excerpts + excerpt) * nb_features;
        for (int f = threadIdx.x; f < nb_features; f += THREADS)
            d_y[row + f] = (y[row + f] - target[row + f]) * factor;
    }
    if (blockIdx.x || blockIdx.y || threadIdx.x) return;
    double sum = 0.0;
    for (int e = 0; e < nb_excerpts; e++)
        sum += log10((energies[e] > 0.0 ? errors[e] / energies[e] : 0.0) + small);
    sum *= 10.0 / nb_excerpts;
    *loss = sum;
    *go = go_on(sum);
}

/* Computes      norm of before x, and go = before min(1, max_norm / (norm + 1e-6)): what to multiply
 *               x with so that its norm is at most max_norm; NaN if the norm is no finite number
 * Arguments     x (n) IN, before (1) IN or null for 1, norm (1) OUT float64, go (1) OUT
 *               partials (blocks) scratch, counter (1) zero
 * Aliasing      go may be before
 * Accumulates   =
 * Parallel over elements
 * Oracle        umx_np.optim.clip_grad_norm
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
gradient_norm(const float* __restrict__ x, const float* before, double* norm, float* go,
              double* partials, unsigned* counter, long long count, double max_norm) {
    UMX_SHARED(memory);
    const Strip strip(memory);
    const long long first = (long long)blockIdx.x * FLAT_PIECE;
    double sum = 0.0;
    for (int i = threadIdx.x; i < FLAT_PIECE && first + i < count; i += THREADS)
        sum += (double)x[first + i] * x[first + i];
    strip.put(sum, partials);
    if (!strip.is_last(counter)) return;
    sum = single(strip.total(partials));
    if (threadIdx.x == 0) {
        const double factor = before ? *before : 1.0f;
        const double length = sqrt(sum) * factor, share = max_norm / (length + 1e-6);
        *norm = length;
        *go = go_on(length) * (float)(factor * (share < 1.0 ? share : 1.0));
    }
}

// -- data --------------------------------------------------------------------------------------

/* Computes      factors[b] = levels[b] / sqrt(mean of x[b]^2), or 1 where the mean square is faint
 * Arguments     x (B, n) IN, levels (B) IN  root mean squares to reach;  factors (B) OUT
 *               partials (pieces, B) scratch, counters (B) zero
 * Accumulates   =
 * Parallel over elements (x) and items (y)
 * Oracle        umx_np.data.trackfolder.FixedSourcesTrackFolderDataset.sample
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
level_factors(const float* __restrict__ x, const double* __restrict__ levels,
              float* __restrict__ factors, double* partials, unsigned* counters, long long count,
              double faint) {
    UMX_SHARED(memory);
    const Strip strip(memory);
    const int item = blockIdx.y;
    const long long first = (long long)blockIdx.x * FLAT_PIECE;
    double sum = 0.0;
    for (int i = threadIdx.x; i < FLAT_PIECE && first + i < count; i += THREADS) {
        const double value = x[item * count + first + i];
        sum += value * value;
    }
    double* own = partials + (size_t)item * gridDim.x;
    strip.put(sum, own);
    if (!strip.is_last(counters + item)) return;
    const double power = strip.total(own) / count;
    if (threadIdx.x == 0) {
        factors[item] = power > faint ? (float)(levels[item] / sqrt(power)) : 1.0f;
    }
}
