// The products of batch_scan.cuh on the tensor cores: TF32 operands, float32 sums and states.
//
// A tile is 8 samples, the width of the instruction. Rows and depth of a matrix may be given to the
// instruction in any order that both operands agree on. The orders here are chosen so that
//   - a thread reads four steps of the depth as one vector, and so do the weights it holds;
//   - a thread ends with sums that belong together: forward the gates of one unit, up to one
//     exchange with a neighbour; backward four neighbouring columns.
#pragma once

#include "common.cuh"
#include "mma.cuh"

constexpr int SAMPLES = 8;
constexpr int MMA_ROWS = 16;
constexpr int STRETCH = 16;  // depth of two instructions, of which a thread has 4 steps

// Floats from one sample to the next in shared memory: the 8 threads that are served together read
// 64 bytes of two samples, which must not meet in the same banks.
constexpr int BANKS = 32;
__host__ __device__ constexpr int sample_stride(int depth) {
    return depth % BANKS == STRETCH ? depth : depth + STRETCH;
}

// Adds the products of one stretch, of its even and its odd half, for the rows r (`upper`) and
// r + 8 (`lower`).
__device__ __forceinline__ void mma_stretch(float4& even, float4& odd, const float4 upper,
                                            const float4 lower, const float4 samples) {
    mma_tf32(even, make_float4(upper.x, lower.x, upper.y, lower.y),
             make_float2(samples.x, samples.y));
    mma_tf32(odd, make_float4(upper.z, lower.z, upper.w, lower.w),
             make_float2(samples.z, samples.w));
}

__device__ __forceinline__ float4 rounded(float x, float y, float z, float w) {
    return make_float4(round_tf32(x), round_tf32(y), round_tf32(z), round_tf32(w));
}

