// Blocks by composition.
#include <algorithm>

#include "ops.h"

namespace zfcuda {
namespace {

std::size_t map_bytes(const ConvShape& conv) {
    const std::size_t bytes = sizeof(float) * conv.n * conv.p() * conv.q() * conv.k;
    return (bytes + 255) / 256 * 256;
}

void* after_map(const ConvShape& conv, void* workspace) {
    return static_cast<char*>(workspace) + map_bytes(conv);
}

}  // namespace

std::size_t conv2d_relu_pool_workspace(const ConvShape& conv, const PoolShape& pool) {
    check_block(conv, pool);
    return map_bytes(conv) + conv2d_workspace(conv);
}

void conv2d_relu_pool(const ConvShape& conv, const PoolShape& pool, const float* x, const float* w,
                      const float* b, float* y, std::uint8_t* switches, void* workspace,
                      Stream stream) {
    float* map = static_cast<float*>(workspace);
    conv2d(conv, x, w, b, true, map, after_map(conv, workspace), stream);
    max_pool2d(pool, map, y, switches, stream);
}

std::size_t unpool_conv_transpose2d_workspace(const ConvShape& conv, const PoolShape& pool) {
    check_block(conv, pool);
    return map_bytes(conv) + conv_transpose2d_workspace(conv);
}

void unpool_conv_transpose2d(const ConvShape& conv, const PoolShape& pool, const float* y,
                             const std::uint8_t* switches, const float* w, bool rectify, float* x,
                             void* workspace, Stream stream) {
    float* map = static_cast<float*>(workspace);
    max_unpool2d(pool, y, switches, map, stream);
    if (rectify)
        relu(static_cast<std::int64_t>(conv.n) * conv.p() * conv.q() * conv.k, map, map, stream);
    conv_transpose2d(conv, map, w, x, after_map(conv, workspace), stream);
}

std::size_t unpool_conv2d_weight_grad_workspace(const ConvShape& conv, const PoolShape& pool) {
    check_block(conv, pool);
    return map_bytes(conv) + conv2d_weight_grad_workspace(conv);
}

void unpool_conv2d_weight_grad(const ConvShape& conv, const PoolShape& pool, const float* x,
                               const float* dy, const std::uint8_t* switches, float* dw,
                               void* workspace, Stream stream) {
    float* map = static_cast<float*>(workspace);
    max_unpool2d(pool, dy, switches, map, stream);
    conv2d_weight_grad(conv, x, map, dw, after_map(conv, workspace), stream);
}

}  // namespace zfcuda
