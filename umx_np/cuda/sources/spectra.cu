// The short-time Fourier transform around the FFT: frames, magnitudes, overlap-add.
//
// Every kernel: Parallel over samples or bins (x of the grid) and rows (y, in strides, so that any
// number of rows fits a grid). Precision float32. Nothing is added up by atomics: sums run
// in the order of the frames, as on the CPU. Benchmark: benchmarks/gpu/run.py
#include "common.cuh"

typedef float2 Complex;

// |z|, for the loudest and the faintest numbers, too: nothing is squared that could overflow.
__device__ __forceinline__ float absolute(Complex z) {
    const float re = z.x < 0 ? -z.x : z.x, im = z.y < 0 ? -z.y : z.y;
    const float large = re < im ? im : re, small = re < im ? re : im;
    if (large == 0) return 0;
    const float ratio = small / large;
    return large * (float)sqrt((float)1 + ratio * ratio);
}

/* Computes      out[c, t, i] = window[i] * padded[c, (first + t) * n_hop + i], where `padded` is x
 *               with `pad` reflected samples on both sides; an x too short for that is first
 *               extended with zeros
 * Arguments     x (nb_channels, row_length) IN, of which nb_timesteps samples are the signal
 *               window (n_fft) IN, out (nb_channels, nb_frames, n_fft) OUT
 * Accumulates   =
 * Oracle        umx_np.backends.reference.frame, umx_np.framing.geometry.StftGeometry.pad_signal
 */
extern "C" __global__ void frame(const float* __restrict__ x, const float* __restrict__ window,
                                 float* __restrict__ out, int nb_channels, int nb_frames, int n_fft,
                                 int n_hop, int pad, long long first, long long row_length,
                                 long long nb_timesteps) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n_fft) return;
    const long long extended = nb_timesteps > pad ? nb_timesteps : pad + 1LL;
    const float weight = window[i];
    for (int row = blockIdx.y; row < nb_channels * nb_frames; row += gridDim.y) {
        const int c = row / nb_frames, t = row % nb_frames;
        long long p = (first + t) * n_hop + i - pad;
        if (p < 0) p = -p;
        if (p >= extended) p = 2 * (extended - 1) - p;
        const float value = p < nb_timesteps ? x[c * row_length + p] : (float)0;
        out[(long long)row * n_fft + i] = value * weight;
    }
}

/* Computes      out[t, c, b] = |spectrum[c, t, b]|, or its mean over c in out[t, 0, b] if mono
 * Arguments     spectrum (nb_channels, nb_frames, nb_bins) IN,
 *               out (nb_frames, nb_channels or 1, nb_read) OUT with nb_read <= nb_bins
 * Accumulates   =
 * Oracle        umx_np.backends.reference.magnitude
 */
extern "C" __global__ void magnitude(const Complex* __restrict__ spectrum, float* __restrict__ out,
                                     int nb_channels, int nb_frames, int nb_bins, int nb_read,
                                     int mono) {
    const int b = blockIdx.x * blockDim.x + threadIdx.x;
    if (b >= nb_read) return;
    for (int t = blockIdx.y; t < nb_frames; t += gridDim.y) {
        double sum = 0.0;
        for (int c = 0; c < nb_channels; c++) {
            const float value = absolute(spectrum[((long long)c * nb_frames + t) * nb_bins + b]);
            if (mono)
                sum += value;
            else
                out[((long long)t * nb_channels + c) * nb_read + b] = value;
        }
        if (mono) out[(long long)t * nb_read + b] = (float)(sum / nb_channels);
    }
}

// Largest value of a block of whole warps, in thread 0. Needs 32 numbers of shared memory.
__device__ float block_max(float value, float* shared) {
    for (int distance = UMX_WARP / 2; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(UMX_FULL_WARP, value, distance);
        value = other > value ? other : value;
    }
    const int lane = threadIdx.x % UMX_WARP, warp = threadIdx.x / UMX_WARP;
    if (lane == 0) shared[warp] = value;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int w = 1; w < (int)(blockDim.x / UMX_WARP); w++)
            value = shared[w] > value ? shared[w] : value;
    return value;
}

/* Computes      peaks[t] = max over c and b of |spectrum[c, t, b]|
 * Arguments     spectrum (nb_channels, nb_frames, nb_bins) IN, peaks (nb_frames) OUT
 * Accumulates   =
 * Parallel over frames, one block each
 * Oracle        numpy.abs(spectrum).max(axis=(0, 2))
 */
extern "C" __global__ void frame_peaks(const Complex* __restrict__ spectrum,
                                       float* __restrict__ peaks, int nb_channels, int nb_frames,
                                       int nb_bins) {
    UMX_SHARED(memory);
    const int t = blockIdx.x;
    float peak = 0;
    for (int c = 0; c < nb_channels; c++) {
        const Complex* row = spectrum + ((long long)c * nb_frames + t) * nb_bins;
        for (int b = threadIdx.x; b < nb_bins; b += blockDim.x) {
            const float value = absolute(row[b]);
            peak = value > peak ? value : peak;
        }
    }
    peak = block_max(peak, (float*)memory);
    if (threadIdx.x == 0) peaks[t] = peak;
}

