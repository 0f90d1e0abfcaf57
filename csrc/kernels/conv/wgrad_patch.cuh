// Weight gradient of few channels: by patches of the image in shared memory (image_patch.cuh).
//
//   dw[k, (chunk, element)] = sum over pixels of dy[pixel, k] * the pixel's window of x
//
// Cut. A block computes kRows filters by kCols columns, each an element of a window's chunk, over
// some regions of up to kRegion pixels of the map. It fills a region's patch of x, then multiplies
// k-tiles of its pixels, of which dy comes by cp.async. Splits are runs of regions; splits.cu adds
// their sums in a fixed order.
//
// In float32 a thread has some chunks of a window, and multiplies of their elements those that are
// channels: of three nothing is padded. It takes kGroup neighbouring pixels of a line, whose windows
// begin in neighbouring slots: the addresses of one pixel's chunks serve them all.
//
// Bound: filters x columns x pixels FMAs; a warp of 48 x 56 reads 13 matrices for 21 instructions of
// mma.sync; a thread of 6 filters and 7 chunks of three channels makes 9 loads for 126 FMAs. dy is
// read once a tile of columns, 2 * kRows bytes a pixel (bfloat16), x about once.
#pragma once

#include "image_patch.cuh"
#include "product.h"
#include "tiles.cuh"

namespace zfcuda::conv {

// ---- The tile -----------------------------------------------------------------------------------

// Of Rows x Cols results, which multiplies Elements of each chunk; regions of up to Region pixels,
// multiplied in groups of Group; Pitch: of a pixel in a stage, so that nothing conflicts.
template <class Math_, int Rows, int Cols, int Elements, int Region, int Group, int Pitch,
          int Stages, int MinBlocks>
struct WgradImageTileSizes {
    using Math = Math_;
    using Element = typename Math::Element;
    using Patch = ImagePatch<Math>;
    static constexpr MainLoop kMainLoop = MainLoop::kPatch;
    static constexpr int kRows = Rows, kCols = Cols;
    static constexpr int kElements = Elements;
    static constexpr int kRegion = Region;
    static constexpr int kDepth = kRegion;                // that of a split's unit
    static constexpr int kPixels = 64 / sizeof(Element);  // of a k-tile
    static constexpr int kGroup = Group;
    static constexpr int kPitch = Pitch;
    static constexpr int kStage = kPixels * kPitch;  // elements: dy
    static constexpr int kStages = Stages;
    static constexpr int kMinBlocks = MinBlocks;

    // Shared memory: where the region's pixels lie in dy, where the windows of their groups begin in
    // the patch, the patch, and the stages.
    static std::size_t shared_bytes(const Patch& patch) {
        return sizeof(int) * (kRegion + kRegion / kGroup) +
               16 * static_cast<std::size_t>(patch.slots) + sizeof(Element) * kStages * kStage;
    }
};

template <class Tile>
class PixelMmaProduct;
template <class Tile>
class PixelFfmaProduct;

// Tensor cores: WarpsM x WarpsN warps of WarpRows x WarpCols results each.
template <class Math, int WarpsM, int WarpsN, int WarpRows, int WarpCols, int Stages, int MinBlocks>
struct WgradImageTile
    : WgradImageTileSizes<Math, WarpsM * WarpRows, WarpsN * WarpCols, ImagePatch<Math>::kChunk, 512,
                          1, WarpsM * WarpRows + 8, Stages, MinBlocks> {
    static_assert(WarpRows % 16 == 0 && WarpCols % 8 == 0);
    static constexpr int kWarpsN = WarpsN, kWarpRows = WarpRows, kWarpCols = WarpCols;
    static constexpr int kThreads = WarpsM * WarpsN * kWarp;
    static constexpr double kEfficiency = 0.8;

    static constexpr double kAloneCost = 1;

    using Product = PixelMmaProduct<WgradImageTile>;
    using Accumulators = float[WarpRows / 16][WarpCols / 8][4];
};

// FMA instructions: Warps warps side by side, each of 16 x 2 lanes with ThreadM filters and Chunks
// chunks each. Smaller regions leave room for two blocks in 100 KB.
template <int Warps, int ThreadM, int Chunks, int Elements, int Stages, int MinBlocks>
struct FfmaWgradImageTile : WgradImageTileSizes<Fp32, 16 * ThreadM, Warps * 2 * Chunks * Elements,
                                                Elements, 256, 4, 16 * ThreadM, Stages, MinBlocks> {
    static constexpr int kLanesM = 16;
    static constexpr int kThreadM = ThreadM, kChunks = Chunks;
    static constexpr int kThreads = Warps * kWarp;
    static constexpr double kEfficiency = 1.0;
    // Of a block whose warps an SM has alone, where nothing hides the filling of the patch: a guess.
    static constexpr double kAloneCost = 1.5;

    using Product = PixelFfmaProduct<FfmaWgradImageTile>;
    using Accumulators = float[ThreadM][Chunks * Elements];
};

template <class Math>
struct WgradImageTiles {
    using List = TileList<1, 1, WgradImageTile<Math, 2, 2, 48, 56, 3, 3>,
                          WgradImageTile<Math, 2, 2, 32, 56, 3, 4>>;
};
template <>
struct WgradImageTiles<Fp32> {
    using List =
        TileList<1, 1, FfmaWgradImageTile<4, 6, 7, 3, 3, 2>, FfmaWgradImageTile<4, 4, 7, 3, 3, 3>,
                 FfmaWgradImageTile<4, 4, 7, 4, 3, 2>>;
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
        if (!may_multiply<Tile>(shape.c)) return;
        const int filled = ImagePatch<Math>::shifts_of(shape) * Tile::kGroup;  // whole groups
        const auto tiling = make_tiling<RegionShape<Tile>>(pixels, filled);
        if (Tile::kGroup > 1 && tiling->region_w < filled) return;  // fewer pixels than a group has
        const ImagePatch<Math> patch(shape, tiling->region_h,
                                     divide_up(tiling->region_w, filled) * filled);
        const std::int64_t depth = std::int64_t{count_regions(pixels, *tiling)} * Tile::kRegion;
        if (Tile::shared_bytes(patch) > simt::max_shared_bytes() || depth > shapes::kMaxElements)
            return;
        Product product = wgrad_product<Math>(shape);
        product.cols = patch.chunks * Tile::kElements;
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
    plan.cost = (on_sm > 1 ? 1 : Tile::kAloneCost) *
                    tile_cost<Tile>(1.0 * tiles * plan.splits, plan.k_tiles_per_split) +
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
