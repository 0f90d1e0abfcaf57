// The general convolution in steps, so that an operation on many images can go through them a few
// at a time (block.cpp does) and prepare the filters once. conv.cpp and conv_weight_grad.cpp choose
// between the direct product (implicit_gemm.h) and Winograd's (winograd/batch.h) in here; images
// with few channels have their own ways before that (first_layer.h).
//
// `shape` is that of the call which the workspace was sized for, but that it may have fewer images
// where `images` says so or the function takes a map.
#pragma once

#include <cstddef>

#include "../../shapes.h"

namespace zfcuda::conv_steps {

std::size_t forward_workspace(const ConvShape& shape);
void pack_forward(const ConvShape& shape, const float* w, void* workspace);
void forward(const ConvShape& shape, int images, const float* x, const float* b, bool relu,
             float* y, void* workspace);

std::size_t transpose_workspace(const ConvShape& shape);
void pack_transpose(const ConvShape& shape, const float* w, void* workspace);
void transpose(const ConvShape& shape, int images, const float* y, float* x, void* workspace);

// The gradients of several calls add up, from the one without `accumulate` on; dw is ready after
// finish_weight_grad.
std::size_t weight_grad_workspace(const ConvShape& shape);
void add_weight_grad(const ConvShape& shape, int images, const float* x, const float* dy,
                     bool accumulate, float* dw, void* workspace);
void finish_weight_grad(const ConvShape& shape, float* dw, void* workspace);

}  // namespace zfcuda::conv_steps
