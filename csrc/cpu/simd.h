// Vectors of float as wide as the instruction set this file is compiled for: 16 lanes with AVX-512,
// 8 with AVX, 4 elsewhere. Arithmetic is written with operators (the compilers' vector extension);
// a * b + c contracts to a fused multiply-add where there is one. Loads and stores need no
// alignment. Functions that also take a plain float let one template serve vectors and what is left
// over.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstring>

namespace zfcuda::simd {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(4 * kLanes)));
using UnalignedVec = float __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

using IntVec = std::int32_t __attribute__((vector_size(4 * kLanes)));
using ByteVec = std::uint8_t __attribute__((vector_size(kLanes)));  // a byte for each lane

// What a comparison yields: a bit for each lane, or lanes of ones and zeros. With bits, a selection
// among bytes costs half of one among integers.
#if defined(__AVX512F__)
using Mask = __mmask16;
using CodeVec = ByteVec;
#else
using Mask = IntVec;
using CodeVec = IntVec;
#endif

// The integers that go with V, Vec or float, those that are cheapest where they fit a byte, and its
// number of lanes.
template <typename V>
struct Traits {
    using Int = IntVec;
    using Code = CodeVec;
    static constexpr int kLanes = simd::kLanes;
};
template <>
struct Traits<float> {
    using Int = std::int32_t;
    using Code = std::int32_t;
    static constexpr int kLanes = 1;
};

// ---- Memory -------------------------------------------------------------------------------------

inline Vec load(const float* p) {
    return *reinterpret_cast<const UnalignedVec*>(p);
}

inline void store(float* p, Vec v) {
    *reinterpret_cast<UnalignedVec*>(p) = v;
}

// The same for any V, and for integers.
template <typename V, typename T>
inline V load_as(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <typename V, typename T>
inline void store_as(T* p, V v) {
    std::memcpy(p, &v, sizeof v);
}

inline Vec broadcast(float value) {
    return value - Vec{};
}

#if defined(__AVX__) && !defined(__AVX512F__)
// Eight lanes of which the first `count` are set.
inline __m256i lane_mask(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// The first `count` < kLanes elements at p, zero in the other lanes; reads nothing beyond them.
inline Vec load_partial(const float* p, int count) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(
        _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p));
#elif defined(__AVX__)
    return reinterpret_cast<Vec>(_mm256_maskload_ps(p, lane_mask(count)));
#else
    Vec v{};
    for (int i = 0; i < count; ++i)
        v[i] = p[i];
    return v;
#endif
}

// Writes the first `count` < kLanes lanes and nothing beyond them. With AVX2 in pieces: they take 2 to 5
// nanoseconds with the loop around them (Zen 3), and its masked stores 6 to 8.
inline void store_partial(float* p, Vec v, int count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1),
                          reinterpret_cast<__m512>(v));
#elif defined(__AVX__)
    __m128 left = _mm256_castps256_ps128(reinterpret_cast<__m256>(v));
    if (count & 4) {
        _mm_storeu_ps(p, left);
        left = _mm256_extractf128_ps(reinterpret_cast<__m256>(v), 1);
        p += 4;
    }
    if (count & 2) {
        _mm_storel_pi(reinterpret_cast<__m64*>(p), left);
        left = _mm_movehl_ps(left, left);
        p += 2;
    }
    if (count & 1) _mm_store_ss(p, left);
#else
    for (int i = 0; i < count; ++i)
        p[i] = v[i];
#endif
}

// Whole vectors, or the `count` elements that are left.
inline Vec load_up_to(const float* p, int count) {
    return count >= kLanes ? load(p) : load_partial(p, count);
}

inline void store_up_to(float* p, Vec v, int count) {
    if (count >= kLanes)
        store(p, v);
    else
        store_partial(p, v, count);
}

