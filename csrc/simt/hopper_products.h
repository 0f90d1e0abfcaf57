// Products of a warpgroup: wgmma, whose operands lie in shared memory, and what orders it.
//
//   simt::Swizzle (proxy.h), simt::Major    how an operand lies in shared memory
//   simt::matrix_descriptor(shared, leading_bytes, stride_bytes, swizzle)
//                                       names an operand; see below
//   simt::advance(descriptor, bytes)    the same, further on
//   simt::fence_proxy_async() (proxy.h) fence.proxy.async: what this thread has stored, and its
//                                       copies that it has waited for, can be read by products that
//                                       begin after a barrier
//   simt::warpgroup_arrive()            wgmma.fence: registers are ready; before the first product
//                                       and after each wait
//   simt::wgmma_bf16<N, A, B>(d, a, b, accumulate), simt::wgmma_tf32<N>(d, a, b, accumulate)
//                                       wgmma.mma_async: d = a * b, or d += a * b, of 64 x N results
//                                       and depth 16 or 8; `a` is a descriptor or four registers
//   simt::warpgroup_commit(), simt::warpgroup_wait<Pending>()
//                                       all but the newest groups of products are done
//
// A warpgroup is four warps, the first of which has an index divisible by 4; all its threads call
// together. Until a wait covers a product its registers may not be touched, and its operands not be
// overwritten. Thread t has of d, with group = t % 32 / 4 and quad = t % 4,
//   d[i] = D[16 * (t / 32) + group + 8 * (i / 2 % 2)][8 * (i / 4) + 2 * quad + i % 2].
//
// Operands. An operand has rows (of A: 64, of B: N) and a depth of 32 bytes. Let T be the number of
// elements in 16 bytes. The byte at which element (row, k) lies, before the swizzle, is the start
// plus the offset in bytes within T elements plus
//
//   K-major, no swizzle:   row % 8 * 16 + row / 8 * stride + k / T * leading
//   K-major, W bytes:      row % 8 * W  + row / 8 * stride + k / T * 16
//   MN-major, no swizzle:  k % 8 * 16 + k / 8 * leading + row / T * stride
//   MN-major, W bytes:     k % 8 * W  + k / 8 * stride  + row % R / T * 16 + row / R * leading
//
// where R is the number of elements in W bytes. The swizzle of W bytes then flips the bits of the
// address that count 16 bytes within W by those that count 128 bytes (bits 4 .. 6 by 7 .. 9 for 128
// bytes, 4, 5 by 7, 8 for 64, 4 by 7 for 32). It goes by the address and not by the start, so
// tiles begin at multiples of 1024, 512 or 256 bytes.
#pragma once

#include <cstdint>

#include "proxy.h"

namespace simt {

enum class Major { kK, kMN };

namespace detail {

// The bits of a descriptor: 18-bit quantities in units of 16 bytes, and the swizzle.
__device__ inline std::uint64_t descriptor_bits(std::uint32_t start, std::uint32_t leading,
                                                std::uint32_t stride, Swizzle swizzle) {
    const auto encode = [](std::uint32_t bytes) {
        return static_cast<std::uint64_t>((bytes & 0x3ffffu) >> 4);
    };
    const std::uint64_t mode = (4 - static_cast<unsigned>(swizzle)) & 3;
    return encode(start) | encode(leading) << 16 | encode(stride) << 32 | mode << 62;
}

}  // namespace detail

// `bytes`: a multiple of 16.
__device__ inline std::uint64_t advance(std::uint64_t descriptor, std::uint32_t bytes) {
    return descriptor + (bytes >> 4);
}

}  // namespace simt

#if defined(__CUDACC__)

#include "sm90a.h"

