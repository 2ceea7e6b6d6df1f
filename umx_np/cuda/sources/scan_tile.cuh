// The recurrence of an LSTM with its weights resident, but for how the new h gets to all warps of a
// sequence, which is in scan_cooperative.cu.
//
// A  One frame of one sequence is  gates = input + W_hh h,  then  c = s(f) c + s(i) tanh(g),
//    h = s(o) tanh(c).  Frames depend on each other and the product has one column, so the time
//    of a frame is latency: reading W_hh from anywhere but registers and shared memory, and every
//    barrier, shows. Hence W_hh is read once per launch, and there is one exchange per frame.
// B  BLOCKS blocks share the units of a sequence, WARPS warps those of a block, and a warp owns
//    UNITS_PER_WARP units with all four gates and all columns. So the sums of a unit meet in one
//    warp: shuffles add them up, and no barrier within the block is needed before c and h.
// C  The columns of a row are dealt to the 32 lanes in vectors of VECTOR: vector `group` of a lane
//    starts at column (group * 32 + lane) * VECTOR, so a warp reads h without bank conflicts.
//    Slot group * ROWS + row of a lane holds such a vector of weights; the first REGISTER_SLOTS
//    stay in registers, the others in shared memory.
// D  After the shuffles the 32 / ROWS lanes of a row hold the same sum, and so the gate of the same
//    input; the lanes of a unit exchange their four gates and all compute the same c and h.
// E  A sum is added up by lane in the order of the columns, then over the lanes in the order 16, 8,
//    4, 2, 1. Neither depends on BLOCKS, WARPS, UNITS_PER_WARP or REGISTER_SLOTS: every tiling of
//    one HIDDEN gives the same bits.
// F  Units and columns are filled up to whole tiles. Units too many have weights and inputs of 0,
//    so their h stays zero; they take part in the exchange like the others, which therefore always
//    has the same number of values. h has zeros where columns exceed the units.
#pragma once

#include "common.cuh"

#ifndef HIDDEN
#define HIDDEN 256  // units of a sequence
#endif
#ifndef BLOCKS
#define BLOCKS 8  // thread blocks that share a sequence
#endif
#ifndef WARPS
#define WARPS 16  // of a block
#endif
#ifndef UNITS_PER_WARP
#define UNITS_PER_WARP 2  // 1, 2, 4 or 8
#endif
#ifndef VECTOR
#define VECTOR 4  // columns side by side: 1, 2 or 4
#endif
#ifndef REGISTER_SLOTS
#define REGISTER_SLOTS 16  // vectors of weights that a lane keeps in registers
#endif
#ifndef PREFETCH
// Frames that the input gates are read ahead: some 600 clocks of memory latency against frames of
// 700 clocks or more. Even, so that the halves of h alternate at compile time.
#define PREFETCH 4
#endif

static_assert(UNITS_PER_WARP == 1 || UNITS_PER_WARP == 2 || UNITS_PER_WARP == 4 ||
                  UNITS_PER_WARP == 8,
              "the lanes of a warp are shared out evenly");
static_assert(PREFETCH % 2 == 0, "the halves of h alternate");

constexpr int THREADS = WARPS * UMX_WARP;
constexpr int ROWS = 4 * UNITS_PER_WARP;  // rows of W_hh that a warp owns
constexpr int LANES_PER_ROW = UMX_WARP / ROWS;
constexpr int LANES_PER_UNIT = UMX_WARP / UNITS_PER_WARP;
constexpr int GROUPS = (HIDDEN + UMX_WARP * VECTOR - 1) / (UMX_WARP * VECTOR);
constexpr int SLOTS = GROUPS * ROWS;  // vectors of weights of a lane
constexpr int UNITS_PER_BLOCK = WARPS * UNITS_PER_WARP;
constexpr int UNITS = BLOCKS * UNITS_PER_BLOCK;      // filled up
constexpr int COLUMNS = GROUPS * UMX_WARP * VECTOR;  // filled up
// Floats of one half of h; both halves start at multiples of 16 bytes.
constexpr int H_LENGTH = ((UNITS > COLUMNS ? UNITS : COLUMNS) + 3) / 4 * 4;
constexpr int ROW_VECTORS = UMX_WARP * VECTOR;  // floats of one vector of all lanes
constexpr int WARP_WEIGHTS = SLOTS * ROW_VECTORS;
constexpr int SHARED_WARP_WEIGHTS = (SLOTS - REGISTER_SLOTS) * ROW_VECTORS;
constexpr int SHARED_WEIGHTS = WARPS * SHARED_WARP_WEIGHTS;