// Past the caches, where the processor can: for results that nobody reads soon. `p` is aligned to
// the vector.
inline void stream(float* p, Vec v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(p, reinterpret_cast<__m512>(v));
#elif defined(__AVX__)
    _mm256_stream_ps(p, reinterpret_cast<__m256>(v));
#elif defined(__x86_64__)
    _mm_stream_ps(p, reinterpret_cast<__m128>(v));
#else
    store(p, v);
#endif
}

inline void stream(float* p, float v) {
    *p = v;
}

// Makes streamed stores visible to other threads.
inline void stream_fence() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

inline bool is_aligned(const void* p) {
    return reinterpret_cast<std::uintptr_t>(p) % sizeof(Vec) == 0;
}

// The low byte of each lane. (Compilers convert vectors of eight bytes lane by lane.)
inline void store_bytes(std::uint8_t* p, CodeVec v) {
#if defined(__AVX512F__)
    store_as(p, v);
#elif defined(__AVX2__)
    const __m256i bytes =
        _mm256_shuffle_epi8(reinterpret_cast<__m256i>(v), _mm256_set1_epi32(0x0c080400));
    _mm_storel_epi64(
        reinterpret_cast<__m128i*>(p),
        _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
#else
    store_as(p, __builtin_convertvector(v, ByteVec));
#endif
}
#if defined(__AVX512F__)
inline void store_bytes(std::uint8_t* p, IntVec v) {
    store_as(p, _mm512_maskz_cvtepi32_epi8(0xffff, reinterpret_cast<__m512i>(v)));
}
#endif
inline void store_bytes(std::uint8_t* p, std::int32_t v) {
    *p = static_cast<std::uint8_t>(v);
}

// ---- Lanes --------------------------------------------------------------------------------------

inline Mask less(Vec a, Vec b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), _CMP_LT_OQ);
#else
    return a < b;
#endif
}
inline bool less(float a, float b) {
    return a < b;
}

// Where `v` takes the place of `best` in a running maximum of which the first stays, and the first
// NaN wins: v > best, or v is NaN, but best is not.
inline Mask beats(Vec v, Vec best) {
#if defined(__AVX512F__)
    const auto v_ = reinterpret_cast<__m512>(v), best_ = reinterpret_cast<__m512>(best);
    return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(best_, best_, _CMP_ORD_Q), v_, best_,
                                   _CMP_NLE_UQ);
#else
    return ~(v <= best) & (best == best);
#endif
}
inline bool beats(float v, float best) {
    return !(v <= best) && best == best;
}

inline Vec select(Mask mask, Vec yes, Vec no) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(
        _mm512_mask_mov_ps(reinterpret_cast<__m512>(no), mask, reinterpret_cast<__m512>(yes)));
#else
    return mask ? yes : no;
#endif
}
inline IntVec select(Mask mask, IntVec yes, IntVec no) {
#if defined(__AVX512F__)
    return reinterpret_cast<IntVec>(
        _mm512_mask_mov_epi32(reinterpret_cast<__m512i>(no), mask, reinterpret_cast<__m512i>(yes)));
#else
    return mask ? yes : no;
#endif
}
#if defined(__AVX512F__)
inline ByteVec select(Mask mask, ByteVec yes, ByteVec no) {
    return reinterpret_cast<ByteVec>(
        _mm_mask_mov_epi8(reinterpret_cast<__m128i>(no), mask, reinterpret_cast<__m128i>(yes)));
}
#endif
inline float select(bool mask, float yes, float no) {
    return mask ? yes : no;
}
inline std::int32_t select(bool mask, std::int32_t yes, std::int32_t no) {
    return mask ? yes : no;
}

