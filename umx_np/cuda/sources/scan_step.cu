// Computes      h, c and out of LSTM sequences side by side, one block for each, in the plainest
//               way: the weights are read again in every frame, from whichever cache has them.
//               The fallback on every card, and the kernel to read first.
// Arguments     gates    IN     (sequences, nb_frames, 4 hidden), i f g o; input projection and
//                               both biases; the strides of the first two axes are given in floats
//               weights  IN     (sequences, hidden columns, hidden units) of float4: the gates
//                               i f g o of a unit, so that a warp reads whole lines
//               h, c     INOUT  (sequences, hidden) state
//               out      OUT    (sequences, nb_frames, hidden); strides as for gates
//               first    first sequence of this launch; arrays start at sequence 0 all the same
//               backward bit s: sequence first + s walks from the last frame to the first
// Aliasing      none
// Accumulates   = (nothing is added to)
// Parallel over grid: sequences of the launch; threads of a block: units
// Shared memory 2 * hidden floats
// Precision     float32, sums in the order of the columns, starting at the input; exact repeats
// Oracle        umx_np.layers.lstm.lstm_scan
// Benchmark     benchmarks/gpu/run.py
#include "common.cuh"

// The quotient is 0 where the divisor is beyond 2^126.
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

extern "C" __global__ void __launch_bounds__(512) scan_step(
    const float* gates, long long gates_sequence, int gates_frame, const float4* weights,
    float* h, float* c, float* out, long long out_sequence, int out_frame, int first,
    int nb_frames, unsigned long long backward, int hidden) {
    UMX_SHARED(buffer);
    float* h_old = reinterpret_cast<float*>(buffer);
    float* h_new = h_old + hidden;
    const bool reverse = backward >> blockIdx.x & 1;
    const long long sequence = first + static_cast<int>(blockIdx.x);
    gates += sequence * gates_sequence;
    weights += sequence * hidden * hidden;
    h += sequence * hidden;
    c += sequence * hidden;
    out += sequence * out_sequence;

    for (int unit = threadIdx.x; unit < hidden; unit += blockDim.x) h_old[unit] = h[unit];
    __syncthreads();
    for (int frame = 0; frame < nb_frames; ++frame) {
        const long long t = reverse ? nb_frames - 1 - frame : frame;
        const float* input = gates + t * gates_frame;
        for (int unit = threadIdx.x; unit < hidden; unit += blockDim.x) {
            float4 sum = make_float4(input[unit], input[hidden + unit], input[2 * hidden + unit],
                                     input[3 * hidden + unit]);
#pragma unroll 4
            for (int k = 0; k < hidden; ++k) {
                const float4 w = __ldg(weights + static_cast<long long>(k) * hidden + unit);
                sum.x = fmaf(w.x, h_old[k], sum.x);
                sum.y = fmaf(w.y, h_old[k], sum.y);
                sum.z = fmaf(w.z, h_old[k], sum.z);
                sum.w = fmaf(w.w, h_old[k], sum.w);
            }
            // A unit has the same thread in every frame, so c needs no barrier.
            const float cell =
                fmaf(sigmoid(sum.y), c[unit], sigmoid(sum.x) * tanhf(sum.z));
            c[unit] = cell;
            h_new[unit] = sigmoid(sum.w) * tanhf(cell);
            out[t * out_frame + unit] = h_new[unit];
        }
        // One barrier is enough: it lies between the readers of h_old and its next writers.
        __syncthreads();
        float* swap = h_old;
        h_old = h_new;
        h_new = swap;
    }
    for (int unit = threadIdx.x; unit < hidden; unit += blockDim.x) h[unit] = h_old[unit];
}
