// Convolutions whose filter covers the whole image: fully connected layers.
//
//   y (n, k) = x (n, d) w^T + b,   x = y w,   dw = y^T x,   w (k, d), d = r * s * c
//
// The batch is small and w is large: each product reads (or writes) w once and does 2 n operations
// for each of its elements, near the point where memory and multiply-adds take the same time. So w
// is never packed as a whole. A BLAS is no better at these shapes, and its threads wait in a loop
// for more work while those of OpenMP need the cores: between the operations of a network that
// costs more than the products.
#pragma once

#include <cstddef>

#include "../../shapes.h"

namespace zfcuda::dense {

bool applies(const ConvShape& shape);

std::size_t conv2d_workspace(const ConvShape& shape);
void conv2d(const ConvShape& shape, const float* x, const float* w, const float* b, bool relu,
            float* y, void* workspace);

std::size_t conv_transpose2d_workspace(const ConvShape& shape);
void conv_transpose2d(const ConvShape& shape, const float* y, const float* w, float* x,
                      void* workspace);

std::size_t conv2d_weight_grad_workspace(const ConvShape& shape);
void conv2d_weight_grad(const ConvShape& shape, const float* x, const float* dy, float* dw,
                        void* workspace);

}  // namespace zfcuda::dense
