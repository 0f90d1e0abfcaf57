// Sums to which operands that only fill up have added a NaN.
//
// Kernels that read patches multiply more taps than a window has, the others with filters of zero.
// Beside an infinity or a NaN of the array that makes a NaN of results whose windows do not have it:
// 0 * inf. So a thread that finds a NaN among its sums computes that one again, tap by tap. Where
// there is none, this costs an addition a sum.
#pragma once

#include "copies.cuh"
#include "kernels/vector.cuh"
#include "ops.h"
#include "simt/simt.h"

namespace zfcuda::conv {

__device__ inline bool is_nan(float x) {
    return x != x;
}

// Whether one of the values at(0), at(1) ... is a NaN; or there are infinities of both signs.
template <int Count, class At>
__device__ inline bool may_have_nan(At at) {
    float sums[4] = {};  // which do not wait for each other
#pragma unroll
    for (int i = 0; i < Count; ++i)
        sums[i % 4] += at(i);
    return is_nan(sums[0] + sums[1] + (sums[2] + sums[3]));
}

// Sets those of the values at(0), at(1) ... that are NaN to what again(i) returns. Values are in
// registers: which is meant is compared, never computed.
template <int Count, class At, class Again>
__device__ inline void compute_nans_again(At at, Again again) {
    if (!may_have_nan<Count>(at)) return;
#pragma unroll 1
    for (int i = 0; i < Count; ++i) {
        float value = 0.0f;
#pragma unroll
        for (int j = 0; j < Count; ++j)
            if (j == i) value = at(j);
        if (!is_nan(value)) continue;
        value = again(i);
#pragma unroll
        for (int j = 0; j < Count; ++j)
            if (j == i) at(j) = value;
    }
}

// conv2d(x, w) at a pixel of the map and a filter, of dense filters.
template <class T>
__device__ inline float sum_of_window(const ConvShape& shape, const T* x, const T* w,
                                      const Pixel& at, int k) {
    float sum = 0.0f;
    const int h0 = at.p * shape.stride_h - shape.pad_top;
    const int w0 = at.q * shape.stride_w - shape.pad_left;
#pragma unroll 1
    for (int tap = 0; tap < shape.r * shape.s && !is_nan(sum); ++tap) {
        const int r = tap / shape.s, h = h0 + r, column = w0 + tap - r * shape.s;
        if (!inside(h, shape.h) || !inside(column, shape.w)) continue;
        const std::size_t line = static_cast<std::size_t>(at.n) * shape.h + h;
        const T* const pixel = x + (line * shape.w + column) * shape.c;
        const T* const filter =
            w + (static_cast<std::size_t>(k) * shape.r * shape.s + tap) * shape.c;
#pragma unroll 1
        for (int c = 0; c < shape.c; ++c)
            sum = fmaf(to_float(pixel[c]), to_float(filter[c]), sum);
    }
    return sum;
}

// conv_transpose2d(y, w) at a pixel of x and a channel, of dense filters; the sum over the filters from
// `first` to `end`.
template <class T>
__device__ inline float sum_of_cell(const ConvShape& shape, const T* y, const T* w, int n, int h,
                                    int column, int c, int first, int end) {
    float sum = 0.0f;
#pragma unroll 1
    for (int tap = 0; tap < shape.r * shape.s && !is_nan(sum); ++tap) {
        const int r = tap / shape.s;
        const int below = h + shape.pad_top - r,
                  right = column + shape.pad_left - (tap - r * shape.s);
        const int p = below / shape.stride_h, q = right / shape.stride_w;
        if (p * shape.stride_h != below || q * shape.stride_w != right) continue;
        if (!inside(p, shape.p()) || !inside(q, shape.q())) continue;
        const std::size_t line = static_cast<std::size_t>(n) * shape.p() + p;
        const T* const pixel = y + (line * shape.q() + q) * shape.k;
#pragma unroll 1
        for (int k = first; k < end; ++k) {
            const std::size_t filter = static_cast<std::size_t>(k) * shape.r * shape.s + tap;
            sum = fmaf(to_float(pixel[k]), to_float(w[filter * shape.c + c]), sum);
        }
    }
    return sum;
}

}  // namespace zfcuda::conv
