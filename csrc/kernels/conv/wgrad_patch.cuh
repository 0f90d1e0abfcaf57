// Weight gradient of few channels: by patches of the image in shared memory (image_patch.cuh).
//
//   dw[k, (chunk, element)] = sum over pixels of dy[pixel, k] * the pixel's window of x
//
// Cut. A block computes kRows filters by kCols columns, each an element of a window's chunk, over
// some regions of up to kRegion pixels of the map. It fills a region's patch of x, then multiplies
// k-tiles of its pixels, of which dy comes by cp.async. Splits are runs of regions; splits.cu adds
// their sums in a fixed order.
// Bound: filters x columns x pixels FMAs; a warp of 48 x 56 reads 13 matrices for 21 instructions of
// mma.sync. dy is read once a tile of columns, 2 * kRows bytes a pixel (bfloat16), x about once.
#pragma once

#include "image_patch.cuh"
#include "product.h"
#include "tiles.cuh"

namespace zfcuda::conv {

// ---- The tile -----------------------------------------------------------------------------------

// WarpsM x WarpsN warps of WarpRows x WarpCols results each.
template <class Math_, int WarpsM, int WarpsN, int WarpRows, int WarpCols, int Stages,
          int MinBlocks>
struct WgradImageTile {
    static_assert(WarpRows % 16 == 0 && WarpCols % 8 == 0);
    using Math = Math_;
    using Element = typename Math::Element;
    using Patch = ImagePatch<Math>;
    static constexpr MainLoop kMainLoop = MainLoop::kPatch;
    static constexpr int kWarpsN = WarpsN, kWarpRows = WarpRows, kWarpCols = WarpCols;
    static constexpr int kRows = WarpsM * WarpRows, kCols = WarpsN * WarpCols;
    static constexpr int kRegion = 512;                   // pixels
    static constexpr int kDepth = kRegion;                // that of a split's unit
    static constexpr int kPixels = 64 / sizeof(Element);  // of a k-tile: two steps
    static constexpr int kPitch = kRows + 8;              // of a pixel in a stage: no conflicts
    static constexpr int kStage = kPixels * kPitch;       // elements: dy
    static constexpr int kStages = Stages;
    static constexpr int kThreads = WarpsM * WarpsN * kWarp;
    static constexpr int kMinBlocks = MinBlocks;
    static constexpr double kEfficiency = 0.8;

    // Shared memory: where the region's pixels lie in dy, where their windows begin in the patch, the
    // patch, and the stages.
    static std::size_t shared_bytes(const Patch& patch) {
        return 2 * sizeof(int) * kRegion + 16 * static_cast<std::size_t>(patch.slots) +
               sizeof(Element) * kStages * kStage;
    }
};

template <class Math>
struct WgradImageTiles {
    using List = TileList<1, 1, WgradImageTile<Math, 2, 2, 48, 56, 3, 3>,
                          WgradImageTile<Math, 2, 2, 32, 56, 3, 4>>;
};
template <>
struct WgradImageTiles<Fp32> {
    using List = TileList<1, 1>;
};

// ---- Plans --------------------------------------------------------------------------------------

// How a map is cut into regions: one tile of columns.
template <class Tile>
struct RegionShape {
    static constexpr int kRows = Tile::kRegion, kCols = 1 << 30;
};

// Calls use(tile, product, tiling, patch) for each tile that the shape allows. The product's columns
// and depth are those of patches.
template <class Math, class Use>
void for_each_wgrad_image_tile(const ConvShape& shape, Use use) {
    if (!may_have_patch(shape) || shape.k % kVectorWidth<Element<Math>> != 0) return;
    const PoolShape pixels = pool_of_pixels(shape);
    for_each_tile(typename WgradImageTiles<Math>::List{}, [&](auto tile) {
        using Tile = decltype(tile);
        const auto tiling =
            make_tiling<RegionShape<Tile>>(pixels, ImagePatch<Math>::shifts_of(shape));
        const ImagePatch<Math> patch(shape, tiling->region_h, tiling->region_w);
        const std::int64_t depth = std::int64_t{count_regions(pixels, *tiling)} * Tile::kRegion;
        if (Tile::shared_bytes(patch) > simt::max_shared_bytes() || depth > shapes::kMaxElements)
            return;
        Product product = wgrad_product<Math>(shape);
        product.cols = patch.chunks * ImagePatch<Math>::kChunk;
        product.depth = static_cast<int>(depth);
        use(tile, product, *tiling, patch);
    });
}

// Blocks begin and end with a k-tile, not with a region.
template <class Tile>
struct OfKTiles : Tile {
    static constexpr int kDepth = Tile::kPixels;
};

// The plan with a tile and this many splits; with none given, as many as fill the GPU.
template <class Tile>
Plan plan_wgrad_patch(const Product& product, const typename Tile::Patch& patch,
                      std::optional<int> splits = std::nullopt) {
    const int on_sm = blocks_on_sm<Tile>(Tile::shared_bytes(patch));
    const int slots = simt::multiprocessors() * on_sm;
    const int tiles = count_tiles<Tile>(product);
    const int filling = tiles * 2 <= slots ? slots / tiles : 1;
    Plan plan = plan_parts<Tile>(product, 0, splits.value_or(filling), on_sm);
    plan.cost = tile_cost<Tile>(1.0 * tiles * plan.splits, plan.k_tiles_per_split) +
                split_cost<OfKTiles<Tile>>(product, plan, on_sm);
    return plan;
}

// The cheapest plan of this kernel; none where that of wgrad.cuh is cheaper.
template <class Math>
std::optional<Plan> cheapest_wgrad_patch_plan(const ConvShape& shape) {
    constexpr int kWidth = kVectorWidth<Element<Math>>;
    double least = 0;
    with_list(typename Tiles<Math>::Wgrad{}, true, shape.group_c() % kWidth == 0, [&](auto tiles) {
        least = copy_cost<Math>(shape) * cheapest_plan(tiles, wgrad_product<Math>(shape)).cost;
    });
    std::optional<Plan> best;
    for_each_wgrad_image_tile<Math>(
        shape, [&](auto tile, const Product& product, const auto&, const auto& patch) {
            const Plan plan = plan_wgrad_patch<decltype(tile)>(product, patch);
            if (plan.cost >= least) return;
            least = plan.cost;
            best = plan;
        });
    return best;
}

// The plan that holds: a tuner's, else the cheapest; none where it is one of wgrad.cuh.
template <class Math>
std::optional<Plan> wgrad_patch_plan(const ConvShape& shape) {
    const auto choice = tuned_choice(wgrad_product<Math>(shape).problem);
    if (!choice) return cheapest_wgrad_patch_plan<Math>(shape);
    std::optional<Plan> found;
    for_each_wgrad_image_tile<Math>(
        shape, [&](auto tile, const Product& product, const auto&, const auto& patch) {
            using Tile = decltype(tile);
            if (choice->kernel == kKernel<Tile>)
                found = plan_wgrad_patch<Tile>(product, patch, choice->splits);
        });
    return found;
}

// ---- Launch -------------------------------------------------------------------------------------

// Bytes for the partial sums. Defined in wgrad_patch.cu, as is what follows.
template <class Math>
std::size_t wgrad_patch_workspace(const ConvShape& shape, const Plan& plan);

// dw = conv2d_weight_grad(x, dy). `dy` must be aligned for 16 bytes.
template <class Math>
void wgrad_patch(const ConvShape& shape, const Plan& plan, const Element<Math>* x,
                 const Element<Math>* dy, float* dw, void* workspace, Stream stream);

}  // namespace zfcuda::conv
