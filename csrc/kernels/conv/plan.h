// The choice among the tiles of an operation, and how the depth of its product is split.
//
// A matrix product of rows x cols x depth is cut into tiles of its result. One tile an SM is a wave of
// them. Those of full waves are computed whole; the others, which would leave SMs idle, have their
// depth cut into splits whose sums a second kernel adds in order. (To split tiles of full waves, too,
// would fill no more: of s splits each full wave becomes s full waves.) The plan, and with it the last
// bits of a result, depends on the shape, on the GPU's number of SMs and on the shared memory that
// each has. Only where a tuner has timed the problem and found a better plan (tuned_plans.h), that one
// holds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <type_traits>

#include "product.h"
#include "simt/simt.h"
#include "tma_windows.h"
#include "tuned_plans.h"
#include "wgmma_use.h"

namespace zfcuda::conv {

// ---- Lists of tiles -----------------------------------------------------------------------------

// Tiles to choose from where operand A is copied WidthA elements at a time, and B WidthB.
template <int WidthA, int WidthB, class... Tiles>
struct TileList {
    static constexpr std::integral_constant<int, WidthA> kWidthA{};
    static constexpr std::integral_constant<int, WidthB> kWidthB{};
};

// What an operation has for operands of which all, some or none can be copied 16 bytes at a time.
template <class... Lists>
struct TileLists {};

// Calls use(tile) for each tile of the list.
template <int WidthA, int WidthB, class... Tiles, class Use>
void for_each_tile(TileList<WidthA, WidthB, Tiles...>, [[maybe_unused]] Use use) {
    (use(Tiles{}), ...);
}

// Calls use(list) for each list.
template <class... Lists, class Use>
void for_each_list(TileLists<Lists...>, Use use) {
    (use(Lists{}), ...);
}

// Calls use(list) for the first list that the operands allow; `vector_a`, `vector_b`: they can be
// copied 16 bytes at a time.
template <class List, class... Others, class Use>
void with_list(TileLists<List, Others...>, bool vector_a, bool vector_b, Use use) {
    if constexpr (sizeof...(Others) > 0) {
        const bool allowed = (vector_a || List::kWidthA == 1) && (vector_b || List::kWidthB == 1);
        if (!allowed) return with_list(TileLists<Others...>{}, vector_a, vector_b, use);
    }
    use(List{});
}

template <class Tile>
constexpr Kernel kKernel{Tile::kMainLoop, Tile::kRows, Tile::kCols};

// Calls run(tile) for the tile of this kernel, if the list has it.
template <class List, class Run>
void with_tile(List tiles, const Kernel& kernel, Run run) {
    for_each_tile(tiles, [&](auto tile) {
        if (kKernel<decltype(tile)> == kernel) run(tile);
    });
}

// Whether the kernel of a tile is one of compute capability 9.0 alone.
template <class Tile>
constexpr bool kIsWgmma = Tile::kMainLoop == MainLoop::kWgmma || Tile::kMainLoop == MainLoop::kTma;

// Whether the kernel of a tile can serve a problem.
template <class Tile>
bool serves(const Problem& problem) {
    return Tile::kMainLoop != MainLoop::kTma || can_use_tma(problem);
}

// Of the whole depth, and the columns that tiles are cut from, with those that fill up.
template <class Tile>
int count_k_tiles(const Product& product) {
    if constexpr (Tile::kMainLoop == MainLoop::kTma) {
        if (!windows_are_depth(product.problem)) return tma_windows(product.problem).k_tiles();
    }
    return divide_up(product.depth, Tile::kDepth);
}
template <class Tile>
int count_cols(const Product& product) {
    if constexpr (Tile::kMainLoop == MainLoop::kTma) {
        if (windows_are_depth(product.problem)) return tma_windows(product.problem).cols();
    }
    return product.cols;
}

// ---- Plans --------------------------------------------------------------------------------------

struct Plan {
    Kernel kernel;
    int tiles;              // of the result
    int whole;              // so many of these, the first ones, are not split
    int splits;             // of each of the others; 1 where there are none
    int k_tiles_per_split;  // of Tile::kDepth
    double cost;            // work of the busiest SM, in FMAs at full rate

