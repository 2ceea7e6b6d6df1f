// Computes      h, c and out of LSTM sequences side by side, BLOCKS blocks for each, which must all
//               be resident: a cooperative launch. The blocks of a sequence tell each other h
//               through global memory; those of different sequences never wait for each other.
// Arguments     gates    IN     (sequences, nb_frames, 4 HIDDEN), i f g o; input projection and
//                               both biases; the strides of the first two axes are given in floats
//               weights  IN     (sequences, BLOCKS, WARPS, SLOTS, 32, VECTOR): see tiling.py
//               h, c     INOUT  (sequences, HIDDEN) state
//               out      OUT    (sequences, nb_frames, HIDDEN); strides as for gates
//               first    first sequence of this launch; arrays start at sequence 0 all the same
//               backward bit s: sequence first + s walks from the last frame to the first
//               scratch  INOUT  (sequences, SCRATCH_WORDS) of 8 bytes, zero before each launch
// Aliasing      none
// Accumulates   = (nothing is added to)
// Parallel over grid: sequences of the launch x BLOCKS; within, see scan_tile.cuh
// Shared memory SHARED_WEIGHTS floats, 2 H_LENGTH floats
// Precision     float32; every sum in one fixed order, so results repeat to the bit
// Oracle        umx_np.layers.lstm.lstm_scan
// Benchmark     benchmarks/gpu/run.py
//
// variants: HIDDEN=128,BLOCKS=4,WARPS=4,UNITS_PER_WARP=8,VECTOR=4,REGISTER_SLOTS=32,PREFETCH=4
// variants: HIDDEN=256,BLOCKS=6,WARPS=11,UNITS_PER_WARP=4,VECTOR=4,REGISTER_SLOTS=16,PREFETCH=2
// variants: HIDDEN=256,BLOCKS=8,WARPS=8,UNITS_PER_WARP=4,VECTOR=4,REGISTER_SLOTS=32,PREFETCH=4
// variants: HIDDEN=256,BLOCKS=16,WARPS=4,UNITS_PER_WARP=4,VECTOR=4,REGISTER_SLOTS=32,PREFETCH=4
// variants: HIDDEN=512,BLOCKS=16,WARPS=8,UNITS_PER_WARP=4,VECTOR=4,REGISTER_SLOTS=36,PREFETCH=2
// variants: HIDDEN=512,BLOCKS=22,WARPS=6,UNITS_PER_WARP=4,VECTOR=4,REGISTER_SLOTS=36,PREFETCH=2
// variants: HIDDEN=512,BLOCKS=32,WARPS=8,UNITS_PER_WARP=2,VECTOR=4,REGISTER_SLOTS=32,PREFETCH=4
#include "cooperative.cuh"
#include "scan_tile.cuh"

// Words of a sequence: two halves of tagged h.
constexpr int SCRATCH_WORDS = 2 * UNITS;
// Words that one thread reads per frame.
constexpr int FETCHES = (UNITS + THREADS - 1) / THREADS;

// How the blocks of a sequence tell each other h.
//
// The high half of a word is its frame plus one, the low half is h. A word is written and read in
// one piece, so a reader that sees the tag has the value: neither fences nor a counter are needed,
// and a frame costs one way to the L2 cache and one back. Nothing but the word of frame t + 2
// overwrites that of frame t, and by then every block has read it (see scan_sequence), so that
// waiting for equality of the tags is enough.
struct Exchange {
    u64* own;    // word of the unit of this lane, in the first half
    u64* first;  // first word that this thread fetches, likewise
    float* first_h;  // where its value goes

    // words: (2, UNITS) of this sequence
    __device__ __forceinline__ Exchange(u64* words, float* h_halves, const Owner& owner)
        : own(words + owner.unit), first(words + threadIdx.x), first_h(h_halves + threadIdx.x) {}

    __device__ __forceinline__ static bool fetches(int k) {
        return threadIdx.x + k * THREADS < UNITS;
    }
    __device__ __forceinline__ void start() { __syncthreads(); }
    __device__ __forceinline__ void publish(int half, int frame, const Owner& owner, float h) {
        const u64 tagged = static_cast<u64>(frame + 1) << 32 | __float_as_uint(h);
        if (owner.sibling == 0) store_relaxed(own + half * UNITS, tagged);
    }
    // One copy per block goes to shared memory: if every warp fetched h for itself, the traffic
    // from the L2 cache would take longer than the barrier here.
    __device__ __forceinline__ void await(int half, int frame) {
        u64 word[FETCHES];
        // All reads of a round are under way together.
        while (true) {
#pragma unroll
            for (int k = 0; k < FETCHES; ++k)
                if (fetches(k)) word[k] = load_relaxed(first + (half * UNITS + k * THREADS));
            bool complete = true;
#pragma unroll
            for (int k = 0; k < FETCHES; ++k)
                if (fetches(k)) complete = complete && static_cast<int>(word[k] >> 32) == frame + 1;
            if (complete) break;
            spin_pause();
        }
#pragma unroll
        for (int k = 0; k < FETCHES; ++k)
            if (fetches(k))
                first_h[half * H_LENGTH + k * THREADS] =
                    __uint_as_float(static_cast<unsigned>(word[k]));
        __syncthreads();
    }
};

extern "C" __global__ void __launch_bounds__(WARPS * 32, 1) scan_cooperative(
    const float* gates, long long gates_sequence, int gates_frame, const float* weights,
    float* h, float* c, float* out, long long out_sequence, int out_frame, int first,
    int nb_frames, unsigned long long backward, u64* scratch) {
    UMX_SHARED(buffer);
    float* shared_weights = reinterpret_cast<float*>(buffer);
    float* h_halves = shared_weights + SHARED_WEIGHTS;
    const int rank = blockIdx.x % BLOCKS;
    const Sequence sequence =
        find_sequence(gates, gates_sequence, gates_frame, weights, h, c, out, out_sequence,
                      out_frame, first, nb_frames, backward, rank);
    u64* words = scratch + static_cast<long long>(first + blockIdx.x / BLOCKS) * SCRATCH_WORDS;
    Exchange exchange(words, h_halves, Owner(rank));
    scan_sequence(sequence, rank, shared_weights, h_halves, exchange);
}