namespace simt {

__device__ inline std::uint64_t matrix_descriptor(const void* shared, std::uint32_t leading_bytes,
                                                  std::uint32_t stride_bytes, Swizzle swizzle) {
    return detail::descriptor_bits(shared_address(shared), leading_bytes, stride_bytes, swizzle);
}

__device__ inline void warpgroup_arrive() {
    SIMT_SM90A("wgmma.fence.sync.aligned;\n" :: : "memory");
}

__device__ inline void warpgroup_commit() {
    SIMT_SM90A("wgmma.commit_group.sync.aligned;\n" :: : "memory");
}

template <int Pending>
__device__ inline void warpgroup_wait() {
    static_assert(Pending >= 0 && Pending < 8);
    SIMT_SM90A("wgmma.wait_group.sync.aligned %0;\n" ::"n"(Pending) : "memory");
}

// What an accumulator list is in the text of the instruction and among its operands, 16 at a time.
#define SIMT_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define SIMT_NAMES_1 \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SIMT_NAMES_2 \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define SIMT_NAMES_3 \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SIMT_NAMES_4 \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define SIMT_NAMES_5 \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define SIMT_NAMES_6 \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define SIMT_NAMES_7                                                                             \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, " \
    "%127"
#define SIMT_FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIMT_SIXTEEN(i) SIMT_FOUR(i), SIMT_FOUR(i + 4), SIMT_FOUR(i + 8), SIMT_FOUR(i + 12)
#define SIMT_NAMES_64 SIMT_NAMES_0 ", " SIMT_NAMES_1
#define SIMT_NAMES_96 SIMT_NAMES_64 ", " SIMT_NAMES_2
#define SIMT_NAMES_128 SIMT_NAMES_96 ", " SIMT_NAMES_3
#define SIMT_NAMES_192 SIMT_NAMES_128 ", " SIMT_NAMES_4 ", " SIMT_NAMES_5
#define SIMT_NAMES_256 SIMT_NAMES_192 ", " SIMT_NAMES_6 ", " SIMT_NAMES_7
#define SIMT_OPERANDS_64 SIMT_SIXTEEN(0), SIMT_SIXTEEN(16)
#define SIMT_OPERANDS_96 SIMT_OPERANDS_64, SIMT_SIXTEEN(32)
#define SIMT_OPERANDS_128 SIMT_OPERANDS_96, SIMT_SIXTEEN(48)
#define SIMT_OPERANDS_192 SIMT_OPERANDS_128, SIMT_SIXTEEN(64), SIMT_SIXTEEN(80)
#define SIMT_OPERANDS_256 SIMT_OPERANDS_192, SIMT_SIXTEEN(96), SIMT_SIXTEEN(112)

// The text; `a`, `b` and `scale` name the operands after the accumulators.
#define SIMT_WGMMA(n, k, type, a, b, scale, flags)                                                \
    "{\n.reg .pred p;\nsetp.ne.b32 p, " scale ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k" #k \
    ".f32." #type "." #type " {" SIMT_NAMES_##n "}, " a ", " b ", p, 1, 1" flags ";\n}\n"

// The products of N columns; i0, i1, ... name the operands after the N / 2 accumulators.
#define SIMT_WGMMA_COLUMNS(n, i0, i1, i2, i3, i4, i5, i6)                                          \
    template <>                                                                                    \
    struct Wgmma<n> {                                                                              \
        template <Major A, Major B>                                                                \
        __device__ static void bf16(float (&d)[n / 2], std::uint64_t a, std::uint64_t b,           \
                                    int accumulate) {                                              \
            SIMT_SM90A(                                                                            \
                SIMT_WGMMA(n, 16, bf16, i0, i1, i2, ", " i3 ", " i4) : SIMT_OPERANDS_##n : "l"(a), \
                "l"(b), "r"(accumulate), "n"(A == Major::kMN), "n"(B == Major::kMN));              \
        }                                                                                          \
        template <Major B>                                                                         \
        __device__ static void bf16(float (&d)[n / 2], const std::uint32_t (&a)[4],                \
                                    std::uint64_t b, int accumulate) {                             \
            SIMT_SM90A(SIMT_WGMMA(n, 16, bf16, "{" i0 ", " i1 ", " i2 ", " i3 "}", i4, i5,         \
                                  ", " i6) : SIMT_OPERANDS_##n : "r"(a[0]),                        \
                       "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate),                   \
                       "n"(B == Major::kMN));                                                      \
        }                                                                                          \
        __device__ static void tf32(float (&d)[n / 2], std::uint64_t a, std::uint64_t b,           \
                                    int accumulate) {                                              \
            SIMT_SM90A(SIMT_WGMMA(n, 8, tf32, i0, i1, i2, "") : SIMT_OPERANDS_##n : "l"(a),        \
                       "l"(b), "r"(accumulate));                                                   \
        }                                                                                          \
        __device__ static void tf32(float (&d)[n / 2], const std::uint32_t (&a)[4],                \
                                    std::uint64_t b, int accumulate) {                             \
            SIMT_SM90A(SIMT_WGMMA(n, 8, tf32, "{" i0 ", " i1 ", " i2 ", " i3 "}", i4, i5,          \
                                  "") : SIMT_OPERANDS_##n : "r"(a[0]),                             \
                       "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));                  \
        }                                                                                          \
    }

namespace detail {

template <int N>
struct Wgmma;
SIMT_WGMMA_COLUMNS(64, "%32", "%33", "%34", "%35", "%36", "%37", "%38");
SIMT_WGMMA_COLUMNS(96, "%48", "%49", "%50", "%51", "%52", "%53", "%54");
SIMT_WGMMA_COLUMNS(128, "%64", "%65", "%66", "%67", "%68", "%69", "%70");
SIMT_WGMMA_COLUMNS(192, "%96", "%97", "%98", "%99", "%100", "%101", "%102");
SIMT_WGMMA_COLUMNS(256, "%128", "%129", "%130", "%131", "%132", "%133", "%134");

}  // namespace detail

