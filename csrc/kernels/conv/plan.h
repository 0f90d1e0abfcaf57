// The table of tiles for the convolution kernels, and the choice among them.
//
// A matrix product of rows x cols x depth is cut into tiles of its result and, where those are too
// few to fill the GPU, its depth is cut into splits whose sums a second kernel adds in order. The
// plan, and with it the last bits of a result, depends on the shape and on the GPU's number of SMs;
// that of a fused block (block_fprop.cuh) also on how much shared memory a launch may ask for. Only
// where a tuner has timed the problem and found a better plan (tuned_plans.h), that one holds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "main_loop.cuh"
#include "shapes.h"
#include "tuned_plans.h"

namespace zfcuda::conv {

template <class... Tiles>
struct TileList {};

// The table: for each precision and operation the tiles to choose from, and what arithmetic costs
// beside memory. An operation has up to three lists: where all operands can be copied 16 bytes at a
// time; where the filters or images of a first layer cannot (`First`); and where none can
// (`Narrow`).
template <class Math>
struct Tiles;

// Exact float32, by FMA instructions.
template <>
struct Tiles<Fp32> {
    //                           warps lanes sums stages blocks on an SM
    using Tile128x128 = FfmaTile<2, 4, 8, 4, 8, 8, 3, 2>;
    using Tile128x96 = FfmaTile<2, 3, 8, 4, 8, 8, 3, 2>;  // 96 filters
    using Tile128x64 = FfmaTile<2, 2, 8, 4, 8, 8, 3, 3>;
    using Tile64x32 = FfmaTile<2, 2, 8, 4, 4, 4, 4, 4>;   // small problems
    using Tile256x96 = FfmaTile<4, 3, 8, 4, 8, 8, 3, 1>;  // whole windows of many pixels
    using Tile256x4 = FfmaTile<2, 1, 32, 1, 4, 4, 3, 4>;  // 1 to 4 columns
    using Tile96x160 = FfmaTile<3, 5, 4, 8, 8, 4, 3, 1>;  // 96 filters of 7 x 7 x 3

    using Fprop = TileList<Tile128x128, Tile128x96, Tile128x64, Tile64x32>;
    using FpropNarrow = Fprop;
    // No tile of 128 x 128: the state of its operands would not fit beside 64 sums and two blocks
    // on an SM.
    using Dgrad = TileList<Tile128x96, Tile128x64, Tile64x32, Tile256x4>;
    using DgradFirst = Dgrad;
    using DgradNarrow = Dgrad;
    using Wgrad = TileList<Tile128x128, Tile96x160, Tile64x32>;
    using WgradFirst = Wgrad;
    using WgradNarrow = Wgrad;
    using Block = TileList<Tile256x96, Tile128x64>;

    // FMAs that a GPU could do in the time that it moves a byte: 30e12 / 4.3e12 on an H200.
    static constexpr double kFmasPerByte = 7;
    static constexpr Precision kPrecision = Precision::kFp32;
};

// Tensor cores: the same tiles for tf32 and bfloat16.
template <class Math>
struct TensorTiles {
    //                                warps  sums of a warp, stages, blocks on an SM
    using Tile128x128 = MmaTile<Math, 2, 2, 64, 64, 4, 2>;
    using Tile128x96 = MmaTile<Math, 4, 1, 32, 96, 4, 2>;  // 96 filters
    using Tile128x64 = MmaTile<Math, 2, 2, 64, 32, 4, 3>;
    using Tile64x64 = MmaTile<Math, 2, 2, 32, 32, 4, 3>;   // small problems
    using Tile128x32 = MmaTile<Math, 4, 1, 32, 32, 4, 4>;  // few columns
    using Tile256x96 = MmaTile<Math, 4, 3, 64, 32, 3, 1>;  // whole windows of many pixels
    using Tile96x160 = MmaTile<Math, 3, 5, 32, 32, 3, 1>;  // 96 filters of 7 x 7 x 3

    using Fprop = TileList<Tile128x128, Tile128x96, Tile128x64, Tile64x64>;
    using FpropNarrow = TileList<Tile128x96, Tile64x64>;
    using Dgrad = TileList<Tile128x128, Tile128x96, Tile64x64>;
    using DgradFirst = TileList<Tile128x32, Tile64x64>;
    using DgradNarrow = TileList<Tile64x64>;
    using Wgrad = TileList<Tile128x128, Tile64x64>;
    using WgradFirst = TileList<Tile96x160, Tile64x64>;
    using WgradNarrow = TileList<Tile64x64>;
    using Block = TileList<Tile256x96, Tile128x64>;
};

// mma.sync does about 0.6 of what these tensor cores can: 150e12 tf32 and 300e12 bfloat16 FMAs a
// second on an H200, which moves 4.3e12 bytes.
template <>
struct Tiles<Tf32> : TensorTiles<Tf32> {
    static constexpr double kFmasPerByte = 35;
    static constexpr Precision kPrecision = Precision::kTf32;
};
template <>
struct Tiles<Bf16> : TensorTiles<Bf16> {
    static constexpr double kFmasPerByte = 70;
    static constexpr Precision kPrecision = Precision::kBf16;
};

// The lists for operands of which some can be copied 16 bytes at a time: calls use(list, width...)
// with the width of each operand's copies, in elements.
template <class Math>
constexpr std::integral_constant<int, kVectorWidth<Element<Math>>> kWide{};
constexpr std::integral_constant<int, 1> kNarrow{};

template <class Math, class Use>
void with_fprop_tiles(bool wide, Use use) {
    if (wide)
        use(typename Tiles<Math>::Fprop{}, kWide<Math>);
    else
        use(typename Tiles<Math>::FpropNarrow{}, kNarrow);
}

template <class Math, class Use>
void with_dgrad_tiles(bool wide_y, bool wide_w, Use use) {
    if (wide_y && wide_w)
        use(typename Tiles<Math>::Dgrad{}, kWide<Math>, kWide<Math>);
    else if (wide_y)
        use(typename Tiles<Math>::DgradFirst{}, kWide<Math>, kNarrow);
    else
        use(typename Tiles<Math>::DgradNarrow{}, kNarrow, kNarrow);
}

template <class Math, class Use>
void with_wgrad_tiles(bool wide_dy, bool wide_x, Use use) {
    if (wide_dy && wide_x)
        use(typename Tiles<Math>::Wgrad{}, kWide<Math>, kWide<Math>);
    else if (wide_dy)
        use(typename Tiles<Math>::WgradFirst{}, kWide<Math>, kNarrow);
    else
        use(typename Tiles<Math>::WgradNarrow{}, kNarrow, kNarrow);
}

// The part of the depth that this block sums: split number blockIdx.y.
struct DepthRange {
    int first, slices;