__device__ __forceinline__ float4 add(const float4 a, const float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// h of a tile lies as (sample, unit), rounded. A warp belongs to 4 units: rows 2 u and 2 u + 1 of
// its 16 are the gates i and f of unit u, rows 8 + 2 u and 9 + 2 u its gates g and o.
class Forward {
    static constexpr int WARPS = UNITS / 4;
    static constexpr int DEPTH = ceil_div(PADDED, STRETCH);
    static constexpr int HELD = DEPTH - FORWARD_SHARED;
    static_assert(HELD > 0, "some weights are in registers");
    static constexpr int STRIDE = sample_stride(DEPTH * STRETCH);

  public:
    static constexpr int THREADS = WARPS * UMX_WARP;
    static constexpr int H_FLOATS = SAMPLES * STRIDE;
    static constexpr int SHARED_FLOATS = FORWARD_SHARED * THREADS * 8;

    struct Inputs {
        float i, f, g, o;
    };
    // Independent sums, so that an instruction need not wait for the one before.
    struct Sums {
        float4 of[4];
    };

    __device__ Forward(int part, float* shared)
        : row_(threadIdx.x % UMX_WARP / 4),
          place_(threadIdx.x % 4),
          first_unit_(part * UNITS + static_cast<int>(threadIdx.x) / UMX_WARP * 4),
          unit_(first_unit_ + row_ / 2),
          sample_(2 * place_ + row_ % 2),
          shared_(reinterpret_cast<float4*>(shared) + threadIdx.x) {}

    __device__ void load(const float* weight_hh, const float* bias) {
        const Weights weights(weight_hh, row_ % 2 * HIDDEN + unit_, 4 * place_);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            upper_[i] = columns(weights, 0, i);
            lower_[i] = columns(weights, 2 * NEXT_GATE, i);
        }
        for (int i = 0; i < FORWARD_SHARED; ++i) {
            shared_[2 * i * THREADS] = columns(weights, 0, HELD + i);
            shared_[(2 * i + 1) * THREADS] = columns(weights, 2 * NEXT_GATE, HELD + i);
        }
        bias_ = {};
        if (bias && unit_ < HIDDEN)
            bias_ = {bias[unit_], bias[HIDDEN + unit_], bias[2 * HIDDEN + unit_],
                     bias[3 * HIDDEN + unit_]};
    }

    __device__ Inputs fetch(const Sequence& sequence, int step, int first_sample) const {
        const int sample = first_sample + sample_;
        if (unit_ >= HIDDEN || sample >= sequence.nb_samples) return {};
        const float* gates = sequence.gates_at(sequence.row(step, sample)) + unit_;
        return {gates[0] + bias_.i, gates[HIDDEN] + bias_.f, gates[2 * HIDDEN] + bias_.g,
                gates[3 * HIDDEN] + bias_.o};
    }

    __device__ void multiply(const float* h, Sums& sums) const {
        const float* from = h + row_ * STRIDE + 4 * place_;
#pragma unroll
        for (int i = 0; i < HELD; ++i)
            mma_stretch(sums.of[2 * i % 4], sums.of[2 * i % 4 + 1], upper_[i], lower_[i],
                        samples(from, i));
#pragma unroll SHARED_AHEAD
        for (int i = 0; i < FORWARD_SHARED; ++i)
            mma_stretch(sums.of[0], sums.of[1], shared_[2 * i * THREADS],
                        shared_[(2 * i + 1) * THREADS], samples(from, HELD + i));
    }

    // Returns h of the warp's four units, of the thread's sample.
    __device__ float4 update(const Sequence& sequence, int step, int first_sample,
                             const Inputs& inputs, const Sums& sums, float& cell) const {
        const float4 sum = add(add(sums.of[0], sums.of[1]), add(sums.of[2], sums.of[3]));
        // The sums are of two gates and two samples; the neighbour has the other gates. One
        // takes the first sample, the other the second.
        constexpr int NEIGHBOUR = 4;
        const bool second = row_ % 2;
        const float first_gate = second ? sum.y : sum.x;  // i, or f
        const float later_gate = second ? sum.w : sum.z;  // g, or o
        const float others_first =
            __shfl_xor_sync(UMX_FULL_WARP, second ? sum.x : sum.y, NEIGHBOUR);
        const float others_later =
            __shfl_xor_sync(UMX_FULL_WARP, second ? sum.z : sum.w, NEIGHBOUR);
        const float i = logistic(inputs.i + (second ? others_first : first_gate));  // F2
        const float f = logistic(inputs.f + (second ? first_gate : others_first));
        const float g = tanhf(inputs.g + (second ? others_later : later_gate));
        const float o = logistic(inputs.o + (second ? later_gate : others_later));
        cell = fmaf(f, cell, i * g);       // F3
        const float h = o * tanhf(cell);  // F4

        const int sample = first_sample + sample_;
        if (unit_ < HIDDEN && sample < sequence.nb_samples) {
            const int row = sequence.row(step, sample);
            sequence.out[static_cast<size_t>(row) * sequence.stride + unit_] = h;
            if (sequence.cells) {
                float* gates = sequence.gates_at(row) + unit_;
                gates[0] = i;
                gates[HIDDEN] = f;
                gates[2 * HIDDEN] = g;
                gates[3 * HIDDEN] = o;
                sequence.cell_at(row)[unit_] = cell;
            }
        }
        const float rounded = round_tf32(h);
        const int lane = threadIdx.x % 8;  // of the first unit, this sample
        return make_float4(from(rounded, lane), from(rounded, 8 + lane), from(rounded, 16 + lane),
                           from(rounded, 24 + lane));
    }

    template <class Exchange>
    __device__ void share(Exchange& exchange, int offset, float4 h) const {
        exchange.share(offset + sample_ * STRIDE + first_unit_, h, row_ / 2, 4);
    }

  private:
    __device__ float from(float value, int lane) const {
        return __shfl_sync(UMX_FULL_WARP, value, lane);
    }

    __device__ float4 samples(const float* from, int i) const {
        return *reinterpret_cast<const float4*>(from + i * STRETCH);
    }

    // The weights of one stretch of the depth, in the row of a gate.
    __device__ float4 columns(const Weights& weights, int gate, int i) const {
        const int column = 4 * place_ + i * STRETCH, at = gate + i * STRETCH;
        const bool there = unit_ < HIDDEN;
        return rounded(weights.at(at, there && column < HIDDEN),
                       weights.at(at + 1, there && column + 1 < HIDDEN),
                       weights.at(at + 2, there && column + 2 < HIDDEN),
                       weights.at(at + 3, there && column + 3 < HIDDEN));
    }

    const int row_, place_, first_unit_, unit_, sample_;
    float4* const shared_;
    Inputs bias_;
    float4 upper_[HELD], lower_[HELD];
};