// A byte in each lane.
inline IntVec load_bytes(const std::uint8_t* p) {
#if defined(__AVX512F__)
    return reinterpret_cast<IntVec>(_mm512_maskz_cvtepu8_epi32(0xffff, load_as<__m128i>(p)));
#elif defined(__AVX2__)
    return reinterpret_cast<IntVec>(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
    return __builtin_convertvector(load_as<ByteVec>(p), IntVec);
#endif
}

// The same as codes, and of the first `count` < kLanes lanes: nothing beyond them is read.
inline CodeVec load_codes(const std::uint8_t* p) {
#if defined(__AVX512F__)
    return load_as<CodeVec>(p);
#else
    return load_bytes(p);
#endif
}
inline CodeVec load_codes_partial(const std::uint8_t* p, int count) {
#if defined(__AVX512F__)
    return reinterpret_cast<CodeVec>(
        _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << count) - 1), p));
#else
    std::uint8_t bytes[kLanes] = {};
    for (int i = 0; i < count; ++i)
        bytes[i] = p[i];
    return load_bytes(bytes);
#endif
}

// sum + (codes == code ? v : 0).
inline Vec add_where(Vec sum, CodeVec codes, std::uint8_t code, Vec v) {
#if defined(__AVX512F__)
    const Mask mask = _mm_cmpeq_epi8_mask(reinterpret_cast<__m128i>(codes),
                                          _mm_set1_epi8(static_cast<char>(code)));
    const auto sum_ = reinterpret_cast<__m512>(sum);
    return reinterpret_cast<Vec>(_mm512_mask_add_ps(sum_, mask, sum_, reinterpret_cast<__m512>(v)));
#else
    const IntVec mask = codes == static_cast<std::int32_t>(code);
    return sum + reinterpret_cast<Vec>(reinterpret_cast<IntVec>(v) & mask);
#endif
}

// ---- Arithmetic ---------------------------------------------------------------------------------

// a * b + c, rounded once wherever the processor can: of the plain expression, a compiler may lift the
// product out of branches, and then rounds twice.
inline Vec multiply_add(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_fmadd_ps(
        reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__FMA__)
    return reinterpret_cast<Vec>(_mm256_fmadd_ps(
        reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
    return a * b + c;
#endif
}

// max(v, 0); NaN stays NaN.
inline Vec relu(Vec v) {
    return v < 0.0f ? Vec{} : v;
}

// 1 / sqrt(v) for positive, finite, normal v: the processor's estimate of 12 bits or more and one
// Newton step.
inline Vec reciprocal_sqrt(Vec v) {
#if defined(__AVX512F__)
    const Vec estimate =
        reinterpret_cast<Vec>(_mm512_maskz_rsqrt14_ps(0xffff, reinterpret_cast<__m512>(v)));
#elif defined(__AVX__)
    const Vec estimate = reinterpret_cast<Vec>(_mm256_rsqrt_ps(reinterpret_cast<__m256>(v)));
#elif defined(__x86_64__)
    const Vec estimate = reinterpret_cast<Vec>(_mm_rsqrt_ps(reinterpret_cast<__m128>(v)));
#else
    Vec estimate;
    for (int i = 0; i < kLanes; ++i)
        estimate[i] = 1.0f / std::sqrt(v[i]);
#endif
    return estimate * (1.5f - 0.5f * v * estimate * estimate);
}

// ---- Runs ---------------------------------------------------------------------------------------

// memcpy of floats, for runs of a few to a few hundred.
inline void copy(float* to, const float* from, int count) {
    int i = 0;
    for (; i + kLanes <= count; i += kLanes)
        store(to + i, load(from + i));
    if (i < count) store_partial(to + i, load_partial(from + i, count - i), count - i);
}

// The same in whole vectors: up to kLanes - 1 floats behind the run become zero too.
inline void copy_spilling(float* to, const float* from, int count) {
    int i = 0;
    for (; i + kLanes <= count; i += kLanes)
        store(to + i, load(from + i));
    if (i < count) store(to + i, load_partial(from + i, count - i));
}

inline void clear_spilling(float* to, int count) {
    for (int i = 0; i < count; i += kLanes)
        store(to + i, Vec{});
}

inline void clear(float* to, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        store(to + i, Vec{});
    if (i < count) store_partial(to + i, Vec{}, static_cast<int>(count - i));
}

}  // namespace zfcuda::simd
