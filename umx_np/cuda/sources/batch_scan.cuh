// The recurrent scans of training by persistent blocks: what is the same however the blocks
// exchange their results (batch_scan_cooperative.cu); batch_scan_lanes.cuh multiplies.
//
// One layer has D directions over a batch of B samples. A group of PARTS blocks walks through all
// frames of one direction for TILES tiles of SAMPLES samples each; groups know nothing of each
// other. Part p owns the hidden units p UNITS ... (p + 1) UNITS - 1: their rows of W_hh (4 UNITS of
// 4H) stay in its registers, and if need be in its shared memory, from the first frame to the last.
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
// Sizes that do not divide are padded: units beyond HIDDEN and samples beyond the batch have
// weights and inputs of zero, so that all they ever contribute is zero.
#pragma once

#include "common.cuh"

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

constexpr int GATES = 4;  // in the order i, f, g, o
constexpr int PADDED = PARTS * UNITS;
// Whether some thread somewhere is given a weight that does not exist. All depths and widths of
// the products are rounded up to at most 32.
constexpr bool HAS_PADDING = PADDED != HIDDEN || HIDDEN % 32 != 0;

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// The formula of the oracle; exact to 1e-7 absolutely, which is what its derivative needs too.
__device__ __forceinline__ float logistic(float x) { return fmaf(0.5f, tanhf(0.5f * x), 0.5f); }

// Distance of two gates of a unit in W_hh.
constexpr int NEXT_GATE = HIDDEN * HIDDEN;

// Weights as one thread sees them: `mine` is the first of its own, and the others are at distances
// known to the compiler, so that 128 loads need one address. They are not aligned to vectors.
class Weights {
  public:
    __device__ Weights(const float* weight_hh, int row, int column)
        : any_(weight_hh), mine_(weight_hh + (row * HIDDEN + column)) {}

    // Without a branch, so that all loads are under way at once; padding is zero.
    __device__ float at(int distance, bool there) const {
        if (!HAS_PADDING) return __ldg(mine_ + distance);
        const float value = __ldg(there ? mine_ + distance : any_);
        return there ? value : 0.0f;
    }

  private:
    const float *any_, *mine_;
};

// One direction of the layer, in memory.
struct Sequence {
    float* gates;        // (T, B, 4H)
    float* cells;        // (T, B, H), or null: nothing is kept for a backward pass
    const float* bias;   // (4H,), or null
    float* out;          // forward: h of a frame and sample, rows of `stride` floats
    const float* d_out;  // backward: its gradient, as `out`
    int stride;
    int nb_frames, nb_samples;
    bool from_the_end;  // whether this pass walks from the last frame to the first

    __device__ int row(int step, int sample) const {
        return (from_the_end ? nb_frames - 1 - step : step) * nb_samples + sample;
    }
    __device__ float* gates_at(int row) const {
        return gates + static_cast<size_t>(row) * (GATES * HIDDEN);
    }
    __device__ float* cell_at(int row) const { return cells + static_cast<size_t>(row) * HIDDEN; }
};

#include "batch_scan_lanes.cuh"

// What one group walks through.
struct Group {
    int direction, first_sample;

    __device__ Group(int group, int nb_samples) {
        const int per_direction = ceil_div(nb_samples, SAMPLES * TILES);
        direction = group / per_direction;
        first_sample = group % per_direction * SAMPLES * TILES;
    }

    // Of the arrays of all directions. Direction 1 walks through time backward, and the backward
    // pass the other way round.
    __device__ Sequence forward(float* gates, float* cells, const float* bias, float* out,
                                int stride, int nb_frames, int nb_samples) const {
        const size_t rows = static_cast<size_t>(direction) * nb_frames * nb_samples;
        return {gates + rows * GATES * HIDDEN,
                cells ? cells + rows * HIDDEN : nullptr,
                bias ? bias + direction * GATES * HIDDEN : nullptr,
                out + direction * HIDDEN,
                nullptr,
                stride,
                nb_frames,
                nb_samples,
                direction == 1};
    }

    __device__ Sequence backward(float* gates, float* cells, const float* d_out, int stride,
                                 int nb_frames, int nb_samples) const {
        const size_t rows = static_cast<size_t>(direction) * nb_frames * nb_samples;
        return {gates + rows * GATES * HIDDEN,
                cells + rows * HIDDEN,
                nullptr,
                nullptr,
                d_out + direction * HIDDEN,
                stride,
                nb_frames,
                nb_samples,
                direction == 0};
    }
};

