/* Gradient of the magnitudes through one iteration of the Wiener filter, for 1 or 2 channels.
 *
 * Computes      given d_y, the gradient of y_j = v_j R_j q with q = Cxx^-1 x (see wiener_body.h; all
 *               of the mixture and the estimates divided by max_abs):
 *                 h = Cxx^-1 sum_j v_j R_j d_y_j,  e_j = d_y_j - h
 *                 dv_j = Re((R_j q)^H e_j),  dR_j = sum_t v_j e_j q^H
 *                 dS_j = dR_j / w_j,  dv_j -= Re<dS_j, R_j>
 *                 d_m_j = Re(phase^* ((dS_j + dS_j^H) + 2 dv_j / channels) y_j)
 *               Numbers (19) to (26) and (7) of docs/end-to-end.md.
 * Arguments     umx_wiener_gradient_args in kernels.h. d_y is scaled by max_abs on the way in, and
 *               the result divided by it, so neither shows.
 * Aliasing      none of the arrays overlap.
 * Accumulates   d_mags with `=`
 * Parallel over nothing: callers give each thread its own bins.
 * Precision     float64 throughout, float32 in and out: 3e-8 of the largest, 1e-6 where the gradient
 *               itself is what is left of cancelling terms.
 * Oracle        umx_np.dsp.gradients.wiener_backward
 * Benchmark     benchmarks/kernels/wiener.py
 *
 * dS + dS^H is Hermitian, and of the phases of an estimate only their difference between the channels
 * reaches d_m: so of dR four real numbers a source are kept, as of R. Bins are taken LANES at a time;
 * what the missing ones of the last block come to is not stored. Between the second and the third pass over the frames
 * dv is kept, frames * sources * LANES numbers.
 */
#define LANES 32
#define AT(base, i, j, count) ((base) + ((ptrdiff_t)(i) * (count) + (j)) * LANES)

typedef struct {
    const umx_wiener_gradient_args *g;
    wiener_block filter;  /* mixture, powers and R, one block of bins */
    double *inverse;      /* (sources, LANES) 1 / w_j */
    double *shared;       /* (sources, LANES) Re<dS_j, R_j>, which dv of every frame loses */
    double *dr;           /* (sources, 4, LANES) of dR + dR^H: 00 / 2, 11 / 2, Re and Im of 01 */
    double *dv;           /* (frames, sources, LANES) */
    double *gr, *gi;      /* (sources, channels, LANES) d_y of one frame */
} gradient_block;

static const float *gradient_in(const gradient_block *b, int j, ptrdiff_t t, int ch) {
    const umx_wiener_args *g = &b->g->filter;
    const float *d_y = b->g->d_y;
    return d_y + 2 * ((j * g->nb_channels + ch) * g->nb_frames + t) * g->nb_bins;
}

/* d_y of a frame, times max_abs: what reaches the filter of the scaled mixture. */
static void gradient_load(const gradient_block *b, ptrdiff_t t) {
    const umx_wiener_args *g = &b->g->filter;
    for (int j = 0; j < g->nb_targets; j++)
        for (int ch = 0; ch < g->nb_channels; ch++) {
            const float *VEC_RESTRICT in = wiener_row(&b->filter, gradient_in(b, j, t, ch), 2);
            double *VEC_RESTRICT gr = AT(b->gr, j, ch, g->nb_channels);
            double *VEC_RESTRICT gi = AT(b->gi, j, ch, g->nb_channels);
            for (int l = 0; l < LANES; l++) {
                gr[l] = in[2 * l] * g->max_abs;
                gi[l] = in[2 * l + 1] * g->max_abs;
            }
        }
}

