// Computes      h, c and out of LSTM sequences side by side, one block for each, whose weights stay
//               in its registers and shared memory.
// Arguments     gates    IN     (sequences, nb_frames, 4 HIDDEN), i f g o; input projection and
//                               both biases; the strides of the first two axes are given in floats
//               weights  IN     (sequences, 1, WARPS, SLOTS, 32, VECTOR): see tiling.py
//               h, c     INOUT  (sequences, HIDDEN) state
//               out      OUT    (sequences, nb_frames, HIDDEN); strides as for gates
//               first    first sequence of this launch; arrays start at sequence 0 all the same
//               backward bit s: sequence first + s walks from the last frame to the first
// Aliasing      none
// Accumulates   = (nothing is added to)
// Parallel over grid: sequences of the launch; within, see scan_tile.cuh
// Shared memory SHARED_WEIGHTS floats, 2 H_LENGTH floats
// Precision     float32; every sum in one fixed order, so results repeat to the bit
// Oracle        umx_np.backends.reference.lstm_scan
// Benchmark     benchmarks/gpu/run.py
//
// variants: HIDDEN=64,BLOCKS=1,WARPS=8,UNITS_PER_WARP=8,VECTOR=2,REGISTER_SLOTS=32,PREFETCH=4
#ifndef BLOCKS
#define BLOCKS 1
#endif
#include "scan_tile.cuh"

static_assert(BLOCKS == 1, "nobody to exchange with");

// The barrier of a frame also parts those who read a half, a frame ago, from those who write to it.
struct Exchange {
    float* h_halves;

    __device__ __forceinline__ void start() { __syncthreads(); }
    __device__ __forceinline__ void publish(int half, int, const Owner& owner, float h) {
        if (owner.sibling == 0) h_halves[half * H_LENGTH + owner.unit] = h;
    }
    __device__ __forceinline__ void await(int, int) { __syncthreads(); }
};

extern "C" __global__ void __launch_bounds__(WARPS * 32, 1) scan_resident(
    const float* gates, long long gates_sequence, int gates_frame, const float* weights,
    float* h, float* c, float* out, long long out_sequence, int out_frame, int first,
    int nb_frames, unsigned long long backward) {
    UMX_SHARED(buffer);
    float* shared_weights = reinterpret_cast<float*>(buffer);
    float* h_halves = shared_weights + SHARED_WEIGHTS;
    const Sequence sequence =
        find_sequence(gates, gates_sequence, gates_frame, weights, h, c, out, out_sequence,
                      out_frame, first, nb_frames, backward, 0);
    Exchange exchange = {h_halves};
    scan_sequence(sequence, 0, shared_weights, h_halves, exchange);
}
