// The phases of a strided transposed convolution as products: see dgrad.cuh.
#pragma once

#include "conv_phases.h"
#include "operands.cuh"
#include "plan.h"

namespace zfcuda::conv {

// A product for each phase, the largest of which have this many pixels and taps.
inline ProductSize dgrad_size(const ConvShape& s) {
    return {phase_count(s.h, s.stride_h) * phase_count(s.w, s.stride_w),
            s.n * divide_up(s.h, s.stride_h) * divide_up(s.w, s.stride_w), s.c,
            divide_up(s.r, s.stride_h) * divide_up(s.s, s.stride_w) * s.k};
}

template <class Math, class List>
Plan plan_dgrad(List tiles, const ConvShape& s) {
    return make_plan(tiles, {Operation::kConvTranspose2d, Tiles<Math>::kPrecision, s, {}},
                     dgrad_size(s));
}

// How a convolution is cut into phases and their products into tiles: divisors that only the
// launcher knows, so that a block finds its place without a division, in uniform registers.
struct PhaseGrid {
    FastDivisor phases_h, phases_w, stride_h, stride_w, tiles_n;
    int tiles_m;

    PhaseGrid(const ConvShape& s, int tile_rows, int tile_cols)
        : phases_h(phase_count(s.h, s.stride_h)),
          phases_w(phase_count(s.w, s.stride_w)),
          stride_h(s.stride_h),
          stride_w(s.stride_w),
          tiles_n(divide_up(s.c, tile_cols)),
          tiles_m(divide_up(s.n * divide_up(s.h, s.stride_h) * divide_up(s.w, s.stride_w),
                            tile_rows)) {}

    // Phases are the fastest index, then columns, then rows. Phases with fewer pixels leave the
    // last blocks without work.
    int blocks() const { return phases_h.divisor * phases_w.divisor * tiles_n.divisor * tiles_m; }
};

struct Phase {
    PhaseAxis h, w;

    __device__ Phase(const ConvShape& s, const PhaseGrid& grid, int phase_h, int phase_w)
        : h(phase_h, s.h, s.r, grid.stride_h, s.pad_h),
          w(phase_w, s.w, s.s, grid.stride_w, s.pad_w) {}

    __device__ int pixels(int n) const { return n * h.pixels * w.pixels; }
    __device__ int depth(int k) const { return h.taps * w.taps * k; }

    __device__ PhaseTaps taps(const ConvShape& s) const {
        return {h.tap0, s.stride_h, h.taps, w.tap0, s.stride_w, w.taps};
    }

    // Completes the description of y with the windows of this phase. (The run of a phase without
    // taps is never read, but divided by.)
    template <class T>
    __device__ WindowedImage<T> windows(WindowedImage<T> y, int k) const {
        y.taps = h.taps;
        y.run = max(w.taps, 1) * k;
        return y;
    }

    // The window of pixel number `pixel`.
    __device__ WindowRow window(const ConvShape& s, int pixel) const {
        if (pixel >= pixels(s.n)) return no_window_row();
        const PhasePixel at = locate(pixel);
        return window_row(at.n, at.i + h.origin, at.j + w.origin, s.p(), s.q(), s.k, w.taps,
                          offset(s, at));
    }

    struct PhasePixel {
        int n, i, j;
    };
    __device__ PhasePixel locate(int pixel) const {
        const int row = pixel / w.pixels, n = row / h.pixels;
        return {n, row - n * h.pixels, pixel - row * w.pixels};
    }
    // Where the pixel lies in x.
    __device__ std::uint32_t offset(const ConvShape& s, const PhasePixel& at) const {
        const std::uint32_t row =
            static_cast<std::uint32_t>(at.n) * s.h + h.first + at.i * s.stride_h;
        return (row * s.w + w.first + at.j * s.stride_w) * s.c;
    }
};

// The phase and the tile of its product that this block computes.
struct PhaseTile {
    int phase_h, phase_w, tile_m, tile_n;

    __device__ explicit PhaseTile(const PhaseGrid& grid) {
        const int block = static_cast<int>(blockIdx.x);
        const int a = block / grid.phases_w, b = a / grid.phases_h;
        phase_w = block % grid.phases_w;
        phase_h = a % grid.phases_h;
        tile_m = b / grid.tiles_n;
        tile_n = b % grid.tiles_n;
    }
};

}  // namespace zfcuda::conv
