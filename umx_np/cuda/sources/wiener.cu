// Multichannel Wiener filter by expectation-maximisation, for 1 or 2 channels.
//
// Computes      first estimates (magnitude with the phase of the mixture, or softmask), residual,
//               then per iteration
//                 v_j = mean_c |y_jc|^2,  R_j = sum_t y_j y_j^H / (eps + sum_t v_j)
//                 Cxx = sum_j v_j R_j + sqrt(eps) I,  y_j = v_j R_j Cxx^-1 x
//               on x and y divided by the scale of their window, and multiplied back at the end.
// Precision     float64 throughout, float32 in and out. Near-mono mixtures make Cxx nearly singular,
//               and float32 loses everything there.
// Oracle        umx_np.backends.reference.ReferenceFilter
// Benchmark     benchmarks/gpu/run.py
//
// Given R of every iteration, an estimate depends on its own frame only. So nothing but R is kept
// between the passes: iteration i recomputes the chain of i filters from the magnitudes. One
// iteration is `wiener_sums` (y y^H over the frames, in pieces), `wiener_covariances` (the pieces
// added up in a fixed order, and normalised); `wiener_apply` writes the estimates after the last.
//
// Shapes        F frames in windows of `window` frames (the last may be shorter), B bins
//   mix         (NB_CHANNELS, F, B) complex64
//   mags        (NB_TARGETS, F, MAG_CHANNELS, B) float32
//   scales      (windows) float64
//   statistics  (windows, iterations, NB_SOURCES, 4, B) float64: sums over the frames of |y_0|^2,
//               |y_1|^2, real and imaginary part of y_0 y_1*
//   covariances as statistics: R, from statistics
//
// variants: NB_TARGETS=4; NB_TARGETS=4,RESIDUAL=1; NB_TARGETS=1,RESIDUAL=1; NB_TARGETS=4,SOFTMASK=1
// variants: NB_TARGETS=2,MAG_CHANNELS=1; NB_TARGETS=2,NB_CHANNELS=1,MAG_CHANNELS=1
#include "wiener_bin.cuh"

#ifndef SOFTMASK
#define SOFTMASK 0
#endif
// Blocks of `wiener_sums` on a multiprocessor, which bounds the registers: 128 hold four sources and
// their sums.
#define RESIDENT (NB_SOURCES <= 4 && !SOFTMASK ? 2 : 1)

// What is known of a bin.
struct Bin {
    Vector x, y[NB_SOURCES];
    double v[NB_SOURCES];
};

__device__ __forceinline__ void first_estimates(const Cell& cell, double inverse_scale, double eps,
                                                Bin& bin) {
#pragma unroll
    for (int c = 0; c < NB_CHANNELS; c++) {
        const Complex mix = cell.x(c);
        const double re = mix.x, im = mix.y;
        bin.x.re[c] = re * inverse_scale;
        bin.x.im[c] = im * inverse_scale;
        double rest_re = bin.x.re[c], rest_im = bin.x.im[c];
        double phase_re, phase_im;  // what a magnitude is multiplied with
        if (SOFTMASK) {
            double total = eps;  // added to the magnitudes, not to the powers (sic)
#pragma unroll
            for (int j = 0; j < NB_TARGETS; j++) total += cell.mag(j, c);
            const double share = 1.0 / total;
            phase_re = bin.x.re[c] * share;
            phase_im = bin.x.im[c] * share;
        } else {
            const double power = re * re + im * im;
            const double unit = inverse_scale / sqrt(power > 0.0 ? power : 1.0);
            phase_re = power > 0.0 ? re * unit : inverse_scale;  // of a silent bin it is 0
            phase_im = im * unit;
        }
#pragma unroll
        for (int j = 0; j < NB_TARGETS; j++) {
            const double mag = cell.mag(j, c);
            bin.y[j].re[c] = mag * phase_re;
            bin.y[j].im[c] = mag * phase_im;
            rest_re -= bin.y[j].re[c];
            rest_im -= bin.y[j].im[c];
        }
        if (RESIDUAL) {
            bin.y[NB_SOURCES - 1].re[c] = rest_re;
            bin.y[NB_SOURCES - 1].im[c] = rest_im;
        }
    }
}

