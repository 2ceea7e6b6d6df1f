// Gradient of the magnitudes through one iteration of the Wiener filter, for 1 or 2 channels.
//
// Computes      given d_y, the gradient of y_j = v_j R_j q with q = Cxx^-1 x (see wiener.cu; all of
//               the mixture and the estimates divided by the scale of their window):
//                 h = Cxx^-1 sum_j v_j R_j d_y_j,  e_j = d_y_j - h
//                 dv_j = Re((R_j q)^H e_j),  dR_j = sum_t v_j e_j q^H
//                 dS_j = dR_j / w_j,  dv_j -= Re<dS_j, R_j>
//                 d_m_j = Re(phase^* ((dS_j + dS_j^H) + 2 dv_j / channels) y_j)
//               Numbers (19) to (26) and (7) of docs/end-to-end.md, without softmask and residual.
// Precision     float64 throughout, float32 in and out
// Oracle        umx_np.dsp.gradients.wiener_backward
// Benchmark     benchmarks/gpu/run.py
//
// dS + dS^H is Hermitian, and of the phases of an estimate only their difference between the
// channels reaches d_m: so of dR four real numbers are kept, as of R. `wiener_gradient_sums` adds
// up dR over the frames, in pieces; `wiener_gradient_model` adds the pieces in a fixed order and
// makes dS of them; `wiener_gradient_apply` computes h and e again, and writes.
//
// Shapes        as in wiener.cu, of one iteration
//   d_y         (NB_TARGETS, NB_CHANNELS, F, B) complex64
//   model       (windows, NB_TARGETS, 5, B) float64: of dS + dS^H the parts 00 / 2, 11 / 2, real and
//               imaginary of 01; Re<dS, R>
//   d_mags      as mags
//
// variants: NB_TARGETS=4; NB_TARGETS=1; NB_TARGETS=4,MAG_CHANNELS=1
// variants: NB_TARGETS=4,NB_CHANNELS=1,MAG_CHANNELS=1
#include "wiener_bin.cuh"

// What all sources of a bin share in the gradient.
struct Shared {
    Vector q, h;
    double v[NB_TARGETS];
};

// Where the gradient of a bin's estimates is.
struct GradientCell {
    const Complex* d_y;  // of target 0, channel 0
    long long channel;
    double scale;

    // Of the estimates before they are multiplied by the scale.
    __device__ __forceinline__ Vector at(int j) const {
        Vector g;
#pragma unroll
        for (int c = 0; c < NB_CHANNELS; c++) {
            const Complex found = d_y[(j * NB_CHANNELS + c) * channel];
            g.re[c] = found.x * scale;
            g.im[c] = found.y * scale;
        }
        return g;
    }
};

__device__ __forceinline__ Shared shared_of(const Cell& cell, const GradientCell& gradient,
                                            const double* r, int nb_bins, double inverse_scale,
                                            double eps) {
    Shared all;
    Vector x, u = {};
    Hermitian cxx = {};  // without the regularisation
    first_powers(cell, inverse_scale, x, all.v);
#pragma unroll
    for (int j = 0; j < NB_TARGETS; j++) {
        const Hermitian rj = covariance_of(r, j, nb_bins);
        const Vector rg = product(rj, gradient.at(j));
        add_scaled(cxx, all.v[j], rj);
#pragma unroll
        for (int c = 0; c < NB_CHANNELS; c++) {
            u.re[c] += all.v[j] * rg.re[c];
            u.im[c] += all.v[j] * rg.im[c];
        }
    }
    const Hermitian inverse = regularised_inverse(cxx, sqrt(eps));
    all.q = product(inverse, x);
    all.h = product(inverse, u);
    return all;
}

