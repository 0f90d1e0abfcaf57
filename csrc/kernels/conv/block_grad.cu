// A block backward: the gradients of the convolution through the switches of the pool.
//
//   data     x  = conv_transpose2d(f(map), w), f = ReLU (the deconvnet) or the identity
//   weights  dw = conv2d_weight_grad(x, map),  map = max_unpool2d(dy, switches)
//
// One pass writes the map, unpooled and rectified, except where the weight gradient is unpooled
// while it is read (block_grad.cuh).
#include "block_grad.cuh"

#include "block_map.h"
#include "wgrad.cuh"

namespace zfcuda {

template <class Math>
std::size_t unpool_conv_transpose2d_workspace(const ConvShape& shape, const PoolShape& pool) {
    using namespace conv;
    using T = Element<Math>;
    check_block(shape, pool);
    return map_bytes<T>(shape) + conv_transpose2d_workspace<Math>(shape);
}

template <class Math>
void unpool_conv_transpose2d(const ConvShape& shape, const PoolShape& pool, const Element<Math>* y,
                             const std::uint8_t* switches, const Element<Math>* w, bool rectify,
                             Element<Math>* x, void* workspace, Stream stream) {
    using namespace conv;
    using T = Element<Math>;
    T* const map = static_cast<T*>(workspace);
    if (rectify)
        unpool_rectified(pool, y, switches, map, stream);
    else
        max_unpool2d(pool, y, switches, map, stream);
    conv_transpose2d<Math>(shape, map, w, x, after_map<T>(shape, workspace), stream);
}

template <class Math>
std::size_t unpool_conv2d_weight_grad_workspace(const ConvShape& shape, const PoolShape& pool) {
    using namespace conv;
    using T = Element<Math>;
    check_block(shape, pool);
    if (reads_through_switches<Math>(shape, pool))
        return product_workspace(typename Tiles<Math>::UnpoolWgrad{},
                                 unpool_wgrad_product<Math>(shape, pool));
    return map_bytes<T>(shape) + conv2d_weight_grad_workspace<Math>(shape);
}

template <class Math>
void unpool_conv2d_weight_grad(const ConvShape& shape, const PoolShape& pool,
                               const Element<Math>* x, const Element<Math>* dy,
                               const std::uint8_t* switches, float* dw, void* workspace,
                               Stream stream) {
    using namespace conv;
    using T = Element<Math>;
    if (reads_through_switches<Math>(shape, pool)) {
        const bool vector_dy =
            is_vectorisable(shape.k, dy) && aligned_for_vectors<kVectorWidth<T>>(switches);
        run_wgrad<Math, UnpooledPixels>(
            typename Tiles<Math>::UnpoolWgrad{}, unpool_wgrad_product<Math>(shape, pool), x,
            UnpooledMap<T>(pool, dy, switches), QuadIndex(pool), vector_dy, dw, workspace, stream);
        return;
    }
    T* const map = static_cast<T*>(workspace);
    max_unpool2d(pool, dy, switches, map, stream);
    conv2d_weight_grad<Math>(shape, x, map, dw, after_map<T>(shape, workspace), stream);
}

template decltype(unpool_conv_transpose2d<Fp32>) unpool_conv_transpose2d<Fp32>;
template decltype(unpool_conv_transpose2d<Tf32>) unpool_conv_transpose2d<Tf32>;
template decltype(unpool_conv_transpose2d<Bf16>) unpool_conv_transpose2d<Bf16>;
template decltype(unpool_conv_transpose2d_workspace<Fp32>) unpool_conv_transpose2d_workspace<Fp32>;
template decltype(unpool_conv_transpose2d_workspace<Tf32>) unpool_conv_transpose2d_workspace<Tf32>;
template decltype(unpool_conv_transpose2d_workspace<Bf16>) unpool_conv_transpose2d_workspace<Bf16>;
template decltype(unpool_conv2d_weight_grad<Fp32>) unpool_conv2d_weight_grad<Fp32>;
template decltype(unpool_conv2d_weight_grad<Tf32>) unpool_conv2d_weight_grad<Tf32>;
template decltype(unpool_conv2d_weight_grad<Bf16>) unpool_conv2d_weight_grad<Bf16>;
template decltype(unpool_conv2d_weight_grad_workspace<Fp32>)
    unpool_conv2d_weight_grad_workspace<Fp32>;
template decltype(unpool_conv2d_weight_grad_workspace<Tf32>)
    unpool_conv2d_weight_grad_workspace<Tf32>;
template decltype(unpool_conv2d_weight_grad_workspace<Bf16>)
    unpool_conv2d_weight_grad_workspace<Bf16>;

}  // namespace zfcuda
