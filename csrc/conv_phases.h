// The phases of a strided transposed convolution, for all backends.
//
// Along an axis the pixels a, a + stride, ... of x meet the same filter positions f, f + stride,
// ..., f = (a + pad) mod stride, each over one position of y less than the one before. So every
// phase (a_h, a_w) is a dense convolution of stride 1 over y, and no zero is multiplied. Taken last
// tap first, the taps of a filter row lie side by side in y. A phase without taps (stride > filter)
// is zero.
#pragma once

#include "shapes.h"

namespace zfcuda {

// Those of an axis: no more than it has pixels.
ZFCUDA_HOST_DEVICE inline int phase_count(int size, int stride) {
    return stride < size ? stride : size;
}

// One axis of a phase: the pixels first, first + stride, ..., `pixels` of them. Pixel number i
// meets `taps` filter positions, the last of which, tap0, lies over output position i + origin; the
// tap before it, a stride lower, over i + origin + 1; and so on.
struct PhaseAxis {
    int first, pixels, taps, tap0, origin;

    // `Divisor`: int, or one that is faster to divide by.
    template <class Divisor>
    ZFCUDA_HOST_DEVICE PhaseAxis(int phase, int size, int window, const Divisor& stride, int pad) {
        const int first_tap = (phase + pad) % stride;
        first = phase;
        pixels = (size - phase - 1) / stride + 1;
        taps = first_tap < window ? (window - first_tap - 1) / stride + 1 : 0;
        tap0 = first_tap + (taps - 1) * static_cast<int>(stride);
        origin = (phase + pad) / stride - (taps - 1);
    }
};

// The taps of a filter that a phase meets, last first: tap (i, j) of `rows` x `cols` is filter row
// row0 - i * row_step and column col0 - j * col_step.
struct PhaseTaps {
    int row0, row_step, rows;
    int col0, col_step, cols;
};

}  // namespace zfcuda
