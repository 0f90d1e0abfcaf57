// Whether the weight gradient of a block is unpooled while it is read.
//
// That of a first layer reads each pixel of dy once per tile of dw's columns, that is once or
// twice: there dy is gathered through the switches (unpooled_map.cuh) and no map exists. A gather
// costs some 17 instructions a value, though, and other layers read each pixel 9 to 20 times: there
// one pass writes the map, and the product copies it asynchronously. `kMaxGathers` is where the one
// becomes dearer than the other.
#pragma once

#include "plan.h"
#include "tiles.cuh"
#include "unpooled_map.cuh"

namespace zfcuda::conv {

// 17 instructions on 132 SMs x 128 lanes x 1.7 GHz take 0.6 ps a value; writing and reading it, 8
// bytes at 4.3 TB/s, 1.9 ps.
constexpr int kMaxGathers = 3;

// Whether gathering costs less than a map.
template <class Math>
bool should_read_through_switches(const ConvShape& shape, const PoolShape& pool) {
    if (!shape.is_dense()) return false;
    int gathers = 0;
    const bool vector_x = shape.c % kVectorWidth<Element<Math>> == 0;
    with_list(typename Tiles<Math>::Wgrad{}, true, vector_x, [&](auto tiles) {
        const Product product = wgrad_product<Math>(shape);
        gathers = divide_up(product.cols, cheapest_plan(tiles, product).kernel.cols);
    });
    return has_small_cover(pool) && gathers <= kMaxGathers;
}

// As a tuner has chosen, else where it costs less.
template <class Math>
bool reads_through_switches(const ConvShape& shape, const PoolShape& pool) {
    if (const auto choice = tuned_choice(unpool_wgrad_product<Math>(shape, pool).problem))
        return choice->kernel.has_value();
    return should_read_through_switches<Math>(shape, pool);
}

}  // namespace zfcuda::conv
