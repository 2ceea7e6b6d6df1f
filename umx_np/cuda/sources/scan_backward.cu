// The backward scan by persistent blocks; see scan.cuh.
//
// variants: HIDDEN=256,PARTS=8,UNITS=32,TILES=2
// variants: HIDDEN=512,PARTS=32,UNITS=16,TILES=2,BACKWARD_LANES=4
#include "scan.cuh"

static_assert(SAMPLES == 4, "a backward pass has tiles of four samples");

// Lanes that share the depth of a product: 4 to 32, a power of two.
#ifndef BACKWARD_LANES
#define BACKWARD_LANES 8
#endif

constexpr int LANES = BACKWARD_LANES;
static_assert(LANES >= 4 && LANES <= 32 && (LANES & (LANES - 1)) == 0, "a power of 2");
constexpr int ROWS = GATES * UNITS;
static_assert(ROWS % LANES == 0, "all lanes have as many rows");
constexpr int DEPTH = ROWS / LANES;
constexpr int HELD = DEPTH - BACKWARD_SHARED;
static_assert(HELD > 0, "some weights are in registers");
constexpr int THREADS = ceil_div(PADDED / 4 * LANES, UMX_WARP) * UMX_WARP;
// The gradients of a part's gates, as the product reads them.
constexpr int OPERAND_FLOATS = ROWS * SAMPLES;
constexpr int TILE_ITEMS = UNITS * SAMPLES;
constexpr int ITEMS = TILES * TILE_ITEMS;
constexpr int ITEMS_PER_THREAD = ceil_div(ITEMS, THREADS);
// What a part receives in a step: from every part, a share of d_h of its units.
constexpr int RECEIVED_FLOATS = PARTS * ITEMS;

// The gradients of a part's gates lie as (unit, gate, sample). A thread belongs to four columns,
// and to every LANES-th of the 4 UNITS rows; after the exchange, to one column and all samples.
class Backward {
  public:
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