    __device__ DepthRange(int depth, int slice_depth, int slices_per_split) {
        const int first_slice = static_cast<int>(blockIdx.y) * slices_per_split;
        first = first_slice * slice_depth;
        slices = max(0, min(slices_per_split, divide_up(depth, slice_depth) - first_slice));
    }
};

// The size of the matrix products of an operation: `batches` of rows x cols x depth.
struct ProductSize {
    int batches, rows, cols, depth;
};

// How a product is run: with which tile of its list, and how its depth is split.
struct Plan {
    int tile;              // index into the list; -1: not with a kernel of its own
    int splits;            // at least 1
    int slices_per_split;  // of Tile::kDepth
    double cost;           // work of the busiest SM, in FMAs at full rate
};

// A split below this many slices is not worth its second pass.
constexpr int kMinSlicesPerSplit = 8;

// Work of the busiest SM.
template <class Tile>
double tile_cost(double blocks, int slices) {
    return std::ceil(blocks / simt::multiprocessors()) * Tile::kRows * Tile::kCols * Tile::kDepth *
           slices / Tile::kEfficiency;
}

template <class Tile>
double count_blocks(const ProductSize& size) {
    return 1.0 * size.batches * divide_up(size.rows, Tile::kRows) *
           divide_up(size.cols, Tile::kCols);
}

// The plan with a tile and this many splits, or fewer where that would leave some empty.
template <class Tile>
Plan plan_splits(int tile, const ProductSize& size, int splits) {
    const int slices = divide_up(size.depth, Tile::kDepth);
    const int per_split = divide_up(slices, std::max(1, std::min(splits, slices)));
    splits = std::max(1, divide_up(slices, std::max(1, per_split)));
    return {tile, splits, per_split, tile_cost<Tile>(count_blocks<Tile>(size) * splits, per_split)};
}

// The plan with a tile, and as many splits as fill the GPU.
template <class Tile>
Plan plan_tile(int tile, const ProductSize& size) {
    const double blocks = count_blocks<Tile>(size);
    const int slots = simt::multiprocessors() * Tile::kMinBlocks;
    int splits = 1;
    if (blocks * 2 <= slots) {
        const int slices = divide_up(size.depth, Tile::kDepth);
        splits = std::min(static_cast<int>(slots / blocks), slices / kMinSlicesPerSplit);
    }
    return plan_splits<Tile>(tile, size, splits);
}

// Calls use(Tile{}, index) for each tile of the list.
template <class... Tiles, class Use>
void for_each_tile(TileList<Tiles...>, Use use) {
    int index = 0;
    (use(Tiles{}, index++), ...);
}

// Calls run(Tile{}) for the tile of the plan.
template <class List, class Run>
void with_tile(List tiles, const Plan& plan, Run run) {
    for_each_tile(tiles, [&](auto tile, int index) {
        if (index == plan.tile) run(tile);
    });
}

// The cheapest plan with a tile of the list.
template <class List>
Plan cheapest_plan(List tiles, const ProductSize& size) {
    Plan best{};
    for_each_tile(tiles, [&](auto tile, int index) {
        const Plan plan = plan_tile<decltype(tile)>(index, size);
        if (index == 0 || plan.cost < best.cost) best = plan;
    });
    return best;
}

template <class Tile>
bool is_chosen(const Choice& choice) {
    return Tile::kRows == choice.rows && Tile::kCols == choice.cols;
}

// The plan that holds: the tuned one, if the list has its tile, else the cheapest.
template <class List>
Plan make_plan(List tiles, const Problem& problem, const ProductSize& size) {
    Plan plan = cheapest_plan(tiles, size);
    if (const auto choice = tuned_choice(problem)) {
        for_each_tile(tiles, [&](auto tile, int index) {
            using Tile = decltype(tile);
            if (is_chosen<Tile>(*choice)) plan = plan_splits<Tile>(index, size, choice->splits);
        });
    }
    return plan;
}

// Bytes for the partial sums of a plan, none if there is but one split; of several, the most.
inline std::size_t partial_sums_bytes(std::initializer_list<Plan> plans, std::size_t size) {
    std::size_t bytes = 0;
    for (const Plan& plan : plans)
        if (plan.splits > 1) bytes = std::max(bytes, sizeof(float) * plan.splits * size);
    return bytes;
}

// y[i] = act(sum over splits of partial[split][i] + bias[i % cols]), in the order of the splits.
// Defined in splits.cu, for float and BFloat16.
template <class T>
void add_splits(int splits, std::int64_t size, int cols, const float* partial,
                const Epilogue& epilogue, T* y, void* stream);

}  // namespace zfcuda::conv
