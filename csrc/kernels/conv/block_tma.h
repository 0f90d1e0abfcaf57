// Blocks by the kernels of block_tma.cuh, which are compiled apart: how the map is cut for them, and
// what that costs.
#pragma once

#include <algorithm>
#include <optional>

#include "plan.h"
#include "pooled_regions.cuh"
#include "tma_windows.h"

namespace zfcuda::conv {

// Pixels of an image in either direction, those that strides skip too.
constexpr int kMaxBox = 256;

// Pixels of an image from the first to the last of so many.
inline int box_side(int pixels, int stride) {
    return (pixels - 1) * stride + 1;
}

// What a k-tile costs of which so many rows are copied, as Tile::kRows * kCols * kDepth / kEfficiency
// does where all are: in bytes from L2 or, if that is more, in products of all rows. In the time of 28
// bytes, tensor cores compute 16/7 of what that efficiency stands for at 1.
template <class Tile>
double rows_cost(int rows) {
    const double copied = 64.0 * (rows + Tile::kCols);
    const double multiplied = Tile::kRows * Tile::kCols * (7 / 16.0);
    return std::max(copied, multiplied) * Tile::kDepth;
}

// How the map is cut into the rows of tiles.
//
// Windows of the pool that lie side by side and neither overlap nor leave pixels between them are cut
// as the windows of a convolution are, across lines and images, and so fill tiles: a tile has so many
// successive ones, line by line. Where a window has two lines, half of the rows are successive pixels
// of even lines, and half those below them. That is pooled as a map of one image with as many lines as
// a window has.
//
// Others are cut into regions (pooled_regions.cuh): rectangles of one image.
struct MapCut {
    PoolShape pool;      // of the map as it is cut
    PoolTiling tiling;   // of this pool
    TmaWindows windows;  // of the convolution: all, or those of the first lines of the pool's
    int line_step;       // lines of the image from one of these lines to the next; 0 of regions

    // Rows of a tile that are copied.
    ZFCUDA_HOST_DEVICE int rows() const { return tiling.region_h * tiling.region_w; }
};

// The rows of a tile that lines of pixels may have, each from a multiple of eight rows on: of so many
// lines.
template <class Tile>
constexpr int rows_of_line(int lines) {
    return Tile::kRows / lines / 8 * 8;
}

// None if windows are not side by side, none fits, or the accelerator cannot copy its lines.
template <class Tile>
std::optional<MapCut> cut_into_windows(const ConvShape& conv, const PoolShape& pool) {
    const int down = pool.p(), across = pool.q() * pool.window_w,
              line = rows_of_line<Tile>(pool.window_h);
    if (pool.stride_h != pool.window_h || pool.stride_w != pool.window_w || pool.pad_top != 0 ||
        pool.pad_left != 0 || down * pool.window_h > pool.h || across > pool.w ||
        line < pool.window_w)
        return {};
    TmaWindows windows = fprop_windows(conv, Tile::kDepth);
    windows.down = down;
    windows.across = across;
    windows.stride_h *= pool.window_h;
    if (!can_gather(windows, (pool.window_h - 1) * conv.stride_h)) return {};
    PoolShape lines = pool;
    lines.n = 1;
    lines.h = pool.window_h;
    lines.w = windows.count();
    lines.pad_bottom = lines.pad_right = 0;
    PoolTiling tiling = cut<Tile>(lines, 1, line / pool.window_w);
    tiling.region_w = line;
    return MapCut{lines, tiling, windows, conv.stride_h};
}

// The regions with the least cost of all tiles; none if not even one window fits.
template <class Tile>
std::optional<MapCut> cut_into_regions(const ConvShape& conv, const PoolShape& pool) {
    std::optional<PoolTiling> best;
    double least = 0;
    for (int height = 1; height <= pool.p(); ++height) {
        const int region_h = region(height, pool.window_h, pool.stride_h);
        const int most = std::min(Tile::kRows / region_h, (kMaxBox - 1) / conv.stride_w + 1);
        if (most < pool.window_w || box_side(region_h, conv.stride_h) > kMaxBox) break;
        const int across = divide_up(pool.q(), (most - pool.window_w) / pool.stride_w + 1);
        const int width = divide_up(pool.q(), across);  // as few as do
        const int rows = region_h * region(width, pool.window_w, pool.stride_w);
        const double cost = 1.0 * divide_up(pool.p(), height) * across * rows_cost<Tile>(rows);
        if (best && cost >= least) continue;
        least = cost;
        best = cut<Tile>(pool, height, width);
    }
    if (!best) return {};
    return MapCut{pool, *best, fprop_windows(conv, Tile::kDepth), 0};
}

template <class Tile>
std::optional<MapCut> cut_map(const ConvShape& conv, const PoolShape& pool) {
    const auto windows = cut_into_windows<Tile>(conv, pool);
    return windows ? windows : cut_into_regions<Tile>(conv, pool);
}

// None if no window of the pool fits into the tile.
template <class Tile>
std::optional<Plan> plan_block_tma(const ConvShape& conv, const PoolShape& pool) {
    const auto map = cut_map<Tile>(conv, pool);
    if (!map) return {};
    const int tiles = count_regions(map->pool, map->tiling), k_tiles = map->windows.k_tiles();
    const double waves = divide_up(tiles, simt::multiprocessors());
    return Plan{
        kKernel<Tile>, tiles, tiles, 1, k_tiles, waves * rows_cost<Tile>(map->rows()) * k_tiles};
}

// y, switches = max_pool2d(relu(conv2d(x, w) + b)), of shapes that can_use_tma (tma_windows.h) and have
// a plan; x and w are aligned to 16 bytes. Defined in block_tma_sm90a.cu and block_tma_tf32_sm90a.cu.
template <class Tile>
void launch_block_tma(const ConvShape& conv, const PoolShape& pool, const typename Tile::Element* x,
                      const typename Tile::Element* w, const float* b, typename Tile::Element* y,
                      std::uint8_t* switches, Stream stream);

}  // namespace zfcuda::conv
