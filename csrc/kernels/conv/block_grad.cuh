// Whether the weight gradient of a block is unpooled while it is read.
//
// That of a first layer reads each pixel of dy once per tile of dw's columns, that is once or
// twice: there dy is made from the switches (unpooled_map.cuh) and no map exists. That costs some
// 7 instructions a value, though, and other layers read each pixel 9 to 20 times: there one pass
// writes the map, and the product copies it asynchronously. `kMaxGathers` is where the one becomes
// dearer than the other. A product that reads patches of the image (wgrad_patch.cuh) has so little
// to do besides that a map is always cheaper. Pools of other windows and strides have one, too.
#pragma once

#include "plan.h"
#include "tiles.cuh"
#include "unpooled_map.cuh"
#include "wgrad_patch.cuh"

namespace zfcuda::conv {

// 7 instructions on 132 SMs x 128 lanes x 1.7 GHz take 0.25 ps a value; writing and reading it, 8
// bytes at 4.3 TB/s, 1.9 ps.
constexpr int kMaxGathers = 7;

// The weight gradient's product over quads of pixels; only of pools that these serve.
template <class Math>
Product unpool_wgrad_product(const ConvShape& s, const PoolShape& pool) {
    Product product = wgrad_product<Math>(s);
    product.problem.operation = Operation::kUnpoolConv2dWeightGrad;
    product.problem.pool = pool;
    product.depth = static_cast<int>(QuadIndex(pool).size(s.n));
    return product;
}

inline bool can_read_through_switches(const ConvShape& shape, const PoolShape& pool) {
    return shape.is_dense() && can_read_through_switches(pool);
}

// Whether gathering costs less than a map.
template <class Math>
bool should_read_through_switches(const ConvShape& shape, const PoolShape& pool) {
    if (!can_read_through_switches(shape, pool) || cheapest_wgrad_patch_plan<Math>(shape))
        return false;
    int gathers = 0;
    const bool vector_x = shape.c % kVectorWidth<Element<Math>> == 0;
    with_list(typename Tiles<Math>::UnpoolWgrad{}, true, vector_x, [&](auto tiles) {
        const Product product = unpool_wgrad_product<Math>(shape, pool);
        gathers = divide_up(product.cols, cheapest_plan(tiles, product).kernel.cols);
    });
    return gathers <= kMaxGathers;
}

// As a tuner has chosen, else where it costs less.
template <class Math>
bool reads_through_switches(const ConvShape& shape, const PoolShape& pool) {
    if (!can_read_through_switches(shape, pool)) return false;
    if (const auto choice = tuned_choice(unpool_wgrad_product<Math>(shape, pool).problem))
        return choice->kernel.has_value();
    return should_read_through_switches<Math>(shape, pool);
}

}  // namespace zfcuda::conv