    // Gives the sums of a tile to the parts that own the columns.
    template <class Parts>
    __device__ void multiply(const float* operand, Parts& parts, int offset) const {
        float sums[SUMS] = {};
        const float4* rows = reinterpret_cast<const float4*>(operand) + lane_;
#pragma unroll
        for (int i = 0; i < HELD; ++i) add_outer(sums, held_[i], rows[i * LANES]);
#pragma unroll SHARED_AHEAD
        for (int i = 0; i < BACKWARD_SHARED; ++i)
            add_outer(sums, shared_[i * THREADS], rows[(HELD + i) * LANES]);
        halve<16>(sums, lane_, LANES / 2);  // of four columns, two
        halve<8>(sums, lane_, LANES / 4);   // of two, one
#pragma unroll
        for (int distance = LANES / 8; distance > 0; distance /= 2)
#pragma unroll
            for (int i = 0; i < SAMPLES; ++i)
                sums[i] += __shfl_xor_sync(UMX_FULL_WARP, sums[i], distance);
        constexpr int SAME = LANES / 4;  // lanes that hold the same sums
        const int column = column_ + lane_ / SAME;
        if (lane_ % SAME == 0 && column < PADDED)
            parts.send(column / UNITS, offset + column % UNITS * SAMPLES,
                       make_float4(sums[0], sums[1], sums[2], sums[3]));
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

// One unit of one sample, through all frames, belongs to one thread.
struct Item {
    int unit;    // of the layer
    int sample;  // of the batch
    bool there;  // whether it is not padding
};

// What an item needs of a frame.
struct Inputs {
    float i, f, g, o, c_before, d_out;
};

// Computes      B1 to B7 of docs/lstm_backward.md for some groups; step 0 is the last frame that the
//               forward pass walked through
// Arguments     gates (D, T, B, 4H) INOUT  in: activations; out: gradients of the pre-activations
//               weight_hh, weight_stride  as forward  IN
//               cells (D, T, B, H)  IN
//               d_out (T, B) rows of `out_stride` floats  IN  gradient of h, from column d H
//               reverse  (D,)  IN  as it was for the forward pass
//               nb_frames, nb_samples  T, B
//               exchange  for each group of the launch, 2 PARTS RECEIVED_FLOATS floats
//               counters, first_group  as forward
// Aliasing      gradients replace the activations: an element is read (one frame ahead) and written
//               by one thread only; nothing else overlaps
// Accumulates   `=`; gradients of parameters are products over the whole sequence, done elsewhere
// Parallel over as forward
// Precision     float32; sums in one order always
// Oracle        umx_np.layers.lstm.lstm_backward
// Benchmark     benchmarks/gpu/run.py
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    scan_backward(float* gates, const float* weight_hh, const float* cells, const float* d_out,
                  const unsigned char* reverse, float* exchange, unsigned* counters,
                  int first_group, int nb_frames, int nb_samples, int out_stride,
                  long long weight_stride) {
    UMX_SHARED(buffer);
    const int part = blockIdx.x % PARTS;
    const Group group(first_group + blockIdx.x / PARTS, nb_frames, nb_samples, reverse, true);
    d_out += group.sequence * HIDDEN;
    Exchange<0, RECEIVED_FLOATS> parts(exchange, counters, part);
    float* operand = reinterpret_cast<float*>(buffer);
    Backward product(part, operand + TILES * OPERAND_FLOATS);
    product.load(weight_hh + group.sequence * weight_stride);

    const auto fetch = [&](int step, Item item) {
        Inputs x = {};
        if (!item.there) return x;
        const int row = group.row(step, item.sample);
        const float* of = gates + group.of_all(row) * (GATES * HIDDEN) + item.unit;
        x.i = of[0];
        x.f = of[HIDDEN];
        x.g = of[2 * HIDDEN];
        x.o = of[3 * HIDDEN];
        x.d_out = d_out[static_cast<size_t>(row) * out_stride + item.unit];
        if (step + 1 < nb_frames) {  // before the first frame, c is zero
            const size_t before = group.of_all(group.row(step + 1, item.sample));
            x.c_before = cells[before * HIDDEN + item.unit];
        }
        return x;
    };

    Item items[ITEMS_PER_THREAD];
    Inputs next[ITEMS_PER_THREAD];
    float c[ITEMS_PER_THREAD], d_c_next[ITEMS_PER_THREAD];
#pragma unroll
    for (int k = 0; k < ITEMS_PER_THREAD; ++k) {
        const int item = threadIdx.x + k * THREADS, rest = item % TILE_ITEMS;
        const int unit = part * UNITS + rest / SAMPLES;
        const int sample = group.first_sample + item / TILE_ITEMS * SAMPLES + rest % SAMPLES;
        items[k] = {unit, sample, item < ITEMS && unit < HIDDEN && sample < nb_samples};
        next[k] = fetch(0, items[k]);
        c[k] = d_c_next[k] = 0.0f;
        if (items[k].there) c[k] = cells[group.of_all(group.row(0, sample)) * HIDDEN + unit];
    }

    for (int step = 0; step < nb_frames; ++step) {
        const bool last = step == nb_frames - 1;
        const float* received = parts.begin(step);
#pragma unroll
        for (int k = 0; k < ITEMS_PER_THREAD; ++k) {
            const int item = threadIdx.x + k * THREADS, rest = item % TILE_ITEMS;
            if (item >= ITEMS) break;
            const Inputs x = next[k];
            float d_h = x.d_out;
            if (step > 0) {
#pragma unroll
                for (int from = 0; from < PARTS; ++from)  // always in this order
                    d_h += received[from * ITEMS + item];  // B1
            }
            const float tanh_c = tanhf(c[k]);
            const float d_c = d_c_next[k] + d_h * x.o * (1.0f - tanh_c * tanh_c);  // B3
            const float d_gates[GATES] = {                                         // B2, B4, B6
                d_c * x.g * x.i * (1.0f - x.i), d_c * x.c_before * x.f * (1.0f - x.f),
                d_c * x.i * (1.0f - x.g * x.g), d_h * tanh_c * x.o * (1.0f - x.o)};
            d_c_next[k] = d_c * x.f;  // B5
            c[k] = x.c_before;
            float* to = operand + item / TILE_ITEMS * OPERAND_FLOATS +
                        rest / SAMPLES * GATES * SAMPLES + rest % SAMPLES;
            const size_t row = group.of_all(group.row(step, items[k].sample));
#pragma unroll
            for (int gate = 0; gate < GATES; ++gate) {
                to[gate * SAMPLES] = d_gates[gate];
                if (items[k].there)
                    gates[(row * GATES + gate) * HIDDEN + items[k].unit] = d_gates[gate];
            }
        }
        if (last) break;  // nothing comes before the first frame
        // The product reads the gates of all threads.
        __syncthreads();
#pragma unroll
        for (int k = 0; k < ITEMS_PER_THREAD; ++k) next[k] = fetch(step + 1, items[k]);
#pragma unroll 1
        for (int tile = 0; tile < TILES; ++tile)  // B7
            product.multiply(operand + tile * OPERAND_FLOATS, parts,
                             part * ITEMS + tile * TILE_ITEMS);
        // They are not replaced before all warps have read them. That the sums of a step have come
        // does not say so: of this part, only the warps that hold its own columns send to it.
        __syncthreads();
    }
}
