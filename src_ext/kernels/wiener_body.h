/* Multichannel Wiener filter by expectation-maximisation, for 1 or 2 channels.
 *
 * Computes      first estimates (magnitude with the phase of the mix, or softmask), residual, then
 *               per iteration
 *                 v_j = mean_c |y_jc|^2,  R_j = sum_t y_j y_j^H / (eps + sum_t v_j)
 *                 Cxx = sum_j v_j R_j + sqrt(eps) I,  y_j = v_j R_j Cxx^-1 x
 *               on x and y divided by max_abs, and multiplied back at the end.
 * Arguments     umx_wiener_args in kernels.h. Of r[i][j]: |y_0|^2, |y_1|^2, Re and Im of y_0 y_1*.
 * Aliasing      none of the arrays overlap.
 * Accumulates   r with `+=`, y with `=`
 * Parallel over nothing: callers give each thread its own bins.
 * Precision     float64 throughout, float32 in and out. Near-mono mixtures make Cxx nearly singular,
 *               and float32 loses everything there.
 * Oracle        umx_np.backends.reference.ReferenceFilter
 * Benchmark     benchmarks/kernels/wiener.py
 *
 * Given R of every iteration, an estimate depends on its own frame only. So nothing but R is kept
 * between the passes: pass i recomputes the chain of i filters from the magnitudes, in float64, and
 * the same code serves one window or a track that arrives in blocks. Bins are taken LANES at a time
 * with their frames, so that one block of mix and magnitudes stays in L2 over all passes. Inner loops
 * always run over all LANES, whose number the compiler knows; the missing bins of the last block are
 * silent.
 */
#define LANES 32
/* Blocks that walk through the frames together, so that of each row a longer piece is read at once. */
#define CHUNK 8
/* Frames ahead that are asked for: a block touches short pieces of many rows, which no hardware
 * prefetcher guesses. */
#define AHEAD 3

typedef struct {
    const umx_wiener_args *g;
    int sources;
    ptrdiff_t bin, n;        /* first bin and number of bins of this block, at most LANES */
    float *row;              /* (2 * LANES) a row of the last block, filled up with zeros */
    double inv, reg;
    double *xr, *xi;         /* (channels, LANES) mix of one frame */
    double *er, *ei;         /* (channels, LANES) phase factors */
    double *yr, *yi;         /* (sources, channels, LANES) estimates of one frame */
    double *v;               /* (sources, LANES) */
    double *r;               /* (iterations, sources, 4, LANES) normalised */
    double *sum;             /* (sources, 4, LANES) being accumulated */
} wiener_block;

#define AT(base, i, j, count) ((base) + ((ptrdiff_t)(i) * (count) + (j)) * LANES)

/* `width` numbers a bin from a row of an array, always LANES bins of them. */
static const float *wiener_row(const wiener_block *b, const float *row, int width) {
    row += b->bin * width;
    if (b->n == LANES) return row;
    memset(b->row, 0, sizeof(float) * 2 * LANES);
    memcpy(b->row, row, sizeof(float) * width * b->n);
    return b->row;
}

static const float *wiener_mags(const wiener_block *b, int j, ptrdiff_t t, int ch) {
    const umx_wiener_args *g = b->g;
    if (g->mag_channels == 1) ch = 0;
    return g->mags + ((j * g->nb_frames + t) * g->mag_channels + ch) * g->nb_bins;
}

static const float *wiener_mix(const wiener_block *b, ptrdiff_t t, int ch) {
    return b->g->mix + 2 * (ch * b->g->nb_frames + t) * b->g->nb_bins;
}

static float *wiener_out(const wiener_block *b, int j, ptrdiff_t t, int ch) {
    const umx_wiener_args *g = b->g;
    return g->y + 2 * (((j * g->nb_channels + ch) * g->nb_frames + t) * g->nb_bins + b->bin);
}