__device__ __forceinline__ void powers(Bin& bin) {
#pragma unroll
    for (int j = 0; j < NB_SOURCES; j++) {
        double sum = 0.0;
#pragma unroll
        for (int c = 0; c < NB_CHANNELS; c++)
            sum += bin.y[j].re[c] * bin.y[j].re[c] + bin.y[j].im[c] * bin.y[j].im[c];
        bin.v[j] = sum / NB_CHANNELS;
    }
}

__device__ __forceinline__ void filter(const double* r, int nb_bins, double reg, Bin& bin) {
    Hermitian cxx = {};  // without the regularisation
#pragma unroll
    for (int j = 0; j < NB_SOURCES; j++)
        add_scaled(cxx, bin.v[j], covariance_of(r, j, nb_bins));
    const Vector w = product(regularised_inverse(cxx, reg), bin.x);
#pragma unroll
    for (int j = 0; j < NB_SOURCES; j++) {
        bin.y[j] = product(covariance_of(r, j, nb_bins), w);
#pragma unroll
        for (int c = 0; c < NB_CHANNELS; c++) {
            bin.y[j].re[c] *= bin.v[j];
            bin.y[j].im[c] *= bin.v[j];
        }
    }
}

// Estimates after `count` iterations; r: R of the first at this bin.
__device__ __forceinline__ void estimate(const Cell& cell, const double* r, int count, int nb_bins,
                                         double inverse_scale, double eps, Bin& bin) {
    const bool from_powers = !SOFTMASK && !RESIDUAL && count > 0;
    if (from_powers)
        first_powers(cell, inverse_scale, bin.x, bin.v);
    else
        first_estimates(cell, inverse_scale, eps, bin);
    const double reg = sqrt(eps);
    for (int i = 0; i < count; i++) {
        if (i > 0 || !from_powers) powers(bin);
        filter(r + (long long)i * NB_SOURCES * 4 * nb_bins, nb_bins, reg, bin);
    }
}

/* Computes      y y^H summed over pieces of PIECE frames, after `level` iterations
 * Arguments     mix, mags, covariances, scales IN,
 *               pieces (windows, nb_pieces, NB_SOURCES, 4, B) OUT, nb_pieces those of a whole window
 * Accumulates   =
 * Parallel over bins (32 of a block: x of the grid), pieces (y of the grid), and ROWS frames at a
 *               time in a block of (32, ROWS) threads. Shared memory: 32 * ROWS numbers.
 */
extern "C" __global__ void __launch_bounds__(32 * ROWS, RESIDENT)
    wiener_sums(const Complex* __restrict__ mix, const float* __restrict__ mags,
                const double* __restrict__ covariances, const double* __restrict__ scales,
                double* __restrict__ pieces, long long nb_frames, int nb_bins, long long window,
                int nb_pieces, int iterations, int level, double eps) {
    UMX_SHARED(memory);
    double* shared = (double*)memory;
    const int b = blockIdx.x * UMX_WARP + threadIdx.x, row = threadIdx.y;
    const long long w = blockIdx.y / nb_pieces;
    const int piece = blockIdx.y % nb_pieces;
    const Frames frames = frames_of(w, piece, window, nb_frames);
    const long long level_size = (long long)NB_SOURCES * 4 * nb_bins;
    Hermitian sums[NB_SOURCES] = {};
    if (b < nb_bins) {
        const double* r = covariances + w * iterations * level_size + b;
        const double inverse_scale = 1.0 / scales[w];
        for (long long t = frames.start + row; t < frames.stop; t += ROWS) {
            Bin bin;
            const Cell cell = cell_of(mix, mags, t, b, nb_frames, nb_bins);
            estimate(cell, r, level, nb_bins, inverse_scale, eps, bin);
#pragma unroll
            for (int j = 0; j < NB_SOURCES; j++) {
                const double r0 = bin.y[j].re[0], i0 = bin.y[j].im[0];
                sums[j].part[0] += r0 * r0 + i0 * i0;
#if NB_CHANNELS == 2
                const double r1 = bin.y[j].re[1], i1 = bin.y[j].im[1];
                sums[j].part[1] += r1 * r1 + i1 * i1;
                sums[j].part[2] += r0 * r1 + i0 * i1;
                sums[j].part[3] += i0 * r1 - r0 * i1;
#endif
            }
        }
    }
    store_sums(sums, shared, pieces + blockIdx.y * level_size + b, b < nb_bins, nb_bins);
}

