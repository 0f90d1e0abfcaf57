// What moves between the lanes of vectors: permutations, transposition, sums of all lanes.
#pragma once

#include "simd.h"

namespace zfcuda::simd {

// Lanes of `a` and `b` by turns: of their lower halves, or of the upper ones.
inline Vec interleave_lower(Vec a, Vec b) {
#if defined(__AVX512F__)
    const __m512i lanes = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return reinterpret_cast<Vec>(
        _mm512_permutex2var_ps(reinterpret_cast<__m512>(a), lanes, reinterpret_cast<__m512>(b)));
#elif defined(__AVX__)
    const auto a_ = reinterpret_cast<__m256>(a), b_ = reinterpret_cast<__m256>(b);
    return reinterpret_cast<Vec>(
        _mm256_permute2f128_ps(_mm256_unpacklo_ps(a_, b_), _mm256_unpackhi_ps(a_, b_), 0x20));
#else
    return Vec{a[0], b[0], a[1], b[1]};
#endif
}
inline Vec interleave_upper(Vec a, Vec b) {
#if defined(__AVX512F__)
    const __m512i lanes =
        _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return reinterpret_cast<Vec>(
        _mm512_permutex2var_ps(reinterpret_cast<__m512>(a), lanes, reinterpret_cast<__m512>(b)));
#elif defined(__AVX__)
    const auto a_ = reinterpret_cast<__m256>(a), b_ = reinterpret_cast<__m256>(b);
    return reinterpret_cast<Vec>(
        _mm256_permute2f128_ps(_mm256_unpacklo_ps(a_, b_), _mm256_unpackhi_ps(a_, b_), 0x31));
#else
    return Vec{a[2], b[2], a[3], b[3]};
#endif
}

// Lane i of the result is lane `from`[i] of v.
inline Vec permute(Vec v, IntVec from) {
#if defined(__AVX512F__)
    // With a mask of all lanes, for GCC 12 warns of the other's undefined one.
    return reinterpret_cast<Vec>(_mm512_maskz_permutexvar_ps(
        0xffff, reinterpret_cast<__m512i>(from), reinterpret_cast<__m512>(v)));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(
        _mm256_permutevar8x32_ps(reinterpret_cast<__m256>(v), reinterpret_cast<__m256i>(from)));
#else
    Vec result{};
    for (int i = 0; i < kLanes; ++i)
        result[i] = v[from[i]];
    return result;
#endif
}

// The same where every lane takes one of its own half: in less time with AVX2.
inline Vec permute_halves(Vec v, IntVec from) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    return reinterpret_cast<Vec>(
        _mm256_permutevar_ps(reinterpret_cast<__m256>(v), reinterpret_cast<__m256i>(from)));
#else
    return permute(v, from);
#endif
}

// As many rows as lanes: each pass interleaves the rows of the first half with those of the second.
inline void transpose(Vec (&rows)[kLanes]) {
    constexpr int kHalf = kLanes / 2;
#pragma GCC unroll 4
    for (int pass = 1; pass < kLanes; pass *= 2) {
        Vec next[kLanes];
#pragma GCC unroll 8
        for (int i = 0; i < kHalf; ++i) {
            next[2 * i] = interleave_lower(rows[i], rows[i + kHalf]);
            next[2 * i + 1] = interleave_upper(rows[i], rows[i + kHalf]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i)
            rows[i] = next[i];
    }
}

// Of all lanes, by halves.
inline float sum(Vec v) {
    float part[kLanes];
    store(part, v);
    for (int half = kLanes / 2; half; half /= 2)
        for (int i = 0; i < half; ++i)
            part[i] += part[i + half];
    return part[0];
}

// Of each of up to four vectors, together: a third of the instructions of one after the other.
template <int N>
inline void sums(const Vec (&v)[N], float* results) {
    static_assert(N <= 4);
#if defined(__AVX__)
    const auto half = [&](int i) -> __m256 {
        if (i >= N) return _mm256_setzero_ps();
#if defined(__AVX512F__)
        const auto whole = reinterpret_cast<__m512>(v[i]);
        return _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, whole, 0),
                             _mm512_maskz_extractf32x8_ps(0xff, whole, 1));
#else
        return reinterpret_cast<__m256>(v[i]);
#endif
    };
    const __m256 pairs =
        _mm256_hadd_ps(_mm256_hadd_ps(half(0), half(1)), _mm256_hadd_ps(half(2), half(3)));
    float all[4];
    _mm_storeu_ps(all, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
    for (int i = 0; i < N; ++i)
        results[i] = all[i];
#else
    for (int i = 0; i < N; ++i)
        results[i] = sum(v[i]);
#endif
}

}  // namespace zfcuda::simd
