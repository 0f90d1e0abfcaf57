// Which convolutions the tensor memory accelerator can gather the windows of, and their k-tiles.
//
// It copies, of the pixels under one tap of successive windows, some channels: a line for each
// pixel. So what a window has is cut tap by tap, and a tap's last line may be filled up with zeros:
// lines of half a k-tile's depth leave fewer of these (in bfloat16, of 96 channels: none). That is the
// depth of a product whose rows are windows, and the columns of the weight gradient, whose depth
// windows are.
#pragma once

#include "kernels/indexing.cuh"
#include "shapes.h"
#include "tuned_plans.h"

namespace zfcuda::conv {

// Channels of a k-tile, 128 bytes: of one line, or of two half as long.
constexpr int tma_depth(Precision precision) {
    return precision == Precision::kBf16 ? 64 : 32;
}

// Windows of n images of h x w pixels with so many channels, `down` x `across` in each; the first
// begins at (first_h, first_w).
struct TmaWindows {
    int n, h, w, channels;
    int down, across, stride_h, stride_w, first_h, first_w;
    int taps_h, taps_w;
    int depth;  // of a k-tile, in channels

    ZFCUDA_HOST_DEVICE int count() const { return n * down * across; }
    ZFCUDA_HOST_DEVICE int taps() const { return taps_h * taps_w; }
    // Where the last one of an image begins, from its last pixel.
    int last_h() const { return first_h + (down - 1) * stride_h - (h - 1); }
    int last_w() const { return first_w + (across - 1) * stride_w - (w - 1); }

    // Of a window, cut into lines of so many channels.
    int lines(int line) const { return taps() * divide_up(channels, line); }
    int k_tiles(int line) const { return divide_up(lines(line), depth / line); }
    bool has_half_lines() const { return k_tiles(depth / 2) < k_tiles(depth); }
    int line() const { return has_half_lines() ? depth / 2 : depth; }
    int k_tiles() const { return k_tiles(line()); }
    int cols() const { return lines(line()) * line(); }
};

// Of x in the forward direction and in the weight gradient.
inline TmaWindows fprop_windows(const ConvShape& s, int depth) {
    return {s.n,        s.h,        s.w,         s.c, s.p(), s.q(), s.stride_h,
            s.stride_w, -s.pad_top, -s.pad_left, s.r, s.s,   depth};
}

// Of y in the transposed direction: those of every phase (conv_phases.h), as many and with as many taps
// as the largest has, from the first position on where one of any begins.
inline TmaWindows dgrad_windows(const ConvShape& s, int depth) {
    const int taps_h = divide_up(s.r, s.stride_h), taps_w = divide_up(s.s, s.stride_w);
    return {s.n,
            s.p(),
            s.q(),
            s.k,
            divide_up(s.h, s.stride_h),
            divide_up(s.w, s.stride_w),
            1,
            1,
            s.pad_top / s.stride_h - (taps_h - 1),
            s.pad_left / s.stride_w - (taps_w - 1),
            taps_h,
            taps_w,
            depth};
}

inline TmaWindows tma_windows(const Problem& problem) {
    const int depth = tma_depth(problem.precision);
    return problem.operation == Operation::kConvTranspose2d ? dgrad_windows(problem.conv, depth)
                                                            : fprop_windows(problem.conv, depth);
}

// Whether windows are the depth of the product, and not its rows.
inline bool windows_are_depth(const Problem& problem) {
    return problem.operation == Operation::kConv2dWeightGrad;
}

// Whether the accelerator can copy the pixels under any tap of successive windows, and under those so
// many lines below it.
inline bool can_gather(const TmaWindows& v, int lines_below = 0) {
    const auto is_bound = [](int bound) { return bound >= -128 && bound <= 127; };
    return v.stride_h <= 8 && v.stride_w <= 8 && v.taps_h + lines_below <= 255 && v.taps_w <= 255 &&
           is_bound(v.first_h) && is_bound(v.first_w) && is_bound(v.last_h()) &&
           is_bound(v.last_w());
}

// Whether a problem, whose arrays are aligned to 16 bytes, is within the limits of the accelerator
// and of the kernels: conv_tma.cuh, block_tma.cuh and, in bfloat16 alone, wgrad_tma.cuh.
inline bool can_use_tma(const Problem& problem) {
    const ConvShape& s = problem.conv;
    const bool is_block = problem.operation == Operation::kConv2dReluPool;
    const bool is_fprop = problem.operation == Operation::kConv2d || is_block;
    const bool is_dgrad = problem.operation == Operation::kConvTranspose2d;
    const bool is_bf16 = problem.precision == Precision::kBf16;
    if (!is_fprop && !is_dgrad && problem.operation != Operation::kConv2dWeightGrad) return false;
    const bool is_tf32 = problem.precision == Precision::kTf32 && (is_fprop || is_dgrad);
    if (!is_bf16 && !is_tf32) return false;
    const int vector = is_bf16 ? 8 : 4;
    if (!s.is_dense() || s.c % vector != 0 || (!is_fprop && s.k % vector != 0)) return false;
    // Boxes of regions begin anywhere; how large they are the cut says (block_tma.h).
    if (is_block) return s.stride_h <= 8 && s.stride_w <= 8;
    return can_gather(tma_windows(problem));
}

}  // namespace zfcuda::conv
