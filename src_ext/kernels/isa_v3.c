/* x86-64-v3: AVX2 and FMA. */
#include "kernels.h"
#ifdef UMX_LEVELS_X86
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,bmi2")
#endif
#define VL 8
#define MR 6 /* 16 registers: 12 sums, 2 weights, 1 broadcast */
#define MR_INT8 4 /* 16 registers: 8 sums, 2 weights, 2 broadcasts, ones */
#define INT8_MADDUBS
#define LEVEL v3
#define LEVEL_NAME "x86-64-v3"
#include "level_body.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int umx_level_v3_is_empty;
#endif
