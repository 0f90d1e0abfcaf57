// How the map of a block is cut: each block of threads computes the region of it that a tile of
// pooled pixels needs, and pools it in shared memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "copies.cuh"
#include "kernels/pool.cuh"
#include "shapes.h"
#include "tile_index.cuh"

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

template <class Tile>
PoolTiling cut(const PoolShape& pool, int height, int width) {
    return {height,
            width,
            region(height, pool.window_h, pool.stride_h),
            region(width, pool.window_w, pool.stride_w),
            pool.p(),
            pool.q(),
            FastDivisor(divide_up(pool.c, Tile::kCols)),
            FastDivisor(divide_up(pool.q(), width)),
            FastDivisor(divide_up(pool.p(), height))};
}

// The tiling with the fewest tiles; none if not even one window fits. `filled`: lines of a region
// are filled up to a multiple of this.
template <class Tile>
std::optional<PoolTiling> make_tiling(const PoolShape& pool, int filled = 1) {
    std::optional<PoolTiling> best;
    std::int64_t fewest = 0;
    for (int height = 1; height <= pool.p(); ++height) {
        const int region_h = region(height, pool.window_h, pool.stride_h);
        const int most = Tile::kRows / region_h / filled * filled;  // columns of the region
        if (most < pool.window_w) break;
        const int width = std::min(pool.q(), (most - pool.window_w) / pool.stride_w + 1);
        const std::int64_t down = divide_up(pool.p(), height), across = divide_up(pool.q(), width);
        if (best && down * across >= fewest) continue;
        fewest = down * across;
        best = cut<Tile>(pool, height, width);
    }
    return best;
}

inline int count_regions(const PoolShape& pool, const PoolTiling& t) {
    return pool.n * t.down.divisor * t.across.divisor * t.tiles_n.divisor;
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

// Pools the region in `map` (rows of Pitch, Cols channels from `first_channel` on) into y and switches:
// four channels of one pooled pixel a turn for each of so many threads, the block's first ones.
template <int Threads, int Cols, int Pitch, class T>
__device__ inline void pool_region(const PoolShape& pool, const PoolTiling& tiling,
                                   const Region& region, int first_channel, const T* map, T* y,
                                   std::uint8_t* switches, bool vectorised) {
    constexpr int kGroups = Cols / 4;
    const int height = tiling.pooled_h, width = tiling.pooled_w;
    for (int item = threadIdx.x; item < tiling.height * tiling.width * kGroups; item += Threads) {
        const int pixel = item / kGroups, group = item % kGroups;
        const int di = pixel / tiling.width, dj = pixel - di * tiling.width;
        const int i = region.i0 + di, j = region.j0 + dj;
        const int channel = first_channel + group * 4;
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

}  // namespace zfcuda::conv
