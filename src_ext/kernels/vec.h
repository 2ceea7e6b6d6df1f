/* Short vectors of VL floats, by the compilers' own vector types.
 *
 * GCC and Clang lower `vector_size` types to whatever the target level offers, so one body serves
 * SSE, AVX2, AVX-512 and NEON. Elsewhere (MSVC) VL is 1 and the same code is scalar C.
 * Include after VL is defined. Every function is static: each level has its own copy.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#define UMX_HAS_MXCSR 1
#endif

#if VL > 1
typedef float vf __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(VL * 4), aligned(4), may_alias));
#define VEC_INLINE static inline __attribute__((always_inline))
#define VEC_RESTRICT __restrict__
#else
typedef float vf;
typedef int32_t vi;
#define VEC_INLINE static inline
#define VEC_RESTRICT
#endif

/* Ask for the cache lines of `count` floats. */
VEC_INLINE void v_prefetch(const float *p, int count) {
#if defined(__GNUC__)
    for (int i = 0; i < count; i += 16) __builtin_prefetch(p + i);
    __builtin_prefetch(p + count - 1);
#else
    (void)p;
    (void)count;
#endif
}

VEC_INLINE vf v_load(const float *p) { return *(const vf *)p; }
VEC_INLINE vi v_load_int(const int32_t *p) { return *(const vi *)p; }
VEC_INLINE void v_store(float *p, vf v) { *(vf *)p = v; }

#if VL > 1
VEC_INLINE vf v_splat(float s) { return s - (vf){0}; }
VEC_INLINE vi v_bits(vf v) { return (vi)v; }
VEC_INLINE vf v_float(vi v) { return (vf)v; }
VEC_INLINE vi v_shift_left(vi v, int bits) { return v << bits; }
VEC_INLINE vf v_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
VEC_INLINE vi v_less(vf a, vf b) { return a < b; }
VEC_INLINE vi v_nan(vf a) { return a != a; }
#else
VEC_INLINE vf v_splat(float s) { return s; }
VEC_INLINE vi v_bits(vf v) { vi r; memcpy(&r, &v, 4); return r; }
VEC_INLINE vf v_float(vi v) { vf r; memcpy(&r, &v, 4); return r; }
/* In C, bits may be shifted out of unsigned numbers only. */
VEC_INLINE vi v_shift_left(vi v, int bits) { return (vi)((uint32_t)v << bits); }
VEC_INLINE vf v_select(vi mask, vf a, vf b) { return mask ? a : b; }
VEC_INLINE vi v_less(vf a, vf b) { return a < b; }
VEC_INLINE vi v_nan(vf a) { return a != a; }
#endif

VEC_INLINE vf v_min(vf a, vf b) { return v_select(v_less(a, b), a, b); }
VEC_INLINE vf v_max(vf a, vf b) { return v_select(v_less(a, b), b, a); }
VEC_INLINE vf v_abs(vf a) { return v_float(v_bits(a) & 0x7fffffff); }
/* `relu` that lets NaN through, so that a broken weight shows in the output. */
VEC_INLINE vf v_relu(vf a) { return v_select(v_less(a, v_splat(0.0f)), v_splat(0.0f), a); }

/* exp(x) for |x| <= 87 with a relative error below 2e-7: 2^n times a degree-6 polynomial on
 * [-ln2/2, ln2/2] (minimax coefficients of the classic Cephes expf). */
VEC_INLINE vf v_exp(vf x) {
    const vf shifter = v_splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    vf t = x * 1.44269504088896341f + shifter;
    vf n = t - shifter;
    vf r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    /* The integer sits in the low mantissa bits of t; shifted, it is the exponent of 2^n. */
    return v_float(v_bits(p) + v_shift_left(v_bits(t), 23));
}

VEC_INLINE vf v_sigmoid(vf x) {
    vf y = v_min(v_max(x, v_splat(-87.0f)), v_splat(87.0f));
    y = v_splat(1.0f) / (v_splat(1.0f) + v_exp(-y));
    return v_select(v_nan(x), x, y);
}

/* tanh: an odd polynomial near zero, where 1 - 2/(e^2x + 1) would cancel, and that form elsewhere
 * (error below 3e-7 of the value). */
VEC_INLINE vf v_tanh(vf x) {
    vf a = v_abs(x);
    vf s = a * a;
    vf p = s * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    vf small = a + a * s * p;
    vf e = v_exp(v_min(a * 2.0f, v_splat(87.0f)));
    vf large = v_splat(1.0f) - v_splat(2.0f) / (e + 1.0f);
    vf y = v_select(v_less(a, v_splat(0.625f)), small, large);
    y = v_float(v_bits(y) | (v_bits(x) & (int32_t)0x80000000));
    return v_select(v_nan(x), x, y);
}

VEC_INLINE vf v_activate(vf x, int act) {
    if (act == 1) return v_tanh(x);
    if (act == 2) return v_relu(x);
    return x;
}

/* Denormal numbers cost a hundred cycles each and carry nothing audible: they are flushed to zero
 * while a kernel runs, and the caller's setting is restored. */
#ifdef UMX_HAS_MXCSR
VEC_INLINE unsigned flush_denormals(void) {
    unsigned old = _mm_getcsr();
    _mm_setcsr(old | 0x8040);
    return old;
}
VEC_INLINE void restore_denormals(unsigned old) { _mm_setcsr(old); }
#else
VEC_INLINE unsigned flush_denormals(void) { return 0; }
VEC_INLINE void restore_denormals(unsigned old) { (void)old; }
#endif

/* Scratch aligned to a cache line; free with scratch_free. */
static void *scratch_alloc(size_t bytes) {
    char *raw = (char *)malloc(bytes + 64 + sizeof(void *));
    if (!raw) return NULL;
    char *aligned = (char *)(((uintptr_t)raw + sizeof(void *) + 63) & ~(uintptr_t)63);
    ((void **)aligned)[-1] = raw;
    return aligned;
}
static void scratch_free(void *p) {
    if (p) free(((void **)p)[-1]);
}
