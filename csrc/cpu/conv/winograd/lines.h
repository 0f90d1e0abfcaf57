// Forward convolution of a first layer by Winograd's method (winograd/transform.h): for large
// filters with a stride, such as 7 x 7 at 2 or 11 x 11 at 4.
//
// A convolution with a stride is one with stride 1 of its phases (winograd/grid.h), which few
// channels turn into enough depth for a matrix product: 7 x 7 x 3 at stride 2 are 4 x 4 taps of 12
// phases and channels, 3 x 3 outputs of which take 36 * 12 multiplications instead of 9 * 147.
//
// A thread makes M lines of the map at a time (M x M outputs a tile). The pixels that they read are
// put side by side, phases and channels of one place in a few vectors. Then some tiles, as many as
// the matrix product has rows, are transformed, multiplied frequency by frequency with one panel
// of filters, and transformed back, while their products are in the cache (64 KB); the filters of
// all frequencies (166 KB) stay in its second level. Bounded by multiply-adds: of the products two
// thirds, of the transforms one.
#pragma once

#include <cstdint>

#include "../../../shapes.h"

namespace zfcuda::first_layer_winograd {

// Whether it is faster than the plain sum.
bool pays(const ConvShape& shape);

// Lines of the map that are made at a time: less work is wasted on multiples of it.
int tile_lines(const ConvShape& shape);

// The filters, transformed.
std::int64_t packed_floats(const ConvShape& shape);
void pack_filters(const ConvShape& shape, const float* w, float* packed);

// Output lines [p0, p1) of image n as first_layer::conv2d_lines makes them; p0 a multiple of
// tile_lines for the same bits whatever the range.
std::int64_t scratch_floats(const ConvShape& shape);
void conv2d_lines(const ConvShape& shape, const float* x, int n, int p0, int p1,
                  const float* packed, const float* b, bool relu, bool stream, float* y,
                  float* scratch);

}  // namespace zfcuda::first_layer_winograd
