// A data gradient as convolutions of dy, one for each phase of x (conv_phases.h) and with filters of its
// own.
#pragma once

#include <cstdint>

#include "../../conv_phases.h"
#include "../../shapes.h"
#include "gather.h"
#include "implicit_gemm.h"

namespace zfcuda::conv {

struct Phase {
    PhaseAxis h, w;
    std::int64_t before;  // floats of the packed filters of the phases before it

    std::int64_t taps() const { return std::int64_t{h.taps} * w.taps; }

    // Its windows of the channels from `first` on, `channels` of them, of `images` images dy.
    Gather windows(const ConvShape& s, int images, const float* dy, int first, int channels) const {
        return {dy + first, images, s.p(), s.q(),     channels,  h.pixels, w.pixels, h.taps,
                w.taps,     1,      1,     -h.origin, -w.origin, h.step,   w.step,   s.k};
    }

    // Its pixels of the channels from `first` on of the images `dx`.
    RowPlacement pixels(const ConvShape& s, float* dx, int first) const {
        const std::int64_t line = std::int64_t{s.w} * s.c;
        return {dx + h.first * line + std::int64_t{w.first} * s.c + first, s.h * line,
                s.stride_h * line, std::int64_t{s.stride_w} * s.c};
    }
};

// Calls body(phase) for all phases; returns the floats of their packed filters, packed_floats(phase) of
// each.
template <typename Size, typename Body>
std::int64_t for_phases(const ConvShape& s, const Size& packed_floats, const Body& body) {
    std::int64_t before = 0;
    for (int row = 0; row < phase_count(s.h, s.stride_h); ++row)
        for (int col = 0; col < phase_count(s.w, s.stride_w); ++col) {
            const Phase phase{{row, s.h, s.r, s.stride_h, s.pad_top, s.dilation_h},
                              {col, s.w, s.s, s.stride_w, s.pad_left, s.dilation_w},
                              before};
            body(phase);
            before += packed_floats(phase);
        }
    return before;
}

}  // namespace zfcuda::conv
