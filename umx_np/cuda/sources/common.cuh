// What every kernel includes first. Everything here compiles with NVRTC for sm_70 and later, and
// with a host compiler that defines UMX_EMULATED and brings the names of CUDA along (the tests do).
#pragma once

typedef unsigned long long u64;

// Declares `unsigned char* buffer`, the dynamic shared memory of the block, aligned to 16 bytes.
#ifdef UMX_EMULATED
#define UMX_SHARED(buffer) unsigned char* buffer = umx_emulated::shared_memory()
#else
#define UMX_SHARED(buffer)                                            \
    extern __shared__ __align__(16) unsigned char umx_shared_memory[]; \
    unsigned char* buffer = umx_shared_memory
#endif

#define UMX_FULL_WARP 0xffffffffu
#define UMX_WARP 32

// Sum over the lanes of a warp, in every lane. All 32 lanes must call it.
template <typename Number>
__device__ __forceinline__ Number warp_sum(Number value) {
#pragma unroll
    for (int distance = UMX_WARP / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(UMX_FULL_WARP, value, distance);
    return value;
}
