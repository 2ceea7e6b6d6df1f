/* One direction of one LSTM layer for one sequence.
 *
 * Computes      for each frame: a = gates[t] + W_hh h;  i, f, o = sigmoid(a), g = tanh(a);
 *               c = f c + i g;  h = o tanh(c)
 * Arguments     umx_scan_args in kernels.h. Units are taken in tiles of VL, two tiles a pair, and
 *               hidden is padded to a multiple of 2 VL (P). Within a tile the gates stand as
 *               i[VL] f[VL] g[VL] o[VL]; gates[t] holds the tiles one after the other (4 P floats),
 *               and w[pair][k][2 tiles][4 gates][VL] holds the column of unit k. Padded units have
 *               zero weights and zero gates: they stay 0 in h and c.
 * Aliasing      none of the arrays overlap.
 * Accumulates   `=`
 * Parallel over nothing: a whole scan belongs to one thread, so that no step waits for another core.
 * Precision     float32; activations accurate to 3e-7.
 *               lstm_scan_bf16 takes weights rounded to bfloat16, two columns side by side:
 *               w[pair][ceil(k / 2)][2 tiles][4 gates][VL][2]; everything else is as above. For
 *               lstm_scan_int8 see int8_body.h.
 * Oracle        umx_np.layers.lstm.lstm_scan
 * Benchmark     benchmarks/kernels/lstm.py
 *
 * One step reads all of W_hh once (1 MiB for 256 units) and does two operations a number, so its
 * pace is that of the cache W_hh lives in. Eight sums in registers hide the latency. Pairs are taken
 * in turn from first to last and from last to first: what the cache kept of the end of one step is
 * used at the start of the next, where one fixed order would just have evicted it.
 */

/* The sums of one pair of tiles: a += W h, for 8 vectors of gates. */
VEC_INLINE void add_columns(vf *a, const void *weights, const float *h, ptrdiff_t hidden) {
    const float *VEC_RESTRICT w = (const float *)weights;
    vf a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], a4 = a[4], a5 = a[5], a6 = a[6], a7 = a[7];
#if defined(__GNUC__)
#pragma GCC unroll 2
#endif
    for (ptrdiff_t k = 0; k < hidden; k++, w += 8 * VL) {
        const vf hk = v_splat(h[k]);
        a0 += hk * v_load(w);
        a1 += hk * v_load(w + VL);
        a2 += hk * v_load(w + 2 * VL);
        a3 += hk * v_load(w + 3 * VL);
        a4 += hk * v_load(w + 4 * VL);
        a5 += hk * v_load(w + 5 * VL);
        a6 += hk * v_load(w + 6 * VL);
        a7 += hk * v_load(w + 7 * VL);
    }
    a[0] = a0, a[1] = a1, a[2] = a2, a[3] = a3, a[4] = a4, a[5] = a5, a[6] = a6, a[7] = a7;
}

/* The same with bfloat16 weights. Half the bytes come out of the cache, and a bfloat16 is the upper
 * half of a float: a shift and a mask unpack the two columns. */
VEC_INLINE void add_columns_bf16(vf *a, const void *weights, const float *h, const int32_t *pairs,
                                 ptrdiff_t hidden) {
    const int32_t *VEC_RESTRICT w = (const int32_t *)weights;
    (void)pairs; /* of bf16_body.h */
    vf sum[8];
    for (int q = 0; q < 8; q++) sum[q] = a[q];
    for (ptrdiff_t k = 0; k < hidden; k += 2, w += 8 * VL) {
        /* h is padded with zeros beyond an odd number of units. */
        const vf even = v_splat(h[k]), odd = v_splat(h[k + 1]);
#if defined(__GNUC__)
#pragma GCC unroll 8
#endif
        for (int q = 0; q < 8; q++) {
            const vi both = v_load_int(w + q * VL);
            sum[q] += even * v_float(v_shift_left(both, 16));
            sum[q] += odd * v_float(both & (int32_t)0xffff0000);
        }
    }
    for (int q = 0; q < 8; q++) a[q] = sum[q];
}

#ifndef ADD_COLUMNS_BF16
#define ADD_COLUMNS_BF16 add_columns_bf16
#define SPLIT_STATE(h, hidden, pairs) ((void)0)
#endif

enum { SCAN_FLOAT, SCAN_BF16, SCAN_INT8 };

VEC_INLINE int lstm_scan_with(const umx_scan_args *s, int kind) {
    const ptrdiff_t hidden = s->hidden;
    const ptrdiff_t pairs = (hidden + 2 * VL - 1) / (2 * VL);
    const ptrdiff_t padded = pairs * 2 * VL;
    const ptrdiff_t half = (hidden + 1) / 2;
    float *next = (float *)scratch_alloc((sizeof(float) + sizeof(int32_t)) * (padded + 3));
    if (!next) return -1;
    int32_t *state_pairs = (int32_t *)(next + padded);
    /* At most four words for four units. */
    int8_state rounded = {s, (uint32_t *)state_pairs, 0, (hidden + 3) / 4};
    unsigned mode = flush_denormals();
    float *h = s->h, *c = s->c;
    for (ptrdiff_t step = 0; step < s->nb_frames; step++) {
        const ptrdiff_t t = s->reverse ? s->nb_frames - 1 - step : step;
        const float *gates = s->gates + t * 4 * padded;
        if (kind == SCAN_BF16) SPLIT_STATE(h, hidden, state_pairs);
        if (kind == SCAN_INT8) round_state(&rounded, h, padded);
        for (ptrdiff_t turn = 0; turn < pairs; turn++) {
            const ptrdiff_t pair = step & 1 ? pairs - 1 - turn : turn;
            const float *x = gates + pair * 8 * VL;
            vf sum[8];
#if defined(__GNUC__)
#pragma GCC unroll 8
#endif
            for (int q = 0; q < 8; q++) sum[q] = v_load(x + q * VL);
            if (kind == SCAN_INT8)
                add_columns_int8(sum, &rounded, pair);
            else if (kind == SCAN_BF16)
                ADD_COLUMNS_BF16(sum, (const int32_t *)s->w + pair * half * 8 * VL, h, state_pairs,
                                 hidden);
            else
                add_columns(sum, (const float *)s->w + pair * hidden * 8 * VL, h, hidden);
            const vf i0 = sum[0], f0 = sum[1], g0 = sum[2], o0 = sum[3];
            const vf i1 = sum[4], f1 = sum[5], g1 = sum[6], o1 = sum[7];
            float *cell = c + pair * 2 * VL;
            vf c0 = v_sigmoid(f0) * v_load(cell) + v_sigmoid(i0) * v_tanh(g0);
            vf c1 = v_sigmoid(f1) * v_load(cell + VL) + v_sigmoid(i1) * v_tanh(g1);
            v_store(cell, c0);
            v_store(cell + VL, c1);
            v_store(next + pair * 2 * VL, v_sigmoid(o0) * v_tanh(c0));
            v_store(next + pair * 2 * VL + VL, v_sigmoid(o1) * v_tanh(c1));
        }
        memcpy(h, next, sizeof(float) * padded);
        memcpy(s->out + t * s->ldo, next, sizeof(float) * hidden);
    }
    restore_denormals(mode);
    scratch_free(next);
    return 0;
}

static int lstm_scan(const umx_scan_args *s) { return lstm_scan_with(s, SCAN_FLOAT); }
static int lstm_scan_bf16(const umx_scan_args *s) { return lstm_scan_with(s, SCAN_BF16); }
static int lstm_scan_int8(const umx_scan_args *s) { return lstm_scan_with(s, SCAN_INT8); }
