/* Products of eight bits: int8 weights, activations rounded to int8 as they are packed, int32 sums.
 *
 * Computes      gemm_int8 as gemm_body.h, lstm_scan_int8 as lstm_body.h, with
 *               A' W^T = sum over blocks of (q_a . q_w) * a_scale[row, block] * w_scale[column] and
 *               W_hh h = (q_w . q_h) * w_scale[gate].
 *               q_a = rint(A' * 127 / peak), a_scale = peak / 127, where peak is the largest
 *               magnitude in the row of A' within a block of KC columns. q_h = rint(127 h).
 * Arguments     umx_gemm_args and umx_scan_args in kernels.h. Weights are packed as
 *               w[panel][ceil(k / 4)][NR][4] and w[pair][ceil(hidden / 4)][2 tiles][4 gates][VL][4];
 *               w_sums, where INT8_OFFSET is not 0, are -INT8_OFFSET times the sums of the weights in
 *               each block of KC columns.
 * Aliasing      as for the float32 kernels.
 * Accumulates   `=`; `+=` onto the plain sum when `accumulate`.
 * Parallel over nothing: callers give each thread its own rows. What a row is rounded to depends on
 *               that row only.
 * Precision     products are exact: a sum of KC products is below 2^24, which float32 holds; those of
 *               a scan are exact to 1040 units and rounded to float32 beyond. Activations have an
 *               error of at most a 254th of the peak of their row and block. A row with NaN or
 *               infinity becomes NaN; one whose peak is below 2^-118 counts as zeros.
 * Oracle        umx_np.layers.int8
 * Benchmark     benchmarks/kernels/gemm.py, benchmarks/kernels/lstm.py
 */
#include "int8_dot.h"

#if KC != 512
#error "UMX_INT8_BLOCK in kernels.h is KC"
#endif
#define QUADS (KC / 4)
#define MC_INT8 (MR_INT8 * 8)

/* Rounds `count` numbers, a multiple of VL and of 4, to whole ones of at most 127. The products with
 * `inverse` are limited before they are rounded, so that no level fuses the two. */
VEC_INLINE void round_to_int8(const float *x, float inverse, ptrdiff_t count,
                              int8_t *VEC_RESTRICT q) {
    const vf shifter = v_splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    int32_t whole[KC];
    for (ptrdiff_t k = 0; k < count; k += VL) {
        vf y = v_load(x + k) * inverse;
        y = v_min(v_max(y, v_splat(-127.0f)), v_splat(127.0f));
        *(vi *)(whole + k) = v_bits(y + shifter);
    }
    for (ptrdiff_t k = 0; k < count; k++) q[k] = (int8_t)whole[k];
}

/* Rounds a row of a block and returns its scale. */
static float quantise(const float *x, ptrdiff_t count, int8_t *q) {
    vi most = v_splat_int(0);
    for (ptrdiff_t k = 0; k < count; k += VL)
        most = v_max_int(most, v_bits(v_load(x + k)) & 0x7fffffff);
    int32_t lanes[VL];
    *(vi *)lanes = most;
    for (int i = 1; i < VL; i++)
        if (lanes[i] > lanes[0]) lanes[0] = lanes[i];
    float peak;
    memcpy(&peak, lanes, 4);
    /* As bits, NaN is above infinity and both are above what is finite. */
    if (lanes[0] >= 0x7f800000 || peak < 0x1p-118f) {
        memset(q, 0, (size_t)count);
        return lanes[0] >= 0x7f800000 ? NAN : 0.0f;
    }
    round_to_int8(x, 127.0f / peak, count, q);
    return peak / 127.0f;
}

typedef struct {
    float scale[MC_INT8];
    int32_t start[MC_INT8]; /* of the sums, see int8_dot.h */
    uint32_t words[QUADS * MC_INT8 * INT8_WORDS];
} int8_block;

static void pack_a_int8(const umx_gemm_args *g, ptrdiff_t i0, ptrdiff_t rows, ptrdiff_t k0,
                        ptrdiff_t kc, int8_block *block) {
    const ptrdiff_t quads = (kc + 3) / 4, padded = (kc + 15) / 16 * 16;
    float row[KC];
    int8_t q[KC];
    for (ptrdiff_t p = 0; p < rows; p += MR_INT8) {
        uint32_t *out = block->words + p * quads * INT8_WORDS;
        for (ptrdiff_t i = p; i < p + MR_INT8; i++) {
            if (i < rows) {
                const float *a = g->a + (i0 + i) * g->lda + k0;
                if (g->a_shift)
                    for (ptrdiff_t k = 0; k < kc; k++)
                        row[k] = (a[k] + g->a_shift[k0 + k]) * g->a_scale[k0 + k];
                else
                    memcpy(row, a, sizeof(float) * kc);
                for (ptrdiff_t k = kc; k < padded; k++) row[k] = 0.0f;
                block->scale[i] = quantise(row, padded, q);
            } else {
                memset(q, 0, (size_t)padded);
                block->scale[i] = 0.0f;
            }
            block->start[i] =
                int8_words(q, quads, MR_INT8 * INT8_WORDS, out + (i - p) * INT8_WORDS);
        }
    }
}

