/* 64-bit ARM with products of four int8 (dotprod, ARMv8.2), which all of Apple's processors have. */
#include "kernels.h"
#ifdef UMX_LEVEL_DOTPROD
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#define VL 4
#define MR 8      /* 32 registers: 16 sums, 2 weights */
#define MR_INT8 8 /* the same, and 1 broadcast */
#define INT8_DOTPROD
#define LEVEL dotprod
#define LEVEL_NAME "armv8.2+dotprod"
#include "level_body.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int umx_level_dotprod_is_empty;
#endif