static void wiener_prefetch(const wiener_block *b, ptrdiff_t t, int write) {
    const umx_wiener_args *g = b->g;
    if (t >= g->nb_frames || b->n < LANES) return;
    for (int ch = 0; ch < g->nb_channels; ch++) {
        v_prefetch(wiener_mix(b, t, ch) + 2 * b->bin, 2 * LANES);
        for (int j = 0; j < g->nb_targets; j++) v_prefetch(wiener_mags(b, j, t, ch) + b->bin, LANES);
        for (int j = 0; write && j < b->sources; j++) v_prefetch(wiener_out(b, j, t, ch), 2 * LANES);
    }
}

static void wiener_estimate(const wiener_block *b, ptrdiff_t t) {
    const umx_wiener_args *g = b->g;
    const int channels = g->nb_channels, sources = b->sources;
    const double inv = b->inv;
    for (int ch = 0; ch < channels; ch++) {
        const float *VEC_RESTRICT mix = wiener_row(b, wiener_mix(b, t, ch), 2);
        double *VEC_RESTRICT xr = b->xr + ch * LANES, *VEC_RESTRICT xi = b->xi + ch * LANES;
        double *VEC_RESTRICT er = b->er + ch * LANES, *VEC_RESTRICT ei = b->ei + ch * LANES;
        for (int l = 0; l < LANES; l++) {
            double re = mix[2 * l], im = mix[2 * l + 1];
            double power = re * re + im * im;
            double unit = inv / sqrt(power > 0.0 ? power : 1.0);
            er[l] = power > 0.0 ? re * unit : inv; /* the phase of a silent bin is 0 */
            ei[l] = im * unit;
            xr[l] = re * inv;
            xi[l] = im * inv;
        }
        double *VEC_RESTRICT total = b->v; /* free until the filter runs */
        if (g->softmask) {
            for (int l = 0; l < LANES; l++) total[l] = g->eps;
            for (int j = 0; j < g->nb_targets; j++) {
                const float *VEC_RESTRICT mag = wiener_row(b, wiener_mags(b, j, t, ch), 1);
                for (int l = 0; l < LANES; l++) total[l] += mag[l];
            }
        }
        for (int j = 0; j < g->nb_targets; j++) {
            const float *VEC_RESTRICT mag = wiener_row(b, wiener_mags(b, j, t, ch), 1);
            double *VEC_RESTRICT yr = AT(b->yr, j, ch, channels);
            double *VEC_RESTRICT yi = AT(b->yi, j, ch, channels);
            if (g->softmask) {
                for (int l = 0; l < LANES; l++) {
                    double ratio = mag[l] / total[l];
                    yr[l] = ratio * xr[l];
                    yi[l] = ratio * xi[l];
                }
            } else {
                for (int l = 0; l < LANES; l++) {
                    yr[l] = mag[l] * er[l];
                    yi[l] = mag[l] * ei[l];
                }
            }
        }
        if (g->residual) {
            double *VEC_RESTRICT qr = AT(b->yr, sources - 1, ch, channels);
            double *VEC_RESTRICT qi = AT(b->yi, sources - 1, ch, channels);
            for (int l = 0; l < LANES; l++) {
                qr[l] = xr[l];
                qi[l] = xi[l];
            }
            for (int j = 0; j < g->nb_targets; j++) {
                const double *VEC_RESTRICT yr = AT(b->yr, j, ch, channels);
                const double *VEC_RESTRICT yi = AT(b->yi, j, ch, channels);
                for (int l = 0; l < LANES; l++) {
                    qr[l] -= yr[l];
                    qi[l] -= yi[l];
                }
            }
        }
    }
}

