/* x86-64-v4: AVX-512 F, VL, BW and DQ. */
#include "kernels.h"
#ifdef UMX_LEVELS_X86
#if defined(__clang__)
#pragma clang attribute push(                                                             \
    __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c,bmi2"))),     \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c,bmi2,prefer-vector-width=512")
#endif
#define VL 16
#define MR 12 /* 32 registers: 24 sums, 2 weights; the broadcast is a memory operand */
#define MR_INT8 8 /* 32 registers: 16 sums, 2 weights, 2 broadcasts, ones */
#define INT8_MADDUBS
#define LEVEL v4
#define LEVEL_NAME "x86-64-v4"
#include "level_body.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int umx_level_v4_is_empty;
#endif
