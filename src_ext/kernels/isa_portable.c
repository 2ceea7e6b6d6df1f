/* The level every processor runs: SSE2 on x86-64, NEON on ARM, scalar C without vector types. */
#if defined(__GNUC__)
#define VL 4
#else
#define VL 1
#endif
#if defined(__aarch64__)
#define MR 8 /* 32 registers: 16 sums, 2 weights */
#else
#define MR 6 /* 16 registers: 12 sums, 2 weights, 1 broadcast */
#endif
#define MR_INT8 4
#define LEVEL portable
#define LEVEL_NAME "portable"
#include "level_body.h"
