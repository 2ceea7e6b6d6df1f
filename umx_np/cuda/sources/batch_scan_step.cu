// The recurrent scans of training, one launch for each frame: for every size and every card, and
// what the persistent scan (batch_scan_cooperative.cu) is compared with.
//
// The launches of a stream follow each other, so that blocks need not wait for blocks. W_hh is read
// again in every frame; the second-level cache holds it.
//
// A block computes a tile of units and samples: a product over the hidden units, in stretches of
// DEPTH that pass through shared memory, and then the states of the tile.
#include "common.cuh"

// float, or double to check gradients with.
#ifndef REAL
#define REAL float
#endif
typedef REAL real;

constexpr int GATES = 4;  // in the order i, f, g, o
constexpr int UNITS = 8;
constexpr int SAMPLES = 16;
constexpr int THREADS = 256;
constexpr int TILE = UNITS * SAMPLES;

__device__ __forceinline__ float hyperbolic(float x) { return tanhf(x); }
__device__ __forceinline__ double hyperbolic(double x) { return tanh(x); }
__device__ __forceinline__ real logistic(real x) {
    return real(0.5) * (real(1) + hyperbolic(real(0.5) * x));
}

// Frame of a step of a walk from the first frame to the last, or from the last to the first.
__device__ __forceinline__ int frame(int step, int nb_frames, bool from_the_end) {
    return from_the_end ? nb_frames - 1 - step : step;
}

// Forward: each thread has a row (a gate of a unit) and two samples.
constexpr int FORWARD_ROWS = GATES * UNITS;
constexpr int FORWARD_DEPTH = 32;
constexpr int ROW = FORWARD_DEPTH + 1;  // threads with neighbouring rows meet in no bank
static_assert(FORWARD_ROWS * SAMPLES == 2 * THREADS, "two samples for each thread");

