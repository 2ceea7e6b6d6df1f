// Matrix products of one warp on the tensor cores, in TF32 (compute capability 8.0 and later).
//
// TF32 is float32 with a mantissa of 10 bits. The unit reads float32 registers and ignores the low
// 13 bits; operands must be rounded before, or the products are biased towards zero.
#pragma once

#include "common.cuh"

// Older cards compile the twins, so that every source compiles for every card.
#if defined(UMX_EMULATED) || __CUDA_ARCH__ < 800
#define UMX_MMA_TWIN 1
#else
#define UMX_MMA_TWIN 0
#endif

// Nearest number of TF32, ties away from zero.
__device__ __forceinline__ float round_tf32(float x) {
#if UMX_MMA_TWIN
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return x;  // infinite, or not a number
    return __uint_as_float((bits + 0x1000u) & ~0x1fffu);
#else
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
#endif
}

// Computes      sums += a b for the 16 x 8 matrix a and the 8 x 8 matrix b, spread over a warp
// Arguments     with row = lane / 4 and place = lane % 4:
//               sums  INOUT  (row, 2 place), (row, 2 place + 1), and the same two of row + 8
//               a     IN     (row, place), (row + 8, place), (row, place + 4), (row + 8, place + 4)
//               b     IN     (place, row), (place + 4, row)
// Precision     TF32 operands, float32 sums; the order inside of the sum is the hardware's own
// All 32 lanes must call it.
__device__ __forceinline__ void mma_tf32(float4& sums, float4 a, float2 b) {
#if UMX_MMA_TWIN
    const auto seen = [](float x) { return __uint_as_float(__float_as_uint(x) & ~0x1fffu); };
    const int lane = threadIdx.x % UMX_WARP, row = lane / 4, place = lane % 4;
    for (int depth = 0; depth < 8; ++depth) {
        // Every lane offers the same register, and fetches from the lanes that have this depth.
        const int at = depth % 4;
        const float upper = __shfl_sync(UMX_FULL_WARP, seen(depth < 4 ? a.x : a.z), 4 * row + at);
        const float lower = __shfl_sync(UMX_FULL_WARP, seen(depth < 4 ? a.y : a.w), 4 * row + at);
        const float offered = seen(depth < 4 ? b.x : b.y);
        const float left = __shfl_sync(UMX_FULL_WARP, offered, 8 * place + at);
        const float right = __shfl_sync(UMX_FULL_WARP, offered, 8 * place + 4 + at);
        sums.x += upper * left;
        sums.y += upper * right;
        sums.z += lower * left;
        sums.w += lower * right;
    }
#else
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums.x), "+f"(sums.y), "+f"(sums.z), "+f"(sums.w)
        : "r"(__float_as_uint(a.x)), "r"(__float_as_uint(a.y)), "r"(__float_as_uint(a.z)),
          "r"(__float_as_uint(a.w)), "r"(__float_as_uint(b.x)), "r"(__float_as_uint(b.y)));
#endif
}
