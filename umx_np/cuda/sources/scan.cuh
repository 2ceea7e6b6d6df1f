// The recurrence of an LSTM by persistent blocks, for inference and both passes of training: what
// scan_forward.cu and scan_backward.cu share.
//
// There are D sequences, such as the directions of a layer of one target or of many, over a batch of
// B samples. A group of PARTS blocks walks through all frames of one sequence for TILES tiles of
// SAMPLES samples each; groups know nothing of each other. Part p owns the hidden units p UNITS ...
// (p + 1) UNITS - 1: their rows of W_hh (4 UNITS of 4H) stay in its registers, and if need be in its
// shared memory, from the first frame to the last.
//
//   forward    h(t-1) of all units is needed for every row: each part shares its units with all
//              parts (all-gather)
//   backward   d_gates of a part's rows make a part of the sum d_h(t-1) of every unit: each part
//              receives, from all parts, the sums for its own units (reduce-scatter). Gathering
//              d_gates instead would move four times as much.
//
// So there is one exchange per frame and direction of the pass, in two buffers by turns. Why two
// are enough: a part writes its results of step s where those of step s - 2 were. Before that, it
// has waited for the results of step s - 1 of every warp of every part, and each of these warps
// made them after it had read those of step s - 2.
//
// Products are in float32: multiply-add on all lanes. A tile is SAMPLES samples, so that one vector
// holds a unit of all samples, and is used with four weights. The depth of a product is spread over
// the lanes of one row or column; what the lanes have summed is exchanged so that each ends with the
// sums it goes on with.
//
// Sizes that do not divide are padded: units beyond HIDDEN and samples beyond the batch have
// weights and inputs of zero, so that all they ever contribute is zero.
#pragma once

#include "common.cuh"
#include "cooperative.cuh"

#ifndef HIDDEN
#define HIDDEN 256
#endif
// Blocks per group; units of each, a multiple of 4.
#ifndef PARTS
#define PARTS 8
#endif
#ifndef UNITS
#define UNITS 32
#endif
#ifndef TILES
#define TILES 1
#endif
// 4, or 1 for inference, which has a single sample and no backward pass.
#ifndef SAMPLES
#define SAMPLES 4
#endif
// How many of the steps over the depth of its product a thread has in shared memory instead of
// registers, forward and backward.
#ifndef FORWARD_SHARED
#define FORWARD_SHARED 0
#endif
#ifndef BACKWARD_SHARED
#define BACKWARD_SHARED 0
#endif

// How many of them a thread reads ahead: reading all would take the registers that this saves.
#define SHARED_AHEAD 2

static_assert(UNITS % 4 == 0, "a vector of four units must belong to one part");
static_assert(PARTS * UNITS >= HIDDEN, "every unit needs an owner");
static_assert(SAMPLES == 1 || SAMPLES == 4, "a vector holds a unit of all samples");

constexpr int GATES = 4;  // in the order i, f, g, o
constexpr int PADDED = PARTS * UNITS;
constexpr int SUMS = 4 * SAMPLES;  // of a thread
// Whether some thread somewhere is given a weight that does not exist. All depths and widths of
// the products are rounded up to at most 32.
constexpr bool HAS_PADDING = PADDED != HIDDEN || HIDDEN % 32 != 0;
// Distance of two gates of a unit in W_hh.
constexpr int NEXT_GATE = HIDDEN * HIDDEN;

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// A number of each sample of a tile.
#if SAMPLES == 4
typedef float4 Vector;
__device__ __forceinline__ Vector make_vector(const float (&x)[4]) {
    return make_float4(x[0], x[1], x[2], x[3]);
}
__device__ __forceinline__ float sample_of(Vector x, int i) {
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}
#else
typedef float Vector;
__device__ __forceinline__ Vector make_vector(const float (&x)[1]) { return x[0]; }
__device__ __forceinline__ float sample_of(Vector x, int) { return x; }
#endif

// Weights as one thread sees them: `mine` is the first of its own, and the others are at distances
// known to the compiler, so that 128 loads need one address. They are not aligned to vectors.
class Weights {
  public:
    __device__ Weights(const float* weight_hh, int row, int column)
        : mine_(weight_hh + (row * HIDDEN + column)) {}

