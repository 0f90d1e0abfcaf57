// Winograd convolution for the CPU: where it applies, where it pays, and the three
// directions.
//
// 36 multiplications make 16 outputs that take 144 directly, less what tiles overhang
// (winograd/grid.h). The tiles are transformed (frequency-major), 36 matrix products of gemm.h do
// the multiplications, the results are transformed back; transformed filters and tiles stay in the
// last-level cache, a few hundred tiles at a time. The transforms cost memory traffic that is
// shared by all channels on the other side, so that it pays from about 64 channels on.
//
// Where maps are small, neighbouring images of a batch share tiles. Results stay within the
// tolerance of their own size, but an infinity or NaN in one image can reach its neighbour's edge.
#pragma once

#include <cstddef>

#include "../../../shapes.h"

namespace zfcuda::winograd {

// Whether conv2d, conv_transpose2d and conv2d_weight_grad of this shape are faster this way.
bool pays(const ConvShape& shape);

// The steps of conv/steps.h.
std::size_t conv2d_workspace(const ConvShape& shape);
void pack_conv2d(const ConvShape& shape, const float* w, void* workspace);
void conv2d(const ConvShape& shape, int images, const float* x, const float* b, bool relu, float* y,
            void* workspace);

std::size_t conv_transpose2d_workspace(const ConvShape& shape);
void pack_conv_transpose2d(const ConvShape& shape, const float* w, void* workspace);
void conv_transpose2d(const ConvShape& shape, int images, const float* y, float* x,
                      void* workspace);

std::size_t conv2d_weight_grad_workspace(const ConvShape& shape);
void add_weight_grad(const ConvShape& shape, int images, const float* x, const float* dy,
                     bool accumulate, void* workspace);
void finish_weight_grad(const ConvShape& shape, float* dw, void* workspace);

}  // namespace zfcuda::winograd
