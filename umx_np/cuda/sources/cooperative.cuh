// Waiting for all blocks of a grid. All of them must be resident: a cooperative launch.
#pragma once

#include "common.cuh"

// Wait for all threads of the grid, or of a group of its blocks with a counter of its own; what they
// wrote before is visible afterwards.
//   counter     global, 0 before the launch; it only grows, and may wrap
//   nb_blocks   blocks of the grid or of the group
//   generation  a variable of the calling thread, 0 at first: how often it has waited here
__device__ __forceinline__ void grid_barrier(
    unsigned* counter, unsigned nb_blocks, unsigned* generation) {
    __syncthreads();
    *generation += 1;
    if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
        const unsigned target = *generation * nb_blocks;
#ifdef UMX_EMULATED
        *counter += 1;
        umx_emulated::wait_until(
            [=] { return static_cast<int>(*counter - target) >= 0; }, "grid_barrier");
#else
        asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
        unsigned arrived;
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                         : "=r"(arrived)
                         : "l"(counter)
                         : "memory");
        } while (static_cast<int>(arrived - target) < 0);
#endif
    }
    __syncthreads();
}