    int split_tiles() const { return tiles - whole; }
};

// A split below this many k-tiles is not worth its second pass.
constexpr int kMinKTilesPerSplit = 8;

// K-tiles that a block's beginning and end take as long as, unless other blocks hide them: a guess.
constexpr double kBlockKTiles = 4;

// Waves of blocks, one an SM, that splits are tried for, at most.
constexpr int kMostWaves = 8;

// FMAs that a GPU could do in the time that it moves a byte: of 30e12 a second, and on tensor cores,
// of which mma.sync uses about 0.6, 150e12 (tf32) and 300e12 (bfloat16); an H200 moves 4.3e12 bytes.
constexpr double fmas_per_byte(Precision precision) {
    return precision == Precision::kFp32 ? 7 : precision == Precision::kTf32 ? 35 : 70;
}

// Work of the busiest SM.
template <class Tile>
double tile_cost(double blocks, int k_tiles) {
    return std::ceil(blocks / simt::multiprocessors()) * Tile::kRows * Tile::kCols * Tile::kDepth *
           k_tiles / Tile::kEfficiency;
}

// Blocks that an SM holds at once: no more than a tile's registers are made for, and no more than find
// room in its shared memory.
template <class Tile>
int blocks_on_sm(std::size_t shared_bytes) {
    const auto room = simt::shared_bytes_of_sm() / (shared_bytes + simt::kReservedBytes);
    return std::clamp(static_cast<int>(room), 1, Tile::kMinBlocks);
}

// The same of the kernels of a product: their stages, and the rows of windows.
constexpr std::size_t kWindowRowBytes = 16;
template <class Tile>
int blocks_on_sm(const Product& product) {
    if constexpr (Tile::kMinBlocks == 1) {
        return 1;
    } else {
        using Element = typename Tile::Element;
        using KMajorA = typename Tile::template KMajor<Tile::kRows>;
        using KMajorB = typename Tile::template KMajor<Tile::kCols>;
        using MNMajorA = typename Tile::template MNMajor<Tile::kRows>;
        using MNMajorB = typename Tile::template MNMajor<Tile::kCols>;
        const Operation operation = product.problem.operation;
        const bool is_fprop = operation == Operation::kConv2d;
        const bool has_rows = is_fprop || operation == Operation::kConvTranspose2d;
        const std::size_t stage = (has_rows ? KMajorA::kSize : MNMajorA::kSize) +
                                  (is_fprop ? KMajorB::kSize : MNMajorB::kSize);
        return blocks_on_sm<Tile>(sizeof(Element) * Tile::kStages * stage +
                                  (has_rows ? kWindowRowBytes * Tile::kRows : 0));
    }
}

// The beginnings and ends of blocks, of which so many are on an SM at once.
template <class Tile>
double begin_cost(double blocks, int on_sm) {
    const double waves = std::ceil(blocks / simt::multiprocessors());
    return waves / std::clamp<double>(waves, 1, on_sm) * kBlockKTiles * Tile::kRows * Tile::kCols *
           Tile::kDepth / Tile::kEfficiency;
}

// What of those a tile's efficiency does not count: fewer blocks than its registers allow hide them.
template <class Tile>
double exposed_cost(double blocks, int on_sm) {
    return begin_cost<Tile>(blocks, on_sm) - begin_cost<Tile>(blocks, Tile::kMinBlocks);
}

template <class Tile>
int count_tiles(const Product& product) {
    return product.batches * divide_up(product.rows, Tile::kRows) *
           divide_up(count_cols<Tile>(product), Tile::kCols);
}

// What there is beyond the product, as work of an SM: beginnings and ends of blocks that nothing
// hides, those of splits, and the second pass.
template <class Tile>
double split_cost(const Product& product, const Plan& plan, int on_sm) {
    const double share = 1.0 * plan.split_tiles() / plan.tiles;
    const double bytes = 4.0 * (plan.splits + 1) * product.size * share;
    return exposed_cost<Tile>(plan.whole, on_sm) +
           begin_cost<Tile>(1.0 * plan.split_tiles() * plan.splits, on_sm) +
           bytes * fmas_per_byte(product.problem.precision) / simt::multiprocessors();
}

// The plan with a tile of which `whole` are not split, and the others so many times, or fewer where
// that would leave splits empty.
template <class Tile>
Plan plan_parts(const Product& product, int whole, int splits, int on_sm) {
    const int k_tiles = count_k_tiles<Tile>(product), tiles = count_tiles<Tile>(product);
    const int most = whole < tiles ? std::min(splits, k_tiles) : 1;
    const int per_split = divide_up(k_tiles, std::max(1, most));
    splits = std::max(1, divide_up(k_tiles, std::max(1, per_split)));
    Plan plan{kKernel<Tile>, tiles, splits > 1 ? whole : tiles, splits, per_split, 0};
    plan.cost = tile_cost<Tile>(plan.whole, k_tiles) +
                tile_cost<Tile>(1.0 * plan.split_tiles() * splits, per_split) +
                split_cost<Tile>(product, plan, on_sm);
    return plan;
}

inline int tiles_of_full_waves(int tiles) {
    return tiles - tiles % simt::multiprocessors();
}

// The plan with a tile and, beyond full waves, so many splits of each.
template <class Tile>
Plan plan_splits(const Product& product, int splits) {
    const int whole = tiles_of_full_waves(count_tiles<Tile>(product));
    return plan_parts<Tile>(product, whole, splits, blocks_on_sm<Tile>(product));
}

// The plan with a tile, and as many splits of those beyond full waves as fill the GPU: where there is
// no full wave its SMs with the blocks that they hold at once or, where more waves of blocks leave
// fewer SMs idle at the end, with those; else with what is cheapest. Beyond full waves of kTma tiles are
// those of the shallowest phases (tma_phases.cuh), which stay whole.
template <class Tile>
Plan plan_tile(const Product& product) {
    const int tiles = count_tiles<Tile>(product), whole = tiles_of_full_waves(tiles);
    const bool shallow = Tile::kMainLoop == MainLoop::kTma && product.batches > 1 && whole > 0;
    if (whole == tiles || shallow) return plan_splits<Tile>(product, 1);
    const int sms = simt::multiprocessors(), k_tiles = count_k_tiles<Tile>(product);
    const auto filling = [&](int waves) {
        return std::min(waves * sms / (tiles - whole), k_tiles / kMinKTilesPerSplit);
    };
    // Of the busiest SM. More splits that leave it as many cost more.
    const auto k_tiles_of_splits = [&](int splits) {
        const int per_split = divide_up(k_tiles, splits);
        return divide_up((tiles - whole) * divide_up(k_tiles, per_split), sms) * per_split;
    };
    Plan best = plan_splits<Tile>(product, whole > 0 ? 1 : filling(blocks_on_sm<Tile>(product)));
    for (int waves = 1; waves <= kMostWaves; ++waves) {
        const int splits = filling(waves);
        if (splits <= best.splits || k_tiles_of_splits(splits) >= k_tiles_of_splits(best.splits))
            continue;
        const Plan plan = plan_splits<Tile>(product, splits);
        if (plan.cost < best.cost) best = plan;
    }
    return best;
}

// The cheapest plan with a tile of the list; with a wgmma tile, if those are asked for and the list
// has any.
template <class List>
Plan cheapest_plan(List tiles, const Product& product) {
    const auto cheapest = [&](bool wgmma) {
        std::optional<Plan> best;
        for_each_tile(tiles, [&](auto tile) {
            if (kIsWgmma<decltype(tile)> != wgmma || !serves<decltype(tile)>(product.problem))
                return;
            const Plan plan = plan_tile<decltype(tile)>(product);
            if (!best || plan.cost < best->cost) best = plan;
        });
        return best;
    };
    if (wgmma_use() == WgmmaUse::kAlways) {
        if (const auto plan = cheapest(true)) return *plan;
    }
    return *cheapest(false);
}

// The plan that holds: the tuned one, if the list has its kernel and it may be used, else the
// cheapest.
template <class List>
Plan make_plan(List tiles, const Product& product) {
    Plan plan = cheapest_plan(tiles, product);
    const auto choice = tuned_choice(product.problem);
    if (choice && choice->kernel) {
        with_tile(tiles, *choice->kernel, [&](auto tile) {
            if (kIsWgmma<decltype(tile)> && wgmma_use() == WgmmaUse::kNever) return;
            plan = plan_splits<decltype(tile)>(product, choice->splits);
        });
    }
    return plan;
}

}  // namespace zfcuda::conv
