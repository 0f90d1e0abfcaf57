// Products of windows on Hopper's own main loop (tma.cuh): the part that directions share.
//
// A k-tile is a copy of the windows for each of its columns of lines (tma_windows.h), by a map that
// knows where successive windows lie (im2col), and copies of the filters, which a direction adds.
#pragma once

#include <algorithm>

#include "epilogue.cuh"
#include "run_product.cuh"
#include "tile_index.cuh"
#include "tiles.cuh"
#include "tma.cuh"
#include "tma_windows.h"

namespace zfcuda::conv {

// The copies for one tile, k-tile after k-tile, in lines of `Line` bytes: those of the windows, and
// which tap and channels come next.
template <class Tile, int Line>
class WindowCopies {
  public:
    using Element = typename Tile::Element;
    using LayoutA = TmaKMajor<Tile::kRows, Line>;
    static constexpr int kChannels = Line / sizeof(Element);

  protected:
    static constexpr int kColumns = kTmaDepth / kChannels;

    // From window `first` and k-tile `k_tile` on.
    __device__ WindowCopies(const simt::TensorMap& map, const TmaWindows& windows, int first,
                            int k_tile)
        : map_(map), channels_(windows.channels), taps_w_(windows.taps_w), taps_(windows.taps()) {
        const int row = first / windows.across;
        n_ = row / windows.down;
        h_ = (row - n_ * windows.down) * windows.stride_h + windows.first_h;
        w_ = (first - row * windows.across) * windows.stride_w + windows.first_w;
        const int line = k_tile * kColumns, lines = divide_up(channels_, kChannels);
        tap_ = line / lines;
        c_ = (line - tap_ * lines) * kChannels;
        r_ = tap_ / taps_w_;
        s_ = tap_ - r_ * taps_w_;
    }

    __device__ void load_windows(Element* a, int column, simt::Mbarrier& full) const {
        simt::tensor_load_im2col(a + column * LayoutA::kColumn, map_, full, c_, w_, h_, n_, s_, r_);
    }

    __device__ void advance() {
        c_ += kChannels;
        if (c_ < channels_) return;
        ++tap_;
        if (++s_ == taps_w_) {
            s_ = 0;
            ++r_;
        }
        c_ = tap_ < taps_ ? 0 : channels_;  // beyond the last tap there are zeros
    }

    const simt::TensorMap& map_;
    int channels_, taps_w_, taps_;
    int n_, h_, w_;  // where the first window begins
    int tap_, r_, s_, c_;
};

// What every thread of a block does. The result has a row of `cols` for each window.
template <class Tile, class Copies>
__device__ __forceinline__ void multiply_windows(const simt::TensorMap& image,
                                                 const simt::TensorMap& filters,
                                                 const TmaWindows& windows, int k_tiles, int cols,
                                                 const TiledWork& work,
                                                 const Epilogue<typename Tile::Element>& epilogue,
                                                 typename Tile::Element* y) {
    using Ring = TmaRing<Tile, Copies>;
    Ring ring(simt::dynamic_shared<unsigned char>());
    ring.set_up();
    const int rows = windows.count(), tiles_n = divide_up(cols, Tile::kCols);

    if (threadIdx.x >= Tile::kConsumers) {
        simt::lower_registers<Tile::kProducerRegisters>();
        if (threadIdx.x > Tile::kConsumers) return;
        for (unsigned i = blockIdx.x; i < work.count(); i += gridDim.x) {
            const TileIndex index = work.at(i);
            const int tile_m = index.tile / tiles_n, tile_n = index.tile - tile_m * tiles_n;
            const DepthRange range(index, k_tiles, 1, work.k_tiles_per_split);
            Copies copies(image, filters, windows, tile_m * Tile::kRows, tile_n * Tile::kCols,
                          range.first);
            ring.produce(copies, range.k_tiles);
        }
        return;
    }

    simt::raise_registers<Tile::kConsumerRegisters>();
    typename Ring::Accumulators acc;
    for (unsigned i = blockIdx.x; i < work.count(); i += gridDim.x) {
        const TileIndex index = work.at(i);
        const int tile_m = index.tile / tiles_n, tile_n = index.tile - tile_m * tiles_n;
        ring.consume(DepthRange(index, k_tiles, 1, work.k_tiles_per_split).k_tiles, acc);
        const auto offset = [&](int i) {
            const int row = tile_m * Tile::kRows + i;
            return row < rows ? static_cast<std::uint32_t>(row) * epilogue.pitch : kNoRow;
        };
        store_part<Tile, Ring>(work, index, acc, offset, tile_n * Tile::kCols, cols, epilogue, y);
    }
}

// ---- The launch ---------------------------------------------------------------------------------

inline simt::Swizzle swizzle_of(int line) {
    return line == 128 ? simt::Swizzle::k128 : simt::Swizzle::k64;
}

// Of an image, for `rows` successive windows.
inline simt::TensorMap window_map(const TmaWindows& v, const BFloat16* image, int line, int rows) {
    const std::uint64_t c = v.channels, w = v.w, h = v.h, n = v.n, pixel = sizeof(BFloat16) * c;
    return simt::im2col_map(
        {simt::TensorType::kBf16,
         image,
         {c, w, h, n},
         {pixel, pixel * w, pixel * w * h},
         {v.first_w, v.first_h},
         {v.last_w(), v.last_h()},
         static_cast<std::uint32_t>(line / sizeof(BFloat16)),
         static_cast<std::uint32_t>(rows),
         {static_cast<std::uint32_t>(v.stride_w), static_cast<std::uint32_t>(v.stride_h)},
         swizzle_of(line)});
}

// Of filters w, (k, taps, c): boxes of one tap.
inline simt::TensorMap filter_map(const ConvShape& s, const BFloat16* w, int channels, int filters,
                                  int line) {
    const std::uint64_t c = s.c, taps = s.r * s.s, k = s.k, row = sizeof(BFloat16) * c;
    return simt::tiled_map(
        {simt::TensorType::kBf16,
         w,
         3,
         {c, taps, k},
         {row, row * taps},
         {static_cast<std::uint32_t>(channels), 1, static_cast<std::uint32_t>(filters)},
         {1, 1, 1},
         swizzle_of(line)});
}

// Calls run(line, blocks, work) with the bytes of a line, as many blocks as there are SMs at most,
// and what they share.
template <class Run>
void launch_windows(const TmaWindows& windows, const Launch<BFloat16>& launch, Run run) {
    const unsigned sms = simt::multiprocessors(), blocks = std::min(launch.work.count(), sms);
    if (windows.has_half_lines())
        run(std::integral_constant<int, 64>{}, dim3(blocks), launch.work);
    else
        run(std::integral_constant<int, 128>{}, dim3(blocks), launch.work);
}

}  // namespace zfcuda::conv
