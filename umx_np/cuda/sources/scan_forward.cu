// The forward scan by persistent blocks; see scan.cuh.
//
// variants: HIDDEN=256,PARTS=8,UNITS=32,TILES=2
// variants: HIDDEN=512,PARTS=32,UNITS=16,TILES=2,FORWARD_LANES=32
// variants: HIDDEN=128,PARTS=4,UNITS=32,SAMPLES=1; HIDDEN=128,PARTS=8,UNITS=16,SAMPLES=1
// variants: HIDDEN=128,PARTS=16,UNITS=8,SAMPLES=1; HIDDEN=256,PARTS=8,UNITS=32,SAMPLES=1
// variants: HIDDEN=256,PARTS=16,UNITS=16,SAMPLES=1,FORWARD_LANES=32
// variants: HIDDEN=512,PARTS=16,UNITS=32,SAMPLES=1,FORWARD_SHARED=16
// variants: HIDDEN=512,PARTS=26,UNITS=20,SAMPLES=1,FORWARD_SHARED=7
// variants: HIDDEN=512,PARTS=32,UNITS=16,SAMPLES=1,FORWARD_LANES=32
#include "scan.cuh"

// Lanes that share the depth of a product: 16 or 32.
#ifndef FORWARD_LANES
#define FORWARD_LANES 16
#endif

constexpr int LANES = FORWARD_LANES;
static_assert(LANES == 16 || LANES == 32, "the sums are spread over the lanes of a unit");
constexpr int DEPTH = ceil_div(PADDED, LANES);
constexpr int HELD = DEPTH - FORWARD_SHARED;
static_assert(HELD > 0, "some weights are in registers");
constexpr int THREADS = UNITS * LANES;
static_assert(THREADS % UMX_WARP == 0, "every lane of a warp belongs to a unit");
// What a step shares: h of all units, as the product reads it.
constexpr int H_FLOATS = DEPTH * LANES * SAMPLES;

// h of a tile lies as (unit, sample). A thread belongs to one unit, all four gates, and to every
// LANES-th step of the depth; after the exchange, to one gate and one sample.
class Forward {
  public:
    __device__ Forward(const Group& group, int part, float* shared)
        : group_(group),
          lane_(threadIdx.x % LANES),
          unit_(part * UNITS + static_cast<int>(threadIdx.x) / LANES),
          gate_(lane_ / 4 % GATES),
          sample_(lane_ % SAMPLES),
          writes_(lane_ < 16 && lane_ % 4 < SAMPLES && unit_ < HIDDEN),
          shared_(reinterpret_cast<float4*>(shared) + threadIdx.x) {}

    __device__ void load(const float* weight_hh, const float* bias) {
        const Weights weights(weight_hh, unit_, lane_);
#pragma unroll
        for (int i = 0; i < HELD; ++i) held_[i] = gates(weights, i);
        for (int i = 0; i < FORWARD_SHARED; ++i) shared_[i * THREADS] = gates(weights, HELD + i);
        bias_ = bias && unit_ < HIDDEN ? bias[gate_ * HIDDEN + unit_] : 0.0f;
    }

    // Pre-activation of the thread's gate and sample.
    __device__ float input(const float* gates, int step, int first_sample) const {
        const int sample = first_sample + sample_;
        if (unit_ >= HIDDEN || sample >= group_.nb_samples) return 0.0f;
        const size_t row = group_.of_all(group_.row(step, sample));
        return gates[row * (GATES * HIDDEN) + gate_ * HIDDEN + unit_] + bias_;
    }

    // Of the state (B, H) of this sequence: the thread's unit, one sample.
    __device__ float of_state(const float* state, int sample) const {
        const bool there = unit_ < HIDDEN && sample < group_.nb_samples;
        return there ? state[sample * HIDDEN + unit_] : 0.0f;
    }
    __device__ float own_of_state(const float* state, int first_sample) const {
        return of_state(state, first_sample + sample_);
    }
    __device__ Vector all_of_state(const float* state, int first_sample) const {
        float x[SAMPLES];
#pragma unroll
        for (int i = 0; i < SAMPLES; ++i) x[i] = of_state(state, first_sample + i);
        return make_vector(x);
    }

    // Recurrent part of the pre-activation of the thread's gate and sample.
    __device__ float multiply(const float* h) const {
        float sums[SUMS] = {};
        const Vector* units = reinterpret_cast<const Vector*>(h) + lane_;
#pragma unroll
        for (int i = 0; i < HELD; ++i) add_outer(sums, held_[i], units[i * LANES]);
#pragma unroll SHARED_AHEAD
        for (int i = 0; i < FORWARD_SHARED; ++i)
            add_outer(sums, shared_[i * THREADS], units[(HELD + i) * LANES]);
        // Distances 8 and 4 choose the gate, 2 and 1 the sample: as gate_ and sample_ have it.
        halve<SUMS>(sums, lane_, 8);
        halve<SUMS / 2>(sums, lane_, 4);
#pragma unroll
        for (int distance = 2; distance > 0; distance /= 2) {
            if (SAMPLES == 1)
                sums[0] += __shfl_xor_sync(UMX_FULL_WARP, sums[0], distance);
            else if (distance == 2)
                halve<SAMPLES>(sums, lane_, 2);
            else
                halve<SAMPLES / 2>(sums, lane_, 1);
        }
        if (LANES == 32) sums[0] += __shfl_xor_sync(UMX_FULL_WARP, sums[0], 16);
        return sums[0];
    }