static void wiener_accumulate(const wiener_block *b) {
    for (int j = 0; j < b->sources; j++) {
        double *VEC_RESTRICT sum = AT(b->sum, j, 0, 4);
        if (b->g->nb_channels == 1) {
            const double *VEC_RESTRICT yr = AT(b->yr, j, 0, 1), *VEC_RESTRICT yi = AT(b->yi, j, 0, 1);
            for (int l = 0; l < LANES; l++) sum[l] += yr[l] * yr[l] + yi[l] * yi[l];
        } else {
            const double *VEC_RESTRICT yr = AT(b->yr, j, 0, 2), *VEC_RESTRICT yi = AT(b->yi, j, 0, 2);
            for (int l = 0; l < LANES; l++) {
                double r0 = yr[l], i0 = yi[l], r1 = yr[LANES + l], i1 = yi[LANES + l];
                sum[l] += r0 * r0 + i0 * i0;
                sum[LANES + l] += r1 * r1 + i1 * i1;
                sum[2 * LANES + l] += r0 * r1 + i0 * i1;
                sum[3 * LANES + l] += i0 * r1 - r0 * i1;
            }
        }
    }
}

static void wiener_filter_mono(const wiener_block *b, const double *r) {
    double *VEC_RESTRICT xr = b->xr, *VEC_RESTRICT xi = b->xi;
    double cxx[LANES];
    for (int l = 0; l < LANES; l++) cxx[l] = b->reg;
    for (int j = 0; j < b->sources; j++) {
        const double *VEC_RESTRICT yr = AT(b->yr, j, 0, 1), *VEC_RESTRICT yi = AT(b->yi, j, 0, 1);
        const double *VEC_RESTRICT rj = AT(r, j, 0, 4);
        double *VEC_RESTRICT v = AT(b->v, j, 0, 1);
        for (int l = 0; l < LANES; l++) {
            v[l] = (yr[l] * yr[l] + yi[l] * yi[l]) * rj[l];
            cxx[l] += v[l];
        }
    }
    for (int j = 0; j < b->sources; j++) {
        double *VEC_RESTRICT yr = AT(b->yr, j, 0, 1), *VEC_RESTRICT yi = AT(b->yi, j, 0, 1);
        const double *VEC_RESTRICT v = AT(b->v, j, 0, 1);
        for (int l = 0; l < LANES; l++) {
            double gain = v[l] / cxx[l];
            yr[l] = gain * xr[l];
            yi[l] = gain * xi[l];
        }
    }
}

/* v of the estimates in y. */
static void wiener_power_stereo(const wiener_block *b) {
    for (int j = 0; j < b->sources; j++) {
        const double *VEC_RESTRICT yr = AT(b->yr, j, 0, 2), *VEC_RESTRICT yi = AT(b->yi, j, 0, 2);
        double *VEC_RESTRICT v = AT(b->v, j, 0, 1);
        for (int l = 0; l < LANES; l++)
            v[l] = 0.5 * (yr[l] * yr[l] + yi[l] * yi[l] + yr[LANES + l] * yr[LANES + l] +
                          yi[LANES + l] * yi[LANES + l]);
    }
}

/* The usual case, stereo estimates that have the phase of the mix and no residual among them, needs
 * no estimates: their power is that of the magnitudes, and of their phases only the difference
 * between the channels matters. That is a square root and a division a bin instead of four. */
static int wiener_is_plain(const umx_wiener_args *g) {
    return g->nb_channels == 2 && !g->softmask && !g->residual;
}

static void wiener_power_plain(const wiener_block *b, ptrdiff_t t) {
    const double half = 0.5 * b->inv * b->inv;
    for (int ch = 0; ch < 2; ch++) {
        const float *VEC_RESTRICT mix = wiener_row(b, wiener_mix(b, t, ch), 2);
        double *VEC_RESTRICT xr = b->xr + ch * LANES, *VEC_RESTRICT xi = b->xi + ch * LANES;
        for (int l = 0; l < LANES; l++) {
            xr[l] = mix[2 * l] * b->inv;
            xi[l] = mix[2 * l + 1] * b->inv;
        }
        for (int j = 0; j < b->sources; j++) {
            const float *VEC_RESTRICT mag = wiener_row(b, wiener_mags(b, j, t, ch), 1);
            double *VEC_RESTRICT v = AT(b->v, j, 0, 1);
            if (ch == 0)
                for (int l = 0; l < LANES; l++) v[l] = half * mag[l] * mag[l];
            else
                for (int l = 0; l < LANES; l++) v[l] += half * mag[l] * mag[l];
        }
    }
}