template <int N, Major A, Major B>
__device__ inline void wgmma_bf16(float (&d)[N / 2], std::uint64_t a, std::uint64_t b,
                                  bool accumulate) {
    detail::Wgmma<N>::template bf16<A, B>(d, a, b, accumulate);
}
template <int N, Major B>
__device__ inline void wgmma_bf16(float (&d)[N / 2], std::uint32_t (&a)[4], std::uint64_t b,
                                  bool accumulate) {
    detail::Wgmma<N>::template bf16<B>(d, a, b, accumulate);
}
template <int N>
__device__ inline void wgmma_tf32(float (&d)[N / 2], std::uint64_t a, std::uint64_t b,
                                  bool accumulate) {
    detail::Wgmma<N>::tf32(d, a, b, accumulate);
}
template <int N>
__device__ inline void wgmma_tf32(float (&d)[N / 2], std::uint32_t (&a)[4], std::uint64_t b,
                                  bool accumulate) {
    detail::Wgmma<N>::tf32(d, a, b, accumulate);
}

}  // namespace simt

#undef SIMT_NAMES_0
#undef SIMT_NAMES_1
#undef SIMT_NAMES_2
#undef SIMT_NAMES_3
#undef SIMT_NAMES_4
#undef SIMT_NAMES_5
#undef SIMT_NAMES_6
#undef SIMT_NAMES_7
#undef SIMT_NAMES_64
#undef SIMT_NAMES_96
#undef SIMT_NAMES_128
#undef SIMT_NAMES_192
#undef SIMT_NAMES_256
#undef SIMT_FOUR
#undef SIMT_SIXTEEN
#undef SIMT_OPERANDS_64
#undef SIMT_OPERANDS_96
#undef SIMT_OPERANDS_128
#undef SIMT_OPERANDS_192
#undef SIMT_OPERANDS_256
#undef SIMT_WGMMA
#undef SIMT_WGMMA_COLUMNS

#else

namespace simt {
namespace detail {

// A product as the instruction names it.
struct WarpgroupProduct {
    bool tf32;
    int columns;
    Major major_a, major_b;
    bool a_in_registers;
    std::uint64_t a, b;
    bool accumulate;
};

std::uint32_t shared_offset(const void* shared, Site site);
void warpgroup_arrive(Site site);
void warpgroup_multiply(const WarpgroupProduct& product, float* d, std::uint32_t* a, Site site);
void warpgroup_commit(Site site);
void warpgroup_wait(int pending, Site site);

}  // namespace detail

inline std::uint64_t matrix_descriptor(const void* shared, std::uint32_t leading_bytes,
                                       std::uint32_t stride_bytes, Swizzle swizzle,
                                       Site site = Site::here()) {
    return detail::descriptor_bits(detail::shared_offset(shared, site), leading_bytes, stride_bytes,
                                   swizzle);
}

inline void warpgroup_arrive(Site site = Site::here()) {
    detail::warpgroup_arrive(site);
}
inline void warpgroup_commit(Site site = Site::here()) {
    detail::warpgroup_commit(site);
}
template <int Pending>
inline void warpgroup_wait(Site site = Site::here()) {
    static_assert(Pending >= 0 && Pending < 8);
    detail::warpgroup_wait(Pending, site);
}

namespace detail {
template <int N>
constexpr bool kWgmmaColumns = N == 64 || N == 96 || N == 128 || N == 192 || N == 256;
}

template <int N, Major A, Major B>
inline void wgmma_bf16(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, bool accumulate,
                       Site site = Site::here()) {
    static_assert(detail::kWgmmaColumns<N>);
    detail::warpgroup_multiply({false, N, A, B, false, a, b, accumulate}, d, nullptr, site);
}
template <int N, Major B>
inline void wgmma_bf16(float (&d)[N / 2], std::uint32_t (&a)[4], std::uint64_t b, bool accumulate,
                       Site site = Site::here()) {
    static_assert(detail::kWgmmaColumns<N>);
    detail::warpgroup_multiply({false, N, Major::kK, B, true, 0, b, accumulate}, d, a, site);
}
template <int N>
inline void wgmma_tf32(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, bool accumulate,
                       Site site = Site::here()) {
    static_assert(detail::kWgmmaColumns<N>);
    detail::warpgroup_multiply({true, N, Major::kK, Major::kK, false, a, b, accumulate}, d, nullptr,
                               site);
}
template <int N>
inline void wgmma_tf32(float (&d)[N / 2], std::uint32_t (&a)[4], std::uint64_t b, bool accumulate,
                       Site site = Site::here()) {
    static_assert(detail::kWgmmaColumns<N>);
    detail::warpgroup_multiply({true, N, Major::kK, Major::kK, true, 0, b, accumulate}, d, a, site);
}

}  // namespace simt

#endif