static void tile_int8(const umx_gemm_args *g, const int8_block *block, ptrdiff_t quads, ptrdiff_t p,
                      const int32_t *sums, const int8_t *VEC_RESTRICT w, ptrdiff_t i, ptrdiff_t live,
                      ptrdiff_t j, int load, int finish) {
    const uint32_t *VEC_RESTRICT a = block->words + p * quads * INT8_WORDS;
    vi lo[MR_INT8], hi[MR_INT8];
    (void)sums;
#if defined(__GNUC__)
#pragma GCC unroll 16
#endif
    for (int r = 0; r < MR_INT8; r++) {
        lo[r] = INT8_START(sums, block->start[p + r]);
        hi[r] = INT8_START(sums + VL, block->start[p + r]);
    }
    prefetch_tile(g, i, live, j, finish);
    for (ptrdiff_t k = 0; k < quads; k++, a += MR_INT8 * INT8_WORDS, w += 4 * NR) {
        const vi w0 = v_load_int((const int32_t *)w), w1 = v_load_int((const int32_t *)w + VL);
#if defined(__GNUC__)
#pragma GCC unroll 16
#endif
        for (int r = 0; r < MR_INT8; r++) {
            lo[r] = v_dot(lo[r], a + r * INT8_WORDS, w0);
            hi[r] = v_dot(hi[r], a + r * INT8_WORDS, w1);
        }
    }
    const vf s0 = v_load(g->w_scale + j), s1 = v_load(g->w_scale + j + VL);
#if defined(__GNUC__)
#pragma GCC unroll 16
#endif
    for (int r = 0; r < MR_INT8; r++) {
        if (r < live) {
            const float scale = block->scale[p + r];
            store_tile(g, v_from_int(lo[r]) * scale * s0, v_from_int(hi[r]) * scale * s1, i + r, j,
                       load, finish);
        }
    }
}

static int gemm_int8(const umx_gemm_args *g) {
    int8_block *block = (int8_block *)scratch_alloc(sizeof(int8_block));
    if (!block) return -1;
    unsigned mode = flush_denormals();
    const ptrdiff_t columns = (g->n + NR - 1) / NR * NR, all_quads = (g->k + 3) / 4;
    for (ptrdiff_t k0 = 0; k0 < g->k; k0 += KC) {
        const ptrdiff_t kc = g->k - k0 < KC ? g->k - k0 : KC, quads = (kc + 3) / 4;
        const int load = k0 > 0 || g->accumulate;
        const int finish = g->finish && k0 + kc == g->k;
        const int32_t *sums = INT8_OFFSET ? g->w_sums + k0 / KC * columns : NULL;
        for (ptrdiff_t i0 = 0; i0 < g->m; i0 += MC_INT8) {
            const ptrdiff_t rows = g->m - i0 < MC_INT8 ? g->m - i0 : MC_INT8;
            pack_a_int8(g, i0, rows, k0, kc, block);
            for (ptrdiff_t j = 0; j < g->n; j += NR) {
                const int8_t *w = (const int8_t *)g->w + 4 * (j * all_quads + k0 / 4 * NR);
                for (ptrdiff_t p = 0; p < rows; p += MR_INT8) {
                    const ptrdiff_t live = rows - p < MR_INT8 ? rows - p : MR_INT8;
                    tile_int8(g, block, quads, p, INT8_OFFSET ? sums + j : NULL, w, i0 + p, live, j,
                              load, finish);
                }
            }
        }
    }
    restore_denormals(mode);
    scratch_free(block);
    return 0;
}

typedef struct {
    const umx_scan_args *scan;
    uint32_t *words; /* the state as int8, with what its sums start from: see int8_dot.h */
    int32_t start;
    ptrdiff_t quads;
} int8_state;

static void round_state(int8_state *state, const float *h, ptrdiff_t padded) {
    int8_t q[KC + 3];
    state->start = 0;
    for (ptrdiff_t k = 0; k < padded; k += KC) {
        const ptrdiff_t count = padded - k < KC ? padded - k : KC, quads = (count + 3) / 4;
        round_to_int8(h + k, 127.0f, count, q);
        memset(q + count, 0, (size_t)(4 * quads - count));
        state->start += int8_words(q, quads, INT8_WORDS, state->words + k / 4 * INT8_WORDS);
    }
}

VEC_INLINE void add_columns_int8(vf *a, const int8_state *state, ptrdiff_t pair) {
    const umx_scan_args *s = state->scan;
    const int32_t *VEC_RESTRICT w = (const int32_t *)s->w + pair * state->quads * 8 * VL;
    const uint32_t *VEC_RESTRICT words = state->words;
    const int32_t *sums = INT8_OFFSET ? s->w_sums + pair * 8 * VL : NULL;
    const float *scale = s->w_scale + pair * 8 * VL;
    vi sum[8];
    (void)sums;
#if defined(__GNUC__)
#pragma GCC unroll 8
#endif
    for (int q = 0; q < 8; q++) sum[q] = INT8_START(sums + q * VL, state->start);
    for (ptrdiff_t k = 0; k < state->quads; k++, w += 8 * VL, words += INT8_WORDS) {
#if defined(__GNUC__)
#pragma GCC unroll 8
#endif
        for (int q = 0; q < 8; q++) sum[q] = v_dot(sum[q], words, v_load_int(w + q * VL));
    }
#if defined(__GNUC__)
#pragma GCC unroll 8
#endif
    for (int q = 0; q < 8; q++) a[q] += v_from_int(sum[q]) * v_load(scale + q * VL);
}
