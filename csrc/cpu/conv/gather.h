// The rows of a convolution's matrix, gathered from an image batch (im2col) a block at a time.
//
// Row m = (n, i, j) of the matrix holds the window of x whose corner is (i * step_h - pad_top,
// j * step_w - pad_left), taps in the order (r, s, c), zero outside x. In NHWC the taps (s, c) of one
// r are a contiguous run, so that a row is a few copies; those of one s are where taps lie apart,
// or x has more channels. conv2d's matrix is one of these; so is that of each phase of
// conv_transpose2d, where x is the small map, the step 1 and pad possibly negative.
#pragma once

#include <cstdint>

#include "../../shapes.h"

namespace zfcuda::conv {

struct Gather {
    const float* x;
    int n, h, w, c;
    int grid_h, grid_w;  // windows per image
    int taps_h, taps_w;
    int step_h, step_w;
    int pad_top, pad_left;
    int tap_step_h = 1, tap_step_w = 1;  // of neighbouring taps
    int pitch = c;                       // between pixels: the channels of x, of which c are read

    std::int64_t rows() const { return static_cast<std::int64_t>(n) * grid_h * grid_w; }
    int depth() const { return taps_h * taps_w * c; }

    // Whether row m is what lies at x + m * pitch.
    bool is_matrix() const {
        return taps_h == 1 && taps_w == 1 && step_h == 1 && step_w == 1 && pad_top == 0 &&
               pad_left == 0 && grid_h == h && grid_w == w;
    }

    // out[i * stride + d - d0] = matrix[m0 + i][d] for i < count, d0 <= d < d1. Also writes up to
    // kLanes - 1 floats behind each row, which the next row overwrites or `stride` leaves room for.
    void pack(std::int64_t m0, int count, int d0, int d1, float* out, int stride) const;

    // The same where every tap is a run by itself.
    void pack_taps(std::int64_t m0, int count, int d0, int d1, float* out, int stride) const;

    // Calls body(i-th row, its n, i, j) for `count` rows from m0 on.
    template <typename Body>
    void for_rows(std::int64_t m0, int count, const Body& body) const {
        const std::int64_t line = m0 / grid_w;
        int j = static_cast<int>(m0 % grid_w), i = static_cast<int>(line % grid_h);
        std::int64_t image = line / grid_h;
        for (int row = 0; row < count; ++row) {
            body(row, image, i, j);
            if (++j < grid_w) continue;
            j = 0;
            if (++i < grid_h) continue;
            i = 0;
            ++image;
        }
    }
};

// The windows of one group of a convolution of `images` images x.
inline Gather windows(const ConvShape& s, int images, const float* x, int group) {
    return {x + group * s.group_c(),
            images,
            s.h,
            s.w,
            s.group_c(),
            s.p(),
            s.q(),
            s.r,
            s.s,
            s.stride_h,
            s.stride_w,
            s.pad_top,
            s.pad_left,
            s.dilation_h,
            s.dilation_w,
            s.c};
}

}  // namespace zfcuda::conv
