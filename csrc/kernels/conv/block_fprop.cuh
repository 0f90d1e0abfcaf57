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
// the convolution is not dense, the two operations follow each other through the workspace.
#pragma once

#include "fprop.cuh"
#include "kernels/pool.cuh"

namespace zfcuda::conv {

// How the pooled map is cut: tiles of height x width pooled pixels, each from a region of the
// convolution's map that fits the rows of a matrix tile.
struct PoolTiling {
    int height, width;
    int region_h, region_w;
    int pooled_h, pooled_w;             // the whole map
    FastDivisor tiles_n, across, down;  // tiles of columns, across the map, down the map
};

inline int region(int pooled, int window, int stride) {
    return (pooled - 1) * stride + window;
}

// The tiling with the fewest tiles; none if not even one window fits.
template <class Tile>
std::optional<PoolTiling> make_tiling(const PoolShape& pool) {
    std::optional<PoolTiling> best;
    std::int64_t fewest = 0;
    for (int height = 1; height <= pool.p(); ++height) {
        const int region_h = region(height, pool.window_h, pool.stride_h);
        const int most = Tile::kRows / region_h;  // columns of the region
        if (most < pool.window_w) break;
        const int width = std::min(pool.q(), (most - pool.window_w) / pool.stride_w + 1);
        const std::int64_t down = divide_up(pool.p(), height), across = divide_up(pool.q(), width);
        if (best && down * across >= fewest) continue;
        fewest = down * across;
        best = PoolTiling{height,
                          width,
                          region_h,
                          region(width, pool.window_w, pool.stride_w),
                          pool.p(),
                          pool.q(),
                          FastDivisor(divide_up(pool.c, Tile::kCols)),
                          FastDivisor(across),
                          FastDivisor(down)};
    }
    return best;
}

inline int count_regions(const PoolShape& pool, const PoolTiling& t) {
    return pool.n * t.down.divisor * t.across.divisor * t.tiles_n.divisor;
}

// Shared memory: the rows' windows, then the stages, then in their place the map of the region, in
// the type of the result. Its pitch puts rows that are stored together on different banks:
// neighbours, or of bfloat16 every fourth (mma.cuh).
template <class Tile, int V>
struct BlockMemory {
    using A = Windows<Tile, V>;
    using B = Filters<Tile, V>;
    using Loop = CopyAsyncLoop<Tile, A, B>;
    using T = typename Tile::Element;
    static constexpr int kMapPitch = Tile::kCols + (sizeof(T) == 2 ? 4 : 16);
    static constexpr std::size_t kMap = sizeof(T) * Tile::kRows * kMapPitch;
    static constexpr std::size_t kBytes =
        sizeof(WindowRow) * Tile::kRows + std::max(Loop::kBytes, kMap);
};

// Calls use(plan) for each tile of the fused kernel that windows fit into; both of its lists have
// the same. (Devices of compute capability 8.6 and 8.9 have no room for the largest.)
template <class Math, class Use>
void for_each_block_plan(const ConvShape& conv, const PoolShape& pool, Use use) {
    if (!conv.is_dense()) return;
    with_list(typename Tiles<Math>::Block{}, false, false, [&](auto tiles) {
        for_each_tile(tiles, [&](auto tile) {
            using Tile = decltype(tile);
            const auto tiling = make_tiling<Tile>(pool);
            if (!tiling || BlockMemory<Tile, 1>::kBytes > simt::max_shared_bytes()) return;
            const int k_tiles = divide_up(conv.r * conv.s * conv.c, Tile::kDepth);
            const double cost = tile_cost<Tile>(count_regions(pool, *tiling), k_tiles);
            use(Plan{kKernel<Tile>, 1, k_tiles, cost});
        });
    });
}

// The cheapest plan of the fused kernel; none where composing is cheaper.
template <class Math>
std::optional<Plan> cheapest_block_plan(const ConvShape& conv, const PoolShape& pool) {
    if (!conv.is_dense()) return std::nullopt;
    double least = 0;
    with_list(typename Tiles<Math>::Fprop{}, true, true,
              [&](auto tiles) { least = cheapest_plan(tiles, fprop_product<Math>(conv)).cost; });
    // The map is written and read again.
    const double map = 1.0 * sizeof(Element<Math>) * conv.n * conv.p() * conv.q() * conv.k;
    least += 2 * map * Tiles<Math>::kFmasPerByte / simt::multiprocessors();
    std::optional<Plan> best;
    for_each_block_plan<Math>(conv, pool, [&](const Plan& plan) {
        if (plan.cost >= least) return;
        least = plan.cost;
        best = plan;
    });
    return best;
}

// The plan that holds: the tuned one, if there is one, else the cheapest.
template <class Math>
std::optional<Plan> plan_block(const ConvShape& conv, const PoolShape& pool) {
    auto best = cheapest_block_plan<Math>(conv, pool);
    if (const auto choice =
            tuned_choice({Operation::kConv2dReluPool, kPrecision<Math>, conv, pool})) {
        if (!choice->kernel) best.reset();
        for_each_block_plan<Math>(conv, pool, [&](const Plan& plan) {
            if (choice->kernel == plan.kernel) best = plan;
        });
    }
    return best;
}

// The region of the map that this block computes, and the tile of y that it yields.
struct Region {
    int n, i0, j0;  // image, first pooled pixel
    int p0, q0;     // first pixel of the map, maybe in the padding
    int tile_n;