static_assert(UNITS >= HIDDEN, "every unit has an owner");
static_assert(0 <= REGISTER_SLOTS && REGISTER_SLOTS <= SLOTS, "a part of the slots");

// Where a block finds its sequence.
struct Sequence {
    const float* gates;
    int gates_frame;  // floats from a frame to the next
    float* out;
    int out_frame;
    const float* weights;  // packed, of this block
    float* h;              // state, HIDDEN
    float* c;
    int nb_frames;
    int start, direction;  // the first frame to compute; 1 or -1
};

// blockIdx.x counts the blocks of all sequences from `first` on.
__device__ __forceinline__ Sequence find_sequence(
    const float* gates, long long gates_sequence, int gates_frame, const float* weights, float* h,
    float* c, float* out, long long out_sequence, int out_frame, int first, int nb_frames,
    u64 backward, int rank) {
    const int of_launch = blockIdx.x / BLOCKS;
    const long long number = first + of_launch;
    const bool reverse = backward >> of_launch & 1;
    return {gates + number * gates_sequence,
            gates_frame,
            out + number * out_sequence,
            out_frame,
            weights + (number * BLOCKS + rank) * (WARPS * WARP_WEIGHTS),
            h + number * HIDDEN,
            c + number * HIDDEN,
            nb_frames,
            reverse ? nb_frames - 1 : 0,
            reverse ? -1 : 1};
}

// The part of a thread.
struct Owner {
    int warp, lane;
    int unit;     // of the sequence; HIDDEN or more where it only fills up
    int gate;     // i, f, g, o
    int sibling;  // number of this lane among those of its unit

    __device__ __forceinline__ explicit Owner(int rank)
        : warp(threadIdx.x / UMX_WARP),
          lane(threadIdx.x % UMX_WARP),
          unit(rank * UNITS_PER_BLOCK + warp * UNITS_PER_WARP + lane / LANES_PER_UNIT),
          gate(lane / LANES_PER_ROW % 4),
          sibling(lane % LANES_PER_UNIT) {}

    __device__ __forceinline__ bool real() const { return unit < HIDDEN; }
    // One lane speaks for a unit.
    __device__ __forceinline__ bool speaks() const { return sibling == 0 && real(); }
};

__device__ __forceinline__ void load_vector(const float* from, float* to) {
#if VECTOR == 4
    const float4 value = *reinterpret_cast<const float4*>(from);
    to[0] = value.x;
    to[1] = value.y;
    to[2] = value.z;
    to[3] = value.w;
#elif VECTOR == 2
    const float2 value = *reinterpret_cast<const float2*>(from);
    to[0] = value.x;
    to[1] = value.y;
#else
    to[0] = *from;
#endif
}

// The weights of a lane.
struct Weights {
    float own[REGISTER_SLOTS > 0 ? REGISTER_SLOTS : 1][VECTOR];
    float* shared;  // those of this lane: slot after slot, ROW_VECTORS apart

    // from: (SLOTS, 32, VECTOR) of this warp, in global memory
    __device__ __forceinline__ void load(const float* from, float* shared_of_warp, int lane) {
        shared = shared_of_warp + lane * VECTOR;
        from += lane * VECTOR;
        // First, while registers are free. A lane copies what it will read, so nobody waits for it.
        for (int slot = REGISTER_SLOTS; slot < SLOTS; ++slot) {
            float value[VECTOR];
            load_vector(from + slot * ROW_VECTORS, value);
#pragma unroll
            for (int k = 0; k < VECTOR; ++k)
                shared[(slot - REGISTER_SLOTS) * ROW_VECTORS + k] = value[k];
        }
#pragma unroll
        for (int slot = 0; slot < REGISTER_SLOTS; ++slot)
            load_vector(from + slot * ROW_VECTORS, own[slot]);
    }

