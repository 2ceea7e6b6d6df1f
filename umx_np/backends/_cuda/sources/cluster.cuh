// Thread block clusters (compute capability 9.0 and later): blocks that run at the same time, read
// and write each other's shared memory, and wait for each other.
//
// The size of the clusters is fixed when a kernel is compiled:
//   extern "C" __global__ void __cluster_dims__(BLOCKS, 1, 1) name(...)     with -DBLOCKS=8
// The grid is counted in blocks, along x; consecutive blocks form a cluster.
#pragma once

#include "common.cuh"

#ifdef UMX_EMULATED
// Address of a byte in the shared memory of some block of the cluster; it may be counted on.
typedef unsigned long cluster_address;
#else
typedef unsigned cluster_address;

__device__ __forceinline__ unsigned shared_address(const void* local_shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(local_shared));
}
#endif

// Number of this block in its cluster.
__device__ __forceinline__ unsigned cluster_rank() {
#ifdef UMX_EMULATED
    return umx_emulated::cluster_rank();
#else
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
#endif
}

// Number of blocks of the cluster.
__device__ __forceinline__ unsigned cluster_size() {
#ifdef UMX_EMULATED
    return umx_emulated::cluster_size();
#else
    unsigned size;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    return size;
#endif
}

// Wait for all threads of the cluster; what they wrote before is visible afterwards. A block must
// not return while others may still write to its shared memory or read from it.
__device__ __forceinline__ void cluster_sync() {
#ifdef UMX_EMULATED
    umx_emulated::sync_cluster();
#else
    __syncwarp();  // `aligned` promises that the lanes of a warp come together
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// Where the block `rank` has what this block has at `local_shared`; for plain loads and stores.
template <typename Item>
__device__ __forceinline__ Item* cluster_map(Item* local_shared, unsigned rank) {
#ifdef UMX_EMULATED
    return static_cast<Item*>(umx_emulated::cluster_map(local_shared, rank));
#else
    u64 remote;
    asm("mapa.u64 %0, %1, %2;"
        : "=l"(remote)
        : "l"(reinterpret_cast<u64>(local_shared)), "r"(rank));
    return reinterpret_cast<Item*>(remote);
#endif
}

// The same as an address for the asynchronous stores below.
__device__ __forceinline__ cluster_address cluster_address_of(
    const void* local_shared, unsigned rank) {
#ifdef UMX_EMULATED
    return reinterpret_cast<cluster_address>(
        umx_emulated::cluster_map(const_cast<void*>(local_shared), rank));
#else
    unsigned remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(remote)
        : "r"(shared_address(local_shared)), "r"(rank));
    return remote;
#endif
}

// An mbarrier is a counter in shared memory, 8 bytes, that goes from phase to phase. A phase is
// complete once `count` arrivals have come and as many bytes as were announced.
// One thread of a block calls mbarrier_init for its own barriers, then mbarrier_publish; the others
// may use them after a cluster_sync.
__device__ __forceinline__ void mbarrier_init(u64* barrier, unsigned count) {
#ifdef UMX_EMULATED
    umx_emulated::mbarrier_init(barrier, count);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(count)
                 : "memory");
#endif
}

__device__ __forceinline__ void mbarrier_publish() {
#ifndef UMX_EMULATED
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// Arrive once at a barrier of this block, and announce bytes of its current phase.
__device__ __forceinline__ void mbarrier_expect_bytes(u64* barrier, unsigned bytes) {
#ifdef UMX_EMULATED
    umx_emulated::mbarrier_expect_bytes(barrier, bytes);
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                     shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
#endif
}

// Wait until the phase of this parity (0 for the first, then 1, 0, ...) is complete; then what was
// stored by it is visible to the calling thread.
__device__ __forceinline__ void mbarrier_wait_parity(u64* barrier, unsigned parity) {
#ifdef UMX_EMULATED
    umx_emulated::mbarrier_wait_parity(barrier, parity);
#else
    unsigned done;
    do {
        asm volatile(
            "{\n"
            ".reg .pred complete;\n"
            "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 complete, [%1], %2;\n"
            "selp.u32 %0, 1, 0, complete;\n"
            "}"
            : "=r"(done)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (!done);
#endif
}

// Arrive once at the barrier that block `rank` has where this block has `barrier`.
__device__ __forceinline__ void mbarrier_arrive_remote(u64* barrier, unsigned rank) {
#ifdef UMX_EMULATED
    umx_emulated::mbarrier_arrive_remote(barrier, rank);
#else
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                     cluster_address_of(barrier, rank))
                 : "memory");
#endif
}

// Store to some block of the cluster without waiting; the bytes are counted at `barrier`, which
// must be of the same block as `to`. 16 bytes must be aligned to 16.
__device__ __forceinline__ void store_async_float(
    cluster_address to, float value, cluster_address barrier) {
#ifdef UMX_EMULATED
    umx_emulated::store_async(to, &value, sizeof(value), barrier);
#else
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(
                     to),
                 "f"(value), "r"(barrier)
                 : "memory");
#endif
}

__device__ __forceinline__ void store_async_float4(
    cluster_address to, float4 value, cluster_address barrier) {
#ifdef UMX_EMULATED
    umx_emulated::store_async(to, &value, sizeof(value), barrier);
#else
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];"
        ::"r"(to),
        "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(barrier)
        : "memory");
#endif
}
