// conv2d and conv_transpose2d on the CPU: geometry and workspace of the implicit products in
// conv_gemm.h.
//
// The transposed convolution is taken apart into stride_h * stride_w phases: the pixels (h, w) of x
// with the same remainder by the stride see the same taps, one in `stride` of each axis, and form a
// stride-1 convolution of y with those taps flipped.
#include <algorithm>

#include "../ops.h"
#include "conv_first_layer.h"
#include "conv_gemm.h"
#include "winograd.h"

namespace zfcuda {
namespace {

std::size_t workspace_bytes(std::int64_t panels) {
    return sizeof(float) * (panels + kBlockScratch * gemm::max_threads());
}

// One axis of a phase: its pixels are first, first + stride, ...; see PhaseTaps for the taps.
struct PhaseAxis {
    int count, r0, taps, pad;
};

PhaseAxis phase_axis(int phase, int size, int filter, int stride, int pad) {
    PhaseAxis axis;
    axis.count = (size - phase + stride - 1) / stride;
    axis.r0 = (phase + pad) % stride;
    axis.taps = axis.r0 < filter ? (filter - axis.r0 + stride - 1) / stride : 0;
    axis.pad = axis.taps - 1 - (phase + pad - axis.r0) / stride;
    return axis;
}

}  // namespace

std::size_t conv2d_workspace(const ConvShape& shape) {
    if (first_layer::applies(shape)) return first_layer::conv2d_workspace(shape);
    if (winograd::pays(shape)) return winograd::conv2d_workspace(shape);
    return workspace_bytes(gemm::panels_size(shape.r * shape.s * shape.c, shape.k));
}

void conv2d(const ConvShape& shape, const float* x, const float* w, const float* b, bool relu,
            float* y, void* workspace, Stream) {
    if (first_layer::applies(shape)) return first_layer::conv2d(shape, x, w, b, relu, y, workspace);
    if (winograd::pays(shape)) return winograd::conv2d(shape, x, w, b, relu, y, workspace);
    const Gather gather{x,          shape.n, shape.h, shape.w,        shape.c,        shape.p(),
                        shape.q(),  shape.r, shape.s, shape.stride_h, shape.stride_w, shape.pad_h,
                        shape.pad_w};
    float* panels = static_cast<float*>(workspace);
    float* scratch = panels + gemm::panels_size(gather.depth(), shape.k);
    pack_filters(w, shape.k, gather.depth(), panels);
    const std::int64_t line = static_cast<std::int64_t>(shape.q()) * shape.k;
    multiply_all(gather, panels, shape.k, b, relu, {y, shape.p() * line, line, shape.k}, scratch);
}

std::size_t conv_transpose2d_workspace(const ConvShape& shape) {
    if (first_layer::transpose_applies(shape))
        return first_layer::conv_transpose2d_workspace(shape);
    if (winograd::pays(shape)) return winograd::conv_transpose2d_workspace(shape);
    const int taps_h = (shape.r + shape.stride_h - 1) / shape.stride_h;
    const int taps_w = (shape.s + shape.stride_w - 1) / shape.stride_w;
    return workspace_bytes(gemm::panels_size(taps_h * taps_w * shape.k, shape.c));
}

void conv_transpose2d(const ConvShape& shape, const float* y, const float* w, float* x,
                      void* workspace, Stream) {
    if (first_layer::transpose_applies(shape))
        return first_layer::conv_transpose2d(
            shape, {y, shape.p(), static_cast<std::int64_t>(shape.q()) * shape.k}, w, x, workspace);
    if (winograd::pays(shape)) return winograd::conv_transpose2d(shape, y, w, x, workspace);
    const std::int64_t line = static_cast<std::int64_t>(shape.w) * shape.c;
    for (int ph = 0; ph < std::min(shape.stride_h, shape.h); ++ph)
        for (int pw = 0; pw < std::min(shape.stride_w, shape.w); ++pw) {
            const PhaseAxis rows = phase_axis(ph, shape.h, shape.r, shape.stride_h, shape.pad_h);
            const PhaseAxis cols = phase_axis(pw, shape.w, shape.s, shape.stride_w, shape.pad_w);
            const Gather gather{y,          shape.n,    shape.p(), shape.q(), shape.k,
                                rows.count, cols.count, rows.taps, cols.taps, 1,
                                1,          rows.pad,   cols.pad};
            float* panels = static_cast<float*>(workspace);
            float* scratch = panels + gemm::panels_size(gather.depth(), shape.c);
            pack_transposed_filters(
                w, shape.k, shape.r, shape.s, shape.c,
                {rows.r0, cols.r0, shape.stride_h, shape.stride_w, rows.taps, cols.taps}, panels);
            multiply_all(gather, panels, shape.c, nullptr, false,
                         {x + ph * line + pw * shape.c, shape.h * line, shape.stride_h * line,
                          shape.stride_w * shape.c},
                         scratch);
        }
}

}  // namespace zfcuda