static void gradient_filter_mono(const gradient_block *b, ptrdiff_t t) {
    const wiener_block *f = &b->filter;
    wiener_estimate(f, t);
    double cxx[LANES], qr[LANES], qi[LANES], hr[LANES], hi[LANES];
    for (int l = 0; l < LANES; l++) {
        cxx[l] = f->reg;
        hr[l] = hi[l] = 0.0;
    }
    for (int j = 0; j < f->sources; j++) {
        const double *VEC_RESTRICT yr = AT(f->yr, j, 0, 1), *VEC_RESTRICT yi = AT(f->yi, j, 0, 1);
        const double *VEC_RESTRICT r = AT(f->r, j, 0, 4);
        const double *VEC_RESTRICT gr = AT(b->gr, j, 0, 1), *VEC_RESTRICT gi = AT(b->gi, j, 0, 1);
        double *VEC_RESTRICT v = AT(f->v, j, 0, 1);
        for (int l = 0; l < LANES; l++) {
            v[l] = yr[l] * yr[l] + yi[l] * yi[l];
            cxx[l] += v[l] * r[l];
            hr[l] += v[l] * r[l] * gr[l];
            hi[l] += v[l] * r[l] * gi[l];
        }
    }
    for (int l = 0; l < LANES; l++) {
        double s = 1.0 / cxx[l];
        qr[l] = s * f->xr[l];
        qi[l] = s * f->xi[l];
        hr[l] *= s;
        hi[l] *= s;
    }
    for (int j = 0; j < f->sources; j++) {
        const double *VEC_RESTRICT r = AT(f->r, j, 0, 4), *VEC_RESTRICT v = AT(f->v, j, 0, 1);
        const double *VEC_RESTRICT gr = AT(b->gr, j, 0, 1), *VEC_RESTRICT gi = AT(b->gi, j, 0, 1);
        double *VEC_RESTRICT dv = AT(b->dv, t, j, f->sources), *VEC_RESTRICT dr = AT(b->dr, j, 0, 4);
        for (int l = 0; l < LANES; l++) {
            double along = (gr[l] - hr[l]) * qr[l] + (gi[l] - hi[l]) * qi[l];
            dv[l] = r[l] * along;
            dr[l] += v[l] * along;
        }
    }
}

static void gradient_filter_stereo(const gradient_block *b, ptrdiff_t t) {
    const wiener_block *f = &b->filter;
    wiener_power_plain(f, t);
    double c00[LANES], c11[LANES], cr[LANES], ci[LANES]; /* Cxx without the regularisation */
    double u0r[LANES], u0i[LANES], u1r[LANES], u1i[LANES]; /* sum of v R d_y, then h */
    for (int l = 0; l < LANES; l++) {
        c00[l] = c11[l] = cr[l] = ci[l] = 0.0;
        u0r[l] = u0i[l] = u1r[l] = u1i[l] = 0.0;
    }
    for (int j = 0; j < f->sources; j++) {
        const double *VEC_RESTRICT r = AT(f->r, j, 0, 4), *VEC_RESTRICT v = AT(f->v, j, 0, 1);
        const double *VEC_RESTRICT gr = AT(b->gr, j, 0, 2), *VEC_RESTRICT gi = AT(b->gi, j, 0, 2);
        for (int l = 0; l < LANES; l++) {
            double a = v[l] * r[l], d = v[l] * r[LANES + l];
            double re = v[l] * r[2 * LANES + l], im = v[l] * r[3 * LANES + l];
            double g0r = gr[l], g0i = gi[l], g1r = gr[LANES + l], g1i = gi[LANES + l];
            c00[l] += a;
            c11[l] += d;
            cr[l] += re;
            ci[l] += im;
            u0r[l] += a * g0r + re * g1r - im * g1i;
            u0i[l] += a * g0i + re * g1i + im * g1r;
            u1r[l] += re * g0r + im * g0i + d * g1r;
            u1i[l] += re * g0i - im * g0r + d * g1i;
        }
    }
    /* q over c00 .. ci, h over u; the determinant as in wiener_filter_stereo. */
    const double *VEC_RESTRICT xr = f->xr, *VEC_RESTRICT xi = f->xi;
    for (int l = 0; l < LANES; l++) {
        double a = c00[l], d = c11[l], br = cr[l], bi = ci[l];
        double det = a * d - br * br - bi * bi;
        det = (det > 0.0 ? det : 0.0) + f->reg * (a + d) + f->reg * f->reg;
        double s = 1.0 / det;
        a = s * (a + f->reg);
        d = s * (d + f->reg);
        br *= s;
        bi *= s;
        double x0r = xr[l], x0i = xi[l], x1r = xr[LANES + l], x1i = xi[LANES + l];
        c00[l] = d * x0r - br * x1r + bi * x1i;
        c11[l] = d * x0i - br * x1i - bi * x1r;
        cr[l] = a * x1r - br * x0r - bi * x0i;
        ci[l] = a * x1i - br * x0i + bi * x0r;
        x0r = u0r[l], x0i = u0i[l], x1r = u1r[l], x1i = u1i[l];
        u0r[l] = d * x0r - br * x1r + bi * x1i;
        u0i[l] = d * x0i - br * x1i - bi * x1r;
        u1r[l] = a * x1r - br * x0r - bi * x0i;
        u1i[l] = a * x1i - br * x0i + bi * x0r;
    }
    const double *VEC_RESTRICT q0r = c00, *VEC_RESTRICT q0i = c11;
    const double *VEC_RESTRICT q1r = cr, *VEC_RESTRICT q1i = ci;
    for (int j = 0; j < f->sources; j++) {
        const double *VEC_RESTRICT r = AT(f->r, j, 0, 4), *VEC_RESTRICT v = AT(f->v, j, 0, 1);
        const double *VEC_RESTRICT gr = AT(b->gr, j, 0, 2), *VEC_RESTRICT gi = AT(b->gi, j, 0, 2);
        double *VEC_RESTRICT dv = AT(b->dv, t, j, f->sources), *VEC_RESTRICT dr = AT(b->dr, j, 0, 4);
        for (int l = 0; l < LANES; l++) {
            double e0r = gr[l] - u0r[l], e0i = gi[l] - u0i[l];
            double e1r = gr[LANES + l] - u1r[l], e1i = gi[LANES + l] - u1i[l];
            /* Re e_0 q_0*, Re e_1 q_1*, and e_0 q_1* + (e_1 q_0*)* */
            double s00 = e0r * q0r[l] + e0i * q0i[l], s11 = e1r * q1r[l] + e1i * q1i[l];
            double sr = e0r * q1r[l] + e0i * q1i[l] + e1r * q0r[l] + e1i * q0i[l];
            double si = e0i * q1r[l] - e0r * q1i[l] + e1r * q0i[l] - e1i * q0r[l];
            dv[l] = r[l] * s00 + r[LANES + l] * s11 + r[2 * LANES + l] * sr + r[3 * LANES + l] * si;
            dr[l] += v[l] * s00;
            dr[LANES + l] += v[l] * s11;
            dr[2 * LANES + l] += v[l] * sr;
            dr[3 * LANES + l] += v[l] * si;
        }
    }
}

