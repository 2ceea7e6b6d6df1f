// What is between two products of the recurrence, for every size and every card, and what the
// persistent scans are compared with: one launch for each frame, after a product of cuBLAS.
#include "common.cuh"

// float, or double to check gradients with.
#ifndef REAL
#define REAL float
#endif
typedef REAL real;

constexpr int GATES = 4;  // in the order i, f, g, o

__device__ __forceinline__ float hyperbolic(float x) { return tanhf(x); }
__device__ __forceinline__ double hyperbolic(double x) { return tanh(x); }
__device__ __forceinline__ float logistic(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }
__device__ __forceinline__ double logistic(double x) { return 1.0 / (1.0 + exp(-x)); }

// The unit of a sample of a sequence that a thread has, and where its frame lies.
struct Place {
    int unit, sample, sequence;
    bool there;
    size_t state;      // of (D, B, H)
    size_t row, first; // of the frame in (T, B); of the sequence in (D, T, B)

    __device__ Place(int step, int nb_frames, int nb_samples, int hidden, bool from_the_end) {
        unit = blockIdx.x * blockDim.x + threadIdx.x;
        sample = blockIdx.y;
        sequence = blockIdx.z;
        there = unit < hidden;
        state = (static_cast<size_t>(sequence) * nb_samples + sample) * hidden + unit;
        row = static_cast<size_t>(from_the_end ? nb_frames - 1 - step : step) * nb_samples + sample;
        first = static_cast<size_t>(sequence) * nb_frames * nb_samples;
    }
};

// Computes      F1 to F4 of docs/lstm_backward.md for one frame
// Arguments     gates, bias, out, cells, h, c, reverse, nb_frames, nb_samples, hidden, out_stride  as
//                 for scan_forward
//               products (D, B, 4H)  IN  h W_hh^T
//               step  0 ... T - 1
// Aliasing      activations replace the pre-activations; nothing else overlaps
// Accumulates   `=`
// Parallel over units, samples, sequences: (ceil(H / 256), B, D) blocks of 256 threads
// Precision     that of the arrays
// Oracle        umx_np.layers.lstm.lstm_forward
// Benchmark     benchmarks/gpu/run.py
extern "C" __global__ void __launch_bounds__(256)
    scan_forward_step(real* gates, const real* products, const real* bias, real* out,
                      real* cells, real* h, real* c, const unsigned char* reverse, int step,
                      int nb_frames, int nb_samples, int hidden, int out_stride) {
    const Place place(step, nb_frames, nb_samples, hidden, reverse[blockIdx.z] != 0);
    if (!place.there) return;
    const size_t at = place.first + place.row;
    real* a = gates + at * GATES * hidden + place.unit;
    products += (place.state - place.unit) * GATES + place.unit;
    real x[GATES];
    for (int gate = 0; gate < GATES; ++gate) {
        x[gate] = a[gate * hidden] + products[gate * hidden];
        if (bias) x[gate] += bias[(place.sequence * GATES + gate) * hidden + place.unit];  // F1
    }
    const real i = logistic(x[0]), f = logistic(x[1]), g = hyperbolic(x[2]), o = logistic(x[3]);
    const real cell = f * c[place.state] + i * g;  // F2, F3
    const real made = o * hyperbolic(cell);                 // F4
    c[place.state] = cell;
    h[place.state] = made;
    out[place.row * out_stride + place.sequence * hidden + place.unit] = made;
    if (cells) {
        cells[at * hidden + place.unit] = cell;
        a[0] = i;
        a[hidden] = f;
        a[2 * hidden] = g;
        a[3 * hidden] = o;
    }
}

// Computes      B1 to B6 of docs/lstm_backward.md for one frame; step 0 is the last frame that the
//               forward pass walked through
// Arguments     gates, cells, d_out, reverse, nb_frames, nb_samples, hidden, out_stride  as for
//                 scan_backward
//               d_h (D, B, H)  IN  gradient of h by way of the frame after: d_gates W_hh
//               d_c (D, B, H)  INOUT  the same of c
//               d_gates (D, B, 4H)  OUT  of this frame, for the next product
// Aliasing      gradients replace the activations; nothing else overlaps
// Accumulates   `=`; gradients of parameters are products over the whole sequence, done elsewhere
// Parallel over as forward
// Precision     that of the arrays
// Oracle        umx_np.layers.lstm.lstm_backward
// Benchmark     benchmarks/gpu/run.py
extern "C" __global__ void __launch_bounds__(256)
    scan_backward_step(real* gates, const real* cells, const real* d_out, const real* d_h,
                       real* d_c, real* d_gates, const unsigned char* reverse, int step,
                       int nb_frames, int nb_samples, int hidden, int out_stride) {
    const bool from_the_end = reverse[blockIdx.z] == 0;
    const Place place(step, nb_frames, nb_samples, hidden, from_the_end);
    if (!place.there) return;
    const size_t at = place.first + place.row;
    real* a = gates + at * GATES * hidden + place.unit;
    const real i = a[0], f = a[hidden], g = a[2 * hidden], o = a[3 * hidden];
    real c_before = real(0);
    if (step + 1 < nb_frames) {
        const Place before(step + 1, nb_frames, nb_samples, hidden, from_the_end);
        c_before = cells[(before.first + before.row) * hidden + place.unit];
    }
    const real d = d_out[place.row * out_stride + place.sequence * hidden + place.unit] +
                    d_h[place.state];  // B1
    const real tanh_c = hyperbolic(cells[at * hidden + place.unit]);
    const real d_cell = d_c[place.state] + d * o * (real(1) - tanh_c * tanh_c);  // B3
    d_c[place.state] = d_cell * f;                                             // B5
    const real made[GATES] = {d_cell * g * i * (real(1) - i),                    // B2, B4, B6
                               d_cell * c_before * f * (real(1) - f),
                               d_cell * i * (real(1) - g * g), d * tanh_c * o * (real(1) - o)};
    for (int gate = 0; gate < GATES; ++gate) {
        a[gate * hidden] = made[gate];
        d_gates[(place.state - place.unit) * GATES + gate * hidden + place.unit] = made[gate];
    }
}
