// The phases of a strided transposed convolution: see conv_dgrad.cu.
#pragma once

#include "conv_operands.cuh"
#include "conv_plan.h"

namespace zfcuda::conv {

using DgradTiles = TileList<Tile128x128, Tile128x96, Tile128x64, Tile64x32, Tile256x4>;

ZFCUDA_HOST_DEVICE inline int least(int a, int b) {
    return a < b ? a : b;
}

// The plan of the product over all phases, the largest of which have this many pixels and taps.
inline Plan plan_dgrad(const ConvShape& s) {
    return make_plan(DgradTiles{}, least(s.stride_h, s.h) * least(s.stride_w, s.w),
                     s.n * divide_up(s.h, s.stride_h) * divide_up(s.w, s.stride_w), s.c,
                     divide_up(s.r, s.stride_h) * divide_up(s.s, s.stride_w) * s.k);
}

// One axis of a phase: the pixels first, first + stride, ..., `pixels` of them. Pixel number i
// meets `taps` filter positions, the last of which, tap0, lies over output position i + origin; the
// tap before it, a stride lower, over i + origin + 1; and so on.
struct PhaseAxis {
    int first, pixels, taps, tap0, origin;

    __device__ PhaseAxis(int phase, int size, int window, int stride, int pad) {
        const int f = (phase + pad) % stride;
        first = phase;
        pixels = divide_up(size - phase, stride);
        taps = f < window ? divide_up(window - f, stride) : 0;
        tap0 = f + (taps - 1) * stride;
        origin = (phase + pad) / stride - (taps - 1);
    }
};

struct Phase {
    PhaseAxis h, w;
    PhaseTaps taps;

    // `phase`: phase_h * (number of phases along the width) + phase_w.
    __device__ Phase(const ConvShape& s, int phase_h, int phase_w)
        : h(phase_h, s.h, s.r, s.stride_h, s.pad_h),
          w(phase_w, s.w, s.s, s.stride_w, s.pad_w),
          taps{h.tap0, s.stride_h, h.taps, w.tap0, s.stride_w, w.taps} {}

    __device__ int pixels(int n) const { return n * h.pixels * w.pixels; }
    __device__ int depth(int k) const { return h.taps * w.taps * k; }

    // The image that the windows of this phase read (the run of a phase without taps is never read,
    // but divided by), and the window of its pixel number `pixel`.
    __device__ WindowedImage image(const ConvShape& s, const float* y) const {
        return {y, s.p(), s.q() * s.k, h.taps, max(w.taps, 1) * s.k};
    }
    __device__ WindowRow window(const ConvShape& s, int pixel) const {
        if (pixel >= pixels(s.n)) return no_window_row();
        const int row = pixel / w.pixels, n = row / h.pixels;
        const int i = row - n * h.pixels, j = pixel - row * w.pixels;
        const std::uint32_t at =
            (static_cast<std::uint32_t>(n) * s.h + h.first + i * s.stride_h) * s.w + w.first +
            j * s.stride_w;
        return window_row(n, i + h.origin, j + w.origin, s.p(), s.q(), s.k, w.taps, at * s.c);
    }
};

// Which phase and which tile of its product a block computes: phases are the fastest index, then
// columns, then rows. Phases with fewer pixels leave the last blocks without work.
struct PhaseTile {
    Phase phase;
    int first_row, first_col;

    static int count(const ConvShape& s, int tile_rows, int tile_cols) {
        const int rows = s.n * divide_up(s.h, s.stride_h) * divide_up(s.w, s.stride_w);
        return least(s.stride_h, s.h) * least(s.stride_w, s.w) * divide_up(s.c, tile_cols) *
               divide_up(rows, tile_rows);
    }

    __device__ PhaseTile(const ConvShape& s, int tile_rows, int tile_cols)
        : PhaseTile(s, tile_rows, tile_cols, blockIdx.x / (phases_h(s) * phases_w(s))) {}

  private:
    __device__ static int phases_h(const ConvShape& s) { return least(s.stride_h, s.h); }
    __device__ static int phases_w(const ConvShape& s) { return least(s.stride_w, s.w); }

    __device__ PhaseTile(const ConvShape& s, int tile_rows, int tile_cols, int tile)
        : phase(s, blockIdx.x / phases_w(s) % phases_h(s), blockIdx.x % phases_w(s)) {
        const int across = divide_up(s.c, tile_cols);
        first_row = tile / across * tile_rows;
        first_col = tile % across * tile_cols;
    }
};

}  // namespace zfcuda::conv