/* e_0 e_1*, the difference of the channels' phases. */
static void wiener_phases(const wiener_block *b, ptrdiff_t t, double *VEC_RESTRICT pr,
                          double *VEC_RESTRICT pi) {
    const float *VEC_RESTRICT mix = wiener_row(b, wiener_mix(b, t, 0), 2);
    for (int l = 0; l < LANES; l++) {
        double re = mix[2 * l], im = mix[2 * l + 1];
        pr[l] = re * re + im * im > 0.0 ? re : 1.0; /* the phase of a silent bin is 0 */
        pi[l] = im;
    }
    mix = wiener_row(b, wiener_mix(b, t, 1), 2);
    for (int l = 0; l < LANES; l++) {
        double r0 = pr[l], i0 = pi[l], r1 = mix[2 * l], i1 = mix[2 * l + 1];
        r1 = r1 * r1 + i1 * i1 > 0.0 ? r1 : 1.0;
        double unit = 1.0 / sqrt((r0 * r0 + i0 * i0) * (r1 * r1 + i1 * i1));
        pr[l] = (r0 * r1 + i0 * i1) * unit;
        pi[l] = (i0 * r1 - r0 * i1) * unit;
    }
}

static void wiener_accumulate_plain(const wiener_block *b, ptrdiff_t t) {
    double *VEC_RESTRICT pr = b->er, *VEC_RESTRICT pi = b->ei;
    const double square = b->inv * b->inv;
    wiener_phases(b, t, pr, pi);
    for (int j = 0; j < b->sources; j++) {
        const float *VEC_RESTRICT left = wiener_row(b, wiener_mags(b, j, t, 0), 1);
        double *VEC_RESTRICT sum = AT(b->sum, j, 0, 4), *VEC_RESTRICT m0 = b->v;
        for (int l = 0; l < LANES; l++) m0[l] = left[l];
        const float *VEC_RESTRICT right = wiener_row(b, wiener_mags(b, j, t, 1), 1);
        for (int l = 0; l < LANES; l++) {
            double m1 = right[l], cross = m0[l] * m1 * square;
            sum[l] += m0[l] * m0[l] * square;
            sum[LANES + l] += m1 * m1 * square;
            sum[2 * LANES + l] += cross * pr[l];
            sum[3 * LANES + l] += cross * pi[l];
        }
    }
}

/* From v to the estimates of the next iteration. */
static void wiener_filter_stereo(const wiener_block *b, const double *r) {
    const double reg = b->reg;
    double c00[LANES], c11[LANES], cr[LANES], ci[LANES]; /* Cxx without the regularisation */
    for (int l = 0; l < LANES; l++) c00[l] = c11[l] = cr[l] = ci[l] = 0.0;
    for (int j = 0; j < b->sources; j++) {
        const double *VEC_RESTRICT rj = AT(r, j, 0, 4), *VEC_RESTRICT v = AT(b->v, j, 0, 1);
        for (int l = 0; l < LANES; l++) {
            double p = v[l];
            c00[l] += p * rj[l];
            c11[l] += p * rj[LANES + l];
            cr[l] += p * rj[2 * LANES + l];
            ci[l] += p * rj[3 * LANES + l];
        }
    }
    /* w = Cxx^-1 x, over c00 .. ci. The determinant of S + reg I as det S + reg tr S + reg^2 with
     * det S >= 0 cannot vanish, however close to mono the sources are. */
    const double *VEC_RESTRICT xr = b->xr, *VEC_RESTRICT xi = b->xi;
    for (int l = 0; l < LANES; l++) {
        double a = c00[l], d = c11[l], br = cr[l], bi = ci[l];
        double det = a * d - br * br - bi * bi;
        det = (det > 0.0 ? det : 0.0) + reg * (a + d) + reg * reg;
        double s = 1.0 / det;
        a += reg;
        d += reg;
        double x0r = xr[l], x0i = xi[l], x1r = xr[LANES + l], x1i = xi[LANES + l];
        c00[l] = s * (d * x0r - br * x1r + bi * x1i);
        c11[l] = s * (d * x0i - br * x1i - bi * x1r);
        cr[l] = s * (a * x1r - br * x0r - bi * x0i);
        ci[l] = s * (a * x1i - br * x0i + bi * x0r);
    }
    for (int j = 0; j < b->sources; j++) {
        double *VEC_RESTRICT yr = AT(b->yr, j, 0, 2), *VEC_RESTRICT yi = AT(b->yi, j, 0, 2);
        const double *VEC_RESTRICT rj = AT(r, j, 0, 4);
        const double *VEC_RESTRICT v = AT(b->v, j, 0, 1);
        for (int l = 0; l < LANES; l++) {
            double r00 = rj[l], r11 = rj[LANES + l], rr = rj[2 * LANES + l], ri = rj[3 * LANES + l];
            yr[l] = v[l] * (r00 * c00[l] + rr * cr[l] - ri * ci[l]);
            yi[l] = v[l] * (r00 * c11[l] + rr * ci[l] + ri * cr[l]);
            yr[LANES + l] = v[l] * (rr * c00[l] + ri * c11[l] + r11 * cr[l]);
            yi[LANES + l] = v[l] * (rr * c11[l] - ri * c00[l] + r11 * ci[l]);
        }
    }
}

