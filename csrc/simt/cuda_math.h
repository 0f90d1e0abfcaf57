// CUDA's arithmetic and bit intrinsics for a host compiler. The fast ones (`__expf`, ...) compute
// the exact function.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

// ---- Minimum and maximum: CUDA's overloads; in a mixed pair of signs the unsigned type wins. ----

template <typename A, typename B,
          typename = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
constexpr auto min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) {
        // A number wins over NaN.
        const T x = static_cast<T>(a), y = static_cast<T>(b);
        return x < y || y != y ? x : y;
    } else {
        return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b);
    }
}

template <typename A, typename B,
          typename = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
constexpr auto max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) {
        const T x = static_cast<T>(a), y = static_cast<T>(b);
        return x > y || y != y ? x : y;
    } else {
        return static_cast<T>(a) > static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b);
    }
}

// ---- Floating point -----------------------------------------------------------------------------

inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
inline double rsqrt(double x) {
    return 1.0 / sqrt(x);
}
inline float exp10f(float x) {
    return powf(10.0f, x);
}
inline float __expf(float x) {
    return expf(x);
}
inline float __exp10f(float x) {
    return exp10f(x);
}
inline float __logf(float x) {
    return logf(x);
}
inline float __log2f(float x) {
    return log2f(x);
}
inline float __log10f(float x) {
    return log10f(x);
}
inline float __powf(float x, float y) {
    return powf(x, y);
}
inline float __sinf(float x) {
    return sinf(x);
}
inline float __cosf(float x) {
    return cosf(x);
}
inline float __tanf(float x) {
    return tanf(x);
}
inline float __fdividef(float x, float y) {
    return x / y;
}
inline float __saturatef(float x) {
    return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}
inline float __fadd_rn(float x, float y) {
    return x + y;
}
inline float __fsub_rn(float x, float y) {
    return x - y;
}
inline float __fmul_rn(float x, float y) {
    return x * y;
}
inline float __fmaf_rn(float x, float y, float z) {
    return fmaf(x, y, z);
}
inline float __fdiv_rn(float x, float y) {
    return x / y;
}
inline float __frcp_rn(float x) {
    return 1.0f / x;
}
inline float __fsqrt_rn(float x) {
    return sqrtf(x);
}
inline float __frsqrt_rn(float x) {
    return 1.0f / sqrtf(x);
}

// ---- Conversions --------------------------------------------------------------------------------

namespace simt {
template <typename To, typename From>
inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    __builtin_memcpy(&to, &from, sizeof(to));
    return to;
}
}  // namespace simt

inline int __float_as_int(float x) {
    return simt::bit_cast<int>(x);
}
inline unsigned __float_as_uint(float x) {
    return simt::bit_cast<unsigned>(x);
}
inline float __int_as_float(int x) {
    return simt::bit_cast<float>(x);
}
inline float __uint_as_float(unsigned x) {
    return simt::bit_cast<float>(x);
}
inline long long __double_as_longlong(double x) {
    return simt::bit_cast<long long>(x);
}
inline double __longlong_as_double(long long x) {
    return simt::bit_cast<double>(x);
}
namespace simt {
// As the instruction does: the nearest int there is, 0 for NaN.
inline int saturating_int(float whole) {
    if (whole != whole) return 0;
    if (whole >= 0x1p31f) return 2147483647;
    return whole < -0x1p31f ? -2147483647 - 1 : static_cast<int>(whole);
}
}  // namespace simt
inline int __float2int_rn(float x) {
    return simt::saturating_int(rintf(x));
}
inline int __float2int_rz(float x) {
    return simt::saturating_int(truncf(x));
}
inline int __float2int_rd(float x) {
    return simt::saturating_int(floorf(x));
}
inline int __float2int_ru(float x) {
    return simt::saturating_int(ceilf(x));
}
inline float __int2float_rn(int x) {
    return static_cast<float>(x);
}
inline float __uint2float_rn(unsigned x) {
    return static_cast<float>(x);
}

// ---- Bits ---------------------------------------------------------------------------------------

inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
inline int __clz(int x) {
    return x ? __builtin_clz(static_cast<unsigned>(x)) : 32;
}
inline int __clzll(long long x) {
    return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; ++i)
        y |= (x >> i & 1u) << (31 - i);
    return y;
}
inline int __mulhi(int a, int b) {
    return static_cast<int>((static_cast<long long>(a) * b) >> 32);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>(
        ((static_cast<unsigned long long>(high) << 32 | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >>
                                 (shift & 31));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const unsigned long long bytes = static_cast<unsigned long long>(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned nibble = selector >> (4 * i) & 15u;
        unsigned byte = static_cast<unsigned>(bytes >> (8 * (nibble & 7u))) & 255u;
        if (nibble & 8u) byte = byte & 128u ? 255u : 0u;  // replicates the sign
        result |= byte << (8 * i);
    }
    return result;
}
