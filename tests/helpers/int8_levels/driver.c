/* The kernels of eight bits of one level as a program, for levels that this processor does not run.
 *
 * Compiled with LEVEL_NUMBER: 3 AVX-VNNI, 4 AVX512BW, 5 AVX512_VNNI, all three with their new
 * instructions written out in C as Intel describes them, so that AVX2 or less is enough; 8 is ARM's
 * dotprod and 7 is ARM without it, which qemu runs; 1 is plain C. Reads sizes and arrays from stdin, writes the result to stdout:
 * see tests/helpers/int8_levels/__init__.py.
 */
#include <stdint.h>
#include <stdio.h>

#if LEVEL_NUMBER >= 3 && LEVEL_NUMBER <= 5
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
typedef int32_t v16i __attribute__((vector_size(64)));

/* Products of four unsigned and four signed bytes, added in 32 bits. */
INLINE int32_t dpbusd(int32_t sum, uint32_t unsigned_bytes, uint32_t signed_bytes) {
    for (int b = 0; b < 32; b += 8)
        sum += (int32_t)(uint8_t)(unsigned_bytes >> b) * (int8_t)(signed_bytes >> b);
    return sum;
}
INLINE v16i dpbusd_512(v16i sum, v16i a, v16i b) {
    for (int i = 0; i < 16; i++) sum[i] = dpbusd(sum[i], (uint32_t)a[i], (uint32_t)b[i]);
    return sum;
}
INLINE __m256i dpbusd_256(__m256i sum, __m256i a, __m256i b) {
    int32_t s[8], x[8], y[8];
    _mm256_storeu_si256((__m256i *)s, sum);
    _mm256_storeu_si256((__m256i *)x, a);
    _mm256_storeu_si256((__m256i *)y, b);
    for (int i = 0; i < 8; i++) s[i] = dpbusd(s[i], (uint32_t)x[i], (uint32_t)y[i]);
    return _mm256_loadu_si256((const __m256i *)s);
}
/* Products of unsigned and signed bytes, added in pairs that saturate at 16 bits. */
INLINE v16i maddubs_512(v16i a, v16i b) {
    for (int i = 0; i < 16; i++) {
        uint32_t both = 0;
        for (int h = 0; h < 32; h += 16) {
            int32_t sum = (int32_t)(uint8_t)(a[i] >> h) * (int8_t)(b[i] >> h) +
                          (int32_t)(uint8_t)(a[i] >> (h + 8)) * (int8_t)(b[i] >> (h + 8));
            sum = sum > 32767 ? 32767 : sum < -32768 ? -32768 : sum;
            both |= (uint32_t)(uint16_t)sum << h;
        }
        a[i] = (int32_t)both;
    }
    return a;
}
INLINE v16i madd_512(v16i a, v16i b) {
    for (int i = 0; i < 16; i++)
        a[i] = (int16_t)a[i] * (int16_t)b[i] + (int16_t)(a[i] >> 16) * (int16_t)(b[i] >> 16);
    return a;
}
#define _mm512_dpbusd_epi32(s, a, b) ((__m512i)dpbusd_512((v16i)(s), (v16i)(a), (v16i)(b)))
#define _mm256_dpbusd_avx_epi32(s, a, b) dpbusd_256(s, a, b)
#define _mm512_maddubs_epi16(a, b) ((__m512i)maddubs_512((v16i)(a), (v16i)(b)))
#define _mm512_madd_epi16(a, b) ((__m512i)madd_512((v16i)(a), (v16i)(b)))
#define _mm512_xor_si512(a, b) ((__m512i)((v16i)(a) ^ (v16i)(b)))
#define _mm512_set1_epi32(x) ((__m512i)((x) - (v16i){0}))
#define _mm512_set1_epi16(x) ((__m512i)(((x) * 0x10001) - (v16i){0}))
#endif

#if LEVEL_NUMBER == 3
#define VL 8
#define MR 6
#define MR_INT8 6
#define INT8_VNNI
#elif LEVEL_NUMBER == 4
#define VL 16
#define MR 12
#define MR_INT8 8
#define INT8_MADDUBS
#elif LEVEL_NUMBER == 5
#define VL 16
#define MR 12
#define MR_INT8 12
#define INT8_VNNI
#elif LEVEL_NUMBER == 8
#define VL 4
#define MR 8
#define MR_INT8 8
#define INT8_DOTPROD
#elif LEVEL_NUMBER == 7
#define VL 4
#define MR 8
#define MR_INT8 4
#else
#define VL 1
#define MR 6
#define MR_INT8 4
#endif
#include "kernels.h"
#include "vec.h"
#include "gemm_body.h"
#include "int8_body.h"
#include "lstm_body.h"

static void *read_array(size_t bytes) {
    void *data = scratch_alloc(bytes ? bytes : 1);
    if (!data || fread(data, 1, bytes, stdin) != bytes) exit(2);
    return data;
}

int main(void) {
    int64_t head[6]; /* 0 for a product or 1 for a scan, m, k, n, numbers of w and sums */
    if (fread(head, sizeof head, 1, stdin) != 1) return 2;
    const ptrdiff_t m = head[1], k = head[2], n = head[3];
    const ptrdiff_t wide = head[0] ? 4 * ((n + 2 * VL - 1) / (2 * VL)) * 2 * VL : k;
    float *a = read_array(4 * (size_t)(m * wide));
    int8_t *w = read_array((size_t)head[4]);
    float *scale = read_array(
        4 * (size_t)(head[0] ? wide : (n + 2 * VL - 1) / (2 * VL) * 2 * VL));
    int32_t *sums = read_array(4 * (size_t)head[5]);
    float *out = scratch_alloc(4 * (size_t)(m * n));
    int failed;
    if (head[0]) {
        float *state = scratch_alloc(2 * (size_t)wide);
        memset(state, 0, 2 * (size_t)wide);
        umx_scan_args s = {m, n, a, w, scale, sums, state, state + wide / 4, out, n, 0};
        failed = lstm_scan_int8(&s);
    } else {
        umx_gemm_args g;
        memset(&g, 0, sizeof g);
        g.m = m, g.n = n, g.k = k, g.a = a, g.lda = k, g.w = w, g.w_scale = scale;
        g.w_sums = sums, g.c = out, g.ldc = n, g.finish = 1;
        failed = gemm_int8(&g);
    }
    if (failed || fwrite(out, 4, (size_t)(m * n), stdout) != (size_t)(m * n)) return 3;
    return 0;
}
