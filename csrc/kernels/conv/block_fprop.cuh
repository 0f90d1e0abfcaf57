// A block forward: convolution, bias, ReLU and max pooling with switches, fused.
//
//   map = relu(conv2d(x, w) + b);  y, switches = max_pool2d(map)
//
// A block of threads computes the part of the map that a tile of pooled pixels needs, as the
// forward convolution does (fprop.cuh): its rows are the pixels of that region. The result goes to
// shared memory, over the main loop's stages, and is pooled there: only y and the switches are
// written. Price: regions of neighbouring tiles overlap where windows do, and their pixels
// rarely fill the tile's rows exactly (15 x 17 = 255 pixels of a map yield 7 x 8 pooled ones of 3 x
// 3 stride 2: of 256 rows, 224 count). Gain: the map, 8 bytes a value written and read again, never
// exists. `plan_block` weighs the two; where fusing does not pay, a window does not fit into a tile, or
// the convolution is not dense, the two operations follow each other through the workspace. What fuses
// them for few channels and on Hopper stands in block_patch.cuh and block_tma.cuh.
#pragma once

#include "block_patch.cuh"
#include "block_tma.h"
#include "fprop.cuh"
#include "fprop_patch.cuh"
#include "pooled_regions.cuh"

namespace zfcuda::conv {

// Shared memory: the rows' windows, then the stages, then in their place the map of the region, in
// the type of the result. Its pitch puts rows that are stored together on different banks:
// neighbours, or of bfloat16 every fourth (mma.cuh).
template <class Tile, int V>
struct BlockMemory {
    using A = Windows<Tile, V>;
    using B = Filters<Tile, V>;
    using Loop = typename Tile::template Loop<A, B>;
    using T = typename Tile::Element;
    static constexpr int kMapPitch = Tile::kCols + (sizeof(T) == 2 ? 4 : 16);
    static constexpr std::size_t kMap = sizeof(T) * Tile::kRows * kMapPitch;
    static constexpr std::size_t kBytes =
        sizeof(WindowRow) * Tile::kRows + std::max(Loop::kBytes, kMap);
};

// Of a tile of this kernel or of block_tma.cuh; none if no window fits into it. (Devices of compute
// capability 8.6 and 8.9 have no room for the largest.)
template <class Math, class Tile>
std::optional<Plan> plan_block_tile(const ConvShape& conv, const PoolShape& pool) {
    if constexpr (Tile::kMainLoop == MainLoop::kTma) {
        if (!serves<Tile>({Operation::kConv2dReluPool, kPrecision<Math>, conv, pool})) return {};
        return plan_block_tma<Tile>(conv, pool);
    } else {
        const auto tiling = make_tiling<Tile>(pool);
        if (!tiling || BlockMemory<Tile, 1>::kBytes > simt::max_shared_bytes()) return {};
        const int k_tiles = divide_up(conv.r * conv.s * conv.c, Tile::kDepth);
        const int blocks = count_regions(pool, *tiling);
        const int on_sm = blocks_on_sm<Tile>(BlockMemory<Tile, 1>::kBytes);
        const double cost = tile_cost<Tile>(blocks, k_tiles) + exposed_cost<Tile>(blocks, on_sm);
        return Plan{kKernel<Tile>, blocks, blocks, 1, k_tiles, cost * copy_cost<Math>(conv)};
    }
}

// Calls use(plan) for each tile of the fused kernels, this one and those of block_tma.cuh and
// block_patch.cuh, that windows fit into. Both lists of this one have the same.
template <class Math, class Use>
void for_each_block_plan(const ConvShape& conv, const PoolShape& pool, Use use) {
    if (!conv.is_dense()) return;
    with_list(typename Tiles<Math>::Block{}, true, true, [&](auto tiles) {
        for_each_tile(tiles, [&](auto tile) {
            if (const auto plan = plan_block_tile<Math, decltype(tile)>(conv, pool)) use(*plan);
        });
    });
    for_each_image_tile<Math>(conv, pool, [&](auto tile, const auto& tiling, const auto& patch) {
        using Tile = decltype(tile);
        use(plan_image_tile<Tile>(pool, tiling, patch, block_bytes<Tile>(patch)));
    });
}

inline bool is_tma(const Plan& plan) {
    return plan.kernel.main_loop == MainLoop::kTma;
}

// The cheapest plan of the fused kernels; none where composing is cheaper. With a kernel of compute
// capability 9.0 if those are asked for, there is one and arrays are `aligned` for it; else without.
template <class Math>
std::optional<Plan> cheapest_block_plan(const ConvShape& conv, const PoolShape& pool,
                                        bool aligned) {
    if (!conv.is_dense()) return std::nullopt;
    double least = 0;
    if (const auto patch = cheapest_fprop_patch_plan<Math>(conv))
        least = patch->cost;
    else
        with_list(typename Tiles<Math>::Fprop{}, true, true, [&](auto tiles) {
            least = copy_cost<Math>(conv) * cheapest_plan(tiles, fprop_product<Math>(conv)).cost;
        });
    // The map is written and read again.
    const double map = 1.0 * sizeof(Element<Math>) * conv.n * conv.p() * conv.q() * conv.k;
    least += 2 * map * fmas_per_byte(kPrecision<Math>) / simt::multiprocessors();
    bool with_tma = false;
    if (aligned && wgmma_use() == WgmmaUse::kAlways)
        for_each_block_plan<Math>(conv, pool, [&](const Plan& plan) { with_tma |= is_tma(plan); });
    std::optional<Plan> best;
    for_each_block_plan<Math>(conv, pool, [&](const Plan& plan) {
        if (is_tma(plan) != with_tma || plan.cost >= least) return;
        least = plan.cost;
        best = plan;
    });
    return best;
}

// The plan that holds: the tuned one, if there is one that may be used, else the cheapest. `aligned`:
// x and w are, to 16 bytes.
template <class Math>
std::optional<Plan> plan_block(const ConvShape& conv, const PoolShape& pool, bool aligned) {
    auto best = cheapest_block_plan<Math>(conv, pool, aligned);
    if (const auto choice =
            tuned_choice({Operation::kConv2dReluPool, kPrecision<Math>, conv, pool})) {
        if (!choice->kernel) best.reset();
        for_each_block_plan<Math>(conv, pool, [&](const Plan& plan) {
            if (is_tma(plan) && (!aligned || wgmma_use() == WgmmaUse::kNever)) return;
            if (choice->kernel == plan.kernel) best = plan;
        });
    }
    return best;
}

// Blocks that an SM is to hold at once. On compute capability 12.0, whose SMs have 100 KB of shared
// memory, there is no room for a third, for which registers would be spilled.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
template <class Tile>
constexpr int kBlocksOnSm = Tile::kMinBlocks < 2 ? Tile::kMinBlocks : 2;
#else
template <class Tile>
constexpr int kBlocksOnSm = Tile::kMinBlocks;
#endif

template <class Tile, int V>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksOnSm<Tile>)
    block_fprop_kernel(ConvShape shape, PoolShape pool, PoolTiling tiling,
                       const typename Tile::Element* x, const typename Tile::Element* w,
                       const float* b, typename Tile::Element* y, std::uint8_t* switches,
                       bool vectorised) {
    using Memory = BlockMemory<Tile, V>;
    using Loop = typename Memory::Loop;
    using T = typename Tile::Element;

    auto* rows = simt::dynamic_shared<WindowRow>();
    auto* stages = reinterpret_cast<T*>(rows + Tile::kRows);
    const Region region(pool, tiling, TileIndex::of_block());
    const int first_col = region.tile_n * Tile::kCols;
    for (int i = threadIdx.x; i < Tile::kRows; i += Tile::kThreads) {
        const int dp = i / tiling.region_w, dq = i - dp * tiling.region_w;
        const int p = region.p0 + dp, q = region.q0 + dq;
        rows[i] = no_window_row();
        if (dp < tiling.region_h && inside(p, pool.h) && inside(q, pool.w)) {
            rows[i] = window_row(region.n, p * shape.stride_h - shape.pad_top,
                                 q * shape.stride_w - shape.pad_left, shape.h, shape.w, shape.c,
                                 shape.s, i * Memory::kMapPitch);
        }
    }
    __syncthreads();

    const int depth = shape.r * shape.s * shape.c;
    typename Memory::A windows({x, shape.h, shape.w * shape.c, shape.r, shape.s * shape.c}, rows,
                               0);
    typename Memory::B filters(w, shape.k, depth, first_col, 0);
    typename Loop::Accumulators acc;
    Loop::run(windows, filters, divide_up(depth, Tile::kDepth), stages, acc);

    __syncthreads();  // nobody reads the stages any more: the map takes their place
    store_tile<Loop>(
        acc, [&](int row) { return rows[row].output; }, first_col, shape.k,
        Epilogue<typename Tile::Element>{nullptr, b, nullptr, true, true}, stages);
    __syncthreads();
    // Computed again, so that nothing of the region takes registers during the main loop.
    TileIndex index = TileIndex::of_block();
    asm volatile("" : "+r"(index.tile));
    const Region same(pool, tiling, index);
    pool_region<Tile::kThreads, Tile::kCols, Memory::kMapPitch>(
        pool, tiling, same, same.tile_n * Tile::kCols, stages, y, switches, vectorised);
}

template <class Tile, int V>
void launch_block_fprop(const ConvShape& conv, const PoolShape& pool,
                        const typename Tile::Element* x, const typename Tile::Element* w,
                        const float* b, typename Tile::Element* y, std::uint8_t* switches,
                        Stream stream) {
    const PoolTiling tiling = *make_tiling<Tile>(pool);
    const bool vectorised = conv.k % 4 == 0 && aligned_for_vectors(y, switches);
    simt::launch<block_fprop_kernel<Tile, V>>(
        dim3(count_regions(pool, tiling)), dim3(Tile::kThreads), BlockMemory<Tile, V>::kBytes,
        stream, conv, pool, tiling, x, w, b, y, switches, vectorised);
}

}  // namespace zfcuda::conv
