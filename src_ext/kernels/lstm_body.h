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
 * Oracle        umx_np.backends.reference.lstm_scan
 * Benchmark     benchmarks/kernels/lstm.py
 *
 * One step reads all of W_hh once (1 MiB for 256 units) and does two operations a number, so its
 * pace is that of the cache W_hh lives in. Eight sums in registers hide the latency. Pairs are taken
 * in turn from first to last and from last to first: what the cache kept of the end of one step is
 * used at the start of the next, where one fixed order would just have evicted it.
 */
static int lstm_scan(const umx_scan_args *s) {
    const ptrdiff_t hidden = s->hidden;
    const ptrdiff_t pairs = (hidden + 2 * VL - 1) / (2 * VL);
    const ptrdiff_t padded = pairs * 2 * VL;
    float *next = (float *)scratch_alloc(sizeof(float) * padded);
    if (!next) return -1;
    unsigned mode = flush_denormals();
    float *h = s->h, *c = s->c;
    for (ptrdiff_t step = 0; step < s->nb_frames; step++) {
        const ptrdiff_t t = s->reverse ? s->nb_frames - 1 - step : step;
        const float *gates = s->gates + t * 4 * padded;
        for (ptrdiff_t turn = 0; turn < pairs; turn++) {
            const ptrdiff_t pair = step & 1 ? pairs - 1 - turn : turn;
            const float *VEC_RESTRICT w = s->w + pair * hidden * 8 * VL;
            const float *x = gates + pair * 8 * VL;
            vf i0 = v_load(x), f0 = v_load(x + VL), g0 = v_load(x + 2 * VL), o0 = v_load(x + 3 * VL);
            x += 4 * VL;
            vf i1 = v_load(x), f1 = v_load(x + VL), g1 = v_load(x + 2 * VL), o1 = v_load(x + 3 * VL);
#if defined(__GNUC__)
#pragma GCC unroll 2
#endif
            for (ptrdiff_t k = 0; k < hidden; k++, w += 8 * VL) {
                const vf hk = v_splat(h[k]);
                i0 += hk * v_load(w);
                f0 += hk * v_load(w + VL);
                g0 += hk * v_load(w + 2 * VL);
                o0 += hk * v_load(w + 3 * VL);
                i1 += hk * v_load(w + 4 * VL);
                f1 += hk * v_load(w + 5 * VL);
                g1 += hk * v_load(w + 6 * VL);
                o1 += hk * v_load(w + 7 * VL);
            }
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
