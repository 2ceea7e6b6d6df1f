/* x86-64-v4 and AVX512_BF16, which processors since 2020 (Cooper Lake, Zen 4) have. All of
 * them have AVX512_VNNI, too. */
#include "kernels.h"
#ifdef UMX_LEVEL_BF16
#if defined(__clang__)
#pragma clang attribute push(                                                             \
    __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx512vnni,avx2,fma,f16c,bmi2"))),     \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx512vnni,avx2,fma,f16c,bmi2,prefer-vector-width=512")
#endif
#define VL 16
#define MR 12 /* 32 registers: 24 sums, 2 weights; the broadcast is a memory operand */
#define MR_INT8 12
#define HAS_BF16
#define INT8_VNNI
#define LEVEL v4_bf16
#define LEVEL_NAME "x86-64-v4+bf16"
#include "level_body.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int umx_level_v4_bf16_is_empty;
#endif