/* dR to dS, and what all frames lose by the weight. */
static void gradient_model(const gradient_block *b) {
    const int count = b->g->filter.nb_channels == 1 ? 1 : 4;
    for (int j = 0; j < b->filter.sources; j++) {
        const double *VEC_RESTRICT r = AT(b->filter.r, j, 0, 4);
        const double *VEC_RESTRICT inverse = AT(b->inverse, j, 0, 1);
        double *VEC_RESTRICT dr = AT(b->dr, j, 0, 4), *VEC_RESTRICT shared = AT(b->shared, j, 0, 1);
        for (int l = 0; l < LANES; l++) shared[l] = 0.0;
        for (int i = 0; i < count; i++)
            for (int l = 0; l < LANES; l++) {
                dr[i * LANES + l] *= inverse[l];
                shared[l] += dr[i * LANES + l] * r[i * LANES + l];
            }
    }
}

static void gradient_write(const gradient_block *b, ptrdiff_t t) {
    const umx_wiener_args *g = &b->g->filter;
    const wiener_block *f = &b->filter;
    /* Once for the estimates and once for the magnitudes of the mixture's size. */
    const double square = f->inv * f->inv;
    double pr[LANES], pi[LANES], m0[LANES], out[2][LANES];
    if (g->nb_channels == 2) wiener_phases(f, t, pr, pi);
    for (int j = 0; j < f->sources; j++) {
        const double *VEC_RESTRICT dv = AT(b->dv, t, j, f->sources);
        const double *VEC_RESTRICT dr = AT(b->dr, j, 0, 4), *VEC_RESTRICT shared = AT(b->shared, j, 0, 1);
        const float *VEC_RESTRICT left = wiener_row(f, wiener_mags(f, j, t, 0), 1);
        for (int l = 0; l < LANES; l++) m0[l] = left[l];
        if (g->nb_channels == 1) {
            for (int l = 0; l < LANES; l++)
                out[0][l] = 2.0 * square * (dr[l] + dv[l] - shared[l]) * m0[l];
        } else {
            const float *VEC_RESTRICT right = wiener_row(f, wiener_mags(f, j, t, 1), 1);
            for (int l = 0; l < LANES; l++) {
                double m1 = right[l], power = dv[l] - shared[l];
                double cross = dr[2 * LANES + l] * pr[l] + dr[3 * LANES + l] * pi[l];
                out[0][l] = square * ((2.0 * dr[l] + power) * m0[l] + cross * m1);
                out[1][l] = square * ((2.0 * dr[LANES + l] + power) * m1 + cross * m0[l]);
            }
            if (g->mag_channels == 1)
                for (int l = 0; l < LANES; l++) out[0][l] += out[1][l];
        }
        for (int ch = 0; ch < g->mag_channels; ch++) {
            float *VEC_RESTRICT d_mags = b->g->d_mags + f->bin +
                ((j * g->nb_frames + t) * g->mag_channels + ch) * g->nb_bins;
            for (ptrdiff_t l = 0; l < f->n; l++) d_mags[l] = (float)out[ch][l];
        }
    }
}

