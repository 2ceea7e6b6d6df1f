// Sums over the rows of matrices, and of all elements, that are the same on every card.
//
// A block of COLUMNS x LANES threads has the columns of a tile (blockIdx.x) and PIECE rows
// (blockIdx.y): the lanes take turns with the rows, and add up in their order. What the pieces come to
// is written down, and the block that is the last of its tile adds them up, in their order again. So
// sums do not depend on which block is ready first, nor on the number of multiprocessors.
#pragma once

#include "common.cuh"

#define COLUMNS 32
#define LANES 8
#define THREADS (COLUMNS * LANES)
// What the launch bounds of a kernel name besides THREADS: with more blocks of a multiprocessor in
// mind, compilers spill registers of some kernels.
#define BLOCKS 2
// Rows of a piece, and elements of one where arrays are flat.
#define PIECE 64
#define FLAT_PIECE 4096

__device__ __forceinline__ int minimum(int a, int b) { return a < b ? a : b; }

// -- sums --------------------------------------------------------------------------------------

// Whether this block is the last of `count` that come here. What its threads wrote before is seen by
// the last block; the counter is 0 again for the next launch. All threads of a block must call it.
__device__ __forceinline__ bool is_last_block(unsigned* counter, unsigned count, unsigned* shared) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        const bool last = atomicAdd(counter, 1u) == count - 1;
        if (last) *counter = 0;
        *shared = last;
    }
    __syncthreads();
    const bool last = *shared != 0;
    if (last) __threadfence();
    return last;
}

// Sums of each column over the lanes of a block, in lane 0. `scratch` has THREADS numbers.
__device__ __forceinline__ double sum_of_lanes(double value, double* scratch) {
    scratch[threadIdx.y * COLUMNS + threadIdx.x] = value;
    __syncthreads();
    if (threadIdx.y == 0)
        for (int lane = 1; lane < LANES; lane++) value += scratch[lane * COLUMNS + threadIdx.x];
    __syncthreads();
    return value;
}

// The tile of columns and the piece of rows of a block, and its share of shared memory.
struct Tile {
    int column, first, stop;
    bool inside;
    double* scratch;
    unsigned* flag;

    __device__ Tile(unsigned char* memory, int nb_rows, int nb_columns)
        : column(blockIdx.x * COLUMNS + threadIdx.x),
          first(blockIdx.y * PIECE),
          stop(minimum(first + PIECE, nb_rows)),
          inside(column < nb_columns),
          scratch((double*)memory),
          flag((unsigned*)(scratch + THREADS)) {}

    // Writes down the sum of this piece; `index` numbers all columns that there are.
    __device__ __forceinline__ void put(double value, double* partials, int index, int nb_sums) const {
        value = sum_of_lanes(value, scratch);
        if (threadIdx.y == 0 && inside) partials[(size_t)blockIdx.y * nb_sums + index] = value;
    }

    __device__ __forceinline__ bool is_last(unsigned* counters) const {
        return is_last_block(counters + blockIdx.z * gridDim.x + blockIdx.x, gridDim.y, flag);
    }

    // Sum of all pieces, in lane 0 of the last block.
    __device__ __forceinline__ double total(const double* partials, int index, int nb_sums) const {
        double value = 0.0;
        if (inside)
            for (int piece = threadIdx.y; piece < gridDim.y; piece += LANES)
                value += partials[(size_t)piece * nb_sums + index];
        return sum_of_lanes(value, scratch);
    }

    __device__ __forceinline__ bool writes() const { return threadIdx.y == 0 && inside; }
};

// A piece of a flat array, that a block of THREADS along x adds up.
struct Strip {
    double* scratch;
    unsigned* flag;

    __device__ explicit Strip(unsigned char* memory)
        : scratch((double*)memory), flag((unsigned*)(scratch + THREADS)) {}

    // Sum over the block, in thread 0.
    __device__ __forceinline__ double sum(double value) const {
        value = warp_sum(value);
        if (threadIdx.x % UMX_WARP == 0) scratch[threadIdx.x / UMX_WARP] = value;
        __syncthreads();
        if (threadIdx.x == 0)
            for (int warp = 1; warp < THREADS / UMX_WARP; warp++) value += scratch[warp];
        __syncthreads();
        return value;
    }

    // Writes down the sum of this piece.
    __device__ __forceinline__ void put(double value, double* partials) const {
        value = sum(value);
        if (threadIdx.x == 0) partials[blockIdx.x] = value;
    }

    __device__ __forceinline__ bool is_last(unsigned* counter) const {
        return is_last_block(counter, gridDim.x, flag);
    }

    // Sum of all pieces, in thread 0 of the last block.
    __device__ __forceinline__ double total(const double* partials) const {
        double value = 0.0;
        for (int piece = threadIdx.x; piece < gridDim.x; piece += THREADS) value += partials[piece];
        return sum(value);
    }
};