/* y of frame t after `count` iterations. */
static void wiener_chain(const wiener_block *b, ptrdiff_t t, int count) {
    const int plain = wiener_is_plain(b->g) && count > 0;
    if (plain)
        wiener_power_plain(b, t);
    else
        wiener_estimate(b, t);
    for (int i = 0; i < count; i++) {
        const double *r = b->r + (ptrdiff_t)i * b->sources * 4 * LANES;
        if (b->g->nb_channels == 1) {
            wiener_filter_mono(b, r);
            continue;
        }
        if (i > 0 || !plain) wiener_power_stereo(b);
        wiener_filter_stereo(b, r);
    }
}

static void wiener_normalise(const wiener_block *b, int level, const double *sum,
                             ptrdiff_t stride) {
    const int stereo = b->g->nb_channels == 2;
    for (int j = 0; j < b->sources; j++) {
        double *out = AT(b->r, (ptrdiff_t)level * b->sources + j, 0, 4);
        const double *in = sum + (ptrdiff_t)j * 4 * stride;
        for (ptrdiff_t l = 0; l < b->n; l++) {
            double weight = stereo ? 0.5 * (in[l] + in[stride + l]) : in[l];
            double s = 1.0 / (b->g->eps + weight);
            for (int q = 0; q < (stereo ? 4 : 1); q++) out[q * LANES + l] = in[q * stride + l] * s;
        }
    }
}

static void wiener_accumulate_frame(const wiener_block *b, ptrdiff_t t, int level) {
    wiener_prefetch(b, t + AHEAD, 0);
    if (level == 0 && wiener_is_plain(b->g)) {
        wiener_accumulate_plain(b, t);
        return;
    }
    wiener_chain(b, t, level);
    wiener_accumulate(b);
}

static void wiener_write_frame(const wiener_block *b, ptrdiff_t t) {
    const umx_wiener_args *g = b->g;
    const double scale = g->max_abs;
    wiener_prefetch(b, t + AHEAD, 1);
    wiener_chain(b, t, g->iterations);
    for (int j = 0; j < b->sources; j++)
        for (int ch = 0; ch < g->nb_channels; ch++) {
            const double *VEC_RESTRICT yr = AT(b->yr, j, ch, g->nb_channels);
            const double *VEC_RESTRICT yi = AT(b->yi, j, ch, g->nb_channels);
            float *VEC_RESTRICT out = b->n == LANES ? wiener_out(b, j, t, ch) : b->row;
            for (int l = 0; l < LANES; l++) {
                out[2 * l] = (float)(yr[l] * scale);
                out[2 * l + 1] = (float)(yi[l] * scale);
            }
            if (b->n < LANES) memcpy(wiener_out(b, j, t, ch), b->row, sizeof(float) * 2 * b->n);
        }
}

