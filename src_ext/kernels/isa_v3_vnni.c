/* x86-64-v3 and AVX-VNNI, which processors since 2021 (Alder Lake, Zen 5) have. */
#include "kernels.h"
#ifdef UMX_LEVEL_VNNI256
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avxvnni,avx2,fma,f16c,bmi2"))), \
                             apply_to = function)
#else
#pragma GCC target("avxvnni,avx2,fma,f16c,bmi2")
#endif
#define VL 8
#define MR 6      /* 16 registers: 12 sums, 2 weights, 1 broadcast */
#define MR_INT8 6 /* the same */
#define INT8_VNNI
#define LEVEL v3_vnni
#define LEVEL_NAME "x86-64-v3+vnni"
#include "level_body.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int umx_level_v3_vnni_is_empty;
#endif
