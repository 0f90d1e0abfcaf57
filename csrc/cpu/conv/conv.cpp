// conv2d and conv_transpose2d on the CPU: geometry and workspace of the implicit products in
// implicit_gemm.h.
//
// The transposed convolution is taken apart into stride_h * stride_w phases: the pixels (h, w) of x
// with the same remainder by the stride see the same taps, one in `stride` of each axis, and form a
// stride-1 convolution of y with those taps flipped.
#include <algorithm>

#include "../../ops.h"
#include "../parallel.h"
#include "dense.h"
#include "first_layer.h"
#include "implicit_gemm.h"
#include "steps.h"
#include "winograd/batch.h"

namespace zfcuda {
namespace {

std::size_t workspace_bytes(std::int64_t panels) {
    return sizeof(float) * (panels + kBlockScratch * max_threads());
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

// One phase (row, column) of the transposed convolution.
struct Phase {
    PhaseAxis h, w;
    std::int64_t offset;  // of its first pixel in an image

    Phase(const ConvShape& s, int row, int column)
        : h(phase_axis(row, s.h, s.r, s.stride_h, s.pad_h)),
          w(phase_axis(column, s.w, s.s, s.stride_w, s.pad_w)),
          offset((static_cast<std::int64_t>(row) * s.w + column) * s.c) {}

    std::int64_t panels_size(const ConvShape& s) const {
        return gemm::panels_size(static_cast<std::int64_t>(h.taps) * w.taps * s.k, s.c);
    }
};

template <typename Body>
void for_phases(const ConvShape& s, const Body& body) {
    std::int64_t panels_before = 0;
    for (int row = 0; row < std::min(s.stride_h, s.h); ++row)
        for (int column = 0; column < std::min(s.stride_w, s.w); ++column) {
            const Phase phase(s, row, column);
            body(phase, panels_before);
            panels_before += phase.panels_size(s);
        }
}

std::int64_t transpose_panels_size(const ConvShape& s) {
    std::int64_t size = 0;
    for_phases(
        s, [&](const Phase& phase, std::int64_t before) { size = before + phase.panels_size(s); });
    return size;
}

std::int64_t forward_panels_size(const ConvShape& s) {
    return gemm::panels_size(static_cast<std::int64_t>(s.r) * s.s * s.c, s.k);
}

MapLines map_lines(const ConvShape& s, const float* y) {
    return {y, s.p(), static_cast<std::int64_t>(s.q()) * s.k};
}

}  // namespace

namespace conv_steps {

std::size_t forward_workspace(const ConvShape& s) {
    return winograd::pays(s) ? winograd::conv2d_workspace(s)
                             : workspace_bytes(forward_panels_size(s));
}

void pack_forward(const ConvShape& s, const float* w, void* workspace) {
    if (winograd::pays(s)) return winograd::pack_conv2d(s, w, workspace);
    pack_filters(w, s.k, s.r * s.s * s.c, static_cast<float*>(workspace));
}

void forward(const ConvShape& s, int images, const float* x, const float* b, bool relu, float* y,
             void* workspace) {
    if (winograd::pays(s)) return winograd::conv2d(s, images, x, b, relu, y, workspace);
    const Gather gather{x,   images, s.h,        s.w,        s.c,     s.p(),  s.q(),
                        s.r, s.s,    s.stride_h, s.stride_w, s.pad_h, s.pad_w};
    const float* panels = static_cast<float*>(workspace);
    float* scratch = static_cast<float*>(workspace) + forward_panels_size(s);
    const std::int64_t line = static_cast<std::int64_t>(s.q()) * s.k;
    multiply_all(gather, panels, s.k, b, relu, {y, s.p() * line, line, s.k}, scratch);
}

std::size_t transpose_workspace(const ConvShape& s) {
    return winograd::pays(s) ? winograd::conv_transpose2d_workspace(s)
                             : workspace_bytes(transpose_panels_size(s));
}

void pack_transpose(const ConvShape& s, const float* w, void* workspace) {
    if (winograd::pays(s)) return winograd::pack_conv_transpose2d(s, w, workspace);
    for_phases(s, [&](const Phase& phase, std::int64_t before) {
        pack_transposed_filters(
            w, s.k, s.r, s.s, s.c,
            {phase.h.r0, phase.w.r0, s.stride_h, s.stride_w, phase.h.taps, phase.w.taps},
            static_cast<float*>(workspace) + before);
    });
}

void transpose(const ConvShape& s, int images, const float* y, float* x, void* workspace) {
    if (winograd::pays(s)) return winograd::conv_transpose2d(s, images, y, x, workspace);
    float* scratch = static_cast<float*>(workspace) + transpose_panels_size(s);
    const std::int64_t line = static_cast<std::int64_t>(s.w) * s.c;
    for_phases(s, [&](const Phase& phase, std::int64_t before) {
        const Gather gather{y,
                            images,
                            s.p(),
                            s.q(),
                            s.k,
                            phase.h.count,
                            phase.w.count,
                            phase.h.taps,
                            phase.w.taps,
                            1,
                            1,
                            phase.h.pad,
                            phase.w.pad};
        multiply_all(gather, static_cast<const float*>(workspace) + before, s.c, nullptr, false,
                     {x + phase.offset, s.h * line, s.stride_h * line, s.stride_w * s.c}, scratch);
    });
}

}  // namespace conv_steps

template <class Precision>
std::size_t conv2d_workspace(const ConvShape& s) {
    if (dense::applies(s)) return dense::conv2d_workspace(s);
    return first_layer::applies(s) ? first_layer::conv2d_workspace(s)
                                   : conv_steps::forward_workspace(s);
}

template <class Precision>
void conv2d(const ConvShape& s, const Element<Precision>* x, const Element<Precision>* w,
            const float* b, bool relu, Element<Precision>* y, void* workspace, Stream) {
    if (dense::applies(s)) return dense::conv2d(s, x, w, b, relu, y, workspace);
    if (first_layer::applies(s)) return first_layer::conv2d(s, x, w, b, relu, y, workspace);
    conv_steps::pack_forward(s, w, workspace);
    conv_steps::forward(s, s.n, x, b, relu, y, workspace);
}

template <class Precision>
std::size_t conv_transpose2d_workspace(const ConvShape& s) {
    if (dense::applies(s)) return dense::conv_transpose2d_workspace(s);
    return first_layer::transpose_applies(s) ? first_layer::conv_transpose2d_workspace(s)
                                             : conv_steps::transpose_workspace(s);
}

template <class Precision>
void conv_transpose2d(const ConvShape& s, const Element<Precision>* y, const Element<Precision>* w,
                      Element<Precision>* x, void* workspace, Stream) {
    if (dense::applies(s)) return dense::conv_transpose2d(s, y, w, x, workspace);
    if (first_layer::transpose_applies(s))
        return first_layer::conv_transpose2d(s, map_lines(s, y), w, x, workspace);
    conv_steps::pack_transpose(s, w, workspace);
    conv_steps::transpose(s, s.n, y, x, workspace);
}

template decltype(conv2d_workspace<Fp32>) conv2d_workspace<Fp32>;
template decltype(conv2d<Fp32>) conv2d<Fp32>;
template decltype(conv_transpose2d_workspace<Fp32>) conv_transpose2d_workspace<Fp32>;
template decltype(conv_transpose2d<Fp32>) conv_transpose2d<Fp32>;

}  // namespace zfcuda