/* Computes      scales[w] = max(1, peak / scale_factor), of the frames of window w
 * Arguments     peaks (nb_frames) IN, scales (ceil(nb_frames / window)) OUT
 * Accumulates   =
 * Parallel over windows, one block each
 * Oracle        umx_np.backends.contracts.scale_of
 */
extern "C" __global__ void window_scales(const float* __restrict__ peaks,
                                         double* __restrict__ scales, long long nb_frames,
                                         long long window, double scale_factor) {
    UMX_SHARED(memory);
    const long long start = blockIdx.x * window;
    const long long stop = start + window < nb_frames ? start + window : nb_frames;
    float peak = 0;
    for (long long t = start + threadIdx.x; t < stop; t += blockDim.x)
        peak = peaks[t] > peak ? peaks[t] : peak;
    peak = block_max(peak, (float*)memory);
    if (threadIdx.x == 0) {
        const double scale = (double)peak / scale_factor;
        scales[blockIdx.x] = scale > 1.0 ? scale : 1.0;
    }
}

// What the frames of one signal add to `value` at sample p, in the order of the frames.
__device__ __forceinline__ float add_windowed(float value, const float* frames, const float* window,
                                             long long p, int nb_frames, int n_fft, int n_hop) {
    const long long newest = p / n_hop;
    const long long last = newest < nb_frames ? newest : nb_frames - 1;
    const long long first = p < n_fft ? 0 : (p - n_fft) / n_hop + 1;
    for (long long t = first; t <= last; t++) {
        const int i = (int)(p - t * n_hop);
        value += frames[t * n_fft + i] * window[i];
    }
    return value;
}

/* One over the sum of the squared windows at sample s of the padded signal. Where all frames that
 * could reach s are there, the sum repeats every hop. */
__device__ float inverse_envelope(long long s, const float* steady, const double* squares, int n_fft,
                                 int n_hop, long long nb_frames) {
    const long long first = s < n_fft ? 0 : (s - n_fft) / n_hop + 1;
    const long long newest = s / n_hop;
    if (s >= n_fft - n_hop && newest < nb_frames) return steady[s % n_hop];
    double total = 0.0;
    for (long long t = first; t <= newest && t < nb_frames; t++) total += squares[s - t * n_hop];
    return total > 1e-11 ? (float)(1.0 / total) : (float)0;
}

/* Computes      the samples of consecutive frames, divided by the sum of the squared windows.
 *               Sample p counts from the start of the first of these frames. Those before `done` are
 *               complete and go to out[p - skip], 0 beyond the last frame; to the later ones more
 *               frames will add, so what there is goes to carry_out[p - done].
 * Arguments     frames (nb_signals, nb_frames, n_fft) IN
 *               window (n_fft) IN, with the scale of the inverse FFT
 *               steady (n_hop) IN, squares (n_fft) IN: see inverse_envelope
 *               carry_in (nb_signals, n_fft - n_hop) IN from the frames before; ignored if first is 0
 *               carry_out (nb_signals, n_fft - n_hop) OUT, ignored if `done` covers all samples
 *               out (nb_signals, nb_out) OUT
 *               first number of the first frame, nb_total frames of the whole signal
 * Aliasing      carry_in and carry_out may not be the same
 * Accumulates   =
 * Oracle        umx_np.framing.blocks.OverlapAdder
 */
extern "C" __global__ void overlap_add(const float* __restrict__ frames,
                                       const float* __restrict__ window,
                                       const float* __restrict__ steady,
                                       const double* __restrict__ squares,
                                       const float* __restrict__ carry_in,
                                       float* __restrict__ carry_out, float* __restrict__ out,
                                       int nb_signals, int nb_frames, int n_fft, int n_hop,
                                       long long first, long long nb_total, long long done,
                                       long long skip, long long nb_out) {
    const long long p = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long covered = (nb_frames - 1LL) * n_hop + n_fft;
    const int nb_carry = n_fft - n_hop;
    const bool kept = p >= skip && p < skip + nb_out, carried = p >= done && p < covered;
    if (!kept && !carried) return;
    const float scale =
        kept ? inverse_envelope(first * n_hop + p, steady, squares, n_fft, n_hop, nb_total) : 0;
    for (int row = blockIdx.y; row < nb_signals; row += gridDim.y) {
        float value = first > 0 && p < nb_carry ? carry_in[(long long)row * nb_carry + p] : (float)0;
        const float* signal = frames + (long long)row * nb_frames * n_fft;
        value = add_windowed(value, signal, window, p, nb_frames, n_fft, n_hop);
        if (kept)
            out[row * nb_out + p - skip] = value * scale;
        else
            carry_out[(long long)row * nb_carry + p - done] = value;
    }
}
