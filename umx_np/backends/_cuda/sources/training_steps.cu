// Training: biases, dropout, loss, gradients, and what is done to batches.
//
// Every kernel: Precision float32, sums float64. Benchmark: benchmarks/gpu/run.py
#include "column_sums.cuh"

// -- recurrent layers --------------------------------------------------------------------------

/* Computes      out[s] = bias_ih + bias_hh of sequence s, a direction of a layer
 * Arguments     bias_ih, bias_hh (G) IN of the first sequence, those of the others `distance` apart
 *               out (S, G) OUT
 * Accumulates   =
 * Parallel over gates (x) and sequences (y)
 * Oracle        umx_np.nn.lstm.lstm_forward
 */
extern "C" __global__ void __launch_bounds__(THREADS)
add_biases(const float* __restrict__ bias_ih, const float* __restrict__ bias_hh,
           float* __restrict__ out, int nb_gates, long long distance) {
    const int j = blockIdx.x * THREADS + threadIdx.x, s = blockIdx.y;
    if (j < nb_gates) out[s * nb_gates + j] = bias_ih[s * distance + j] + bias_hh[s * distance + j];
}

/* Computes      d_bias[s] = sum over rows of d_gates[s], for both biases
 * Arguments     d_gates (S, R, G) IN
 *               d_bias_ih, d_bias_hh (G) OUT of the first direction, the others `distance` apart
 *               partials (pieces, S G) scratch, counters (S tiles) zero
 * Accumulates   =
 * Parallel over tiles of gates (x), pieces of rows (y), directions (z)
 * Oracle        umx_np.nn.lstm.lstm_backward, B8
 */
extern "C" __global__ void __launch_bounds__(THREADS)
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
 * Oracle        umx_np.nn.dropout.dropout_forward, dropout_backward; the mask depends on key,
 *               stream and n alone, and none is stored: the backward pass draws it again
 */
extern "C" __global__ void __launch_bounds__(THREADS)
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

/* Computes      out[r, f] = x[r, f] mask[f, r]
 * Arguments     x (R, F) IN, mask (F, R) IN, out (R, F) OUT
 * Aliasing      out may be x
 * Accumulates   =
 * Parallel over features (x) and rows (y, in strides)
 * Oracle        umx_np.nn.dropout.dropout_forward, dropout_backward
 */
extern "C" __global__ void __launch_bounds__(THREADS)
apply_mask(const float* x, const float* __restrict__ mask, float* out, int nb_rows,
           int nb_features) {
    const int f = blockIdx.x * THREADS + threadIdx.x;
    if (f >= nb_features) return;
    for (int row = blockIdx.y; row < nb_rows; row += gridDim.y) {
        const size_t place = (size_t)row * nb_features + f;
        out[place] = x[place] * mask[(size_t)f * nb_rows + row];
    }
}

// -- loss and gradients ------------------------------------------------------------------------

/* Computes      loss = sum (y - target)^2 / n,  d_y = 2 (y - target) / n
 * Arguments     y, target (n) IN, d_y (n) OUT or null
 *               loss (1) OUT float64;  go (1) OUT or null: 1 if the loss is a number, else NaN
 *               partials (blocks) scratch, counter (1) zero
 * Aliasing      d_y may be y
 * Accumulates   =
 * Parallel over elements
 * Oracle        umx_np.nn.loss.mse_loss
 */
