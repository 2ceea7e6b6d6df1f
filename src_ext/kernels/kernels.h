/* The table of compiled kernels and their arguments.
 *
 * Each instruction-set level (isa_*.c) compiles the same bodies (*_body.h) and fills one table.
 * dispatch.c picks a table at run time. Nothing here knows Python.
 */
#ifndef UMX_KERNELS_H
#define UMX_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which levels there are. AVX512_BF16 came with GCC 10 and Clang 9, AVX-VNNI with GCC 11 and Clang 12;
 * older ones do without. */
#if defined(__GNUC__) && defined(__x86_64__)
#define UMX_LEVELS_X86
#if defined(__has_include)
#if __has_include(<avx512bf16intrin.h>)
#define UMX_LEVEL_BF16
#endif
#if __has_include(<avx512vnniintrin.h>)
#define UMX_LEVEL_VNNI512
#endif
#if __has_include(<avxvnniintrin.h>)
#define UMX_LEVEL_VNNI256
#endif
#endif
#endif
#if defined(__GNUC__) && defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))
#define UMX_LEVEL_DOTPROD
#endif

/* Columns of an activation that share a scale in products of eight bits. */
enum { UMX_INT8_BLOCK = 512 };

enum { UMX_LINEAR = 0, UMX_TANH = 1, UMX_RELU = 2 };

/* gemm: C = act((A' W^T + C0) * scale + bias) * gain, see gemm_body.h */
typedef struct {
    ptrdiff_t m, n, k;
    const float *a;        /* IN  (m, k), row stride lda */
    ptrdiff_t lda;
    const float *a_shift;  /* IN  (k) or NULL: A' = (A + shift) * a_scale */
    const float *a_scale;  /* IN  (k) or NULL, given together with a_shift */
    const void *w;         /* IN  packed weights: float (panels, k, nr) for gemm, bfloat16
                                  (panels, ceil(k / 2), nr, 2) for gemm_bf16, int8
                                  (panels, ceil(k / 4), nr, 4) for gemm_int8 */
    const float *w_scale;  /* IN  (panels * nr), gemm_int8: what an int8 weight is multiplied by */
    const int32_t *w_sums; /* IN  (ceil(k / UMX_INT8_BLOCK), panels * nr) where int8_offset is not 0:
                                  -int8_offset times the sums of the int8 weights of a block */
    float *c;              /* OUT (m, n), row stride ldc; INOUT when accumulate */
    ptrdiff_t ldc;
    int accumulate;        /* C0 = C instead of 0 */
    int finish;            /* apply scale, bias, act and gain; otherwise leave the plain sum */
    const float *scale;    /* IN  (n) or NULL: ones */
    const float *bias;     /* IN  (n) or NULL: zeros */
    int act;               /* UMX_LINEAR, UMX_TANH or UMX_RELU */
    const float *gain;     /* IN  (m, n), row stride ldg, or NULL: ones */
    ptrdiff_t ldg;
} umx_gemm_args;

/* lstm_scan: one direction of one layer for one sequence, see lstm_body.h */
typedef struct {
    ptrdiff_t nb_frames, hidden; /* hidden: real units; everything packed is padded to 2*lanes */
    const float *gates;          /* IN  (nb_frames, 4*padded) input projection with both biases */
    const void *w;               /* IN  packed recurrent weights, float for lstm_scan, bfloat16 for
                                        lstm_scan_bf16, see lstm_body.h, and int8 for
                                        lstm_scan_int8, see int8_body.h */
    const float *w_scale;        /* IN  (4*padded), lstm_scan_int8: what a product is multiplied by */
    const int32_t *w_sums;       /* IN  (4*padded) as in umx_gemm_args, over all units */
    float *h;                    /* INOUT (padded) hidden state */
    float *c;                    /* INOUT (padded) cell state */
    float *out;                  /* OUT (nb_frames, hidden), row stride ldo */
    ptrdiff_t ldo;
    int reverse;                 /* walk the frames from last to first */
} umx_scan_args;

/* wiener: bins [bin_start, bin_stop) of one window, see wiener_body.h */
typedef struct {
    ptrdiff_t nb_frames, nb_bins, bin_start, bin_stop;
    int nb_channels;       /* of the mixture: 1 or 2 */
    int mag_channels;      /* of the magnitudes: nb_channels, or 1 shared by all */
    int nb_targets;        /* spectrograms given */
    int residual;          /* one more source: mixture minus the targets */
    int softmask, iterations;
    double eps, max_abs;
    const float *mix;      /* IN  (nb_channels, nb_frames, nb_bins) complex64 */
    const float *mags;     /* IN  (nb_targets, nb_frames, mag_channels, nb_bins) */
    float *y;              /* OUT (nb_targets + residual, nb_channels, nb_frames, nb_bins) complex64 */
    double *r;             /* INOUT sums of y y^H, (iterations, nb_sources, 4, nb_bins); NULL for WINDOW */
    int stage;             /* see below */
    int level;             /* ACCUMULATE: which iteration's sums to add to */
} umx_wiener_args;

enum {
    UMX_WIENER_WINDOW = 0,     /* all iterations on the frames given; needs no r */
    UMX_WIENER_ACCUMULATE = 1, /* r[level] += sums of the estimates after `level` iterations */
    UMX_WIENER_FILTER = 2      /* y = estimates after `iterations` iterations, from r */
};

/* wiener_gradient: bins [bin_start, bin_stop) of one window, see wiener_gradient_body.h */
typedef struct {
    umx_wiener_args filter; /* one iteration, no residual, no softmask; y, r and stage are not used */
    const float *d_y;       /* IN  gradient of y, (nb_targets, nb_channels, nb_frames, nb_bins)
                                   complex64 */
    float *d_mags;          /* OUT gradient of the magnitudes, shaped as they are */
} umx_wiener_gradient_args;

typedef struct {
    const char *name;
    int lanes;   /* float32 lanes of a vector register */
    int gemm_nr; /* columns of a packed weight panel */
    const char *int8_products; /* the instructions that multiply int8; "none" is plain C */
    int int8_offset; /* what is added to activations of eight bits; 0 or 128, see int8_dot.h */
    int (*gemm)(const umx_gemm_args *);      /* 0, or -1 when memory is short */
    int (*lstm_scan)(const umx_scan_args *); /* 0, or -1 when memory is short */
    int (*gemm_bf16)(const umx_gemm_args *); /* or NULL where the processor has no such product */
    int (*lstm_scan_bf16)(const umx_scan_args *);
    int (*gemm_int8)(const umx_gemm_args *);      /* 0, or -1 when memory is short */
    int (*lstm_scan_int8)(const umx_scan_args *); /* 0, or -1 when memory is short */
    int (*wiener)(const umx_wiener_args *);  /* 0, or -1 when memory is short */
    int (*wiener_gradient)(const umx_wiener_gradient_args *); /* 0, or -1 when memory is short */
} umx_kernels;

/* Number of levels compiled in, best last. */
int umx_nb_levels(void);
/* The table of a level, or NULL when this processor cannot run it. */
const umx_kernels *umx_level(int index);
/* The name of a level, whether or not it can run. */
const char *umx_level_name(int index);

#ifdef __cplusplus
}
#endif
#endif
