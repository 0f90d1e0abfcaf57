// The dialect of simt.h for a host compiler: CUDA's names, run by the SIMT emulator.
//
// Every block runs on one host thread, its threads as fibers that are switched only where they wait
// for each other. Blocks are spread over a pool of host threads and run to completion: a block that
// spins until another block does something never ends (and on a GPU may not either). What is
// checked, and how, is in README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>

#include "cuda_half.h"
#include "cuda_math.h"
#include "cuda_types.h"
#include "registry.h"

#define SIMT_EMULATED 1

// Of the thread that runs; switched with the fibers.
#define SIMT_THREAD_STATE extern __thread __attribute__((tls_model("initial-exec")))
SIMT_THREAD_STATE uint3 threadIdx;
SIMT_THREAD_STATE uint3 blockIdx;
SIMT_THREAD_STATE uint3 blockDim;
SIMT_THREAD_STATE uint3 gridDim;
#undef SIMT_THREAD_STATE
constexpr int warpSize = 32;

namespace simt {

// Where in the kernel a call stands.
struct Site {
    const char* file;
    int line;
    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
};

#define SIMT_HERE ::simt::Site site = ::simt::Site::here()

// A static shared array; its address identifies it.
struct SharedArray {
    const char* name;
    std::size_t bytes;
    Site site;
};

namespace detail {

enum class Reduction { kNone, kCount, kAnd, kOr };

// What the lanes of a warp do together. Shuffles differ only in how a lane computes its source.
enum class Collective : std::uint8_t {
    kSyncWarp,
    kShuffle,
    kBallot,
    kMatch,
    kReduceAdd,
    kReduceMin,
    kReduceMax,
    kReduceUMin,
    kReduceUMax,
    kReduceAnd,
    kReduceOr,
    kReduceXor,
    kLoadMatrix,
    kLoadMatrixTrans,
    kMmaTf32,
    kMmaBf16,
    kMmaFp16,
};

int block_barrier(Reduction reduction, int value, Site site);
std::uint64_t warp_collective(Collective kind, unsigned mask, std::uint64_t value, int source,
                              Site site);
struct MatrixOperands {
    void* d;
    const void* a;
    const void* b;
};
void warp_matrix(Collective kind, MatrixOperands operands, Site site);
int shuffle_source(int lane, int width, Site site);

void* shared_array(const SharedArray* array);
void* dynamic_shared_bytes();
void copy_async(void* shared, const void* global, int bytes, bool valid, Site site);
void copy_async_commit();
void copy_async_wait(int pending, Site site);

void before_atomic(const void* address, int bytes, Site site);
bool compare_exchange(std::uint32_t* address, std::uint32_t& expected, std::uint32_t desired);
bool compare_exchange(std::uint64_t* address, std::uint64_t& expected, std::uint64_t desired);
bool compare_exchange(std::uint16_t* address, std::uint16_t& expected, std::uint16_t desired);
void thread_fence();
[[noreturn]] void trap(const char* what, Site site);

// The lane number of this thread in its warp.
int lane();

}  // namespace detail
}  // namespace simt

// ---- Barriers -----------------------------------------------------------------------------------

inline void __syncthreads(SIMT_HERE) {
    simt::detail::block_barrier(simt::detail::Reduction::kNone, 0, site);
}
inline int __syncthreads_count(int predicate, SIMT_HERE) {
    return simt::detail::block_barrier(simt::detail::Reduction::kCount, predicate, site);
}
inline int __syncthreads_and(int predicate, SIMT_HERE) {
    return simt::detail::block_barrier(simt::detail::Reduction::kAnd, predicate, site);
}
inline int __syncthreads_or(int predicate, SIMT_HERE) {
    return simt::detail::block_barrier(simt::detail::Reduction::kOr, predicate, site);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE) {
    simt::detail::warp_collective(simt::detail::Collective::kSyncWarp, mask, 0, 0, site);
}
inline void __threadfence() {
    simt::detail::thread_fence();
}
inline void __threadfence_block() {
    simt::detail::thread_fence();
}
inline void __threadfence_system() {
    simt::detail::thread_fence();
}
[[noreturn]] inline void __trap(SIMT_HERE) {
    simt::detail::trap("__trap()", site);
}

// ---- Shuffles and votes -------------------------------------------------------------------------

namespace simt {
template <typename T>
inline T shuffle(unsigned mask, T value, int source, Site site) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8,
                  "a shuffle moves at most 8 bytes");
    std::uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    bits = detail::warp_collective(detail::Collective::kShuffle, mask, bits, source, site);
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}
}  // namespace simt

