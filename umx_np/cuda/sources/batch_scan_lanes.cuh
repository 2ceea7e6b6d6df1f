// The products of batch_scan.cuh in float32: multiply-add on all lanes, weights in registers.
//
// A tile is 4 samples, so that one vector of shared memory holds a unit of all samples, and is used
// for 16 multiply-adds. The depth of a product is spread over the lanes of one row or column; what
// the lanes have summed is exchanged so that each ends with the sums it goes on with.
#pragma once

#include "common.cuh"

// Lanes that share the depth of a product: 16 or 32 forward; 4 to 32, a power of two, backward.
#ifndef FORWARD_LANES
#define FORWARD_LANES 16
#endif
#ifndef BACKWARD_LANES
#define BACKWARD_LANES 8
#endif

constexpr int SAMPLES = 4;

// `a` where the mask is all ones, `b` where it is 0.
__device__ __forceinline__ float choose(unsigned mask, float a, float b) {
    return __uint_as_float((__float_as_uint(a) & mask) | (__float_as_uint(b) & ~mask));
}

// Keep one half of COUNT partial sums and give the other to the lane at `distance`: lanes with that
// bit keep the upper half. Sums the two lanes' parts.
template <int COUNT>
__device__ __forceinline__ void halve(float (&sums)[16], int lane, int distance) {
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
__device__ __forceinline__ void add_outer(float (&sums)[16], const float4 a, const float4 b) {
    const float rows[4] = {a.x, a.y, a.z, a.w}, samples[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int row = 0; row < 4; ++row)
#pragma unroll
        for (int sample = 0; sample < SAMPLES; ++sample)
            sums[4 * row + sample] = fmaf(rows[row], samples[sample], sums[4 * row + sample]);
}

// h of a tile lies as (unit, sample). A thread belongs to one unit, all four gates, and to every
// LANES-th step of the depth; after the exchange, to one gate and one sample.
class Forward {
    static constexpr int LANES = FORWARD_LANES;
    static_assert(LANES == 16 || LANES == 32, "16 sums are spread over the lanes of a unit");
    static constexpr int DEPTH = ceil_div(PADDED, LANES);
    static constexpr int HELD = DEPTH - FORWARD_SHARED;
    static_assert(HELD > 0, "some weights are in registers");

  public:
    static constexpr int THREADS = UNITS * LANES;
    static_assert(THREADS % UMX_WARP == 0, "every lane of a warp belongs to a unit");
    static constexpr int H_FLOATS = DEPTH * LANES * SAMPLES;
    static constexpr int SHARED_FLOATS = FORWARD_SHARED * THREADS * 4;

    typedef float Inputs;  // pre-activation of the thread's gate and sample
    struct Sums {
        float of[16];
    };

    __device__ Forward(int part, float* shared)
        : part_(part),
          lane_(threadIdx.x % LANES),
          unit_(part * UNITS + static_cast<int>(threadIdx.x) / LANES),
          gate_(lane_ / SAMPLES % GATES),
          sample_(lane_ % SAMPLES),
          shared_(reinterpret_cast<float4*>(shared) + threadIdx.x) {}

    __device__ void load(const float* weight_hh, const float* bias) {
        const Weights weights(weight_hh, unit_, lane_);
#pragma unroll
        for (int i = 0; i < HELD; ++i) held_[i] = gates(weights, i);
        for (int i = 0; i < FORWARD_SHARED; ++i) shared_[i * THREADS] = gates(weights, HELD + i);
        bias_ = bias && unit_ < HIDDEN ? bias[gate_ * HIDDEN + unit_] : 0.0f;
    }

    __device__ Inputs fetch(const Sequence& sequence, int step, int first_sample) const {
        const int sample = first_sample + sample_;
        if (unit_ >= HIDDEN || sample >= sequence.nb_samples) return 0.0f;
        return sequence.gates_at(sequence.row(step, sample))[gate_ * HIDDEN + unit_] + bias_;
    }

    __device__ void multiply(const float* h, Sums& sums) const {
        const float4* units = reinterpret_cast<const float4*>(h) + lane_;
#pragma unroll
        for (int i = 0; i < HELD; ++i) add_outer(sums.of, held_[i], units[i * LANES]);
#pragma unroll SHARED_AHEAD
        for (int i = 0; i < FORWARD_SHARED; ++i)
            add_outer(sums.of, shared_[i * THREADS], units[(HELD + i) * LANES]);
        // Distances 8 and 4 choose the gate, 2 and 1 the sample: as gate_ and sample_ have it.
        halve<16>(sums.of, lane_, 8);
        halve<8>(sums.of, lane_, 4);
        halve<4>(sums.of, lane_, 2);
        halve<2>(sums.of, lane_, 1);
        if (LANES == 32) sums.of[0] += __shfl_xor_sync(UMX_FULL_WARP, sums.of[0], 16);
    }

    // Returns h of the thread's unit, all samples.
    __device__ float4 update(const Sequence& sequence, int step, int first_sample, Inputs input,
                             const Sums& sums, float& cell) const {
        // One tanh for all gates: lanes of one warp have different ones, and would wait for each
        // other's branches.
        const bool candidate = gate_ == 2;
        const float x = input + sums.of[0];
        const float y = tanhf(candidate ? x : 0.5f * x);
        const float gate = candidate ? y : fmaf(0.5f, y, 0.5f);  // F2

        const int first = threadIdx.x % UMX_WARP - lane_ % 16;  // lane of gate 0, sample 0
        const float i = from(gate, first + sample_);
        const float f = from(gate, first + SAMPLES + sample_);
        const float g = from(gate, first + 2 * SAMPLES + sample_);
        const float o = from(gate, first + 3 * SAMPLES + sample_);
        cell = fmaf(f, cell, i * g);       // F3
        const float h = o * tanhf(cell);  // F4

        const int sample = first_sample + sample_;
        if (lane_ < 16 && unit_ < HIDDEN && sample < sequence.nb_samples) {
            const int row = sequence.row(step, sample);
            if (gate_ == 0)
                sequence.out[static_cast<size_t>(row) * sequence.stride + unit_] = h;
            if (sequence.cells) {
                sequence.gates_at(row)[gate_ * HIDDEN + unit_] = gate;
                if (gate_ == 1) sequence.cell_at(row)[unit_] = cell;
            }
        }
        return make_float4(from(h, first), from(h, first + 1), from(h, first + 2),
                           from(h, first + 3));
    }

    template <class Exchange>
    __device__ void share(Exchange& exchange, int offset, float4 h) const {
        if (lane_ == 0) exchange.share(offset + unit_ * SAMPLES, h);
    }

  private:
    __device__ float from(float value, int lane) const {
        return __shfl_sync(UMX_FULL_WARP, value, lane);
    }

    // The weights of one step over the depth.
    __device__ float4 gates(const Weights& weights, int i) const {
        const int column = i * LANES;
        const bool there = unit_ < HIDDEN && column + lane_ < HIDDEN;
        return make_float4(weights.at(column, there), weights.at(column + NEXT_GATE, there),
                           weights.at(column + 2 * NEXT_GATE, there),
                           weights.at(column + 3 * NEXT_GATE, there));
    }

    const int part_, lane_, unit_, gate_, sample_;
    float4* const shared_;
    float bias_;
    float4 held_[HELD];  // of the four gates
};

// The gradients of a part's gates lie as (unit, gate, sample). A thread belongs to four columns,
// and to every LANES-th of the 4 UNITS rows; after the exchange, to one column and all samples.
class Backward {
    static constexpr int LANES = BACKWARD_LANES;
    static_assert(LANES >= 4 && LANES <= 32 && (LANES & (LANES - 1)) == 0, "a power of 2");
    static constexpr int ROWS = GATES * UNITS;
    static_assert(ROWS % LANES == 0, "all lanes have as many rows");
    static constexpr int DEPTH = ROWS / LANES;
    static constexpr int HELD = DEPTH - BACKWARD_SHARED;
    static_assert(HELD > 0, "some weights are in registers");

  public:
    static constexpr int THREADS = ceil_div(PADDED / 4 * LANES, UMX_WARP) * UMX_WARP;
    static constexpr int OPERAND_FLOATS = ROWS * SAMPLES;
    static constexpr int SHARED_FLOATS = BACKWARD_SHARED * THREADS * 4;

    struct Sums {
        float of[16];
    };

    static __device__ int unit_of(int item) { return item / SAMPLES; }
    static __device__ int sample_of(int item) { return item % SAMPLES; }
    static __device__ void put(float* operand, int item, float4 d_gates) {
        float* to = operand + unit_of(item) * GATES * SAMPLES + sample_of(item);
        to[0] = d_gates.x;
        to[SAMPLES] = d_gates.y;
        to[2 * SAMPLES] = d_gates.z;
        to[3 * SAMPLES] = d_gates.w;
    }

    __device__ Backward(int part, float* shared)
        : part_(part),
          lane_(threadIdx.x % LANES),
          column_(static_cast<int>(threadIdx.x) / LANES * 4),
          shared_(reinterpret_cast<float4*>(shared) + threadIdx.x) {}

    __device__ void load(const float* weight_hh) {
        const int unit = part_ * UNITS + lane_ / GATES;
        const Weights weights(weight_hh, lane_ % GATES * HIDDEN + unit, column_);
#pragma unroll
        for (int i = 0; i < HELD; ++i) held_[i] = columns(weights, unit, i);
        for (int i = 0; i < BACKWARD_SHARED; ++i)
            shared_[i * THREADS] = columns(weights, unit, HELD + i);
    }

    __device__ void multiply(const float* operand, Sums& sums) const {
        const float4* rows = reinterpret_cast<const float4*>(operand) + lane_;
#pragma unroll
        for (int i = 0; i < HELD; ++i) add_outer(sums.of, held_[i], rows[i * LANES]);
#pragma unroll SHARED_AHEAD
        for (int i = 0; i < BACKWARD_SHARED; ++i)
            add_outer(sums.of, shared_[i * THREADS], rows[(HELD + i) * LANES]);
        halve<16>(sums.of, lane_, LANES / 2);  // of four columns, two
        halve<8>(sums.of, lane_, LANES / 4);   // of two, one
#pragma unroll
        for (int distance = LANES / 8; distance > 0; distance /= 2)
#pragma unroll
            for (int i = 0; i < SAMPLES; ++i)
                sums.of[i] += __shfl_xor_sync(UMX_FULL_WARP, sums.of[i], distance);
    }

    template <class Exchange>
    __device__ void send(Exchange& exchange, int offset, const Sums& sums) const {
        constexpr int SAME = LANES / 4;  // lanes that hold the same sums
        const int column = column_ + lane_ / SAME;
        if (lane_ % SAME == 0 && column < PADDED)
            exchange.send(column / UNITS, offset + column % UNITS * SAMPLES,
                          make_float4(sums.of[0], sums.of[1], sums.of[2], sums.of[3]));
    }

  private:
    // The weights of one step over the depth: LANES rows are LANES / GATES units.
    __device__ float4 columns(const Weights& weights, int first_unit, int i) const {
        constexpr int STEP = LANES / GATES;
        const bool there = first_unit + i * STEP < HIDDEN;
        const int row = i * STEP * HIDDEN;
        return make_float4(weights.at(row, there && column_ < HIDDEN),
                           weights.at(row + 1, there && column_ + 1 < HIDDEN),
                           weights.at(row + 2, there && column_ + 2 < HIDDEN),
                           weights.at(row + 3, there && column_ + 3 < HIDDEN));
    }

    const int part_, lane_, column_;
    float4* const shared_;
    float4 held_[HELD];  // of four columns
};
