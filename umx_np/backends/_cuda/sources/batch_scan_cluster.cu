// The recurrent scans of training on thread block clusters (compute capability 9.0 and later).
//
// A group of batch_scan.cuh is a cluster. Results go straight into the shared memory of the parts
// that need them, and an mbarrier there counts the bytes: a step costs one trip from block to
// block, and no barrier of the whole cluster.
//
// variants: HIDDEN=256,TENSOR=0; HIDDEN=256,TENSOR=1; HIDDEN=250,TENSOR=1
#ifndef PARTS
#define PARTS 8
#endif

#include "common.cuh"
#include "cluster.cuh"
#include "batch_scan.cuh"

// BUFFER floats arrive at every part in every step, in all of STEP_BYTES.
template <int BUFFER, int STEP_BYTES>
class ClusterExchange {
    // The hardware counts fewer than 2^20 bytes at a time.
    static_assert(STEP_BYTES < 1 << 20, "a step fits the counter");

  public:
    // Of shared memory. Two counters of 8 bytes stand before the two buffers.
    static constexpr int FLOATS = 4 + 2 * BUFFER;

    __device__ explicit ClusterExchange(float* shared)
        : arrived_(reinterpret_cast<u64*>(shared)), buffers_(shared + 4) {}

    // Before the first step, by all threads.
    __device__ void open() {
        // Places of a buffer that no part writes to pad the depth of a product: their weights are
        // zero, but zero times what is not a number would be none.
        for (int i = threadIdx.x; i < 2 * BUFFER; i += blockDim.x) buffers_[i] = 0.0f;
        if (threadIdx.x == 0) {
            for (int buffer = 0; buffer < 2; ++buffer) mbarrier_init(arrived_ + buffer, 1);
            mbarrier_publish();
            for (int buffer = 0; buffer < 2; ++buffer)
                mbarrier_expect_bytes(arrived_ + buffer, STEP_BYTES);
        }
        // Nobody may store before all have come here: a block that has not started has no shared
        // memory, and what it clears would be lost.
        cluster_sync();
    }

    // Wait for what the parts sent in the step before, and turn to the buffer of this step.
    __device__ const float* begin(int step) {
        buffer_ = step % 2;
        if (step == 0) return nullptr;
        const int before = (step - 1) % 2;
        mbarrier_wait_parity(arrived_ + before, (step - 1) / 2 % 2);
        // Announce the next use of this buffer, in step + 1. Its bytes may be faster than this
        // line, which is allowed: the phase also waits for the one arrival. It cannot pass unseen
        // by a thread still waiting above, since every warp has a share in every step's bytes, or
        // meets the others at a __syncthreads in between (backward).
        if (threadIdx.x == 0) mbarrier_expect_bytes(arrived_ + before, STEP_BYTES);
        return buffers_ + before * BUFFER;
    }

    // To one part.
    __device__ void send(int part, int offset, float4 value) {
        store_async_float4(cluster_address_of(buffers_ + buffer_ * BUFFER + offset, part), value,
                           cluster_address_of(arrived_ + buffer_, part));
    }

    // To all parts, by the `nb_members` threads that know the value.
    __device__ void share(int offset, float4 value, int member, int nb_members) {
        for (int part = member; part < PARTS; part += nb_members) send(part, offset, value);
    }

  private:
    u64* const arrived_;
    float* const buffers_;
    int buffer_ = 0;
};

typedef ClusterExchange<FORWARD_BUFFER, TILES * PADDED * SAMPLES * 4> ForwardExchange;
typedef ClusterExchange<BACKWARD_BUFFER, BACKWARD_BUFFER * 4> BackwardExchange;

// Whoever leaves must not be written to any more. A block leaves after its last step, in which
// nobody sends, and has waited for all bytes that were sent to it before.

// Computes      F1 to F4 of docs/lstm_backward.md for all directions and samples
// Arguments     gates (D, T, B, 4H) INOUT  in: pre-activations i, f, g, o without the recurrent
//                 part; out, where there are cells: activations
//               weight_hh  D times (4H, H), `weight_stride` floats apart  IN
//               bias  (D, 4H), or null  IN  added to the pre-activations
//               out   (T, B) rows of `out_stride` floats  OUT  h of direction d from column d H
//               cells (D, T, B, H), or null  OUT  c of every frame
//               nb_frames, nb_samples  T, B
// Aliasing      activations replace the pre-activations; nothing else overlaps
// Accumulates   `=`
// Parallel over directions, batch and hidden units: PARTS blocks of Forward::THREADS threads for
//               each of D ceil(B / (TILES SAMPLES)) groups
// Precision     float32, or products of TF32 operands with TENSOR; sums in one order always
// Oracle        umx_np.nn.lstm.lstm_forward
// Benchmark     benchmarks/gpu/run.py
extern "C" __global__ void __cluster_dims__(PARTS, 1, 1) __launch_bounds__(Forward::THREADS)
    batch_scan_forward_cluster(float* gates, const float* weight_hh, const float* bias, float* out,
                               float* cells, int nb_frames, int nb_samples, int out_stride,
                               long long weight_stride) {
    UMX_SHARED(buffer);
    float* shared = reinterpret_cast<float*>(buffer);
    const Group group(blockIdx.x / PARTS, nb_samples);
    const Sequence sequence =
        group.forward(gates, cells, bias, out, out_stride, nb_frames, nb_samples);
    ForwardExchange exchange(shared);
    scan_forward(exchange, sequence, weight_hh + group.direction * weight_stride, cluster_rank(),
                 group.first_sample, shared + ForwardExchange::FLOATS);
}

// Computes      B1 to B7 of docs/lstm_backward.md for all directions and samples
// Arguments     gates (D, T, B, 4H) INOUT  in: activations; out: gradients of the pre-activations
//               weight_hh  as forward  IN
//               cells (D, T, B, H)  IN
//               d_out (T, B) rows of `out_stride` floats  IN  gradient of h, from column d H
//               nb_frames, nb_samples  T, B
// Aliasing      gradients replace the activations; nothing else overlaps
// Accumulates   `=`; gradients of parameters are products over the whole sequence, done elsewhere
// Parallel over as forward, with Backward::THREADS threads
// Precision     float32, or products of TF32 operands with TENSOR; sums in one order always
// Oracle        umx_np.nn.lstm.lstm_backward
// Benchmark     benchmarks/gpu/run.py
extern "C" __global__ void __cluster_dims__(PARTS, 1, 1) __launch_bounds__(Backward::THREADS)
    batch_scan_backward_cluster(float* gates, const float* weight_hh, float* cells,
                                const float* d_out, int nb_frames, int nb_samples, int out_stride,
                                long long weight_stride) {
    UMX_SHARED(buffer);
    float* shared = reinterpret_cast<float*>(buffer);
    const Group group(blockIdx.x / PARTS, nb_samples);
    const Sequence sequence =
        group.backward(gates, cells, d_out, out_stride, nb_frames, nb_samples);
    BackwardExchange exchange(shared);
    scan_backward(exchange, sequence, weight_hh + group.direction * weight_stride, cluster_rank(),
                  group.first_sample, shared + BackwardExchange::FLOATS);
}
