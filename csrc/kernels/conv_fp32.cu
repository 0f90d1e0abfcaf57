// The convolutions and blocks in exact float32.
#include "conv_candidates.cuh"
#include "ops.h"

namespace zfcuda {

template struct ConvOps<conv::Fp32Math>;
using Exact = ConvOps<conv::Fp32Math>;

std::size_t conv2d_workspace(const ConvShape& shape) {
    return Exact::conv2d_workspace(shape);
}

void conv2d(const ConvShape& shape, const float* x, const float* w, const float* b, bool relu,
            float* y, void* workspace, Stream stream) {
    Exact::conv2d(shape, x, w, b, relu, y, workspace, stream);
}

std::size_t conv_transpose2d_workspace(const ConvShape& shape) {
    return Exact::conv_transpose2d_workspace(shape);
}

void conv_transpose2d(const ConvShape& shape, const float* y, const float* w, float* x,
                      void* workspace, Stream stream) {
    Exact::conv_transpose2d(shape, y, w, x, workspace, stream);
}

std::size_t conv2d_weight_grad_workspace(const ConvShape& shape) {
    return Exact::conv2d_weight_grad_workspace(shape);
}

void conv2d_weight_grad(const ConvShape& shape, const float* x, const float* dy, float* dw,
                        void* workspace, Stream stream) {
    Exact::conv2d_weight_grad(shape, x, dy, dw, workspace, stream);
}

std::size_t conv2d_relu_pool_workspace(const ConvShape& shape, const PoolShape& pool) {
    return Exact::conv2d_relu_pool_workspace(shape, pool);
}

void conv2d_relu_pool(const ConvShape& shape, const PoolShape& pool, const float* x, const float* w,
                      const float* b, float* y, std::uint8_t* switches, void* workspace,
                      Stream stream) {
    Exact::conv2d_relu_pool(shape, pool, x, w, b, y, switches, workspace, stream);
}

std::size_t unpool_conv_transpose2d_workspace(const ConvShape& shape, const PoolShape& pool) {
    return Exact::unpool_conv_transpose2d_workspace(shape, pool);
}

void unpool_conv_transpose2d(const ConvShape& shape, const PoolShape& pool, const float* y,
                             const std::uint8_t* switches, const float* w, bool rectify, float* x,
                             void* workspace, Stream stream) {
    Exact::unpool_conv_transpose2d(shape, pool, y, switches, w, rectify, x, workspace, stream);
}

std::size_t unpool_conv2d_weight_grad_workspace(const ConvShape& shape, const PoolShape& pool) {
    return Exact::unpool_conv2d_weight_grad_workspace(shape, pool);
}

void unpool_conv2d_weight_grad(const ConvShape& shape, const PoolShape& pool, const float* x,
                               const float* dy, const std::uint8_t* switches, float* dw,
                               void* workspace, Stream stream) {
    Exact::unpool_conv2d_weight_grad(shape, pool, x, dy, switches, dw, workspace, stream);
}

}  // namespace zfcuda
