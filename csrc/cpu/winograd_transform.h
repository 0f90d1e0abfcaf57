// The transforms of Winograd's minimal filtering on 6 points, for vectors of channels.
//
// A filter of r taps and a tile of 6 inputs give m = 7 - r outputs with 6 multiplications an axis
// instead of m * r:
//
//   out = A^T [ (G filter) . (B^T tile) ]
//
// (Winograd 1980; Lavin and Gray 2016). The points are 0, +-3/4, +-3/2 and infinity: against the
// usual 0, +-1, +-2 they halve the rounding error (2e-6 of the result's norm at 384 channels), and
// their powers are exact in float32. B^T does not depend on (m, r), so that the weight gradient (m
// = 3 taps from r = 4 gradients) reads the same transformed tiles.
#pragma once

#include "simd.h"

namespace zfcuda::winograd {

using simd::Vec;

constexpr int kPoints = 6;  // of an axis
constexpr int kFrequencies = kPoints * kPoints;
constexpr int kTile = 4;  // outputs of an axis
constexpr int kTaps = 3;

constexpr float kA = 0.75f, kB = 1.5f;  // the points +-kA, +-kB
constexpr float kA2 = kA * kA, kB2 = kB * kB, kA3 = kA2 * kA, kB3 = kB2 * kB;

// The Lagrange denominators of the points 0, +-a, +-b.
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

// G x, for 3 taps.
inline void transform_filter(const Vec (&x)[3], Vec (&out)[6]) {
    const Vec even_a = kScaleA * x[0] + (kScaleA * kA2) * x[2], odd_a = (kScaleA * kA) * x[1];
    const Vec even_b = kScaleB * x[0] + (kScaleB * kB2) * x[2], odd_b = (kScaleB * kB) * x[1];
    out[0] = kScale0 * x[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = x[2];
}

// A^T x, for 4 outputs.
inline void transform_output(const Vec (&x)[6], Vec (&out)[4]) {
    const Vec sum_a = x[1] + x[2], difference_a = x[1] - x[2];
    const Vec sum_b = x[3] + x[4], difference_b = x[3] - x[4];
    out[0] = x[0] + sum_a + sum_b;
    out[1] = kA * difference_a + kB * difference_b;
    out[2] = kA2 * sum_a + kB2 * sum_b;
    out[3] = kA3 * difference_a + kB3 * difference_b + x[5];
}

// G x for 4 gradients, less the denominators, which transform_taps applies.
inline void transform_gradient(const Vec (&x)[4], Vec (&out)[6]) {
    const Vec even_a = x[0] + kA2 * x[2], odd_a = kA * x[1] + kA3 * x[3];
    const Vec even_b = x[0] + kB2 * x[2], odd_b = kB * x[1] + kB3 * x[3];
    out[0] = x[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = x[3];
}

// A^T x for the 3 taps of a weight gradient, with the denominators of G.
inline void transform_taps(const Vec (&x)[6], Vec (&out)[3]) {
    const Vec sum_a = kScaleA * (x[1] + x[2]), difference_a = kScaleA * (x[1] - x[2]);
    const Vec sum_b = kScaleB * (x[3] + x[4]), difference_b = kScaleB * (x[3] - x[4]);
    out[0] = kScale0 * x[0] + sum_a + sum_b;
    out[1] = kA * difference_a + kB * difference_b;
    out[2] = kA2 * sum_a + kB2 * sum_b + x[5];
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

}  // namespace zfcuda::winograd