// e q^H + q e^H for e = g - h, its diagonal halved.
__device__ __forceinline__ Hermitian outer(const Vector& g, const Shared& all) {
    const Vector& q = all.q;
    Vector e;
#pragma unroll
    for (int c = 0; c < NB_CHANNELS; c++) {
        e.re[c] = g.re[c] - all.h.re[c];
        e.im[c] = g.im[c] - all.h.im[c];
    }
    Hermitian found;
    found.part[0] = e.re[0] * q.re[0] + e.im[0] * q.im[0];
#if NB_CHANNELS == 2
    found.part[1] = e.re[1] * q.re[1] + e.im[1] * q.im[1];
    found.part[2] = e.re[0] * q.re[1] + e.im[0] * q.im[1] + e.re[1] * q.re[0] + e.im[1] * q.im[0];
    found.part[3] = e.im[0] * q.re[1] - e.re[0] * q.im[1] + e.re[1] * q.im[0] - e.im[1] * q.re[0];
#endif
    return found;
}

__device__ __forceinline__ double inner(const Hermitian& a, const Hermitian& b) {
    double sum = 0.0;
#pragma unroll
    for (int q = 0; q < NB_PARTS; q++) sum += a.part[q] * b.part[q];
    return sum;
}

/* Computes      dR summed over pieces of PIECE frames
 * Arguments     mix, mags, d_y, covariances, scales IN,
 *               pieces (windows, nb_pieces, NB_TARGETS, 4, B) OUT, nb_pieces those of a whole window
 * Accumulates   =
 * Parallel over bins (32 of a block: x of the grid), pieces (y of the grid), and ROWS frames at a
 *               time in a block of (32, ROWS) threads. Shared memory: 32 * ROWS numbers.
 */
extern "C" __global__ void __launch_bounds__(32 * ROWS, 1)
    wiener_gradient_sums(const Complex* __restrict__ mix, const float* __restrict__ mags,
                         const Complex* __restrict__ d_y, const double* __restrict__ covariances,
                         const double* __restrict__ scales, double* __restrict__ pieces,
                         long long nb_frames, int nb_bins, long long window, int nb_pieces,
                         double eps) {
    UMX_SHARED(memory);
    const int b = blockIdx.x * UMX_WARP + threadIdx.x;
    const long long w = blockIdx.y / nb_pieces;
    const Frames frames = frames_of(w, blockIdx.y % nb_pieces, window, nb_frames);
    const long long size = (long long)NB_TARGETS * 4 * nb_bins;
    Hermitian sums[NB_TARGETS] = {};
    if (b < nb_bins) {
        const double* r = covariances + w * size + b;
        const double scale = scales[w], inverse_scale = 1.0 / scale;
        for (long long t = frames.start + threadIdx.y; t < frames.stop; t += ROWS) {
            const Cell cell = cell_of(mix, mags, t, b, nb_frames, nb_bins);
            const GradientCell gradient = {d_y + t * nb_bins + b, nb_frames * nb_bins, scale};
            const Shared all = shared_of(cell, gradient, r, nb_bins, inverse_scale, eps);
#pragma unroll
            for (int j = 0; j < NB_TARGETS; j++)
                add_scaled(sums[j], all.v[j], outer(gradient.at(j), all));
        }
    }
    store_sums(sums, (double*)memory, pieces + blockIdx.y * size + b, b < nb_bins, nb_bins);
}

/* Computes      dS + dS^H and Re<dS, R>
 * Arguments     pieces, statistics, covariances IN, model OUT
 * Accumulates   =
 * Parallel over bins (x of the grid), windows and targets (y of the grid)
 */
extern "C" __global__ void wiener_gradient_model(const double* __restrict__ pieces,
                                                 const double* __restrict__ statistics,
                                                 const double* __restrict__ covariances,
                                                 double* __restrict__ model, int nb_bins,
                                                 int nb_pieces, double eps) {
    const int b = blockIdx.x * blockDim.x + threadIdx.x;
    if (b >= nb_bins) return;
    const long long w = blockIdx.y / NB_TARGETS, j = blockIdx.y % NB_TARGETS;
    const long long at = blockIdx.y * 4LL * nb_bins + b;
#if NB_CHANNELS == 1
    const double weight = statistics[at];
#else
    const double weight = 0.5 * (statistics[at] + statistics[at + nb_bins]);
#endif
    const double share = 1.0 / (eps + weight);
    Hermitian ds;
#pragma unroll
    for (int q = 0; q < NB_PARTS; q++) {
        double sum = 0.0;
        for (int piece = 0; piece < nb_pieces; piece++)
            sum += pieces[(((w * nb_pieces + piece) * NB_TARGETS + j) * 4 + q) * nb_bins + b];
        ds.part[q] = sum * share;
    }
    double* out = model + blockIdx.y * 5LL * nb_bins + b;
#pragma unroll
    for (int q = 0; q < NB_PARTS; q++) out[(long long)q * nb_bins] = ds.part[q];
    out[4LL * nb_bins] = inner(ds, covariance_of(covariances + at, 0, nb_bins));
}

