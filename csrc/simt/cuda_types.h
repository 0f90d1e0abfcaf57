// CUDA's qualifiers and vector types for a host compiler without a CUDA toolkit: same names, sizes
// and alignments.
#pragma once

#include <cstdint>

#define __global__
#define __grid_constant__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// name1 .. name4 with CUDA's alignment: two and four components align as a whole, three as one.
#define SIMT_VECTOR_TYPES(name, scalar, align2, align4)                        \
    struct name##1 {                                                           \
        scalar x;                                                              \
    };                                                                         \
    struct alignas(align2) name##2 {                                           \
        scalar x, y;                                                           \
    };                                                                         \
    struct name##3 {                                                           \
        scalar x, y, z;                                                        \
    };                                                                         \
    struct alignas(align4) name##4 {                                           \
        scalar x, y, z, w;                                                     \
    };                                                                         \
    constexpr name##1 make_##name##1(scalar x) {                               \
        return {x};                                                            \
    }                                                                          \
    constexpr name##2 make_##name##2(scalar x, scalar y) {                     \
        return {x, y};                                                         \
    }                                                                          \
    constexpr name##3 make_##name##3(scalar x, scalar y, scalar z) {           \
        return {x, y, z};                                                      \
    }                                                                          \
    constexpr name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { \
        return {x, y, z, w};                                                   \
    }

SIMT_VECTOR_TYPES(char, signed char, 2, 4)
SIMT_VECTOR_TYPES(uchar, unsigned char, 2, 4)
SIMT_VECTOR_TYPES(short, short, 4, 8)
SIMT_VECTOR_TYPES(ushort, unsigned short, 4, 8)
SIMT_VECTOR_TYPES(int, int, 8, 16)
SIMT_VECTOR_TYPES(uint, unsigned, 8, 16)
SIMT_VECTOR_TYPES(longlong, long long, 16, 16)
SIMT_VECTOR_TYPES(ulonglong, unsigned long long, 16, 16)
SIMT_VECTOR_TYPES(float, float, 8, 16)
SIMT_VECTOR_TYPES(double, double, 16, 16)
#undef SIMT_VECTOR_TYPES