    // Padding is zero. To read something else there instead would take an address for each load.
    __device__ float at(int distance, bool there) const {
        return !HAS_PADDING || there ? __ldg(mine_ + distance) : 0.0f;
    }

  private:
    const float* const mine_;
};

// What one group walks through: a sequence, some of its samples, and the order of its frames.
struct Group {
    int sequence, first_sample, nb_frames, nb_samples;
    bool from_the_end;  // whether this pass walks from the last frame to the first

    __device__ Group(int group, int nb_frames, int nb_samples, const unsigned char* reverse,
                     bool backward)
        : nb_frames(nb_frames), nb_samples(nb_samples) {
        const int of_sequence = ceil_div(nb_samples, SAMPLES * TILES);
        sequence = group / of_sequence;
        first_sample = group % of_sequence * SAMPLES * TILES;
        from_the_end = (reverse[sequence] != 0) != backward;
    }

    // Row of (T, B).
    __device__ int row(int step, int sample) const {
        return (from_the_end ? nb_frames - 1 - step : step) * nb_samples + sample;
    }
    // Row of (D, T, B).
    __device__ size_t of_all(int row) const {
        return static_cast<size_t>(sequence) * nb_frames * nb_samples + row;
    }
};

// In a step, SHARED floats are received by all parts alike (forward), or OWN floats by each part
// (backward). `memory` holds two buffers for each group of the launch.
template <int SHARED, int OWN>
class Exchange {
    static constexpr int BUFFER = SHARED + PARTS * OWN;

  public:
    __device__ Exchange(float* memory, unsigned* counters, int part)
        : buffers_(memory + static_cast<size_t>(blockIdx.x / PARTS) * 2 * BUFFER),
          counter_(counters + blockIdx.x / PARTS),
          part_(part) {}

    // Wait for what the parts stored in the step before, and turn to the buffer of this step.
    __device__ const float* begin(int step) {
        buffer_ = step % 2;
        if (step == 0) return nullptr;
        grid_barrier(counter_, PARTS, &generation_);
        return buffers_ + (step - 1) % 2 * BUFFER + part_ * OWN;
    }

    __device__ void send(int part, int offset, Vector value) { store(part * OWN + offset, value); }

    // One copy serves all parts.
    __device__ void share(int offset, Vector value) { store(offset, value); }

  private:
    __device__ void store(int offset, Vector value) {
        *reinterpret_cast<Vector*>(buffers_ + buffer_ * BUFFER + offset) = value;
    }

    float* const buffers_;
    unsigned* const counter_;
    const int part_;
    unsigned generation_ = 0;
    int buffer_ = 0;
};

// `a` where the mask is all ones, `b` where it is 0.
__device__ __forceinline__ float choose(unsigned mask, float a, float b) {
    return __uint_as_float((__float_as_uint(a) & mask) | (__float_as_uint(b) & ~mask));
}

// Keep one half of COUNT partial sums and give the other to the lane at `distance`: lanes with that
// bit keep the upper half. Sums the two lanes' parts.
template <int COUNT>
__device__ __forceinline__ void halve(float (&sums)[SUMS], int lane, int distance) {
    // A mask, not a condition: compilers make two branches of a condition, with shuffles in both,
    // and the lanes of a warp would shuffle at different places.
    const int sign = static_cast<int>(static_cast<unsigned>(lane) * (0x80000000u / distance));
    const unsigned upper = static_cast<unsigned>(sign >> 31);
#pragma unroll
    for (int i = 0; i < COUNT / 2; ++i) {
        const float given = choose(upper, sums[i], sums[i + COUNT / 2]);
        const float kept = choose(upper, sums[i + COUNT / 2], sums[i]);
        sums[i] = kept + __shfl_xor_sync(UMX_FULL_WARP, given, distance);
    }
}

// sums[row of a][sample] += a b
__device__ __forceinline__ void add_outer(float (&sums)[SUMS], const float4 a, const Vector b) {
    const float rows[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int row = 0; row < 4; ++row)
#pragma unroll
        for (int i = 0; i < SAMPLES; ++i)
            sums[SAMPLES * row + i] = fmaf(rows[row], sample_of(b, i), sums[SAMPLES * row + i]);
}