/* Computes      statistics[w, level] += sum of the pieces, and R from it
 * Arguments     pieces (windows, nb_pieces, NB_SOURCES, 4, B) IN; none if nb_pieces is 0
 *               statistics INOUT, covariances OUT
 * Accumulates   statistics +=, covariances =
 * Parallel over bins (x of the grid), windows and sources (y of the grid)
 */
extern "C" __global__ void wiener_covariances(const double* __restrict__ pieces,
                                              double* __restrict__ statistics,
                                              double* __restrict__ covariances, int nb_bins,
                                              int nb_pieces, int iterations, int level,
                                              double eps) {
    const int b = blockIdx.x * blockDim.x + threadIdx.x;
    if (b >= nb_bins) return;
    const long long w = blockIdx.y / NB_SOURCES, j = blockIdx.y % NB_SOURCES;
    const long long at = (((w * iterations + level) * NB_SOURCES + j) * 4) * nb_bins + b;
    double total[NB_PARTS];
#pragma unroll
    for (int q = 0; q < NB_PARTS; q++) {
        double sum = 0.0;
        for (int piece = 0; piece < nb_pieces; piece++)
            sum += pieces[(((w * nb_pieces + piece) * NB_SOURCES + j) * 4 + q) * nb_bins + b];
        total[q] = statistics[at + (long long)q * nb_bins] + sum;
        statistics[at + (long long)q * nb_bins] = total[q];
    }
#if NB_CHANNELS == 1
    const double weight = total[0];
#else
    const double weight = 0.5 * (total[0] + total[1]);
#endif
    const double s = 1.0 / (eps + weight);
#pragma unroll
    for (int q = 0; q < NB_PARTS; q++) covariances[at + (long long)q * nb_bins] = total[q] * s;
}

/* Computes      the estimates after `iterations` iterations
 * Arguments     mix, mags, covariances, scales IN,
 *               y (nb_written, NB_CHANNELS, F, B) complex64 OUT: the first nb_written sources
 * Accumulates   =
 * Parallel over bins (x of the grid, 32 of a block) and frames (y of the grid, in strides), in
 *               blocks of (32, ROWS) threads
 */
extern "C" __global__ void __launch_bounds__(32 * ROWS, 1)
    wiener_apply(const Complex* __restrict__ mix, const float* __restrict__ mags,
                 const double* __restrict__ covariances, const double* __restrict__ scales,
                 Complex* __restrict__ y, long long nb_frames, int nb_bins, long long window,
                 int iterations, int nb_written, double eps) {
    const int b = blockIdx.x * UMX_WARP + threadIdx.x;
    if (b >= nb_bins) return;
    const long long window_size = (long long)iterations * NB_SOURCES * 4 * nb_bins;
    for (long long t = (long long)blockIdx.y * ROWS + threadIdx.y; t < nb_frames;
         t += (long long)gridDim.y * ROWS) {
        const long long w = t / window;
        const double scale = scales[w];
        Bin bin;
        const Cell cell = cell_of(mix, mags, t, b, nb_frames, nb_bins);
        estimate(cell, covariances + w * window_size + b, iterations, nb_bins, 1.0 / scale, eps,
                 bin);
#pragma unroll
        for (int j = 0; j < NB_SOURCES; j++)
#pragma unroll
            for (int c = 0; c < NB_CHANNELS; c++)
                if (j < nb_written) {
                    y[((j * NB_CHANNELS + c) * nb_frames + t) * nb_bins + b] =
                        make_float2((float)(bin.y[j].re[c] * scale),
                                    (float)(bin.y[j].im[c] * scale));
                }
    }
}
