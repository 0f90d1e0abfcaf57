// The phases of a strided transposed convolution, for all backends.
//
// Along an axis the pixels a, a + stride, ... of x meet the same filter positions f, f + stride,
// ..., f = (a + pad) mod stride, each over one position of y less than the one before. So every
// phase (a_h, a_w) is a dense convolution of stride 1 over y, and no zero is multiplied. Taken last
// tap first, the taps of a filter row lie side by side in y. A phase without taps (stride > filter)
// is zero.
//
// Where the taps are d pixels apart, with g = gcd(stride, d), a phase meets every (stride / g)-th of
// them from the first f with f * d = (a + pad) mod stride on, if there is one, and over positions of
// y that are d / g apart.
#pragma once

#include "shapes.h"

namespace zfcuda {

// Those of an axis: no more than it has pixels.
ZFCUDA_HOST_DEVICE inline int phase_count(int size, int stride) {
    return stride < size ? stride : size;
}

// One axis of a phase: the pixels first, first + stride, ..., `pixels` of them. Pixel number i
// meets `taps` filter positions, the last of which, tap0, lies over output position i + origin; the
// tap before it, tap_step lower, over i + origin + step; and so on.
struct PhaseAxis {
    int first, pixels, taps, tap0, tap_step, origin, step;

    // Of a dense filter. `Divisor`: int, or one that is faster to divide by.
    template <class Divisor>
    ZFCUDA_HOST_DEVICE PhaseAxis(int phase, int size, int window, const Divisor& stride, int pad)
        : first(phase), tap_step(static_cast<int>(stride)), step(1) {
        const int first_tap = (phase + pad) % stride;
        pixels = (size - phase - 1) / stride + 1;
        taps = first_tap < window ? (window - first_tap - 1) / stride + 1 : 0;
        tap0 = first_tap + (taps - 1) * static_cast<int>(stride);
        origin = (phase + pad) / stride - (taps - 1);
    }

    // Of one whose `window` taps lie `dilation` apart.
    ZFCUDA_HOST_DEVICE PhaseAxis(int phase, int size, int window, int stride, int pad, int dilation)
        : first(phase) {
        int common = stride;
        for (int rest = dilation % stride; rest != 0;) {
            const int next = common % rest;
            common = rest;
            rest = next;
        }
        tap_step = stride / common;
        step = dilation / common;
        const int most = tap_step < window ? tap_step : window;
        int first_tap = 0;
        while (first_tap < most && (phase + pad - first_tap * dilation) % stride != 0)
            ++first_tap;
        pixels = (size - phase - 1) / stride + 1;
        taps = first_tap < most ? (window - first_tap - 1) / tap_step + 1 : 0;
        tap0 = first_tap + (taps - 1) * tap_step;
        origin = taps > 0 ? (phase + pad - tap0 * dilation) / stride : 0;
    }
};

}  // namespace zfcuda
