// Weight gradient, as in wgrad.cuh, on Hopper's own main loop (tma.cuh): the product of dy transposed
// (rows: K) with the windows of x over the depth N*P*Q; of arrays in bfloat16, dense filters, channels
// and filters in multiples of 8.
//
// Both operands are MN-major, copied as they lie in memory: of dy boxes of 64 filters of 64 pixels,
// of x the channels of a line under one tap of 64 successive windows, whatever the stride. So columns
// are cut tap by tap: a tile has whole lines (tma_windows.h), those beyond the last one zeros. There are
// few tiles and many k-tiles: the depth is split, in a fixed order (splits.cu). Bound: that of tma.cuh;
// columns that are filled up with zeros are multiplied, too.
#pragma once

#include "epilogue.cuh"
#include "tiles.cuh"
#include "tma_windows.cuh"
#include "wgrad_tma.h"

namespace zfcuda::conv {

// The copies for one tile, k-tile after k-tile.
template <class Tile, int Line>
class WgradCopies {
  public:
    using Element = typename Tile::Element;
    using LayoutA = TmaMNMajor<Tile::kRows, kSwizzleBytes>;
    using LayoutB = TmaMNMajor<Tile::kCols, Line>;

    // From filter `filter`, line `line` and k-tile `k_tile` on.
    __device__ WgradCopies(const simt::TensorMap& image, const simt::TensorMap& dy,
                           const TmaWindows& windows, int filter, int line, int k_tile)
        : image_(image),
          dy_(dy),
          windows_(windows),
          filter_(filter),
          pixel_(k_tile * Tile::kDepth),
          line_(windows.channels, windows.taps_h, windows.taps_w, line),
          place_(windows, pixel_),
          step_(windows, Tile::kDepth) {}

    // Of a k-tile.
    __device__ static constexpr unsigned bytes() {
        return sizeof(Element) * (LayoutA::kSize + LayoutB::kSize);
    }

    __device__ void load(Element* a, Element* b, simt::Mbarrier& full) {
#pragma unroll
        for (int block = 0; block < LayoutA::kBlocks; ++block)
            simt::tensor_load(a + block * LayoutA::kBlock, dy_, full,
                              filter_ + block * LayoutA::kBlockRows, pixel_);
        const int h = place_.h(windows_), w = place_.w(windows_);
        auto line = line_;
#pragma unroll
        for (int block = 0; block < LayoutB::kBlocks; ++block) {
            simt::tensor_load_im2col(b + block * LayoutB::kBlock, image_, full, line.c, w, h,
                                     place_.n, line.s, line.r);
            line.advance();
        }
        pixel_ += Tile::kDepth;
        place_.move(windows_, step_);
    }

  private:
    const simt::TensorMap &image_, &dy_;
    const TmaWindows& windows_;
    int filter_, pixel_;
    WindowLine<LayoutB::kBlockRows> line_;
    WindowPlace place_, step_;
};

// The first column of dw that is in a line, of so many channels.
template <int Channels>
__device__ inline int line_col(const TmaWindows& windows, int line) {
    const int lines = divide_up(windows.channels, Channels), tap = line / lines;
    return tap * windows.channels + (line - tap * lines) * Channels;
}

// Which columns the accumulators of a thread are, of a tile that begins with line `line`: those of dw
// lie side by side; what only fills a line up is none.
template <class Tile, class Multiplier, int Channels>
class LinePlaces : public Multiplier {
  public:
    __device__ LinePlaces(const TmaWindows& windows, int line)
        : windows_(windows), line_(line), first_(line_col<Channels>(windows, line)) {}

    __device__ int col(int vector) const {
        constexpr int kVectors = Channels / 8;  // of a line
        const int line = line_ + vector / kVectors, in_line = Multiplier::col(vector % kVectors);
        const int lines = divide_up(windows_.channels, Channels);
        const bool exists = line % lines * Channels + in_line < windows_.channels;
        return exists ? line_col<Channels>(windows_, line) + in_line - first_ : Tile::kCols;
    }

  private:
    const TmaWindows& windows_;
    int line_, first_;
};

template <class Tile, int Line>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    wgrad_tma_kernel(const __grid_constant__ simt::TensorMap image,
                     const __grid_constant__ simt::TensorMap dy, TmaWindows windows, int filters,
                     TiledWork work, Epilogue<float> epilogue, float* dw) {
    using Copies = WgradCopies<Tile, Line>;
    using Ring = TmaRing<Tile, Copies>;
    constexpr int kChannels = Copies::LayoutB::kBlockRows, kLines = Copies::LayoutB::kBlocks;
    const int cols = windows.taps() * windows.channels;
    const int lines = windows.taps() * divide_up(windows.channels, kChannels);
    multiply_tiles<Tile, Copies>(
        [&](int) { return divide_up(windows.count(), Tile::kDepth); }, divide_up(lines, kLines),
        work,
        [&](int tile_m, int tile_n, int k_tile) {
            return Copies(image, dy, windows, tile_m * Tile::kRows, tile_n * kLines, k_tile);
        },
        [&](const TileIndex& index, int tile_m, int tile_n, auto& acc) {
            const auto offset = [&](int i) {
                const int k = tile_m * Tile::kRows + i;
                return k < filters ? static_cast<std::uint32_t>(k) * cols : kNoRow;
            };
            const int line = tile_n * kLines;
            const LinePlaces<Tile, typename Ring::Multiplier, kChannels> mine(windows, line);
            store_part<Tile, Ring>(work, index, acc, offset, line_col<kChannels>(windows, line),
                                   line_col<kChannels>(windows, min(line + kLines, lines)),
                                   epilogue, dw, mine);
        });
}

// Of dy, (pixels, k): boxes of so many filters of as many pixels.
inline simt::TensorMap gradient_map(const TmaWindows& windows, int k, const BFloat16* dy,
                                    int filters, int count) {
    const auto pixels = static_cast<std::uint64_t>(windows.count());
    const auto all = static_cast<std::uint64_t>(k);
    return simt::tiled_map(
        {simt::TensorType::kBf16,
         dy,
         2,
         {all, pixels},
         {sizeof(BFloat16) * all},
         {static_cast<std::uint32_t>(filters), static_cast<std::uint32_t>(count)},
         {1, 1},
         swizzle_of(kSwizzleBytes)});
}

template <class Tile>
void launch_wgrad_tma(const ConvShape& shape, const BFloat16* x, const BFloat16* dy,
                      const Launch<float>& launch) {
    const TmaWindows windows = fprop_windows(shape, Tile::kDepth);
    launch_tiles(windows, launch, [&](auto line, dim3 blocks, const TiledWork& work) {
        using Copies = WgradCopies<Tile, line>;
        simt::launch<wgrad_tma_kernel<Tile, line>>(
            blocks, dim3(Tile::kThreads), TmaRing<Tile, Copies>::kBytes, launch.stream,
            window_map(windows, x, line, Tile::kDepth),
            gradient_map(windows, shape.k, dy, Copies::LayoutA::kBlockRows, Tile::kDepth), windows,
            shape.k, work, launch.epilogue, launch.y);
    });
}

}  // namespace zfcuda::conv