extern "C" __global__ void __launch_bounds__(THREADS)
squared_error(const float* y, const float* __restrict__ target, float* d_y, double* loss, float* go,
              double* partials, unsigned* counter, long long count) {
    UMX_SHARED(memory);
    const float factor = (float)(2.0 / count);
    const long long first = (long long)blockIdx.x * FLAT_PIECE;
    double sum = 0.0;
    for (int i = threadIdx.x; i < FLAT_PIECE && first + i < count; i += THREADS) {
        const float difference = y[first + i] - target[first + i];
        sum += (double)difference * difference;
        if (d_y) d_y[first + i] = difference * factor;
    }
    bool last;
    sum = sum_of_grid(sum, partials, counter, memory, last) / count;
    if (last && threadIdx.x == 0) {
        *loss = sum;
        if (go) *go = is_finite(sum) ? 1.0f : sum - sum;
    }
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
extern "C" __global__ void __launch_bounds__(THREADS)
gradient_norm(const float* __restrict__ x, const float* before, double* norm, float* go,
              double* partials, unsigned* counter, long long count, double max_norm) {
    UMX_SHARED(memory);
    const long long first = (long long)blockIdx.x * FLAT_PIECE;
    double sum = 0.0;
    for (int i = threadIdx.x; i < FLAT_PIECE && first + i < count; i += THREADS)
        sum += (double)x[first + i] * x[first + i];
    bool last;
    sum = sum_of_grid(sum, partials, counter, memory, last);
    if (last && threadIdx.x == 0) {
        const double factor = before ? *before : 1.0f;
        const double length = sqrt(sum) * factor, share = max_norm / (length + 1e-6);
        *norm = length;
        *go = is_finite(length) ? (float)(factor * (share < 1.0 ? share : 1.0))
                                : (float)(length - length);
    }
}

// -- data --------------------------------------------------------------------------------------

/* Computes      out[r] = mean over c of x[r, c]
 * Arguments     x (R, C, N) IN, out (R, N) OUT
 * Accumulates   =
 * Parallel over bins (x) and rows (y, in strides)
 * Oracle        numpy.mean(x, axis=1)
 */
extern "C" __global__ void __launch_bounds__(THREADS)
mean_of_channels(const float* __restrict__ x, float* __restrict__ out, int nb_rows,
                 int nb_channels, int nb_bins) {
    const int k = blockIdx.x * THREADS + threadIdx.x;
    if (k >= nb_bins) return;
    for (int row = blockIdx.y; row < nb_rows; row += gridDim.y) {
        float sum = 0.0f;
        for (int c = 0; c < nb_channels; c++)
            sum += x[((size_t)row * nb_channels + c) * nb_bins + k];
        out[(size_t)row * nb_bins + k] = sum / nb_channels;
    }
}

/* Computes      factors[b] = levels[b] / sqrt(mean of x[b]^2), or 1 where the mean square is faint
 * Arguments     x (B, n) IN, levels (B) IN  root mean squares to reach;  factors (B) OUT
 *               partials (pieces, B) scratch, counters (B) zero
 * Accumulates   =
 * Parallel over elements (x) and items (y)
 * Oracle        umx_np.data.trackfolder.FixedSourcesTrackFolderDataset.sample
 */
extern "C" __global__ void __launch_bounds__(THREADS)
level_factors(const float* __restrict__ x, const double* __restrict__ levels,
              float* __restrict__ factors, double* partials, unsigned* counters, long long count,
              double faint) {
    UMX_SHARED(memory);
    const int item = blockIdx.y;
    const long long first = (long long)blockIdx.x * FLAT_PIECE;
    double sum = 0.0;
    for (int i = threadIdx.x; i < FLAT_PIECE && first + i < count; i += THREADS) {
        const double value = x[item * count + first + i];
        sum += value * value;
    }
    bool last;
    sum = sum_of_grid(sum, partials + (size_t)item * gridDim.x, counters + item, memory, last);
    if (last && threadIdx.x == 0) {
        const double power = sum / count;
        factors[item] = power > faint ? (float)(levels[item] / sqrt(power)) : 1.0f;
    }
}

/* Computes      x[b] *= factors[b],  y[b] *= factors[b]
 * Arguments     x, y (B, n) INOUT, factors (B) IN
 * Parallel over elements (x) and items (y)
 * Oracle        umx_np.data.trackfolder.FixedSourcesTrackFolderDataset.sample
 */
extern "C" __global__ void __launch_bounds__(THREADS)
scale_items(float* __restrict__ x, float* __restrict__ y, const float* __restrict__ factors,
            long long count) {
    const float factor = factors[blockIdx.y];
    const long long first = blockIdx.y * count + (long long)blockIdx.x * FLAT_PIECE;
    const long long stop = (blockIdx.y + 1LL) * count;
    for (int i = threadIdx.x; i < FLAT_PIECE && first + i < stop; i += THREADS) {
        x[first + i] *= factor;
        y[first + i] *= factor;
    }
}