// The gradients of a part's gates lie as (sample, unit, gate), rounded. A warp belongs to 32
// columns, of which a thread ends with four neighbours, each from another row of its instructions.
class Backward {
    static constexpr int COLUMNS = 2 * MMA_ROWS;
    static constexpr int DEPTH = GATES * UNITS / STRETCH;
    static constexpr int HELD = DEPTH - BACKWARD_SHARED;
    static_assert(HELD > 0, "some weights are in registers");
    static constexpr int STRIDE = sample_stride(GATES * UNITS);

  public:
    static constexpr int THREADS = ceil_div(PADDED, COLUMNS) * UMX_WARP;
    static constexpr int OPERAND_FLOATS = SAMPLES * STRIDE;
    static constexpr int SHARED_FLOATS = BACKWARD_SHARED * THREADS * 16;

    // Of the first and the second 16 rows, each in two independent sums.
    struct Sums {
        float4 first[2], second[2];
    };

    static __device__ int unit_of(int item) { return item % UNITS; }
    static __device__ int sample_of(int item) { return item / UNITS; }
    static __device__ void put(float* operand, int item, float4 d_gates) {
        float* to = operand + sample_of(item) * STRIDE + unit_of(item) * GATES;
        *reinterpret_cast<float4*>(to) = rounded(d_gates.x, d_gates.y, d_gates.z, d_gates.w);
    }

    __device__ Backward(int part, float* shared)
        : row_(threadIdx.x % UMX_WARP / 4),
          place_(threadIdx.x % 4),
          first_unit_(part * UNITS + place_),
          column_(static_cast<int>(threadIdx.x) / UMX_WARP * COLUMNS + 4 * row_),
          shared_(reinterpret_cast<float4*>(shared) + threadIdx.x) {}

    __device__ void load(const float* weight_hh) {
        const Weights weights(weight_hh, first_unit_, column_);
#pragma unroll
        for (int i = 0; i < HELD; ++i)
#pragma unroll
            for (int c = 0; c < 4; ++c) held_[i][c] = gates(weights, i, c);
        for (int i = 0; i < BACKWARD_SHARED; ++i)
#pragma unroll
            for (int c = 0; c < 4; ++c)
                shared_[(4 * i + c) * THREADS] = gates(weights, HELD + i, c);
    }

    __device__ void multiply(const float* operand, Sums& sums) const {
        const float* from = operand + row_ * STRIDE + 4 * place_;
#pragma unroll
        for (int i = 0; i < HELD; ++i) multiply(held_[i], from + i * STRETCH, sums);
#pragma unroll SHARED_AHEAD
        for (int i = 0; i < BACKWARD_SHARED; ++i) {
            const float4* shared = shared_ + 4 * i * THREADS;
            const float4 columns[4] = {shared[0], shared[THREADS], shared[2 * THREADS],
                                       shared[3 * THREADS]};
            multiply(columns, from + (HELD + i) * STRETCH, sums);
        }
    }

    template <class Exchange>
    __device__ void send(Exchange& exchange, int offset, const Sums& sums) const {
        const float4 first = add(sums.first[0], sums.first[1]);
        const float4 second = add(sums.second[0], sums.second[1]);
        if (column_ >= PADDED) return;
        const int to = column_ / UNITS;
        offset += 2 * place_ * UNITS + column_ % UNITS;
        exchange.send(to, offset, make_float4(first.x, first.z, second.x, second.z));
        exchange.send(to, offset + UNITS, make_float4(first.y, first.w, second.y, second.w));
    }

  private:
    static __device__ void multiply(const float4 (&columns)[4], const float* operand, Sums& sums) {
        const float4 samples = *reinterpret_cast<const float4*>(operand);
        mma_stretch(sums.first[0], sums.first[1], columns[0], columns[1], samples);
        mma_stretch(sums.second[0], sums.second[1], columns[2], columns[3], samples);
    }

    // The weights of one stretch of the depth, the gates of a unit, in one column.
    __device__ float4 gates(const Weights& weights, int i, int column) const {
        const int at = 4 * i * HIDDEN + column;
        const bool there = first_unit_ + 4 * i < HIDDEN && column_ + column < HIDDEN;
        return rounded(weights.at(at, there), weights.at(at + NEXT_GATE, there),
                       weights.at(at + 2 * NEXT_GATE, there),
                       weights.at(at + 3 * NEXT_GATE, there));
    }

    const int row_, place_, first_unit_, column_;
    float4* const shared_;
    float4 held_[HELD][4];  // [depth][column], of the four gates
};