static void gradient_of_block(gradient_block *b) {
    const umx_wiener_args *g = &b->g->filter;
    wiener_block *f = &b->filter;
    const int stereo = g->nb_channels == 2;
    memset(f->sum, 0, sizeof(double) * f->sources * 4 * LANES);
    memset(b->dr, 0, sizeof(double) * f->sources * 4 * LANES);
    for (ptrdiff_t t = 0; t < g->nb_frames; t++) wiener_accumulate_frame(f, t, 0);
    wiener_normalise(f, 0, f->sum, LANES);
    for (int j = 0; j < f->sources; j++) {
        const double *VEC_RESTRICT sum = AT(f->sum, j, 0, 4);
        double *VEC_RESTRICT inverse = AT(b->inverse, j, 0, 1);
        for (int l = 0; l < LANES; l++) {
            double power = stereo ? 0.5 * (sum[l] + sum[LANES + l]) : sum[l];
            inverse[l] = 1.0 / (g->eps + power);
        }
    }
    for (ptrdiff_t t = 0; t < g->nb_frames; t++) {
        gradient_load(b, t);
        if (stereo)
            gradient_filter_stereo(b, t);
        else
            gradient_filter_mono(b, t);
    }
    gradient_model(b);
    for (ptrdiff_t t = 0; t < g->nb_frames; t++) gradient_write(b, t);
}

static int wiener_gradient(const umx_wiener_gradient_args *args) {
    const umx_wiener_args *g = &args->filter;
    float row[2 * LANES];
    const int sources = g->nb_targets;
    const ptrdiff_t per_source = (ptrdiff_t)sources * LANES;
    gradient_block b;
    memset(&b, 0, sizeof b);
    b.g = args;
    b.filter.g = g;
    b.filter.sources = sources;
    b.filter.row = row;
    b.filter.inv = 1.0 / g->max_abs;
    b.filter.reg = sqrt(g->eps);
    const ptrdiff_t sizes[] = {2 * LANES,      2 * LANES,      2 * LANES,      2 * LANES,
                               2 * per_source, 2 * per_source, per_source,     4 * per_source,
                               4 * per_source, per_source,     per_source,     4 * per_source,
                               g->nb_frames * per_source,      2 * per_source, 2 * per_source};
    double **parts[] = {&b.filter.xr, &b.filter.xi, &b.filter.er,  &b.filter.ei, &b.filter.yr,
                        &b.filter.yi, &b.filter.v,  &b.filter.r,   &b.filter.sum, &b.inverse,
                        &b.shared,    &b.dr,        &b.dv,         &b.gr,        &b.gi};
    const int count = sizeof sizes / sizeof *sizes;
    ptrdiff_t total = 0;
    for (int i = 0; i < count; i++) total += sizes[i];
    double *memory = (double *)scratch_alloc(sizeof(double) * total);
    if (!memory) return -1;
    memset(memory, 0, sizeof(double) * total); /* the lanes of missing bins are read, too */
    double *next = memory;
    for (int i = 0; i < count; i++) {
        *parts[i] = next;
        next += sizes[i];
    }
    for (ptrdiff_t bin = g->bin_start; bin < g->bin_stop; bin += LANES) {
        b.filter.bin = bin;
        b.filter.n = g->bin_stop - bin < LANES ? g->bin_stop - bin : LANES;
        gradient_of_block(&b);
    }
    scratch_free(memory);
    return 0;
}
#undef AT
#undef LANES
