// Convolution, forward, of few channels: by a patch of the image in shared memory (image_patch.cuh).
//
// The map is cut as that of a block whose pool has windows of one pixel.
#pragma once

#include "epilogue.cuh"
#include "image_patch.cuh"
#include "tiles.cuh"

namespace zfcuda::conv {

// The cheapest plan of this kernel; none where that of fprop.cuh is cheaper.
template <class Math>
std::optional<Plan> cheapest_fprop_patch_plan(const ConvShape& shape) {
    if (!shape.is_dense()) return std::nullopt;
    const PoolShape pixels = pool_of_pixels(shape);
    double least = 0;
    with_list(typename Tiles<Math>::Fprop{}, shape.c % kVectorWidth<Element<Math>> == 0, true,
              [&](auto tiles) {
                  least = copy_cost<Math>(shape) *
                          cheapest_plan(tiles, fprop_product<Math>(shape)).cost;
              });
    std::optional<Plan> best;
    for_each_image_tile<Math>(shape, pixels, [&](auto tile, const auto& tiling, const auto& patch) {
        using Tile = decltype(tile);
        const Plan plan = plan_image_tile<Tile>(pixels, tiling, patch, Tile::shared_bytes(patch));
        if (plan.cost >= least) return;
        least = plan.cost;
        best = plan;
    });
    return best;
}

// The plan that holds: a tuner's, else the cheapest; none where it is one of fprop.cuh.
template <class Math>
std::optional<Plan> fprop_patch_plan(const ConvShape& shape) {
    const auto choice = tuned_choice(fprop_product<Math>(shape).problem);
    if (!choice) return cheapest_fprop_patch_plan<Math>(shape);
    const PoolShape pixels = pool_of_pixels(shape);
    std::optional<Plan> found;
    for_each_image_tile<Math>(shape, pixels, [&](auto tile, const auto& tiling, const auto& patch) {
        using Tile = decltype(tile);
        const Plan plan = plan_image_tile<Tile>(pixels, tiling, patch, Tile::shared_bytes(patch));
        if (choice->kernel == plan.kernel) found = plan;
    });
    return found;
}

// Bytes for the filters. Defined in fprop_patch.cu, as is what follows.
template <class Math>
std::size_t fprop_patch_workspace(const ConvShape& shape, const Plan& plan);

// y = conv2d(x, w), and what the epilogue says. Arrays may lie anywhere.
template <class Math>
void fprop_patch(const ConvShape& shape, const Plan& plan, const Element<Math>* x,
                 const Element<Math>* w, const Epilogue<Element<Math>>& epilogue, Element<Math>* y,
                 void* workspace, Stream stream);

}  // namespace zfcuda::conv