template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_HERE) {
    const int base = simt::detail::shuffle_source(simt::detail::lane(), width, site);
    return simt::shuffle(mask, value, base + (source & (width - 1)), site);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
    const int lane = simt::detail::lane();
    const int base = simt::detail::shuffle_source(lane, width, site);
    const int source = lane - static_cast<int>(delta);
    return simt::shuffle(mask, value, source < base ? lane : source, site);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
    const int lane = simt::detail::lane();
    const int base = simt::detail::shuffle_source(lane, width, site);
    const int source = lane + static_cast<int>(delta);
    return simt::shuffle(mask, value, source >= base + width ? lane : source, site);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_HERE) {
    const int lane = simt::detail::lane();
    const int base = simt::detail::shuffle_source(lane, width, site);
    const int source = lane ^ lane_mask;
    return simt::shuffle(mask, value, source >= base + width ? lane : source, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_HERE) {
    return static_cast<unsigned>(simt::detail::warp_collective(simt::detail::Collective::kBallot,
                                                               mask, predicate != 0, 0, site));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_HERE) {
    return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_HERE) {
    return __ballot_sync(mask, predicate, site) == mask;
}
template <typename T>
inline unsigned __match_any_sync(unsigned mask, T value, SIMT_HERE) {
    static_assert(sizeof(T) <= 8);
    std::uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    return static_cast<unsigned>(
        simt::detail::warp_collective(simt::detail::Collective::kMatch, mask, bits, 0, site));
}

#define SIMT_REDUCE(name, type, kind)                                                      \
    inline type name(unsigned mask, type value, SIMT_HERE) {                               \
        return static_cast<type>(simt::detail::warp_collective(                            \
            simt::detail::Collective::kind, mask, static_cast<unsigned>(value), 0, site)); \
    }
SIMT_REDUCE(__reduce_add_sync, int, kReduceAdd)
SIMT_REDUCE(__reduce_add_sync, unsigned, kReduceAdd)
SIMT_REDUCE(__reduce_min_sync, int, kReduceMin)
SIMT_REDUCE(__reduce_min_sync, unsigned, kReduceUMin)
SIMT_REDUCE(__reduce_max_sync, int, kReduceMax)
SIMT_REDUCE(__reduce_max_sync, unsigned, kReduceUMax)
SIMT_REDUCE(__reduce_and_sync, unsigned, kReduceAnd)
SIMT_REDUCE(__reduce_or_sync, unsigned, kReduceOr)
SIMT_REDUCE(__reduce_xor_sync, unsigned, kReduceXor)
#undef SIMT_REDUCE

// ---- Cached loads and stores: the cache is not modelled -----------------------------------------

template <typename T>
inline T __ldg(const T* address) {
    return *address;
}
template <typename T>
inline T __ldcg(const T* address) {
    return *address;
}
template <typename T>
inline T __ldcs(const T* address) {
    return *address;
}
template <typename T>
inline void __stcg(T* address, T value) {
    *address = value;
}
template <typename T>
inline void __stcs(T* address, T value) {
    *address = value;
}

// ---- Atomics ------------------------------------------------------------------------------------

namespace simt {
template <typename T, typename Update>
inline T atomic_update(T* address, Update update, Site site) {
    using Bits =
        std::conditional_t<sizeof(T) == 8, std::uint64_t,
                           std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>>;
    static_assert(sizeof(T) == sizeof(Bits), "atomics take 2, 4 or 8 bytes");
    detail::before_atomic(address, sizeof(T), site);
    Bits expected = 0;
    Bits* bits = reinterpret_cast<Bits*>(address);
    detail::compare_exchange(bits, expected, 0);  // loads
    for (;;) {
        const T old = bit_cast<T>(expected);
        if (detail::compare_exchange(bits, expected, bit_cast<Bits>(static_cast<T>(update(old)))))
            return old;
    }
}
}  // namespace simt

#define SIMT_ATOMIC(name, expression)                                                 \
    template <typename T>                                                             \
    inline T name(T* address, std::common_type_t<T> value, SIMT_HERE) {               \
        return simt::atomic_update(address, [&](T old) { return expression; }, site); \
    }
SIMT_ATOMIC(atomicAdd, old + value)
SIMT_ATOMIC(atomicSub, old - value)
SIMT_ATOMIC(atomicExch, (static_cast<void>(old), value))
SIMT_ATOMIC(atomicMin, value < old ? value : old)
SIMT_ATOMIC(atomicMax, old < value ? value : old)
SIMT_ATOMIC(atomicAnd, old& value)
SIMT_ATOMIC(atomicOr, old | value)
SIMT_ATOMIC(atomicXor, old ^ value)
SIMT_ATOMIC(atomicInc, old >= value ? T(0) : T(old + 1))
SIMT_ATOMIC(atomicDec, old == T(0) || old > value ? value : T(old - 1))
#undef SIMT_ATOMIC
template <typename T>
inline T atomicCAS(T* address, std::common_type_t<T> compare, std::common_type_t<T> value,
                   SIMT_HERE) {
    return simt::atomic_update(address, [&](T old) { return old == compare ? value : old; }, site);
}

// ---- The names of simt.h ------------------------------------------------------------------------

#define SIMT_SHARED(type, name, ...)                                                      \
    static const ::simt::SharedArray simt_shared_##name{#name, sizeof(type[__VA_ARGS__]), \
                                                        ::simt::Site::here()};            \
    auto& name =                                                                          \
        *static_cast<type(*)[__VA_ARGS__]>(::simt::detail::shared_array(&simt_shared_##name))

namespace simt {

template <typename T>
inline T* dynamic_shared() {
    static_assert(alignof(T) <= 128);
    return static_cast<T*>(detail::dynamic_shared_bytes());
}

template <int Bytes>
inline void copy_async(void* shared, const void* global, bool valid = true, SIMT_HERE) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async moves 4, 8 or 16 bytes");
    detail::copy_async(shared, global, Bytes, valid, site);
}
inline void copy_async_commit() {
    detail::copy_async_commit();
}
template <int Pending>
inline void copy_async_wait(SIMT_HERE) {
    static_assert(Pending >= 0);
    detail::copy_async_wait(Pending, site);
}

inline void load_matrix_x4(std::uint32_t (&r)[4], const void* row, SIMT_HERE) {
    detail::warp_matrix(detail::Collective::kLoadMatrix, {r, row, nullptr}, site);
}
inline void load_matrix_x4_trans(std::uint32_t (&r)[4], const void* row, SIMT_HERE) {
    detail::warp_matrix(detail::Collective::kLoadMatrixTrans, {r, row, nullptr}, site);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2], SIMT_HERE) {
    detail::warp_matrix(detail::Collective::kMmaTf32, {d, a, b}, site);
}
inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2], SIMT_HERE) {
    detail::warp_matrix(detail::Collective::kMmaBf16, {d, a, b}, site);
}
inline void mma_m16n8k16_fp16(float (&d)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2], SIMT_HERE) {
    detail::warp_matrix(detail::Collective::kMmaFp16, {d, a, b}, site);
}