// Computes      F1 to F4 of docs/lstm_backward.md for one frame
// Arguments     gates (D, T, B, 4H) INOUT  in: pre-activations i, f, g, o without the recurrent
//                 part; out, where there are cells: activations
//               weight_hh  D times (4H, H), `weight_stride` elements apart  IN
//               bias  (D, 4H), or null  IN  added to the pre-activations
//               out   (T, B) rows of `out_stride` elements  INOUT  h of direction d from column
//                 d H; of this step OUT, of the step before IN
//               cells (D, T, B, H), or null  OUT  c of the frame
//               state (D, B, H)  INOUT  c; not read in step 0
//               step  0 ... T - 1; direction 1 walks through time backward
//               nb_frames, nb_samples, hidden  T, B, H
// Aliasing      activations replace the pre-activations; nothing else overlaps
// Accumulates   `=`
// Parallel over units, samples, directions: (ceil(H / 8), ceil(B / 16), D) blocks of 256 threads
// Precision     that of the arrays
// Oracle        umx_np.layers.lstm.lstm_forward
// Benchmark     benchmarks/gpu/run.py
extern "C" __global__ void __launch_bounds__(256)
    batch_scan_forward_step(real* gates, const real* weight_hh, const real* bias, real* out,
                            real* cells, real* state, int step, int nb_frames, int nb_samples,
                            int hidden, int out_stride, long long weight_stride) {
    UMX_SHARED(buffer);
    real* weights = reinterpret_cast<real*>(buffer);  // (rows, depth), later sums (rows, samples)
    real* h = weights + FORWARD_ROWS * ROW;           // (depth, samples)

    const int direction = blockIdx.z;
    const int first_unit = blockIdx.x * UNITS, first_sample = blockIdx.y * SAMPLES;
    const int t = frame(step, nb_frames, direction == 1);
    const int row = threadIdx.x % FORWARD_ROWS, pair = threadIdx.x / FORWARD_ROWS * 2;
    weight_hh += direction * weight_stride;
    out += direction * hidden;

    real sums[2] = {};
    if (step > 0) {  // h before the first frame is zero
        const real* h_before =
            out + static_cast<size_t>(frame(step - 1, nb_frames, direction == 1)) * nb_samples *
                      out_stride;
        for (int depth = 0; depth < hidden; depth += FORWARD_DEPTH) {
            for (int i = threadIdx.x; i < FORWARD_ROWS * FORWARD_DEPTH; i += THREADS) {
                const int r = i / FORWARD_DEPTH, k = i % FORWARD_DEPTH;
                const int gate = r / UNITS, unit = first_unit + r % UNITS;
                const size_t at = (static_cast<size_t>(gate) * hidden + unit) * hidden + depth + k;
                const bool there = unit < hidden && depth + k < hidden;
                weights[r * ROW + k] = there ? __ldg(weight_hh + at) : real(0);
            }
            for (int i = threadIdx.x; i < SAMPLES * FORWARD_DEPTH; i += THREADS) {
                const int n = i / FORWARD_DEPTH, k = i % FORWARD_DEPTH;
                const size_t at = static_cast<size_t>(first_sample + n) * out_stride + depth + k;
                const bool there = first_sample + n < nb_samples && depth + k < hidden;
                h[k * SAMPLES + n] = there ? h_before[at] : real(0);
            }
            __syncthreads();
#pragma unroll 8
            for (int k = 0; k < FORWARD_DEPTH; ++k) {
                const real w = weights[row * ROW + k];
                sums[0] += w * h[k * SAMPLES + pair];
                sums[1] += w * h[k * SAMPLES + pair + 1];
            }
            __syncthreads();  // before the next stretch, or the sums, take their places
        }
    }
    weights[row * SAMPLES + pair] = sums[0];
    weights[row * SAMPLES + pair + 1] = sums[1];
    __syncthreads();

    const int unit = first_unit + threadIdx.x % UNITS;
    const int n = threadIdx.x / UNITS, sample = first_sample + n;
    if (threadIdx.x >= TILE || unit >= hidden || sample >= nb_samples) return;
    const size_t at = (static_cast<size_t>(direction) * nb_frames + t) * nb_samples + sample;
    real* a = gates + at * GATES * hidden + unit;
    real x[GATES];
    for (int gate = 0; gate < GATES; ++gate) {
        x[gate] = a[gate * hidden] + weights[(gate * UNITS + threadIdx.x % UNITS) * SAMPLES + n];
        if (bias) x[gate] += bias[(direction * GATES + gate) * hidden + unit];  // F1
    }
    const real i = logistic(x[0]), f = logistic(x[1]), g = hyperbolic(x[2]), o = logistic(x[3]);
    real* c = state + (static_cast<size_t>(direction) * nb_samples + sample) * hidden + unit;
    const real cell = i * g + (step > 0 ? f * *c : real(0));  // F2, F3
    *c = cell;
    out[(static_cast<size_t>(t) * nb_samples + sample) * out_stride + unit] =
        o * hyperbolic(cell);  // F4
    if (cells) {
        cells[at * hidden + unit] = cell;
        a[0] = i;
        a[hidden] = f;
        a[2 * hidden] = g;
        a[3 * hidden] = o;
    }
}

// Backward: each thread has a unit, a sample and one of the parts of the depth.
constexpr int BACKWARD_DEPTH = 64;
constexpr int BACKWARD_PARTS = THREADS / TILE;
constexpr int COLUMN = BACKWARD_DEPTH + 1;
static_assert(THREADS % TILE == 0 && BACKWARD_DEPTH % BACKWARD_PARTS == 0, "parts of one size");

