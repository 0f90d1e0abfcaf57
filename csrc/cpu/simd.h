// Vectors of float as wide as the instruction set this file is compiled for: 16 lanes with AVX-512,
// 8 with AVX, 4 elsewhere. Arithmetic is written with operators (the compilers' vector extension);
// a * b + c contracts to a fused multiply-add where there is one. Loads and stores need no
// alignment.
#pragma once

#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

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

inline Vec load(const float* p) {
    return *reinterpret_cast<const UnalignedVec*>(p);
}

inline void store(float* p, Vec v) {
    *reinterpret_cast<UnalignedVec*>(p) = v;
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

// Writes the first `count` < kLanes lanes and nothing beyond them.
inline void store_partial(float* p, Vec v, int count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1),
                          reinterpret_cast<__m512>(v));
#elif defined(__AVX__)
    _mm256_maskstore_ps(p, lane_mask(count), reinterpret_cast<__m256>(v));
#else
    for (int i = 0; i < count; ++i)
        p[i] = v[i];
#endif
}

// Past the caches, where the processor can: for results that nobody reads soon. `p` is aligned to
// the vector.
inline void stream(float* p, Vec v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(p, reinterpret_cast<__m512>(v));
#elif defined(__AVX__)
    _mm256_stream_ps(p, reinterpret_cast<__m256>(v));
#else
    store(p, v);
#endif
}

// Makes streamed stores visible to other threads.
inline void stream_fence() {
#if defined(__AVX__)
    _mm_sfence();
#endif
}

inline bool is_aligned(const void* p) {
    return reinterpret_cast<std::uintptr_t>(p) % sizeof(Vec) == 0;
}

// max(v, 0); NaN stays NaN.
inline Vec relu(Vec v) {
    return v < 0.0f ? Vec{} : v;
}

// memcpy of floats, for runs of a few to a few hundred.
inline void copy(float* to, const float* from, int count) {
    int i = 0;
    for (; i + kLanes <= count; i += kLanes)
        store(to + i, load(from + i));
    if (i < count) store_partial(to + i, load_partial(from + i, count - i), count - i);
}

inline void clear(float* to, int count) {
    int i = 0;
    for (; i + kLanes <= count; i += kLanes)
        store(to + i, Vec{});
    if (i < count) store_partial(to + i, Vec{}, count - i);
}

}  // namespace zfcuda::simd
