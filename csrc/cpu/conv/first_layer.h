// Convolutions of images with few channels (1 or 3): a network's first layer.
//
// Gathering such windows costs as much as a seventh of the arithmetic, since each is many short
// runs. But windows that are neighbours in a line lie step * channels floats apart, so that a
// tile's rows can be read in place, from lines of the image that are copied once with their
// padding: R runs of S * C floats. Forward that leaves the multiply-adds and the writing of the
// result, past the caches if it is large; for large filters, Winograd's method leaves half of them
// (winograd/lines.h).
//
// Backward to the image, C columns would fill a fraction of a vector. There the columns are all R *
// S * C taps:
//
//   taps[q][r, s, c] = sum over k of y[p][q][k] * w[k][r][s][c]
//
// for one line p of the map at a time, in the second-level cache, and a line of the image adds up
// the taps of the windows that cover it. The windows of ceil(S / step) neighbours overlap, so that
// many lines take turns at receiving them, without reading them back, and are added at the end.
//
// The weight gradient reads windows in place too: its rows are the S * C taps of one filter row,
// its columns k, and its depth the pixels of some output lines.
#pragma once

#include <cstddef>

#include "../../shapes.h"
#include "map_lines.h"

namespace zfcuda::first_layer {

// Whether the forward convolution and the weight gradient read their windows in place.
bool applies(const ConvShape& shape);

std::size_t conv2d_workspace(const ConvShape& shape);
void conv2d(const ConvShape& shape, const float* x, const float* w, const float* b, bool relu,
            float* y, void* workspace);

// The forward convolution in parts: the filters, packed once, and then output lines [p0, p1) of
// image n, by the calling thread: y (p1 - p0, q, k). Ranges begin, and but for the last end, at
// multiples of line_step. `scratch` is for at most `lines` at a time.
std::int64_t packed_floats(const ConvShape& shape);
void pack(const ConvShape& shape, const float* w, float* packed);
int line_step(const ConvShape& shape);
std::int64_t scratch_floats(const ConvShape& shape, int lines);
void conv2d_lines(const ConvShape& shape, const float* x, int n, int p0, int p1,
                  const float* packed, const float* b, bool relu, bool stream, float* y,
                  float* scratch);

std::size_t conv2d_weight_grad_workspace(const ConvShape& shape);
void conv2d_weight_grad(const ConvShape& shape, const float* x, const MapLines& dy, float* dw,
                        void* workspace);

// Whether the transposed convolution's columns are the taps.
bool transpose_applies(const ConvShape& shape);

std::size_t conv_transpose2d_workspace(const ConvShape& shape);
void conv_transpose2d(const ConvShape& shape, const MapLines& y, const float* w, float* x,
                      void* workspace);

}  // namespace zfcuda::first_layer
