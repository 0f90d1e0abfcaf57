// Regions of a grid of windows (gather.h) that see the same taps of a filter: where taps lie far
// apart or images are small, many of the others meet nothing but padding, and need not be multiplied
// (half of all products with 3 x 3 taps 12 pixels apart, on 28 x 28 pixels).
#pragma once

#include <vector>

#include "gather.h"

namespace zfcuda::conv {

// A range of windows, or of taps.
struct Range {
    int begin, end;
    int size() const { return end - begin; }
};

// The windows [i.begin, i.end) x [j.begin, j.end) of each image of a grid.
struct Region {
    Range i, j;
    std::int64_t size() const { return std::int64_t{i.size()} * j.size(); }
};

// Taps of an axis of the filter that some window of the grid sees inside x.
Range seen_rows(const Gather& gather);
Range seen_cols(const Gather& gather);

// The windows of a region as a grid.
Gather part_of(const Gather& gather, const Region& region);

// The regions, up to nine, that a grid is cut into: at its edges, where that saves more than it
// costs.
std::vector<Region> cut_into_regions(const Gather& gather);

// The cost of a grid's regions in that of the whole grid.
double needed_part(const Gather& gather);

// The region of the windows that see inside x a tap of those with the numbers [tap0, tap1), in the
// order (r, s), or of more.
Region windows_that_see(const Gather& gather, int tap0, int tap1);

}  // namespace zfcuda::conv