// cvt.rn: to nearest, ties to even; the 13 low bits become zero.
inline std::uint32_t to_tf32(float x) {
    if (x != x) return 0x7fffffffu;
    const std::uint32_t bits = bit_cast<std::uint32_t>(x);
    return (bits + 0x0fffu + (bits >> 13 & 1)) & 0xffffe000u;
}

inline float max_nan(float x, float y) {
    if (x != x || y != y) return bit_cast<float>(0x7fffffffu);
    if (x == y) return bit_cast<std::uint32_t>(x) >> 31 ? y : x;  // +0 is larger than -0
    return x > y ? x : y;
}

inline std::uint32_t add_bf16x2(std::uint32_t a, std::uint32_t b) {
    const auto add = [](std::uint32_t x, std::uint32_t y) {
        const float sum = bf16_to_float(static_cast<std::uint16_t>(x)) +
                          bf16_to_float(static_cast<std::uint16_t>(y));
        return static_cast<std::uint32_t>(float_to_bf16(sum));
    };
    return add(a >> 16, b >> 16) << 16 | add(a & 0xffffu, b & 0xffffu);
}

template <int First>
inline std::uint32_t spread_signs(std::uint32_t x) {
    static_assert(First >= 0 && First < 3, "a word has four bytes");
    const std::uint32_t signs = x >> 7 >> 8 * First;
    return (signs & 1) * 0xffffu | (signs >> 8 & 1) * 0xffff0000u;
}

inline float approximate_sqrt(float x) {
    constexpr float kLeastNormal = 0x1p-126f;
    return x < kLeastNormal && x > -kLeastNormal ? 0.0f * x : sqrtf(x);
}

// Those of an H100 or H200, whatever host threads run the blocks, since plans of kernels go by them;
// or what a test has set (options.h).
constexpr std::size_t kReservedBytes = 1024;
std::size_t shared_bytes_of_sm();
std::size_t max_shared_bytes();
int multiprocessors();

// Runs the kernel to its end; throws std::runtime_error with what a check found.
template <auto Kernel, typename... Arguments>
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, void* /*stream*/,
            Arguments... arguments) {
    detail::launch_kernel<Kernel>(grid, block, shared_bytes, Kernel, arguments...);
}

}  // namespace simt

#undef SIMT_HERE