    // Returns h of the thread's unit, all samples, from the pre-activation x. `h_state` and `c_state`
    // are null but in the last step.
    __device__ Vector update(float x, int step, int first_sample, float* gates, float* cells,
                             float* out, int out_stride, float* h_state, float* c_state,
                             float& cell) const {
        // The quotient is 0 where the divisor is beyond 2^126.
        const float gate =
            gate_ == 2 ? tanhf(x) : __fdividef(1.0f, 1.0f + expf(-x));  // F2

        const int first = threadIdx.x % UMX_WARP - lane_ % 16;  // lane of gate 0, sample 0
        const float i = from(gate, first + sample_);
        const float f = from(gate, first + 4 + sample_);
        const float g = from(gate, first + 8 + sample_);
        const float o = from(gate, first + 12 + sample_);
        cell = fmaf(f, cell, i * g);       // F3
        const float h = o * tanhf(cell);  // F4

        const int sample = first_sample + sample_;
        if (writes_ && sample < group_.nb_samples) {
            const int row = group_.row(step, sample);
            const size_t at = group_.of_all(row);
            if (gate_ == 0) {
                out[static_cast<size_t>(row) * out_stride + unit_] = h;
                if (h_state) h_state[sample * HIDDEN + unit_] = h;
            }
            if (gate_ == 1 && c_state) c_state[sample * HIDDEN + unit_] = cell;
            if (cells) {
                gates[at * (GATES * HIDDEN) + gate_ * HIDDEN + unit_] = gate;
                if (gate_ == 1) cells[at * HIDDEN + unit_] = cell;
            }
        }
        float all[SAMPLES];
#pragma unroll
        for (int k = 0; k < SAMPLES; ++k) all[k] = from(h, first + k);
        return make_vector(all);
    }

    template <class Parts>
    __device__ void share(Parts& parts, int tile, Vector h) const {
        if (lane_ == 0) parts.share(tile * H_FLOATS + unit_ * SAMPLES, h);
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

    const Group& group_;
    const int lane_, unit_, gate_, sample_;
    const bool writes_;
    float4* const shared_;
    float bias_;
    float4 held_[HELD];  // of the four gates
};

// Computes      F1 to F4 of docs/lstm_backward.md for some groups
// Arguments     gates (D, T, B, 4H) INOUT  in: pre-activations i, f, g, o without the recurrent
//                 part; out, where there are cells: activations
//               weight_hh  D times (4H, H), `weight_stride` floats apart  IN
//               bias  (D, 4H), or null  IN  added to the pre-activations
//               out   (T, B) rows of `out_stride` floats  OUT  h of sequence d from column d H
//               cells (D, T, B, H), or null  OUT  c of every frame
//               h, c  (D, B, H)  INOUT  state before the first frame and after the last
//               reverse  (D,)  IN  whether a sequence walks from the last frame to the first
//               nb_frames, nb_samples  T, B
//               exchange  for each group of the launch, 2 TILES H_FLOATS floats; 0 before the
//                 launch, since what pads the depth of a product is never written
//               counters  for each group of the launch, one; 0 before the launch
//               first_group  of D ceil(B / (TILES SAMPLES))
// Aliasing      activations replace the pre-activations; nothing else overlaps
// Accumulates   `=`
// Parallel over sequences, batch and hidden units: PARTS blocks of THREADS threads for each group of
//               a cooperative launch
// Precision     float32; sums in one order always
// Oracle        umx_np.layers.lstm.lstm_forward, lstm_scan
// Benchmark     benchmarks/gpu/run.py
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    scan_forward(float* gates, const float* weight_hh, const float* bias, float* out, float* cells,
                 float* h, float* c, const unsigned char* reverse, float* exchange,
                 unsigned* counters, int first_group, int nb_frames, int nb_samples,
                 int out_stride, long long weight_stride) {
    UMX_SHARED(buffer);
    const int part = blockIdx.x % PARTS;
    const Group group(first_group + blockIdx.x / PARTS, nb_frames, nb_samples, reverse, false);
    const int sequence = group.sequence;
    const size_t state = static_cast<size_t>(sequence) * nb_samples * HIDDEN;
    h += state;
    c += state;
    out += sequence * HIDDEN;
    Exchange<TILES * H_FLOATS, 0> parts(exchange, counters, part);

    // Each thread reads and writes its own element: c of a unit outlives a step without a register
    // for every tile.
    float* own_c = reinterpret_cast<float*>(buffer) + threadIdx.x;
    Forward product(group, part, reinterpret_cast<float*>(buffer) + TILES * THREADS);
    product.load(weight_hh + sequence * weight_stride,
                 bias ? bias + sequence * GATES * HIDDEN : nullptr);
    parts.begin(0);
    for (int tile = 0; tile < TILES; ++tile) {
        const int sample = group.first_sample + tile * SAMPLES;
        own_c[tile * THREADS] = product.own_of_state(c, sample);
        product.share(parts, tile, product.all_of_state(h, sample));
    }

    float next = product.input(gates, 0, group.first_sample);
    for (int step = 0; step < nb_frames; ++step) {
        const bool last = step == nb_frames - 1;
        const float* h_before = parts.begin(step + 1);
#pragma unroll 1
        for (int tile = 0; tile < TILES; ++tile) {
            const int sample = group.first_sample + tile * SAMPLES;
            const float input = next;
            // Memory answers while the product runs.
            if (tile + 1 < TILES)
                next = product.input(gates, step, sample + SAMPLES);
            else if (!last)
                next = product.input(gates, step + 1, group.first_sample);

            float cell = own_c[tile * THREADS];
            const float x = input + product.multiply(h_before + tile * H_FLOATS);  // F1
            const Vector made =
                product.update(x, step, sample, gates, cells, out, out_stride,
                               last ? h : nullptr, last ? c : nullptr, cell);
            own_c[tile * THREADS] = cell;
            // Nobody reads h of the last frame here, and a part that has left must not be
            // written to.
            if (!last) product.share(parts, tile, made);
        }
    }
}
