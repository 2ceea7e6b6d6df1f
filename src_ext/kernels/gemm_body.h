/* Matrix product with weights packed once.
 *
 * Computes      C = act((A' W^T + C0) * scale + bias) * gain, A' = (A + a_shift) * a_scale
 * Arguments     umx_gemm_args in kernels.h. W is packed as panels of NR = 2 VL output columns:
 *               w[panel][k][NR], the last panel padded with zeros.
 * Aliasing      C overlaps nothing; gain may be any other array.
 * Accumulates   `=`; `+=` onto the plain sum when `accumulate`.
 * Parallel over nothing: callers give each thread its own rows.
 * Precision     float32 accumulation in blocks of KC.
 * Oracle        umx_np.layers.linear.linear_forward
 * Benchmark     benchmarks/kernels/gemm.py
 *
 * A block of MC rows and KC columns of A is copied to panels of MR rows (where shift and scale cost
 * nothing extra) and stays in L2, one panel of W stays in L1, MR x NR sums stay in registers.
 */
#define NR (2 * VL)
#define KC 512
#define MC (MR * 8)

static void pack_a(const umx_gemm_args *g, ptrdiff_t i0, ptrdiff_t rows, ptrdiff_t k0,
                   ptrdiff_t kc, float *VEC_RESTRICT out) {
    for (ptrdiff_t p = 0; p < rows; p += MR, out += MR * kc) {
        ptrdiff_t live = rows - p < MR ? rows - p : MR;
        for (ptrdiff_t i = 0; i < MR; i++) {
            if (i >= live) {
                for (ptrdiff_t k = 0; k < kc; k++) out[k * MR + i] = 0.0f;
                continue;
            }
            const float *row = g->a + (i0 + p + i) * g->lda + k0;
            if (g->a_shift) {
                const float *shift = g->a_shift + k0, *scale = g->a_scale + k0;
                for (ptrdiff_t k = 0; k < kc; k++) out[k * MR + i] = (row[k] + shift[k]) * scale[k];
            } else {
                for (ptrdiff_t k = 0; k < kc; k++) out[k * MR + i] = row[k];
            }
        }
    }
}

VEC_INLINE void store_tile(const umx_gemm_args *g, vf lo, vf hi, ptrdiff_t i, ptrdiff_t j,
                           int load, int finish) {
    float *c = g->c + i * g->ldc + j;
    if (j + NR <= g->n) {
        if (load) {
            lo += v_load(c);
            hi += v_load(c + VL);
        }
        if (finish) {
            if (g->scale) {
                lo *= v_load(g->scale + j);
                hi *= v_load(g->scale + j + VL);
            }
            if (g->bias) {
                lo += v_load(g->bias + j);
                hi += v_load(g->bias + j + VL);
            }
            lo = v_activate(lo, g->act);
            hi = v_activate(hi, g->act);
            if (g->gain) {
                const float *gain = g->gain + i * g->ldg + j;
                lo *= v_load(gain);
                hi *= v_load(gain + VL);
            }
        }
        v_store(c, lo);
        v_store(c + VL, hi);
        return;
    }
    /* The last, partial panel: through a buffer, one column at a time. */
    float buffer[NR];
    v_store(buffer, lo);
    v_store(buffer + VL, hi);
    for (ptrdiff_t t = 0; t < g->n - j; t++) {
        float v = buffer[t] + (load ? c[t] : 0.0f);
        if (finish) {
            if (g->scale) v *= g->scale[j + t];
            if (g->bias) v += g->bias[j + t];
            if (g->act != UMX_LINEAR) {
                float one[VL];
                v_store(one, v_activate(v_splat(v), g->act));
                v = one[0];
            }
            if (g->gain) v *= g->gain[i * g->ldg + j + t];
        }
        c[t] = v;
    }
}

/* Ask for the rows of C and of the gain that a tile will store to. They lie far apart, so no hardware
 * prefetcher guesses them; asked for before the sums, they are here after. */
VEC_INLINE void prefetch_tile(const umx_gemm_args *g, ptrdiff_t i, ptrdiff_t live, ptrdiff_t j,
                              int finish) {
    for (ptrdiff_t r = 0; r < live; r++) {
        v_prefetch(g->c + (i + r) * g->ldc + j, 2 * VL);
        if (finish && g->gain) v_prefetch(g->gain + (i + r) * g->ldg + j, 2 * VL);
    }
}

static void tile(const umx_gemm_args *g, const float *VEC_RESTRICT a, const float *VEC_RESTRICT w,
                 ptrdiff_t kc, ptrdiff_t i, ptrdiff_t live, ptrdiff_t j, int load, int finish) {
    vf lo[MR], hi[MR];
#if defined(__GNUC__)
#pragma GCC unroll 16
#endif
    for (int r = 0; r < MR; r++) lo[r] = hi[r] = v_splat(0.0f);
    prefetch_tile(g, i, live, j, finish);
    for (ptrdiff_t k = 0; k < kc; k++, a += MR, w += NR) {
        vf w0 = v_load(w), w1 = v_load(w + VL);
#if defined(__GNUC__)
#pragma GCC unroll 16
#endif
        for (int r = 0; r < MR; r++) {
            vf x = v_splat(a[r]);
            lo[r] += x * w0;
            hi[r] += x * w1;
        }
    }
#if defined(__GNUC__)
#pragma GCC unroll 16
#endif
    for (int r = 0; r < MR; r++)
        if (r < live) store_tile(g, lo[r], hi[r], i + r, j, load, finish);
}

static int gemm(const umx_gemm_args *g) {
    ptrdiff_t kc_max = g->k < KC ? g->k : KC;
    float *packed = (float *)scratch_alloc(sizeof(float) * MC * (kc_max ? kc_max : 1));
    if (!packed) return -1;
    unsigned mode = flush_denormals();
    for (ptrdiff_t k0 = 0; k0 < g->k; k0 += KC) {
        ptrdiff_t kc = g->k - k0 < KC ? g->k - k0 : KC;
        int load = k0 > 0 || g->accumulate;
        int finish = g->finish && k0 + kc == g->k;
        for (ptrdiff_t i0 = 0; i0 < g->m; i0 += MC) {
            ptrdiff_t rows = g->m - i0 < MC ? g->m - i0 : MC;
            pack_a(g, i0, rows, k0, kc, packed);
            for (ptrdiff_t j = 0; j < g->n; j += NR) {
                const float *w = (const float *)g->w + (j / NR) * NR * g->k + k0 * NR;
                for (ptrdiff_t p = 0; p < rows; p += MR) {
                    ptrdiff_t live = rows - p < MR ? rows - p : MR;
                    tile(g, packed + p * kc, w, kc, i0 + p, live, j, load, finish);
                }
            }
        }
    }
    restore_denormals(mode);
    scratch_free(packed);
    return 0;
}
