/* Products of four neighbouring int8 numbers: acc[lane] += sum of a[b] * w[lane][b] over four bytes b.
 *
 * Every level computes the same integers, each with what its processor has. `w` is a vector of VL
 * lanes with four weights each; `a` is what `int8_words` made of four activations from -127 to 127,
 * INT8_WORDS words. Sums start from `INT8_START`, which undoes what the words were changed by:
 *
 * VNNI      multiplies unsigned by signed bytes and adds four products without an intermediate
 *           rounding or saturation. Activations are made positive by adding 128; the start is -128
 *           times the sum of the weights, which is packed with them.
 * AVX2      `maddubs` multiplies unsigned by signed bytes too, but adds pairs in 16 bits, where they
 *           saturate. Here the unsigned ones are magnitudes |a| <= 127, and the weights are
 *           complemented where a < 0: a * w = |a| * ~w + |a|. A pair is at most
 *           2 * 127 * 128 = 32512 < 32768 in magnitude, so nothing saturates. The start is the sum of
 *           |a| over the negative a, one number a row. The complement is one `xor`, which any of the
 *           vector units does, where `sign` would need those that multiply.
 * dotprod   ARM's `sdot` multiplies signed by signed bytes.
 * otherwise even and odd bytes are widened to 16 bits (SSE2: `madd`), or all to 32.
 */
#if VL > 1
VEC_INLINE vi v_splat_int(int32_t s) { return s - (vi){0}; }
VEC_INLINE vf v_from_int(vi v) { return __builtin_convertvector(v, vf); }
VEC_INLINE vi v_max_int(vi a, vi b) { vi less = a < b; return (less & b) | (~less & a); }
#else
VEC_INLINE vi v_splat_int(int32_t s) { return s; }
VEC_INLINE vf v_from_int(vi v) { return (vf)v; }
VEC_INLINE vi v_max_int(vi a, vi b) { return a < b ? b : a; }
#endif

#if defined(INT8_VNNI)
#include <immintrin.h>
#define INT8_OFFSET 128
#define INT8_WORDS 1
#define INT8_START(sums, row) v_load_int(sums)
#define INT8_PRODUCTS (VL == 16 ? "AVX512_VNNI" : "AVX_VNNI")

static int32_t int8_words(const int8_t *q, ptrdiff_t quads, ptrdiff_t step, uint32_t *out) {
    for (ptrdiff_t k = 0; k < quads; k++, q += 4, out += step) {
        memcpy(out, q, 4);
        *out ^= 0x80808080u;
    }
    return 0;
}

VEC_INLINE vi v_dot(vi acc, const uint32_t *a, vi w) {
#if VL == 16
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, _mm512_set1_epi32((int)*a), (__m512i)w);
#else
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)acc, _mm256_set1_epi32((int)*a), (__m256i)w);
#endif
}

#elif defined(INT8_MADDUBS)
#include <immintrin.h>
#define INT8_OFFSET 0
#define INT8_WORDS 2
#define INT8_START(sums, row) v_splat_int(row)
#define INT8_PRODUCTS (VL == 16 ? "AVX512BW" : "AVX2")

static int32_t int8_words(const int8_t *q, ptrdiff_t quads, ptrdiff_t step, uint32_t *out) {
    int32_t start = 0;
    for (ptrdiff_t k = 0; k < quads; k++, q += 4, out += step) {
        uint32_t bytes, negative, magnitude, complement;
        memcpy(&bytes, q, 4);
        /* Of each negative byte all bits, and one: -a = ~a + 1 carries nowhere, as a is not 0. */
        negative = ((bytes & 0x80808080u) >> 7) * 0xffu;
        magnitude = (bytes ^ negative) + (negative & 0x01010101u);
        complement = magnitude & negative;
        start += (int32_t)((((complement & 0x00ff00ffu) + (complement >> 8 & 0x00ff00ffu)) *
                            0x00010001u) >> 16);
        out[0] = negative;
        out[1] = magnitude;
    }
    return start;
}

VEC_INLINE vi v_dot(vi acc, const uint32_t *a, vi w) {
#if VL == 16
    const __m512i flipped = _mm512_xor_si512((__m512i)w, _mm512_set1_epi32((int)a[0]));
    const __m512i pairs = _mm512_maddubs_epi16(_mm512_set1_epi32((int)a[1]), flipped);
    return acc + (vi)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#else
    const __m256i flipped = _mm256_xor_si256((__m256i)w, _mm256_set1_epi32((int)a[0]));
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi32((int)a[1]), flipped);
    return acc + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
}

#else
#define INT8_OFFSET 0
#define INT8_START(sums, row) v_splat_int(0)
#if defined(INT8_DOTPROD)
#include <arm_neon.h>
#define INT8_WORDS 1
#define INT8_PRODUCTS "dotprod"
#elif defined(__SSE2__) && VL == 4
#include <emmintrin.h>
#define INT8_WORDS 2
#define INT8_PRODUCTS "SSE2"
#else
#define INT8_WORDS 4
#define INT8_PRODUCTS "none"
#endif

static int32_t int8_words(const int8_t *q, ptrdiff_t quads, ptrdiff_t step, uint32_t *out) {
    for (ptrdiff_t k = 0; k < quads; k++, q += 4, out += step) {
#if INT8_WORDS == 1
        memcpy(out, q, 4);
#elif INT8_WORDS == 2
        for (int odd = 0; odd < 2; odd++)
            out[odd] = (uint16_t)(int16_t)q[odd] | (uint32_t)(uint16_t)(int16_t)q[odd + 2] << 16;
#else
        for (int b = 0; b < 4; b++) out[b] = (uint32_t)(int32_t)q[b];
#endif
    }
    return 0;
}

VEC_INLINE vi v_dot(vi acc, const uint32_t *a, vi w) {
#if INT8_WORDS == 1
    return (vi)vdotq_s32((int32x4_t)acc, (int8x16_t)vdupq_n_u32(*a), (int8x16_t)w);
#elif INT8_WORDS == 2
    const __m128i even = _mm_srai_epi16(_mm_slli_epi16((__m128i)w, 8), 8);
    const __m128i odd = _mm_srai_epi16((__m128i)w, 8);
    acc += (vi)_mm_madd_epi16(even, _mm_set1_epi32((int)a[0]));
    return acc + (vi)_mm_madd_epi16(odd, _mm_set1_epi32((int)a[1]));
#else
    for (int b = 0; b < 4; b++)
        acc += (v_shift_left(w, 24 - 8 * b) >> 24) * v_splat_int((int32_t)a[b]);
    return acc;
#endif
}
#endif
