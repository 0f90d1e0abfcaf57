// The transforms of Winograd's minimal filtering on 6 points, for vectors of channels.
//
// A filter of T taps and a tile of 6 inputs give M = 7 - T outputs with 6 multiplications an axis
// instead of M * T:
//
//   out = A^T [ (G filter) . (B^T tile) ]
//
// (Winograd 1980; Lavin and Gray 2016): a quarter of the multiplications for 3 x 3 and 4 x 4 taps,
// 0.36 of them for 2 x 2 and 5 x 5. G evaluates the filter's polynomial at the points and divides
// by Lagrange's denominators, A^T is an evaluation transposed, and B^T does not depend on T, so
// that the weight gradient (T taps from M gradients) reads the same transformed tiles. The points
// are 0, +-3/4, +-3/2 and infinity: against the usual 0, +-1, +-2 they halve the rounding error
// (2e-6 of the result's norm at 384 channels), and their powers are exact in float32.
//
// Of a sum of two products the compiler rounds one and fuses the other into the addition. Which one
// depends on the code around a transform, and so do the last bits of what comes out.
#pragma once

#include "../../simd.h"

namespace zfcuda::conv::winograd {

using simd::Vec;

constexpr int kPoints = 6;  // of an axis
constexpr int kFrequencies = kPoints * kPoints;

// Outputs of a tile's axis.
constexpr int tile_size(int taps) {
    return kPoints + 1 - taps;
}

constexpr float kA = 0.75f, kB = 1.5f;  // the points +-kA, +-kB
constexpr float kA2 = kA * kA, kB2 = kB * kB;
constexpr float kPowersA[] = {1, kA, kA2, kA2* kA, kA2* kA2};
constexpr float kPowersB[] = {1, kB, kB2, kB2* kB, kB2* kB2};

// One over the Lagrange denominators of the points 0, +-a, +-b; that of infinity is 1.
constexpr float kScale0 = 1.0f / (kA2 * kB2);
constexpr float kScaleA = 1.0f / (2 * kA2 * (kA2 - kB2));
constexpr float kScaleB = 1.0f / (2 * kB2 * (kB2 - kA2));

// B^T x.
inline void transform_data(const Vec (&x)[6], Vec (&out)[6]) {
    out[0] = x[4] - (kA2 + kB2) * x[2] + (kA2 * kB2) * x[0];
    const Vec even_a = x[4] - kB2 * x[2], odd_a = kA * x[3] - (kA * kB2) * x[1];
    const Vec even_b = x[4] - kA2 * x[2], odd_b = kB * x[3] - (kB * kA2) * x[1];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = x[5] - (kA2 + kB2) * x[3] + (kA2 * kB2) * x[1];
}

// The polynomial with the coefficients x at the points; over the denominators if Scaled (then it is
// G x).
template <int N, bool Scaled>
inline void evaluate(const Vec (&x)[N], Vec (&out)[6]) {
    constexpr float scale0 = Scaled ? kScale0 : 1, scale_a = Scaled ? kScaleA : 1,
                    scale_b = Scaled ? kScaleB : 1;
    Vec even_a = scale_a * x[0], even_b = scale_b * x[0];
    Vec odd_a{}, odd_b{};
#pragma GCC unroll 5
    for (int i = 1; i < N; ++i) {
        (i % 2 ? odd_a : even_a) += (scale_a * kPowersA[i]) * x[i];
        (i % 2 ? odd_b : even_b) += (scale_b * kPowersB[i]) * x[i];
    }
    out[0] = scale0 * x[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = x[N - 1];
}

// The transpose of `evaluate`; A^T x if not Scaled.
template <int N, bool Scaled>
inline void interpolate(const Vec (&x)[6], Vec (&out)[N]) {
    constexpr float scale0 = Scaled ? kScale0 : 1, scale_a = Scaled ? kScaleA : 1,
                    scale_b = Scaled ? kScaleB : 1;
    const Vec sum_a = x[1] + x[2], difference_a = x[1] - x[2];
    const Vec sum_b = x[3] + x[4], difference_b = x[3] - x[4];
#pragma GCC unroll 5
    for (int i = 0; i < N; ++i)
        out[i] = (scale_a * kPowersA[i]) * (i % 2 ? difference_a : sum_a) +
                 (scale_b * kPowersB[i]) * (i % 2 ? difference_b : sum_b);
    out[0] += scale0 * x[0];
    out[N - 1] += x[5];
}

// out = T x T^T for the one-axis transform T, In to Out values: columns first, then rows.
template <int In, int Out, void (*Transform)(const Vec (&)[In], Vec (&)[Out])>
inline void transform_2d(const Vec (&x)[In][In], Vec (&out)[Out][Out]) {
    Vec half[Out][In];
#pragma GCC unroll 6
    for (int j = 0; j < In; ++j) {
        Vec column[In], transformed[Out];
#pragma GCC unroll 6
        for (int i = 0; i < In; ++i)
            column[i] = x[i][j];
        Transform(column, transformed);
#pragma GCC unroll 6
        for (int i = 0; i < Out; ++i)
            half[i][j] = transformed[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < Out; ++i)
        Transform(half[i], out[i]);
}

}  // namespace zfcuda::conv::winograd