// Computes      B1 to B7 of docs/lstm_backward.md for one frame; step 0 is the last frame that the
//               forward pass walked through
// Arguments     gates (D, T, B, 4H) INOUT  of this step in: activations, out: gradients of the
//                 pre-activations; of the step before IN gradients
//               weight_hh, weight_stride  as forward
//               cells (D, T, B, H)  IN
//               d_out (T, B) rows of `out_stride` elements  IN  gradient of h, from column d H
//               state (D, B, H)  INOUT  what the step before asks of c; not read in step 0
//               step, nb_frames, nb_samples, hidden  as forward
// Aliasing      gradients replace the activations; nothing else overlaps
// Accumulates   `=`; gradients of parameters are products over the whole sequence, done elsewhere
// Parallel over as forward
// Precision     that of the arrays
// Oracle        umx_np.layers.lstm.lstm_backward
// Benchmark     benchmarks/gpu/run.py
extern "C" __global__ void __launch_bounds__(256)
    batch_scan_backward_step(real* gates, const real* weight_hh, const real* cells,
                             const real* d_out, real* state, int step, int nb_frames,
                             int nb_samples, int hidden, int out_stride, long long weight_stride) {
    UMX_SHARED(buffer);
    real* weights = reinterpret_cast<real*>(buffer);   // (depth, units), later sums of the parts
    real* d_gates = weights + BACKWARD_DEPTH * UNITS;  // (samples, depth)

    const int direction = blockIdx.z;
    const int first_unit = blockIdx.x * UNITS, first_sample = blockIdx.y * SAMPLES;
    const int part = threadIdx.x / TILE, item = threadIdx.x % TILE;
    const int unit = first_unit + item % UNITS, n = item / UNITS, sample = first_sample + n;
    const size_t first_row = static_cast<size_t>(direction) * nb_frames * nb_samples;
    weight_hh += direction * weight_stride;

    real sum = 0;
    if (step > 0) {
        const int after = frame(step - 1, nb_frames, direction == 0);
        const real* d_after =
            gates + (first_row + static_cast<size_t>(after) * nb_samples) * GATES * hidden;
        for (int depth = 0; depth < GATES * hidden; depth += BACKWARD_DEPTH) {
            for (int i = threadIdx.x; i < BACKWARD_DEPTH * UNITS; i += THREADS) {
                const int row = depth + i / UNITS, column = first_unit + i % UNITS;
                const size_t at = static_cast<size_t>(row) * hidden + column;
                const bool there = row < GATES * hidden && column < hidden;
                weights[i] = there ? __ldg(weight_hh + at) : real(0);
            }
            for (int i = threadIdx.x; i < SAMPLES * BACKWARD_DEPTH; i += THREADS) {
                const int m = i / BACKWARD_DEPTH, k = i % BACKWARD_DEPTH;
                const int row = first_sample + m;
                const size_t at = static_cast<size_t>(row) * GATES * hidden + depth + k;
                const bool there = row < nb_samples && depth + k < GATES * hidden;
                d_gates[m * COLUMN + k] = there ? d_after[at] : real(0);
            }
            __syncthreads();
#pragma unroll 8
            for (int i = 0; i < BACKWARD_DEPTH / BACKWARD_PARTS; ++i) {
                const int k = part * (BACKWARD_DEPTH / BACKWARD_PARTS) + i;
                sum += weights[k * UNITS + item % UNITS] * d_gates[n * COLUMN + k];  // B7
            }
            __syncthreads();
        }
    }
    weights[threadIdx.x] = sum;
    __syncthreads();

    if (part > 0 || unit >= hidden || sample >= nb_samples) return;
    const int t = frame(step, nb_frames, direction == 0);
    const size_t row = static_cast<size_t>(t) * nb_samples + sample;
    real d_h = d_out[row * out_stride + direction * hidden + unit];
    for (int p = 0; p < BACKWARD_PARTS; ++p) d_h += weights[p * TILE + item];  // B1
    real* a = gates + (first_row + row) * GATES * hidden + unit;
    const real i = a[0], f = a[hidden], g = a[2 * hidden], o = a[3 * hidden];
    real c_before = 0;
    if (step + 1 < nb_frames) {
        const size_t before =
            static_cast<size_t>(frame(step + 1, nb_frames, direction == 0)) * nb_samples + sample;
        c_before = cells[(first_row + before) * hidden + unit];
    }
    const real tanh_c = hyperbolic(cells[(first_row + row) * hidden + unit]);
    real* asked = state + (static_cast<size_t>(direction) * nb_samples + sample) * hidden + unit;
    const real d_c =
        d_h * o * (real(1) - tanh_c * tanh_c) + (step > 0 ? *asked : real(0));  // B3
    *asked = d_c * f;                                                            // B5
    a[0] = d_c * g * i * (real(1) - i);                                          // B4, B6
    a[hidden] = d_c * c_before * f * (real(1) - f);
    a[2 * hidden] = d_c * i * (real(1) - g * g);
    a[3 * hidden] = d_h * tanh_c * o * (real(1) - o);  // B2, B6
}
