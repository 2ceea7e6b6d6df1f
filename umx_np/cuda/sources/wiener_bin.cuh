// One bin of one frame in the Wiener filter, and the algebra of its channels: what wiener.cu and
// wiener_gradient.cu share. float64 throughout; near-mono mixtures make Cxx nearly singular.
//
// F frames in windows, B bins:
//   mix         (NB_CHANNELS, F, B) complex64
//   mags        (NB_TARGETS, F, MAG_CHANNELS, B) float32
//   covariances (..., NB_SOURCES, 4, B) float64: parts 00, 11, real and imaginary of 01 of each R
#pragma once
#include "common.cuh"

#ifndef NB_TARGETS
#define NB_TARGETS 4
#endif
#ifndef NB_CHANNELS
#define NB_CHANNELS 2
#endif
#ifndef MAG_CHANNELS
#define MAG_CHANNELS 2
#endif
#ifndef RESIDUAL
#define RESIDUAL 0
#endif
#define NB_SOURCES (NB_TARGETS + RESIDUAL)
// Numbers of R that are in use.
#define NB_PARTS (NB_CHANNELS == 1 ? 1 : 4)
// Frames of one piece of the sums, and threads that share it.
#ifndef PIECE
#define PIECE 64
#endif
#ifndef ROWS
#define ROWS 8
#endif

typedef float2 Complex;

// A complex number for each channel.
struct Vector {
    double re[NB_CHANNELS], im[NB_CHANNELS];
};

// A Hermitian matrix over the channels: 00, 11, real and imaginary part of 01.
struct Hermitian {
    double part[NB_PARTS];
};

// Where the numbers of a bin are.
struct Cell {
    const Complex* mix;  // of channel 0
    const float* mags;   // of target 0, channel 0
    long long mix_channel, mag_channel, mag_target;

    __device__ __forceinline__ Complex x(int c) const { return mix[c * mix_channel]; }
    __device__ __forceinline__ double mag(int j, int c) const {
        return mags[j * mag_target + (MAG_CHANNELS == 1 ? 0 : c) * mag_channel];
    }
};

__device__ __forceinline__ Cell cell_of(const Complex* mix, const float* mags, long long t, int b,
                                        long long nb_frames, int nb_bins) {
    Cell cell;
    cell.mix = mix + t * nb_bins + b;
    cell.mags = mags + t * MAG_CHANNELS * nb_bins + b;
    cell.mix_channel = nb_frames * nb_bins;
    cell.mag_channel = nb_bins;
    cell.mag_target = nb_frames * MAG_CHANNELS * nb_bins;
    return cell;
}

// The mixture, and the powers of estimates with its phase, which need not be known for that.
__device__ __forceinline__ void first_powers(const Cell& cell, double inverse_scale, Vector& x,
                                             double* v) {
    const double weight = inverse_scale * inverse_scale / NB_CHANNELS;
#pragma unroll
    for (int c = 0; c < NB_CHANNELS; c++) {
        const Complex mix = cell.x(c);
        x.re[c] = mix.x * inverse_scale;
        x.im[c] = mix.y * inverse_scale;
    }
#pragma unroll
    for (int j = 0; j < NB_TARGETS; j++) {
        double sum = 0.0;
#pragma unroll
        for (int c = 0; c < NB_CHANNELS; c++) sum += cell.mag(j, c) * cell.mag(j, c);
        v[j] = weight * sum;
    }
}

// R of source j; r is that of source 0 at the bin.
__device__ __forceinline__ Hermitian covariance_of(const double* r, int j, int nb_bins) {
    Hermitian found;
#pragma unroll
    for (int q = 0; q < NB_PARTS; q++) found.part[q] = r[(j * 4LL + q) * nb_bins];
    return found;
}

__device__ __forceinline__ void add_scaled(Hermitian& sum, double factor, const Hermitian& m) {
#pragma unroll
    for (int q = 0; q < NB_PARTS; q++) sum.part[q] += factor * m.part[q];
}

// (m + reg I)^-1 for m without negative eigenvalues.
__device__ __forceinline__ Hermitian regularised_inverse(const Hermitian& m, double reg) {
    Hermitian inverse;
#if NB_CHANNELS == 1
    inverse.part[0] = 1.0 / (m.part[0] + reg);
#else
    const double a = m.part[0], d = m.part[1], re = m.part[2], im = m.part[3];
    // The determinant of m + reg I as det m + reg tr m + reg^2 with det m >= 0 cannot vanish,
    // however close to mono the sources are.
    double det = a * d - re * re - im * im;
    det = (det > 0.0 ? det : 0.0) + reg * (a + d) + reg * reg;
    const double s = 1.0 / det;
    inverse.part[0] = s * (d + reg);
    inverse.part[1] = s * (a + reg);
    inverse.part[2] = -s * re;
    inverse.part[3] = -s * im;
#endif
    return inverse;
}

__device__ __forceinline__ Vector product(const Hermitian& m, const Vector& x) {
    Vector y;
#if NB_CHANNELS == 1
    y.re[0] = m.part[0] * x.re[0];
    y.im[0] = m.part[0] * x.im[0];
#else
    const double re = m.part[2], im = m.part[3];
    y.re[0] = m.part[0] * x.re[0] + re * x.re[1] - im * x.im[1];
    y.im[0] = m.part[0] * x.im[0] + re * x.im[1] + im * x.re[1];
    y.re[1] = re * x.re[0] + im * x.im[0] + m.part[1] * x.re[1];
    y.im[1] = re * x.im[0] - im * x.re[0] + m.part[1] * x.im[1];
#endif
    return y;
}

/* Adds what the rows of a block have summed, and writes it to out (NB_SOURCES, 4, B). All threads of
 * the block of (32, ROWS) call it; shared memory: 32 * ROWS numbers.
 */
__device__ __forceinline__ void store_sums(const Hermitian* sums, double* shared, double* out,
                                           bool active, int nb_bins) {
    const int row = threadIdx.y;
#pragma unroll
    for (int j = 0; j < NB_SOURCES; j++)
#pragma unroll
        for (int q = 0; q < NB_PARTS; q++) {
            shared[row * UMX_WARP + threadIdx.x] = sums[j].part[q];
            __syncthreads();
            if (row == 0 && active) {
                double total = 0.0;
                for (int k = 0; k < ROWS; k++) total += shared[k * UMX_WARP + threadIdx.x];
                out[(j * 4LL + q) * nb_bins] = total;
            }
            __syncthreads();
        }
}

// First frame of a piece of a window, and the first one behind it.
struct Frames {
    long long start, stop;
};

__device__ __forceinline__ Frames frames_of(long long w, int piece, long long window,
                                            long long nb_frames) {
    const long long window_stop = (w + 1) * window < nb_frames ? (w + 1) * window : nb_frames;
    Frames frames;
    frames.start = w * window + (long long)piece * PIECE;
    frames.stop = frames.start + PIECE < window_stop ? frames.start + PIECE : window_stop;
    return frames;
}