/* Computes      the gradient of the magnitudes
 * Arguments     mix, mags, d_y, covariances, model, scales IN, d_mags OUT
 * Accumulates   =
 * Parallel over bins (x of the grid, 32 of a block) and frames (y of the grid, in strides), in
 *               blocks of (32, ROWS) threads
 */
extern "C" __global__ void __launch_bounds__(32 * ROWS, 1)
    wiener_gradient_apply(const Complex* __restrict__ mix, const float* __restrict__ mags,
                          const Complex* __restrict__ d_y, const double* __restrict__ covariances,
                          const double* __restrict__ model, const double* __restrict__ scales,
                          float* __restrict__ d_mags, long long nb_frames, int nb_bins,
                          long long window, double eps) {
    const int b = blockIdx.x * UMX_WARP + threadIdx.x;
    if (b >= nb_bins) return;
    for (long long t = (long long)blockIdx.y * ROWS + threadIdx.y; t < nb_frames;
         t += (long long)gridDim.y * ROWS) {
        const long long w = t / window;
        const double scale = scales[w], inverse_scale = 1.0 / scale;
        const Cell cell = cell_of(mix, mags, t, b, nb_frames, nb_bins);
        const GradientCell gradient = {d_y + t * nb_bins + b, nb_frames * nb_bins, scale};
        const double* r = covariances + w * NB_TARGETS * 4 * nb_bins + b;
        const double* parts = model + w * NB_TARGETS * 5 * nb_bins + b;
        const Shared all = shared_of(cell, gradient, r, nb_bins, inverse_scale, eps);
        // Once for the estimates and once for the magnitudes of the mixture's size.
        const double square = inverse_scale * inverse_scale;
        float* out = d_mags + t * MAG_CHANNELS * nb_bins + b;
#if NB_CHANNELS == 2
        // e_0 e_1^*, the difference of the channels' phases; that of a silent bin is 0.
        const Complex x0 = cell.x(0), x1 = cell.x(1);
        const double i0 = x0.y, i1 = x1.y;
        const double r0 = (double)x0.x * x0.x + i0 * i0 > 0.0 ? x0.x : 1.0;
        const double r1 = (double)x1.x * x1.x + i1 * i1 > 0.0 ? x1.x : 1.0;
        const double unit = 1.0 / sqrt((r0 * r0 + i0 * i0) * (r1 * r1 + i1 * i1));
        const double phase_re = (r0 * r1 + i0 * i1) * unit, phase_im = (i0 * r1 - r0 * i1) * unit;
#endif
#pragma unroll
        for (int j = 0; j < NB_TARGETS; j++) {
            const Hermitian s = outer(gradient.at(j), all);
            const double* ds = parts + j * 5LL * nb_bins;
            const double dv = inner(covariance_of(r, j, nb_bins), s) - ds[4LL * nb_bins];
            const double m0 = cell.mag(j, 0);
#if NB_CHANNELS == 1
            out[j * cell.mag_target] = (float)(2.0 * square * (ds[0] + dv) * m0);
#else
            const double m1 = cell.mag(j, 1);
            const double cross = ds[2LL * nb_bins] * phase_re + ds[3LL * nb_bins] * phase_im;
            const double d0 = square * ((2.0 * ds[0] + dv) * m0 + cross * m1);
            const double d1 = square * ((2.0 * ds[nb_bins] + dv) * m1 + cross * m0);
#if MAG_CHANNELS == 1
            out[j * cell.mag_target] = (float)(d0 + d1);
#else
            out[j * cell.mag_target] = (float)d0;
            out[j * cell.mag_target + cell.mag_channel] = (float)d1;
#endif
#endif
        }
    }
}