// Forward: shared memory in floats, besides what the exchange takes.
constexpr int FORWARD_STATE = TILES * Forward::THREADS;
constexpr int FORWARD_FLOATS = FORWARD_STATE + Forward::SHARED_FLOATS;
// What a step shares: h of all units, as the product reads it.
constexpr int FORWARD_BUFFER = TILES * Forward::H_FLOATS;

// Computes      F1 to F4 of docs/lstm_backward.md for one group
// Arguments     exchange   begin(step) returns h of the step before; share() gives to all parts
//               sequence   gates IN pre-activations without the recurrent part, OUT activations
//                          (where there are cells); out, cells OUT
//               weight_hh  (4H, H)  IN
//               first_sample  of the group's first tile
//               scratch    FORWARD_FLOATS of shared memory
template <class Exchange>
__device__ __forceinline__ void scan_forward(Exchange& exchange, const Sequence& sequence,
                                             const float* weight_hh, int part, int first_sample,
                                             float* scratch) {
    // Each thread reads and writes its own element: the state of a unit outlives a step without
    // a register for every tile.
    float* state = scratch + threadIdx.x;
    Forward product(part, scratch + FORWARD_STATE);
    product.load(weight_hh, sequence.bias);

    Forward::Inputs next = product.fetch(sequence, 0, first_sample);
    for (int step = 0; step < sequence.nb_frames; ++step) {
        const bool last = step == sequence.nb_frames - 1;
        const float* h = exchange.begin(step);
#pragma unroll 1
        for (int tile = 0; tile < TILES; ++tile) {
            const int sample = first_sample + tile * SAMPLES;
            const Forward::Inputs inputs = next;
            // Memory answers while the product runs.
            if (tile + 1 < TILES)
                next = product.fetch(sequence, step, sample + SAMPLES);
            else if (!last)
                next = product.fetch(sequence, step + 1, first_sample);

            float cell = 0.0f;
            Forward::Sums sums = {};
            if (step > 0) {  // h and c before the first frame are zero
                cell = state[tile * Forward::THREADS];
                product.multiply(h + tile * Forward::H_FLOATS, sums);  // F1
            }
            const float4 shared = product.update(sequence, step, sample, inputs, sums, cell);
            state[tile * Forward::THREADS] = cell;
            // Nobody reads h of the last frame here, and a part that has left must not be
            // written to.
            if (!last) product.share(exchange, tile * Forward::H_FLOATS, shared);
        }
    }
}

// Backward: the gradients of one part's gates, as the product reads them.
constexpr int TILE_ITEMS = UNITS * SAMPLES;
constexpr int ITEMS = TILES * TILE_ITEMS;
constexpr int ITEMS_PER_THREAD = ceil_div(ITEMS, Backward::THREADS);
constexpr int BACKWARD_FLOATS = TILES * Backward::OPERAND_FLOATS + Backward::SHARED_FLOATS;
// What a part receives in a step: from every part, a share of d_h of its units.
constexpr int BACKWARD_BUFFER = PARTS * ITEMS;

// What one unit of one sample needs of a frame.
struct BackwardInputs {
    float i, f, g, o, c_before, d_out;
};

// One unit of one sample, through all frames, belongs to one thread.
struct Item {
    int unit;    // of the layer
    int sample;  // of the batch
    bool there;  // whether it is not padding
};

__device__ __forceinline__ Item item_of(int item, int part, int first_sample, int nb_samples) {
    const int rest = item % TILE_ITEMS;
    const int unit = part * UNITS + Backward::unit_of(rest);
    const int sample = first_sample + item / TILE_ITEMS * SAMPLES + Backward::sample_of(rest);
    return {unit, sample, item < ITEMS && unit < HIDDEN && sample < nb_samples};
}

__device__ __forceinline__ BackwardInputs fetch_backward(const Sequence& sequence, int step,
                                                         Item item) {
    BackwardInputs x = {};
    if (!item.there) return x;
    const int row = sequence.row(step, item.sample);
    const float* gates = sequence.gates_at(row) + item.unit;
    x.i = gates[0];
    x.f = gates[HIDDEN];
    x.g = gates[2 * HIDDEN];
    x.o = gates[3 * HIDDEN];
    x.d_out = sequence.d_out[static_cast<size_t>(row) * sequence.stride + item.unit];
    if (step + 1 < sequence.nb_frames)  // before the first frame, c is zero
        x.c_before = sequence.cell_at(sequence.row(step + 1, item.sample))[item.unit];
    return x;
}