    // Sum over all columns of the row that this lane stands for: see C, D, E.
    __device__ __forceinline__ float product(const float* h, int lane) const {
        // Groups with at least one slot in registers; the loop over the others stays one, because
        // the compiler would load their weights far ahead and push those in registers out.
        constexpr int UNROLLED = (REGISTER_SLOTS + ROWS - 1) / ROWS;
        h += lane * VECTOR;
        float sum[ROWS];
#pragma unroll
        for (int row = 0; row < ROWS; ++row) sum[row] = 0.0f;
#pragma unroll
        for (int group = 0; group < UNROLLED; ++group) {
            float x[VECTOR];
            load_vector(h + group * ROW_VECTORS, x);
#pragma unroll
            for (int row = 0; row < ROWS; ++row) {
                const int slot = group * ROWS + row;
                if (slot < REGISTER_SLOTS)
                    add_products(own[slot], x, sum[row]);
                else
                    add_products_of(slot, x, sum[row]);
            }
        }
#pragma unroll 1
        for (int group = UNROLLED; group < GROUPS; ++group) {
            float x[VECTOR];
            load_vector(h + group * ROW_VECTORS, x);
#pragma unroll
            for (int row = 0; row < ROWS; ++row) add_products_of(group * ROWS + row, x, sum[row]);
        }
        return reduce(sum, lane);
    }

  private:
    __device__ __forceinline__ static void add_products(
        const float (&weight)[VECTOR], const float (&x)[VECTOR], float& sum) {
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) sum = fmaf(weight[k], x[k], sum);
    }

    __device__ __forceinline__ void add_products_of(
        int slot, const float (&x)[VECTOR], float& sum) const {
        float weight[VECTOR];
        load_vector(shared + (slot - REGISTER_SLOTS) * ROW_VECTORS, weight);
        add_products(weight, x, sum);
    }

    // While a lane has several rows it gives half of them to its partner and takes the partner's
    // share of the other half: ROWS - 1 shuffles instead of 5 * ROWS. The highest bit of the lane
    // chooses the highest bit of the row, so row `lane / LANES_PER_ROW` is left.
    __device__ __forceinline__ static float reduce(float (&sum)[ROWS], int lane) {
#pragma unroll
        for (int distance = UMX_WARP / 2; distance >= LANES_PER_ROW; distance /= 2) {
            const int half = distance / LANES_PER_ROW;
            const bool upper = lane & distance;
#pragma unroll
            for (int row = 0; row < ROWS / 2; ++row) {
                if (row >= half) break;
                const float give = upper ? sum[row] : sum[row + half];
                const float keep = upper ? sum[row + half] : sum[row];
                sum[row] = keep + __shfl_xor_sync(UMX_FULL_WARP, give, distance);
            }
        }
        float total = sum[0];
#pragma unroll
        for (int left = LANES_PER_ROW / 2; left >= 1; left /= 2)
            total += __shfl_xor_sync(UMX_FULL_WARP, total, left);
        return total;
    }
};

// Logistic function or hyperbolic tangent, to a relative error of 5e-7 (the hardware's tanh.approx
// would be 5e-4 off). The lanes of a warp need both, so both are computed without a branch:
// tanh(x) = 2 sigmoid(2x) - 1, but near 0, where that would cancel, an odd polynomial (minimax of
// tanh(x) / x for |x| < 0.55, relative error 1e-7).
__device__ __forceinline__ float squash(float x, bool symmetric) {
    // The quotient is 0 beyond 2^126; no more than 2^-126 is lost by that.
    const float s = __fdividef(1.0f, 1.0f + expf(symmetric ? -2.0f * x : -x));
    const float y = x * x;
    float p = 0.0164375771f;
    p = fmaf(p, y, -0.0526718125f);
    p = fmaf(p, y, 0.1332072467f);
    p = fmaf(p, y, -0.333329469f);
    const float tangent = fabsf(x) < 0.55f ? fmaf(x * y, p, x) : fmaf(2.0f, s, -1.0f);
    return symmetric ? tangent : s;
}

