// The names of CUDA C++ for a host compiler. Every thread of a launch is a fiber of runtime.cpp;
// code between two waits runs without interruption.
#pragma once

#define UMX_EMULATED 1

#include <math.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define UMX_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
struct int2 { int x, y; };
struct int4 { int x, y, z, w; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }

namespace umx_emulated {

struct Block;
struct Warp;

struct Thread {
    uint3 index;
    Block* block;
    Warp* warp;
    unsigned lane;
};

// The part of a block that kernels see.
struct Block {
    uint3 index;
    unsigned char* shared;
};

extern Thread* current;
extern dim3 grid_size, block_size;

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void sync_block(const char* file, int line);
void sync_warp(unsigned mask, const char* file, int line);
// Give `value` to the other lanes and return what lane `source` has given.
uint64_t exchange(uint64_t value, unsigned source, unsigned mask, const char* file, int line);
void wait_until_true(bool (*ready)(void*), void* context, const char* what);
// Let others run in a loop that waits for them.
void pause();

inline unsigned char* shared_memory() { return current->block->shared; }

// Let other threads run until `ready()`, which must only read memory.
template <typename Ready>
void wait_until(Ready ready, const char* what) {
    wait_until_true([](void* context) -> bool { return (*static_cast<Ready*>(context))(); }, &ready,
                    what);
}

template <typename Value>
Value shuffle(Value value, unsigned source, unsigned mask, const char* file, int line) {
    static_assert(sizeof(Value) <= sizeof(uint64_t), "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(Value));
    bits = exchange(bits, source, mask, file, line);
    memcpy(&value, &bits, sizeof(Value));
    return value;
}

template <typename Value>
Value add(Value* to, Value value) {
    const Value old = *to;
    *to = old + value;
    return old;
}

// What a C type looks like to launching.py: kind as in NumPy and bytes, or, of a pointer, those of
// what it points to. 'v' fits anything.
template <typename T> struct Type { typedef T plain; static constexpr bool constant = false; };
template <typename T> struct Type<const T> {
    typedef T plain;
    static constexpr bool constant = true;
};
template <typename T, bool composed = __is_class(T)> struct Kind {
    static constexpr char kind = T(-1) < T(0) ? 'i' : 'u';
    static constexpr short bytes = sizeof(T);
};
template <typename T> struct Kind<T, true> {
    static constexpr char kind = 'v';
    static constexpr short bytes = sizeof(T);
};
template <> struct Kind<void> { static constexpr char kind = 'v'; static constexpr short bytes = 1; };
template <> struct Kind<bool> { static constexpr char kind = 'b'; static constexpr short bytes = 1; };
template <> struct Kind<float> { static constexpr char kind = 'f'; static constexpr short bytes = 4; };
template <> struct Kind<double> { static constexpr char kind = 'f'; static constexpr short bytes = 8; };
template <> struct Kind<float2> { static constexpr char kind = 'c'; static constexpr short bytes = 8; };
template <> struct Kind<double2> { static constexpr char kind = 'c'; static constexpr short bytes = 16; };

struct Parameter {
    char pointer;  // 0: a number, 1: to write through, 2: to read through
    char kind;
    short bytes;
};
template <typename T> struct Describe {
    static constexpr Parameter value = {0, Kind<T>::kind, Kind<T>::bytes};
};
template <typename T> struct Describe<T*> {
    typedef Kind<typename Type<T>::plain> To;
    static constexpr Parameter value = {Type<T>::constant ? 2 : 1, To::kind, To::bytes};
};

template <size_t... I> struct Sequence {};
template <size_t N, size_t... I> struct Count : Count<N - 1, N - 1, I...> {};
template <size_t... I> struct Count<0, I...> { typedef Sequence<I...> type; };

template <typename... A, size_t... I>
void call_with(void (*kernel)(A...), void** args, Sequence<I...>) {
    kernel(*static_cast<typename Type<A>::plain*>(args[I])...);
}
template <typename... A>
void call(void (*kernel)(A...), void** args) {
    call_with(kernel, args, typename Count<sizeof...(A)>::type());
}
template <typename... A>
int describe(void (*)(A...), Parameter* to) {
    const Parameter all[] = {Describe<typename Type<A>::plain>::value..., Parameter{0, 0, 0}};
    memcpy(to, all, sizeof...(A) * sizeof(Parameter));
    return sizeof...(A);
}

}  // namespace umx_emulated

// Written after the kernels by building.py.
#define UMX_EXPORT(name, threads)                                                           \
    extern "C" void umx_call_##name(void** args) { umx_emulated::call(name, args); }        \
    extern "C" int umx_threads_##name() { return threads; }                                 \
    extern "C" int umx_describe_##name(umx_emulated::Parameter* to) {                       \
        return umx_emulated::describe(name, to);                                           \
    }

#define threadIdx (umx_emulated::current->index)
#define blockIdx (umx_emulated::current->block->index)
#define blockDim (umx_emulated::block_size)
#define gridDim (umx_emulated::grid_size)

inline void __syncthreads(UMX_HERE) { umx_emulated::sync_block(file, line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, UMX_HERE) {
    umx_emulated::sync_warp(mask, file, line);
}
template <typename Value>
Value __shfl_sync(unsigned mask, Value value, int source, int width = 32, UMX_HERE) {
    const unsigned lane = umx_emulated::current->lane, first = lane / width * width;
    return umx_emulated::shuffle(value, first + source % width, mask, file, line);
}
template <typename Value>
Value __shfl_xor_sync(unsigned mask, Value value, int lanes, int width = 32, UMX_HERE) {
    const unsigned lane = umx_emulated::current->lane, first = lane / width * width;
    const unsigned source = lane ^ lanes;
    return umx_emulated::shuffle(value, source < first + width ? source : lane, mask, file, line);
}
template <typename Value>
Value __shfl_down_sync(unsigned mask, Value value, unsigned by, int width = 32, UMX_HERE) {
    const unsigned lane = umx_emulated::current->lane, first = lane / width * width;
    const unsigned source = lane + by;
    return umx_emulated::shuffle(value, source < first + width ? source : lane, mask, file, line);
}
template <typename Value>
Value __shfl_up_sync(unsigned mask, Value value, unsigned by, int width = 32, UMX_HERE) {
    const unsigned lane = umx_emulated::current->lane, first = lane / width * width;
    return umx_emulated::shuffle(value, lane >= first + by ? lane - by : lane, mask, file, line);
}

inline float atomicAdd(float* to, float value) { return umx_emulated::add(to, value); }
inline double atomicAdd(double* to, double value) { return umx_emulated::add(to, value); }
inline unsigned atomicAdd(unsigned* to, unsigned value) { return umx_emulated::add(to, value); }
inline int atomicAdd(int* to, int value) { return umx_emulated::add(to, value); }
inline void __threadfence() {}
inline void __threadfence_block() {}
template <typename Value> Value __ldg(const Value* from) { return *from; }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline int min(int x, int y) { return x < y ? x : y; }
inline int max(int x, int y) { return x > y ? x : y; }
inline unsigned min(unsigned x, unsigned y) { return x < y ? x : y; }
inline unsigned max(unsigned x, unsigned y) { return x > y ? x : y; }
inline long long min(long long x, long long y) { return x < y ? x : y; }
inline long long max(long long x, long long y) { return x > y ? x : y; }
inline int __float_as_int(float x) { int bits; memcpy(&bits, &x, 4); return bits; }
inline float __int_as_float(int bits) { float x; memcpy(&x, &bits, 4); return x; }
inline unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
