// The phases of a transposed convolution (conv_phases.h) on Hopper's own main loop (tma.cuh). Each is a
// product of its own, and one launch has them all: rows of tiles, those of one phase after those of
// another. A forward convolution is one phase, whose taps are all there are.
//
// Phases share a tensor map: that of the largest one's windows. Where those of a phase begin is up to two
// pixels further on, for which the offsets of its taps make up; windows at pixels that a smaller phase
// does not have are computed and not stored. A phase without taps has no k-tiles, and zeros for a result.
//
// Phases come in the order of their first taps, and so the deepest first: SMs take tiles in turns to and
// fro (tma.cuh), and have about the same depth in the end.
#pragma once

#include "conv_phases.h"
#include "tma_windows.cuh"

namespace zfcuda::conv {

// An axis of the result: its phases, and `first`, where the windows of the tensor map begin.
struct TmaAxis {
    int size, taps, pad, first;
    FastDivisor stride, phases, windows;
    int first_phase;  // which meets the first tap

    TmaAxis(int size_, int taps_, int stride_, int pad_, int first_)
        : size(size_),
          taps(taps_),
          pad(pad_),
          first(first_),
          stride(stride_),
          phases(phase_count(size_, stride_)),
          windows(divide_up(size_, stride_)),
          first_phase((stride_ - pad_ % stride_) % phases.divisor) {}

    __device__ PhaseAxis phase(int number) const {
        number += first_phase;
        if (number >= phases.divisor) number -= phases.divisor;
        return PhaseAxis(number, size, taps, stride, pad);
    }
};

// Images of pixels. `tiles_m`: rows of tiles of a phase.
struct TmaResult {
    int n;
    TmaAxis h, w;
    FastDivisor tiles_m;

    ZFCUDA_HOST_DEVICE int taps() const { return h.taps * w.taps; }
};

inline TmaResult fprop_result(const ConvShape& s, const TmaWindows& windows, int tile_rows) {
    return {s.n,
            {s.p(), s.r, 1, s.r - 1, 0},
            {s.q(), s.s, 1, s.s - 1, 0},
            FastDivisor(divide_up(windows.count(), tile_rows))};
}

inline TmaResult dgrad_result(const ConvShape& s, const TmaWindows& windows, int tile_rows) {
    return {s.n,
            {s.h, s.r, s.stride_h, s.pad_top, windows.first_h},
            {s.w, s.s, s.stride_w, s.pad_left, windows.first_w},
            FastDivisor(divide_up(windows.count(), tile_rows))};
}

// The taps of a phase: where the first lies in windows of the tensor map, and which of the filters' it is,
// of which a transposed convolution counts the last as 0.
struct TmaTaps {
    int r, s, first, down, across;

    __device__ int filter_tap(int i, int j) const { return first + i * down + j * across; }
};

// One of the phases.
struct TmaPhase {
    PhaseAxis h, w;
    int tile_m;  // among the phase's rows of tiles

    // Of row `tile_m` of tiles, among those of all phases.
    __device__ TmaPhase(const TmaResult& result, int all_tile_m)
        : h(result.h.phase(all_tile_m / result.tiles_m / result.w.phases)),
          w(result.w.phase(all_tile_m / result.tiles_m % result.w.phases)),
          tile_m(all_tile_m % result.tiles_m) {}

    __device__ TmaTaps taps(const TmaResult& result) const {
        return {h.origin - result.h.first, w.origin - result.w.first,
                result.taps() - 1 - (h.tap0 * result.w.taps + w.tap0), h.tap_step * result.w.taps,
                w.tap_step};
    }

    // Where the pixel of window number `window` lies in a result of `pitch` values a pixel, or kNoRow.
    __device__ std::uint32_t offset(const TmaResult& result, int window, int pitch) const {
        const int row = window / result.w.windows, n = row / result.h.windows;
        const int i = row - n * result.h.windows.divisor;
        const int j = window - row * result.w.windows.divisor;
        if (n >= result.n || i >= h.pixels || j >= w.pixels) return kNoRow;
        const int down = n * result.h.size + h.first + i * result.h.stride.divisor;
        const int pixel = down * result.w.size + w.first + j * result.w.stride.divisor;
        return static_cast<std::uint32_t>(pixel) * pitch;
    }
};

}  // namespace zfcuda::conv
