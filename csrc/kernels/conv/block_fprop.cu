// conv2d_relu_pool: see block_fprop.cuh.
#include "block_fprop.cuh"

#include "block_map.h"
#include "block_patch.cuh"

namespace zfcuda {

template <class Math>
std::size_t conv2d_relu_pool_workspace(const ConvShape& shape, const PoolShape& pool) {
    check_block(shape, pool);
    const auto bytes = [&](const std::optional<conv::Plan>& plan) {
        return plan ? conv::block_patch_workspace<Math>(shape, pool, *plan)
                    : conv::map_bytes<Element<Math>>(shape) + conv2d_workspace<Math>(shape);
    };
    const auto plan = conv::plan_block<Math>(shape, pool, true);
    if (!plan || !conv::is_tma(*plan)) return bytes(plan);
    return bytes(conv::plan_block<Math>(shape, pool, false));  // it needs none itself
}

template <class Math>
void conv2d_relu_pool(const ConvShape& shape, const PoolShape& pool, const Element<Math>* x,
                      const Element<Math>* w, const float* b, Element<Math>* y,
                      std::uint8_t* switches, void* workspace, Stream stream) {
    using namespace conv;
    using T = Element<Math>;
    const bool vector_x = is_vectorisable(shape.c, x), vector_w = is_vectorisable(shape.c, w);
    const auto plan = plan_block<Math>(shape, pool, vector_x && vector_w);
    if (!plan) {
        T* const map = static_cast<T*>(workspace);
        conv2d<Math>(shape, x, w, b, nullptr, nullptr, true, shape.k, map,
                     after_map<T>(shape, workspace), stream);
        max_pool2d(pool, map, y, switches, stream);
        return;
    }
    if (plan->kernel.main_loop == MainLoop::kPatch)
        return block_patch<Math>(shape, pool, *plan, x, w, b, y, switches, workspace, stream);
    with_list(typename Tiles<Math>::Block{}, vector_x, vector_w, [&](auto tiles) {
        with_tile(tiles, plan->kernel, [&](auto tile) {
            using Tile = decltype(tile);
            if constexpr (Tile::kMainLoop == MainLoop::kTma)
                launch_block_tma<Tile>(shape, pool, x, w, b, y, switches, stream);
            else
                launch_block_fprop<Tile, tiles.kWidthA>(shape, pool, x, w, b, y, switches, stream);
        });
    });
}

template decltype(conv2d_relu_pool<Fp32>) conv2d_relu_pool<Fp32>;
template decltype(conv2d_relu_pool<Tf32>) conv2d_relu_pool<Tf32>;
template decltype(conv2d_relu_pool<Bf16>) conv2d_relu_pool<Bf16>;
template decltype(conv2d_relu_pool_workspace<Fp32>) conv2d_relu_pool_workspace<Fp32>;
template decltype(conv2d_relu_pool_workspace<Tf32>) conv2d_relu_pool_workspace<Tf32>;
template decltype(conv2d_relu_pool_workspace<Bf16>) conv2d_relu_pool_workspace<Bf16>;

}  // namespace zfcuda