    __device__ Region(const PoolShape& pool, const PoolTiling& tiling, const TileIndex& index) {
        const int tile = static_cast<int>(index.tile);
        const int a = tile / tiling.tiles_n, b = a / tiling.across;
        n = b / tiling.down;
        tile_n = tile % tiling.tiles_n;
        i0 = b % tiling.down * tiling.height;
        j0 = a % tiling.across * tiling.width;
        p0 = i0 * pool.stride_h - pool.pad_top;
        q0 = j0 * pool.stride_w - pool.pad_left;
    }
};

// Pools the region in `map` (rows of kMapPitch) into y and switches: four channels of one pooled
// pixel a turn for each thread.
template <class Tile, int Pitch>
__device__ inline void pool_region(const PoolShape& pool, const PoolTiling& tiling,
                                   const Region& region, const typename Tile::Element* map,
                                   typename Tile::Element* y, std::uint8_t* switches,
                                   bool vectorised) {
    using T = typename Tile::Element;
    constexpr int kGroups = Tile::kCols / 4;
    const int height = tiling.pooled_h, width = tiling.pooled_w;
    for (int item = threadIdx.x; item < tiling.height * tiling.width * kGroups;
         item += Tile::kThreads) {
        const int pixel = item / kGroups, group = item % kGroups;
        const int di = pixel / tiling.width, dj = pixel - di * tiling.width;
        const int i = region.i0 + di, j = region.j0 + dj;
        const int channel = region.tile_n * Tile::kCols + group * 4;
        if (i >= height || j >= width || channel >= pool.c) continue;

        auto best = Vector<float, 4>::filled(-INFINITY);
        auto cell = Vector<std::uint8_t, 4>::filled(0);
        for (int r = 0; r < pool.window_h; ++r) {
            const int row = di * pool.stride_h + r;
            if (!inside(region.p0 + row, pool.h)) continue;
            for (int s = 0; s < pool.window_w; ++s) {
                const int col = dj * pool.stride_w + s;
                if (!inside(region.q0 + col, pool.w)) continue;
                const auto value = load<4>(map + (row * tiling.region_w + col) * Pitch + group * 4);
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const float candidate = to_float(value.at[e]);
                    if (!exceeds(candidate, best.at[e])) continue;
                    best.at[e] = candidate;
                    cell.at[e] = static_cast<std::uint8_t>(r * pool.window_w + s);
                }
            }
        }
        const std::size_t at =
            ((static_cast<std::size_t>(region.n) * height + i) * width + j) * pool.c + channel;
        const auto result = from_floats<T>(best);
        if (vectorised) {
            store(y + at, result);
            store(switches + at, cell);
        } else {
            for (int e = 0; e < 4 && channel + e < pool.c; ++e) {
                y[at + e] = result.at[e];
                switches[at + e] = cell.at[e];
            }
        }
    }
}

template <class Tile, int V>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
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
    pool_region<Tile, Memory::kMapPitch>(pool, tiling, Region(pool, tiling, index), stages, y,
                                         switches, vectorised);
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
