// The matrix product that an operation comes down to.
#pragma once

#include <cstdint>
#include <numeric>
#include <type_traits>

#include "conv_phases.h"
#include "kernels/indexing.cuh"
#include "ops.h"
#include "shapes.h"
#include "tuned_plans.h"

namespace zfcuda::conv {

// `batches` products of rows x cols x depth. The result is `size` values.
struct Product {
    Problem problem;
    int batches, rows, cols, depth;
    std::int64_t size;
};

template <class Math>
constexpr Precision kPrecision = std::is_same_v<Math, Fp32>   ? Precision::kFp32
                                 : std::is_same_v<Math, Tf32> ? Precision::kTf32
                                                              : Precision::kBf16;

template <class Math>
Product fprop_product(const ConvShape& s) {
    const int pixels = s.n * s.p() * s.q();
    return {{Operation::kConv2d, kPrecision<Math>, s, {}},
            s.groups,
            pixels,
            s.group_k(),
            s.r * s.s * s.group_c(),
            std::int64_t{pixels} * s.k};
}

// One for each phase, the largest of which have this many pixels and taps.
template <class Math>
Product dgrad_product(const ConvShape& s) {
    const int step_h = s.stride_h / std::gcd(s.stride_h, s.dilation_h);
    const int step_w = s.stride_w / std::gcd(s.stride_w, s.dilation_w);
    return {{Operation::kConvTranspose2d, kPrecision<Math>, s, {}},
            phase_count(s.h, s.stride_h) * phase_count(s.w, s.stride_w) * s.groups,
            s.n * divide_up(s.h, s.stride_h) * divide_up(s.w, s.stride_w),
            s.group_c(),
            divide_up(s.r, step_h) * divide_up(s.s, step_w) * s.group_k(),
            std::int64_t{s.n} * s.h * s.w * s.c};
}

template <class Math>
Product wgrad_product(const ConvShape& s) {
    const int cols = s.r * s.s * s.group_c();
    return {{Operation::kConv2dWeightGrad, kPrecision<Math>, s, {}},
            s.groups,
            s.group_k(),
            cols,
            s.n * s.p() * s.q(),
            std::int64_t{s.k} * cols};
}

}  // namespace zfcuda::conv
