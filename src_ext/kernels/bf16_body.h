/* Products of bfloat16 pairs with float32 sums, for processors with AVX512_BF16.
 *
 * Computes      as gemm_body.h and lstm_body.h, with the weights, and in the matrix product also A',
 *               rounded to bfloat16. One instruction does 32 products, twice as many as in float32.
 * Arguments     umx_gemm_args in kernels.h; W is packed as w[panel][ceil(k / 2)][NR][2].
 * Aliasing      C overlaps nothing; gain may be any other array.
 * Accumulates   `=`; `+=` onto the plain sum when `accumulate`.
 * Parallel over nothing: callers give each thread its own rows.
 * Precision     bfloat16 has 8 bits: relative error about 2^-9 a factor; float32 sums. The hidden
 *               state of the LSTM is taken as a sum of two bfloat16, which leaves 16 bits of it.
 * Oracle        the float32 kernels on weights and activations rounded by NumPy
 * Benchmark     benchmarks/kernels/gemm.py, benchmarks/kernels/lstm.py
 */
#include <immintrin.h>

#define NP (KC / 2) /* pairs of a depth block */

VEC_INLINE uint32_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    /* Round to nearest even; NaN stays NaN because its quiet bit is among the upper 16. */
    if (x != x) return (bits >> 16) | 0x40;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

static void pack_a_bf16(const umx_gemm_args *g, ptrdiff_t i0, ptrdiff_t rows, ptrdiff_t k0,
                        ptrdiff_t kc, uint32_t *VEC_RESTRICT out) {
    const ptrdiff_t pairs = (kc + 1) / 2;
    for (ptrdiff_t p = 0; p < rows; p += MR, out += MR * pairs) {
        ptrdiff_t live = rows - p < MR ? rows - p : MR;
        for (ptrdiff_t i = 0; i < MR; i++) {
            float row[KC + 1];
            if (i < live) {
                const float *a = g->a + (i0 + p + i) * g->lda + k0;
                if (g->a_shift)
                    for (ptrdiff_t k = 0; k < kc; k++)
                        row[k] = (a[k] + g->a_shift[k0 + k]) * g->a_scale[k0 + k];
                else
                    memcpy(row, a, sizeof(float) * kc);
                row[kc] = 0.0f;
            } else {
                memset(row, 0, sizeof(float) * (kc + 1));
            }
            for (ptrdiff_t k = 0; k < pairs; k++)
                out[k * MR + i] = to_bf16(row[2 * k]) | to_bf16(row[2 * k + 1]) << 16;
        }
    }
}

static void tile_bf16(const umx_gemm_args *g, const uint32_t *VEC_RESTRICT a,
                      const uint32_t *VEC_RESTRICT w, ptrdiff_t pairs, ptrdiff_t i, ptrdiff_t live,
                      ptrdiff_t j, int load, int finish) {
    __m512 lo[MR], hi[MR];
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) lo[r] = hi[r] = _mm512_setzero_ps();
    prefetch_tile(g, i, live, j, finish);
    for (ptrdiff_t k = 0; k < pairs; k++, a += MR, w += 2 * VL) {
        const __m512bh w0 = (__m512bh)_mm512_loadu_si512(w);
        const __m512bh w1 = (__m512bh)_mm512_loadu_si512(w + VL);
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[r]);
            lo[r] = _mm512_dpbf16_ps(lo[r], x, w0);
            hi[r] = _mm512_dpbf16_ps(hi[r], x, w1);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++)
        if (r < live) store_tile(g, (vf)lo[r], (vf)hi[r], i + r, j, load, finish);
}

static int gemm_bf16(const umx_gemm_args *g) {
    uint32_t *packed = (uint32_t *)scratch_alloc(sizeof(uint32_t) * MC * (NP + 1));
    if (!packed) return -1;
    unsigned mode = flush_denormals();
    const ptrdiff_t all_pairs = (g->k + 1) / 2;
    for (ptrdiff_t k0 = 0; k0 < g->k; k0 += KC) {
        ptrdiff_t kc = g->k - k0 < KC ? g->k - k0 : KC;
        ptrdiff_t pairs = (kc + 1) / 2;
        int load = k0 > 0 || g->accumulate;
        int finish = g->finish && k0 + kc == g->k;
        for (ptrdiff_t i0 = 0; i0 < g->m; i0 += MC) {
            ptrdiff_t rows = g->m - i0 < MC ? g->m - i0 : MC;
            pack_a_bf16(g, i0, rows, k0, kc, packed);
            for (ptrdiff_t j = 0; j < g->n; j += NR) {
                const uint32_t *w =
                    (const uint32_t *)g->w + (j / NR) * NR * all_pairs + (k0 / 2) * NR;
                for (ptrdiff_t p = 0; p < rows; p += MR) {
                    ptrdiff_t live = rows - p < MR ? rows - p : MR;
                    tile_bf16(g, packed + p * pairs, w, pairs, i0 + p, live, j, load, finish);
                }
            }
        }
    }
    restore_denormals(mode);
    scratch_free(packed);
    return 0;
}

/* h as pairs of bfloat16 twice: the rounded values, and what rounding took away from them. */
static void split_state(const float *h, ptrdiff_t hidden, int32_t *pairs) {
    for (ptrdiff_t k = 0; k < hidden; k += 2, pairs += 2) {
        const uint32_t first = to_bf16(h[k]) << 16, second = to_bf16(h[k + 1]) << 16;
        float rounded[2];
        memcpy(rounded, &first, 4);
        memcpy(rounded + 1, &second, 4);
        pairs[0] = (int32_t)(first >> 16 | second);
        pairs[1] = (int32_t)(to_bf16(h[k] - rounded[0]) | to_bf16(h[k + 1] - rounded[1]) << 16);
    }
}

VEC_INLINE void add_columns_dp(vf *a, const void *weights, const float *h, const int32_t *pairs,
                               ptrdiff_t hidden) {
    const int32_t *VEC_RESTRICT w = (const int32_t *)weights;
    (void)h;
    __m512 sum[8];
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++) sum[q] = (__m512)a[q];
    for (ptrdiff_t k = 0; k < hidden; k += 2, w += 8 * VL, pairs += 2) {
        const __m512bh upper = (__m512bh)_mm512_set1_epi32(pairs[0]);
        const __m512bh lower = (__m512bh)_mm512_set1_epi32(pairs[1]);
#pragma GCC unroll 8
        for (int q = 0; q < 8; q++) {
            const __m512bh both = (__m512bh)_mm512_loadu_si512(w + q * VL);
            sum[q] = _mm512_dpbf16_ps(sum[q], upper, both);
            sum[q] = _mm512_dpbf16_ps(sum[q], lower, both);
        }
    }
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++) a[q] = (vf)sum[q];
}
#define ADD_COLUMNS_BF16 add_columns_dp
#define SPLIT_STATE split_state