/* All stages on some blocks of bins. */
static void wiener_chunk(wiener_block *blocks, int count) {
    const umx_wiener_args *g = blocks->g;
    const ptrdiff_t level_size = (ptrdiff_t)blocks->sources * 4 * g->nb_bins;
    const size_t sum_size = sizeof(double) * blocks->sources * 4 * LANES;
    const int window = g->stage == UMX_WIENER_WINDOW;
    /* Statistics of earlier calls, */
    int known = g->stage == UMX_WIENER_ACCUMULATE ? g->level : g->iterations;
    for (int k = 0; k < count && !window; k++)
        for (int i = 0; i < known; i++)
            wiener_normalise(&blocks[k], i, g->r + i * level_size + blocks[k].bin, g->nb_bins);
    /* of this one, */
    int first = window ? 0 : g->level;
    int last = window ? g->iterations : g->stage == UMX_WIENER_ACCUMULATE ? g->level + 1 : first;
    for (int i = first; i < last; i++) {
        for (int k = 0; k < count; k++) memset(blocks[k].sum, 0, sum_size);
        for (ptrdiff_t t = 0; t < g->nb_frames; t++)
            for (int k = 0; k < count; k++) wiener_accumulate_frame(&blocks[k], t, i);
        for (int k = 0; k < count; k++) {
            const wiener_block *b = &blocks[k];
            if (window) {
                wiener_normalise(b, i, b->sum, LANES);
                continue;
            }
            for (ptrdiff_t q = 0; q < (ptrdiff_t)b->sources * 4; q++)
                for (ptrdiff_t l = 0; l < b->n; l++)
                    g->r[i * level_size + q * g->nb_bins + b->bin + l] += b->sum[q * LANES + l];
        }
    }
    /* and the filter that they make. */
    if (g->stage == UMX_WIENER_ACCUMULATE) return;
    for (ptrdiff_t t = 0; t < g->nb_frames; t++)
        for (int k = 0; k < count; k++) wiener_write_frame(&blocks[k], t);
}

static int wiener(const umx_wiener_args *g) {
    float row[2 * LANES];
    wiener_block b = {g, g->nb_targets + (g->residual ? 1 : 0), 0, 0, row, 1.0 / g->max_abs,
                      sqrt(g->eps), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    const ptrdiff_t per_source = (ptrdiff_t)b.sources * LANES;
    const ptrdiff_t r_size = 4 * per_source * (g->iterations ? g->iterations : 1);
    const ptrdiff_t sum_size = 4 * per_source;
    const ptrdiff_t sizes[] = {2 * LANES,      2 * LANES,  2 * LANES,      2 * LANES,       2 * per_source,
                               2 * per_source, per_source, CHUNK * r_size, CHUNK * sum_size};
    double **parts[] = {&b.xr, &b.xi, &b.er, &b.ei, &b.yr, &b.yi, &b.v, &b.r, &b.sum};
    ptrdiff_t total = 0;
    for (int i = 0; i < 9; i++) total += sizes[i];
    double *memory = (double *)scratch_alloc(sizeof(double) * total);
    if (!memory) return -1;
    memset(memory, 0, sizeof(double) * total); /* the lanes of missing bins are read, too */
    double *next = memory;
    for (int i = 0; i < 9; i++) {
        *parts[i] = next;
        next += sizes[i];
    }
    wiener_block blocks[CHUNK];
    for (ptrdiff_t bin = g->bin_start; bin < g->bin_stop;) {
        int count = 0;
        for (; count < CHUNK && bin < g->bin_stop; count++, bin += LANES) {
            blocks[count] = b;
            blocks[count].bin = bin;
            blocks[count].n = g->bin_stop - bin < LANES ? g->bin_stop - bin : LANES;
            blocks[count].r = b.r + count * r_size;
            blocks[count].sum = b.sum + count * sum_size;
        }
        wiener_chunk(blocks, count);
    }
    scratch_free(memory);
    return 0;
}
#undef AT
#undef LANES
#undef CHUNK
#undef AHEAD
