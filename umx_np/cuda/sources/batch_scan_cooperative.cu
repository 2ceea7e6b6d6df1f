// The recurrent scans of training.
//
// A group of batch_scan.cuh is PARTS blocks that are resident at the same time (a cooperative
// launch) and exchange through global memory, which the second-level cache holds. They wait for
// each other once in a step; groups do not wait for each other.
//
// variants: HIDDEN=256,PARTS=8,UNITS=32,TILES=2
// variants: HIDDEN=512,PARTS=32,UNITS=16,TILES=2,FORWARD_LANES=32,BACKWARD_LANES=4
#include "common.cuh"
#include "cooperative.cuh"
#include "batch_scan.cuh"

// In a step, SHARED floats are received by all parts alike (forward), or OWN floats by each part
// (backward). `memory` holds two buffers for each group of the launch.
template <int SHARED, int OWN>
class GlobalExchange {
    static constexpr int BUFFER = SHARED + PARTS * OWN;

  public:
    __device__ GlobalExchange(float* memory, unsigned* counters, int part)
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

    __device__ void send(int part, int offset, float4 value) {
        store(part * OWN + offset, value);
    }

    // One copy serves all parts.
    __device__ void share(int offset, float4 value) { store(offset, value); }

  private:
    __device__ void store(int offset, float4 value) {
        *reinterpret_cast<float4*>(buffers_ + buffer_ * BUFFER + offset) = value;
    }

    float* const buffers_;
    unsigned* const counter_;
    const int part_;
    unsigned generation_ = 0;
    int buffer_ = 0;
};

typedef GlobalExchange<FORWARD_BUFFER, 0> ForwardExchange;
typedef GlobalExchange<0, BACKWARD_BUFFER> BackwardExchange;

// Computes      F1 to F4 of docs/lstm_backward.md for some groups
// Arguments     gates (D, T, B, 4H) INOUT  in: pre-activations i, f, g, o without the recurrent
//                 part; out, where there are cells: activations
//               weight_hh  D times (4H, H), `weight_stride` floats apart  IN
//               bias  (D, 4H), or null  IN  added to the pre-activations
//               out   (T, B) rows of `out_stride` floats  OUT  h of direction d from column d H
//               cells (D, T, B, H), or null  OUT  c of every frame
//               nb_frames, nb_samples  T, B
//               exchange  for each group of the launch, 2 FORWARD_BUFFER floats; 0 before the first
//                 launch, since what pads the depth of a product is never written
//               counters  for each group of the launch, one; 0 before every launch
//               first_group  of D ceil(B / (TILES SAMPLES))
// Aliasing      activations replace the pre-activations; nothing else overlaps
// Accumulates   `=`
// Parallel over directions, batch and hidden units: PARTS blocks of Forward::THREADS threads for
//               each group of a cooperative launch
// Precision     float32; sums in one order always
// Oracle        umx_np.layers.lstm.lstm_forward
// Benchmark     benchmarks/gpu/run.py
extern "C" __global__ void __launch_bounds__(Forward::THREADS)
    batch_scan_forward_cooperative(float* gates, const float* weight_hh, const float* bias,
                                   float* out, float* cells, float* exchange, unsigned* counters,
                                   int first_group, int nb_frames, int nb_samples, int out_stride,
                                   long long weight_stride) {
    UMX_SHARED(buffer);
    const int part = blockIdx.x % PARTS;
    const Group group(first_group + blockIdx.x / PARTS, nb_samples);
    const Sequence sequence =
        group.forward(gates, cells, bias, out, out_stride, nb_frames, nb_samples);
    ForwardExchange parts(exchange, counters, part);
    scan_forward(parts, sequence, weight_hh + group.direction * weight_stride, part,
                 group.first_sample, reinterpret_cast<float*>(buffer));
}

// Computes      B1 to B7 of docs/lstm_backward.md for some groups
// Arguments     gates (D, T, B, 4H) INOUT  in: activations; out: gradients of the pre-activations
//               weight_hh  as forward  IN
//               cells (D, T, B, H)  IN
//               d_out (T, B) rows of `out_stride` floats  IN  gradient of h, from column d H
//               nb_frames, nb_samples  T, B
//               exchange  for each group of the launch, 2 PARTS BACKWARD_BUFFER floats
//               counters, first_group  as forward
// Aliasing      gradients replace the activations; nothing else overlaps
// Accumulates   `=`; gradients of parameters are products over the whole sequence, done elsewhere
// Parallel over as forward, with Backward::THREADS threads
// Precision     float32; sums in one order always
// Oracle        umx_np.layers.lstm.lstm_backward
// Benchmark     benchmarks/gpu/run.py
extern "C" __global__ void __launch_bounds__(Backward::THREADS)
    batch_scan_backward_cooperative(float* gates, const float* weight_hh, float* cells,
                                    const float* d_out, float* exchange, unsigned* counters,
                                    int first_group, int nb_frames, int nb_samples, int out_stride,
                                    long long weight_stride) {
    UMX_SHARED(buffer);
    const int part = blockIdx.x % PARTS;
    const Group group(first_group + blockIdx.x / PARTS, nb_samples);
    const Sequence sequence =
        group.backward(gates, cells, d_out, out_stride, nb_frames, nb_samples);
    BackwardExchange parts(exchange, counters, part);
    scan_backward(parts, sequence, weight_hh + group.direction * weight_stride, part,
                  group.first_sample, reinterpret_cast<float*>(buffer));
}
