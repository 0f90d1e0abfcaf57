// CUDA's 16-bit floating-point types for a host compiler: `__half` (`half`), `__nv_bfloat16` and
// their pairs.
//
// Arithmetic is done in float and rounded to nearest even, which for + - * / gives what the
// hardware gives.
#pragma once

#include <cstdint>

#include "cuda_math.h"
#include "cuda_types.h"

namespace simt {

inline std::uint16_t float_to_bf16(float x) {
    const std::uint32_t bits = bit_cast<std::uint32_t>(x);
    if (x != x) return 0x7fff;
    return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float bf16_to_float(std::uint16_t x) {
    return bit_cast<float>(static_cast<std::uint32_t>(x) << 16);
}

inline float fp16_to_float(std::uint16_t x) {
    const std::uint32_t sign = static_cast<std::uint32_t>(x & 0x8000u) << 16;
    const std::uint32_t exponent = x >> 10 & 31u;
    const std::uint32_t mantissa = x & 1023u;
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    const std::uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
    return bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

inline std::uint16_t float_to_fp16(float x) {
    const std::uint32_t bits = bit_cast<std::uint32_t>(x);
    const std::uint32_t sign = bits >> 16 & 0x8000u;
    const float magnitude = bit_cast<float>(bits & 0x7fffffffu);
    if (x != x) return 0x7fff;
    if (magnitude >= 65520.0f) return static_cast<std::uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x1p-14f) {  // subnormal: the sum rounds to a multiple of 2^-24
        const float shifted = magnitude + 0x1p-1f;
        return static_cast<std::uint16_t>(sign | (bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
    }
    const std::uint32_t m = bits & 0x7fffffffu;
    return static_cast<std::uint16_t>(sign | ((m + 0xfffu + (m >> 13 & 1u) - (112u << 23)) >> 13));
}

}  // namespace simt

#define SIMT_HALF_TYPE(name, pair, to_float, from_float)  \
    struct name {                                         \
        std::uint16_t bits;                               \
        name() = default;                                 \
        name(float x) : bits(from_float(x)) {}            \
        name(double x) : name(static_cast<float>(x)) {}   \
        name(int x) : name(static_cast<float>(x)) {}      \
        operator float() const {                          \
            return to_float(bits);                        \
        }                                                 \
        name& operator+=(name b) {                        \
            return *this = name(float(*this) + float(b)); \
        }                                                 \
        name& operator-=(name b) {                        \
            return *this = name(float(*this) - float(b)); \
        }                                                 \
        name& operator*=(name b) {                        \
            return *this = name(float(*this) * float(b)); \
        }                                                 \
        name& operator/=(name b) {                        \
            return *this = name(float(*this) / float(b)); \
        }                                                 \
    };                                                    \
    inline name operator+(name a, name b) {               \
        return a += b;                                    \
    }                                                     \
    inline name operator-(name a, name b) {               \
        return a -= b;                                    \
    }                                                     \
    inline name operator*(name a, name b) {               \
        return a *= b;                                    \
    }                                                     \
    inline name operator/(name a, name b) {               \
        return a /= b;                                    \
    }                                                     \
    struct alignas(4) pair {                              \
        name x, y;                                        \
    };

SIMT_HALF_TYPE(__half, __half2, simt::fp16_to_float, simt::float_to_fp16)
SIMT_HALF_TYPE(__nv_bfloat16, __nv_bfloat162, simt::bf16_to_float, simt::float_to_bf16)
#undef SIMT_HALF_TYPE

using half = __half;
using half2 = __half2;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

inline __half __float2half(float x) {
    return __half(x);
}
inline __half __float2half_rn(float x) {
    return __half(x);
}
inline float __half2float(__half x) {
    return x;
}
inline __half2 __floats2half2_rn(float x, float y) {
    return {__half(x), __half(y)};
}
inline __half2 __float22half2_rn(float2 v) {
    return __floats2half2_rn(v.x, v.y);
}
inline float2 __half22float2(__half2 v) {
    return make_float2(v.x, v.y);
}
inline __half2 __halves2half2(__half x, __half y) {
    return {x, y};
}
inline unsigned short __half_as_ushort(__half x) {
    return x.bits;
}

inline __nv_bfloat16 __float2bfloat16(float x) {
    return __nv_bfloat16(x);
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    return __nv_bfloat16(x);
}
inline float __bfloat162float(__nv_bfloat16 x) {
    return x;
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__nv_bfloat16(x), __nv_bfloat16(y)};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) {
    return __floats2bfloat162_rn(v.x, v.y);
}
inline float2 __bfloat1622float2(__nv_bfloat162 v) {
    return make_float2(v.x, v.y);
}
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) {
    return {x, y};
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) {
    return x.bits;
}
