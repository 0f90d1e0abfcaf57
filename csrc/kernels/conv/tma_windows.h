// Which convolutions the tensor memory accelerator can gather the windows of, and their k-tiles.
//
// It copies, of the pixels under one tap of successive windows, some channels: a line for each
// pixel. So depth is cut tap by tap, and a tap's last line may be filled up with zeros: lines of 32
// channels instead of 64 leave fewer of these (96 channels: none).
#pragma once

#include "kernels/indexing.cuh"
#include "shapes.h"
#include "tuned_plans.h"

namespace zfcuda::conv {

constexpr int kTmaDepth = 64;  // channels of a k-tile: of one line, or of two of half as many

// Lines of so many channels in the whole depth.
inline int count_lines(const ConvShape& s, int channels) {
    return s.r * s.s * ((s.c + channels - 1) / channels);
}

// Whether lines of half as many channels make fewer k-tiles.
inline bool has_half_lines(const ConvShape& s) {
    return divide_up(count_lines(s, kTmaDepth / 2), 2) < count_lines(s, kTmaDepth);
}

inline int count_tma_k_tiles(const ConvShape& s) {
    return has_half_lines(s) ? divide_up(count_lines(s, kTmaDepth / 2), 2)
                             : count_lines(s, kTmaDepth);
}

// Whether a bfloat16 problem, whose arrays are aligned to 16 bytes, is within the limits of the
// accelerator and of the kernel (fprop_tma.cuh).
inline bool can_use_tma(const Problem& problem) {
    const ConvShape& s = problem.conv;
    const auto is_bound = [](int bound) { return bound >= -128 && bound <= 127; };
    return problem.operation == Operation::kConv2d && problem.precision == Precision::kBf16 &&
           s.is_dense() && s.c % 8 == 0 && s.stride_h <= 8 && s.stride_w <= 8 && s.r <= 255 &&
           s.s <= 255 && is_bound(-s.pad_top) && is_bound(-s.pad_left) &&
           is_bound(s.pad_bottom - (s.r - 1)) && is_bound(s.pad_right - (s.s - 1));
}

}  // namespace zfcuda::conv