// From the gate of this lane, before activation, to the new h of its unit; c is updated.
__device__ __forceinline__ float advance(float gate, const Owner& owner, float& c) {
    const float active = squash(gate, owner.gate == 2);
    // The lanes of a unit are a segment of the warp.
    const float i = __shfl_sync(UMX_FULL_WARP, active, 0 * LANES_PER_ROW, LANES_PER_UNIT);
    const float f = __shfl_sync(UMX_FULL_WARP, active, 1 * LANES_PER_ROW, LANES_PER_UNIT);
    const float g = __shfl_sync(UMX_FULL_WARP, active, 2 * LANES_PER_ROW, LANES_PER_UNIT);
    const float o = __shfl_sync(UMX_FULL_WARP, active, 3 * LANES_PER_ROW, LANES_PER_UNIT);
    c = fmaf(f, c, i * g);
    return o * squash(c, true);
}

// Walk all frames. h_halves is shared memory of 2 * H_LENGTH floats; frame t reads half t % 2 and
// produces the other one.
//
// An Exchange has
//   start()                           after it every block may be written to
//   publish(half, frame, owner, h)    called by all threads; hands h of their unit to all blocks
//   await(half, frame)                after it this block has all of h in that half
// and promises that a half is complete only after every warp of every block has published. That is
// what makes two halves enough: whoever publishes frame t + 1, into the half that frame t read, has
// awaited frame t, so every warp has published frame t, and it had read its half by then.
// For the same reason the state may be written at the end, although other blocks read it at the
// start, and nobody writes to a block that has left.
template <typename Exchange>
__device__ __forceinline__ void scan_sequence(
    const Sequence& sequence, int rank, float* shared_weights, float* h_halves,
    Exchange& exchange) {
    const Owner owner(rank);
    Weights weights;
    weights.load(sequence.weights + static_cast<long long>(owner.warp) * WARP_WEIGHTS,
                 shared_weights + owner.warp * SHARED_WARP_WEIGHTS, owner.lane);
    for (int i = threadIdx.x; i < H_LENGTH; i += THREADS) {
        h_halves[i] = i < HIDDEN ? sequence.h[i] : 0.0f;
        h_halves[H_LENGTH + i] = 0.0f;
    }
    float c = owner.real() ? sequence.c[owner.unit] : 0.0f;
    float h = 0.0f;

    const float* input = sequence.gates + owner.gate * HIDDEN + owner.unit;
    float* out = sequence.out + owner.unit;
    const int nb_inputs = owner.real() ? sequence.nb_frames : 0;
    auto place = [&](int frame) { return sequence.start + sequence.direction * frame; };
    auto input_of = [&](int frame) {
        const long long t = place(frame);
        return frame < nb_inputs ? __ldg(input + t * sequence.gates_frame) : 0.0f;
    };
    float ahead[PREFETCH];
#pragma unroll
    for (int k = 0; k < PREFETCH; ++k) ahead[k] = input_of(k);

    exchange.start();
    for (int first = 0; first < sequence.nb_frames; first += PREFETCH) {
        // Unrolled, so that `ahead` stays in registers: to move a value that is still under way
        // would wait for it.
#pragma unroll
        for (int k = 0; k < PREFETCH; ++k) {
            const int frame = first + k;
            if (frame >= sequence.nb_frames) break;
            const int half = k % 2;
            const float gate_input = ahead[k];
            ahead[k] = input_of(frame + PREFETCH);
            const float gate = gate_input + weights.product(h_halves + half * H_LENGTH, owner.lane);
            h = advance(gate, owner, c);
            exchange.publish(1 - half, frame, owner, h);
            exchange.await(1 - half, frame);
            // Not earlier: an exchange that orders memory would wait for this store to arrive.
            const long long t = place(frame);
            if (owner.speaks()) out[t * sequence.out_frame] = h;
        }
    }
    if (owner.speaks()) {
        sequence.h[owner.unit] = h;
        sequence.c[owner.unit] = c;
    }
}