// Computes      B1 to B7 of docs/lstm_backward.md for one group; step 0 is the last frame that the
//               forward pass walked through
// Arguments     exchange   begin(step) returns what the parts sent in the step before; send()
//               sequence   gates IN activations, OUT gradients of the pre-activations; cells IN,
//                          d_out IN
//               weight_hh  (4H, H)  IN
//               first_sample  of the group's first tile
//               scratch    BACKWARD_FLOATS of shared memory
// Aliasing      gradients replace the activations: an element is read (one frame ahead) and written
//               by one thread only
template <class Exchange>
__device__ __forceinline__ void scan_backward(Exchange& exchange, const Sequence& sequence,
                                              const float* weight_hh, int part, int first_sample,
                                              float* scratch) {
    float* operand = scratch;
    Backward product(part, scratch + TILES * Backward::OPERAND_FLOATS);
    product.load(weight_hh);

    Item items[ITEMS_PER_THREAD];
    BackwardInputs next[ITEMS_PER_THREAD];
    float c[ITEMS_PER_THREAD], d_c_next[ITEMS_PER_THREAD];
#pragma unroll
    for (int k = 0; k < ITEMS_PER_THREAD; ++k) {
        const int item = threadIdx.x + k * Backward::THREADS;
        items[k] = item_of(item, part, first_sample, sequence.nb_samples);
        next[k] = fetch_backward(sequence, 0, items[k]);
        c[k] = d_c_next[k] = 0.0f;
        if (items[k].there)
            c[k] = sequence.cell_at(sequence.row(0, items[k].sample))[items[k].unit];
    }

    for (int step = 0; step < sequence.nb_frames; ++step) {
        const bool last = step == sequence.nb_frames - 1;
        const float* received = exchange.begin(step);
#pragma unroll
        for (int k = 0; k < ITEMS_PER_THREAD; ++k) {
            const int item = threadIdx.x + k * Backward::THREADS;
            if (item >= ITEMS) break;
            const BackwardInputs x = next[k];
            float d_h = x.d_out;
            if (step > 0) {
#pragma unroll
                for (int from = 0; from < PARTS; ++from)  // always in this order
                    d_h += received[from * ITEMS + item];  // B1
            }
            const float tanh_c = tanhf(c[k]);
            const float d_c = d_c_next[k] + d_h * x.o * (1.0f - tanh_c * tanh_c);  // B3
            const float4 d_gates = make_float4(                                    // B2, B4, B6
                d_c * x.g * x.i * (1.0f - x.i), d_c * x.c_before * x.f * (1.0f - x.f),
                d_c * x.i * (1.0f - x.g * x.g), d_h * tanh_c * x.o * (1.0f - x.o));
            d_c_next[k] = d_c * x.f;  // B5
            c[k] = x.c_before;
            if (items[k].there) {
                float* gates =
                    sequence.gates_at(sequence.row(step, items[k].sample)) + items[k].unit;
                gates[0] = d_gates.x;
                gates[HIDDEN] = d_gates.y;
                gates[2 * HIDDEN] = d_gates.z;
                gates[3 * HIDDEN] = d_gates.w;
            }
            Backward::put(operand + item / TILE_ITEMS * Backward::OPERAND_FLOATS,
                          item % TILE_ITEMS, d_gates);
        }
        if (last) break;  // nothing comes before the first frame
        // The product reads the gates of all threads.
        __syncthreads();
#pragma unroll
        for (int k = 0; k < ITEMS_PER_THREAD; ++k)
            next[k] = fetch_backward(sequence, step + 1, items[k]);
#pragma unroll 1
        for (int tile = 0; tile < TILES; ++tile) {
            Backward::Sums sums = {};
            product.multiply(operand + tile * Backward::OPERAND_FLOATS, sums);  // B7
            product.send(exchange, part * ITEMS + tile * TILE_ITEMS, sums);
        }
        // They are not replaced before all warps have read them. That the sums of a step have come
        // does not say so: of this part, only the warps that hold its own columns send to it.
        __syncthreads();
    }
}
