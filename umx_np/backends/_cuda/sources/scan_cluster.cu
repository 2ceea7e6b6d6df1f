// Computes      h, c and out of LSTM sequences side by side, a cluster of BLOCKS blocks for each.
// Arguments     gates    IN     (sequences, nb_frames, 4 HIDDEN), i f g o; input projection and
//                               both biases; the strides of the first two axes are given in floats
//               weights  IN     (sequences, BLOCKS, WARPS, SLOTS, 32, VECTOR): see tiling.py
//               h, c     INOUT  (sequences, HIDDEN) state
//               out      OUT    (sequences, nb_frames, HIDDEN); strides as for gates
//               first    first sequence of this launch; arrays start at sequence 0 all the same
//               backward bit s: sequence first + s walks from the last frame to the first
// Aliasing      none
// Accumulates   = (nothing is added to)
// Parallel over grid: sequences of the launch x BLOCKS; within, see scan_tile.cuh
// Shared memory SHARED_WEIGHTS floats, 2 H_LENGTH floats, 2 barriers of 8 bytes
// Precision     float32; every sum in one fixed order, so results repeat to the bit
// Oracle        umx_np.backends.reference.lstm_scan
// Benchmark     benchmarks/gpu/run.py
//
// variants: HIDDEN=128,BLOCKS=8,WARPS=4,UNITS_PER_WARP=4,VECTOR=4,REGISTER_SLOTS=16,PREFETCH=4,EXCHANGE=0
// variants: HIDDEN=256,BLOCKS=8,WARPS=8,UNITS_PER_WARP=4,VECTOR=4,REGISTER_SLOTS=32,PREFETCH=4,EXCHANGE=0
// variants: HIDDEN=256,BLOCKS=8,WARPS=8,UNITS_PER_WARP=4,VECTOR=4,REGISTER_SLOTS=32,PREFETCH=4,EXCHANGE=1
// variants: HIDDEN=256,BLOCKS=8,WARPS=16,UNITS_PER_WARP=2,VECTOR=4,REGISTER_SLOTS=16,PREFETCH=4,EXCHANGE=1
#include "cluster.cuh"
#include "scan_tile.cuh"

// How the blocks of a cluster tell each other h.
#define EXCHANGE_BARRIER 0   // stores into the shared memory of the others, then a cluster barrier
#define EXCHANGE_MBARRIER 1  // asynchronous stores that an mbarrier of the receiver counts
#ifndef EXCHANGE
#define EXCHANGE EXCHANGE_BARRIER
#endif

// Blocks to which one lane sends the h of its unit.
constexpr int SENDS = (BLOCKS + LANES_PER_UNIT - 1) / LANES_PER_UNIT;

#if EXCHANGE == EXCHANGE_BARRIER
// The release of the cluster barrier makes the stores visible, its acquire lets them be read. It
// costs a round trip for the stores and another for the barrier.
struct Exchange {
    float* remote[SENDS];  // this lane's unit in the first half of its receivers
    int receivers;

    __device__ __forceinline__ Exchange(float* h_halves, const Owner& owner) : receivers(0) {
#pragma unroll
        for (int k = 0; k < SENDS; ++k) {
            const int to = owner.sibling + k * LANES_PER_UNIT;
            remote[k] = cluster_map(h_halves + owner.unit, to < BLOCKS ? to : 0);
            receivers += to < BLOCKS;
        }
    }
    // Before it a peer may not have started, and its shared memory not be its own yet.
    __device__ __forceinline__ void start() { cluster_sync(); }
    __device__ __forceinline__ void publish(int half, int, const Owner&, float h) {
#pragma unroll
        for (int k = 0; k < SENDS; ++k)
            if (k < receivers) remote[k][half * H_LENGTH] = h;
        __syncwarp();  // the cluster barrier wants whole warps
    }
    __device__ __forceinline__ void await(int, int) { cluster_sync(); }
};
#else
// Each half has an mbarrier that counts the bytes of one frame after the other: one way through the
// cluster's network instead of a round trip and a barrier. Thread 0 announces the bytes of a phase
// when the previous phase of that half is complete. Nothing for the new phase can come earlier: it
// would be frame t + 2, whose senders have all of frame t + 1, hence also the part of warp 0, which
// is sent after the announcement. That each warp takes part in each phase also keeps a waiting warp
// at most one phase behind, so that a parity is enough to tell the phases apart.
struct Exchange {
    u64* barriers;                            // of this block, one per half
    cluster_address h_remote[SENDS];          // this lane's unit in the first half of its receivers
    cluster_address barriers_remote[SENDS];
    int receivers;

    __device__ __forceinline__ Exchange(float* h_halves, u64* barriers, const Owner& owner)
        : barriers(barriers), receivers(0) {
#pragma unroll
        for (int k = 0; k < SENDS; ++k) {
            const int to = owner.sibling + k * LANES_PER_UNIT;
            h_remote[k] = cluster_address_of(h_halves + owner.unit, to < BLOCKS ? to : 0);
            barriers_remote[k] = cluster_address_of(barriers, to < BLOCKS ? to : 0);
            receivers += to < BLOCKS;
        }
    }
    __device__ __forceinline__ void announce(int half) {
        mbarrier_expect_bytes(barriers + half, UNITS * sizeof(float));
    }
    __device__ __forceinline__ void start() {
        if (threadIdx.x == 0) {
            mbarrier_init(barriers, 1);  // one arrival: the announcement
            mbarrier_init(barriers + 1, 1);
            mbarrier_publish();
            announce(0);
            announce(1);
        }
        __syncwarp();
        cluster_sync();
    }
    __device__ __forceinline__ void publish(int half, int, const Owner&, float h) {
#pragma unroll
        for (int k = 0; k < SENDS; ++k)
            if (k < receivers)
                store_async_float(h_remote[k] + half * H_LENGTH * sizeof(float), h,
                                  barriers_remote[k] + half * sizeof(u64));
    }
    __device__ __forceinline__ void await(int half, int frame) {
        // Frames 0, 2, 4, ... fill half 1 and 1, 3, 5, ... half 0: phase frame / 2 of either.
        mbarrier_wait_parity(barriers + half, frame / 2 % 2);
        if (threadIdx.x == 0) announce(half);
        __syncwarp();
    }
};
#endif

extern "C" __global__ void __cluster_dims__(BLOCKS, 1, 1) __launch_bounds__(WARPS * 32, 1)
scan_cluster(
    const float* gates, long long gates_sequence, int gates_frame, const float* weights,
    float* h, float* c, float* out, long long out_sequence, int out_frame, int first,
    int nb_frames, unsigned long long backward) {
    UMX_SHARED(buffer);
    float* shared_weights = reinterpret_cast<float*>(buffer);
    float* h_halves = shared_weights + SHARED_WEIGHTS;
    const int rank = static_cast<int>(cluster_rank());
    const Sequence sequence =
        find_sequence(gates, gates_sequence, gates_frame, weights, h, c, out, out_sequence,
                      out_frame, first, nb_frames, backward, rank);
#if EXCHANGE == EXCHANGE_BARRIER
    Exchange exchange(h_halves, Owner(rank));
#else
    Exchange exchange(h_halves, reinterpret_cast<u64*>(h_halves + 2 * H_LENGTH), Owner(rank));
#endif
    scan_sequence(sequence, rank, shared_weights, h_halves, exchange);
    // By the promise of scan_sequence nobody needs this block any more. A barrier per launch keeps
    // that true whatever becomes of the loop.
    cluster_sync();
}
