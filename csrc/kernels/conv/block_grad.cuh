// A block backward: the gradients of the convolution through the switches of the pool.
//
//   weights  dw = conv2d_weight_grad(x, map),  map = max_unpool2d(dy, switches)
//   data     x  = conv_transpose2d(f(map), w), f = ReLU (the deconvnet) or the identity
//
// The weight gradient of a first layer reads each pixel of dy once per tile of dw's columns, that
// is once or twice: there dy is unpooled while it is read (unpooled_map.cuh) and no map exists. A
// gather costs some 17 instructions a value, though, and the other products read each pixel 9 to 20
// times (once per tap or tile): there one pass writes the map, unpooled and rectified, and the
// product copies it asynchronously. `kMaxGathers` is where the one becomes dearer than the other.
#pragma once

#include "block_map.h"
#include "unpooled_map.cuh"
#include "wgrad.cuh"

namespace zfcuda {
namespace conv {

// 17 instructions on 132 SMs x 128 lanes x 1.7 GHz take 0.6 ps a value; writing and reading it, 8
// bytes at 4.3 TB/s, 1.9 ps.
constexpr int kMaxGathers = 3;

// Whether gathering costs less than a map.
template <class Math>
bool should_read_through_switches(const ConvShape& shape, const PoolShape& pool) {
    int gathers = 0;
    const bool wide_x = shape.c % kVectorWidth<Element<Math>> == 0;
    with_wgrad_tiles<Math>(true, wide_x, [&](auto tiles, auto, auto) {
        with_tile(tiles, cheapest_plan(tiles, wgrad_size(shape)), [&](auto tile) {
            gathers = divide_up(shape.r * shape.s * shape.c, decltype(tile)::kCols);
        });
    });
    return has_small_cover(pool) && gathers <= kMaxGathers;
}

template <class Math>
Problem unpool_wgrad_problem(const ConvShape& shape, const PoolShape& pool) {
    return {Operation::kUnpoolConv2dWeightGrad, Tiles<Math>::kPrecision, shape, pool};
}

// Whether dy is unpooled while it is read: as a tuner has chosen, else where that costs less.
template <class Math>
bool reads_through_switches(const ConvShape& shape, const PoolShape& pool) {
    if (const auto choice = tuned_choice(unpool_wgrad_problem<Math>(shape, pool)))
        return choice->rows > 0;
    return should_read_through_switches<Math>(shape, pool);
}

}  // namespace conv

template <class Math>
std::size_t unpool_conv_transpose2d_workspace(const ConvShape& shape, const PoolShape& pool) {
    using T = Element<Math>;
    check_block(shape, pool);
    return conv::map_bytes<T>(shape) + conv_transpose2d_workspace<Math>(shape);
}

template <class Math>
void unpool_conv_transpose2d(const ConvShape& shape, const PoolShape& pool, const Element<Math>* y,
                             const std::uint8_t* switches, const Element<Math>* w, bool rectify,
                             Element<Math>* x, void* workspace, Stream stream) {
    using T = Element<Math>;
    T* const map = static_cast<T*>(workspace);
    if (rectify)
        conv::unpool_rectified(pool, y, switches, map, stream);
    else
        max_unpool2d(pool, y, switches, map, stream);
    conv_transpose2d<Math>(shape, map, w, x, conv::after_map<T>(shape, workspace), stream);
}

template <class Math>
std::size_t unpool_conv2d_weight_grad_workspace(const ConvShape& shape, const PoolShape& pool) {
    using T = Element<Math>;
    check_block(shape, pool);
    if (conv::reads_through_switches<Math>(shape, pool))
        return conv::weight_grad_workspace<Math>(conv::unpool_wgrad_problem<Math>(shape, pool));
    return conv::map_bytes<T>(shape) + conv2d_weight_grad_workspace<Math>(shape);
}

template <class Math>
void unpool_conv2d_weight_grad(const ConvShape& shape, const PoolShape& pool,
                               const Element<Math>* x, const Element<Math>* dy,
                               const std::uint8_t* switches, float* dw, void* workspace,
                               Stream stream) {
    using T = Element<Math>;
    if (conv::reads_through_switches<Math>(shape, pool)) {
        const bool wide =
            conv::is_wide(shape.k, dy) && aligned_for_vectors<kVectorWidth<T>>(switches);
        conv::weight_grad<Math, conv::UnpooledPixels>(conv::unpool_wgrad_problem<Math>(shape, pool),
                                                      x, conv::UnpooledMap<T>(pool, dy, switches),
                                                      wide, dw, workspace, stream);
        return;
    }
    T* const map = static_cast<T*>(workspace);
    max_unpool2d(pool, dy, switches, map, stream);
    conv2d_weight_grad<Math>(shape, x, map, dw, conv::after_map<T>(shape, workspace), stream);
}

}  // namespace zfcuda
