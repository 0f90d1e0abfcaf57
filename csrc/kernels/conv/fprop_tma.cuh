// Convolution, forward, as in fprop.cuh, on Hopper's own main loop (tma.cuh): the same product of
// windows with filters, in bfloat16, of dense filters and channels in multiples of 8.
//
// The depth is cut tap by tap (tma_windows.h). A k-tile is a copy of the windows for each of its
// columns of lines, by a map that knows where successive windows lie (im2col), and one of the
// filters, (K, taps, C) in boxes of one tap. Bound: that of tma.cuh; what is filled up with zeros is
// multiplied, too.
#pragma once

#include <algorithm>

#include "epilogue.cuh"
#include "fprop_tma.h"
#include "tile_index.cuh"
#include "tiles.cuh"
#include "tma.cuh"
#include "tma_windows.h"

namespace zfcuda::conv {

// The copies for one tile, k-tile after k-tile, in lines of `Line` bytes.
template <class Tile, int Line>
class FpropCopies {
  public:
    using Element = typename Tile::Element;
    using LayoutA = TmaKMajor<Tile::kRows, Line>;
    using LayoutB = TmaKMajor<Tile::kCols, Line>;
    static constexpr int kChannels = Line / sizeof(Element);

    // From pixel `first_pixel`, filter `first_filter` and k-tile `k_tile` on.
    __device__ FpropCopies(const simt::TensorMap& windows, const simt::TensorMap& filters,
                           const ConvShape& shape, int first_pixel, int first_filter, int k_tile)
        : windows_(windows),
          filters_(filters),
          filter_(first_filter),
          channels_(shape.c),
          taps_w_(shape.s),
          taps_(shape.r * shape.s) {
        const int Q = shape.q(), row = first_pixel / Q, P = shape.p();
        n_ = row / P;
        h_ = (row - n_ * P) * shape.stride_h - shape.pad_top;
        w_ = (first_pixel - row * Q) * shape.stride_w - shape.pad_left;
        const int line = k_tile * kColumns, lines = divide_up(shape.c, kChannels);
        tap_ = line / lines;
        c_ = (line - tap_ * lines) * kChannels;
        r_ = tap_ / taps_w_;
        s_ = tap_ - r_ * taps_w_;
    }

    __device__ void load(Element* a, Element* b, simt::Mbarrier& full) {
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
            simt::tensor_load_im2col(a + column * LayoutA::kColumn, windows_, full, c_, w_, h_, n_,
                                     s_, r_);
            simt::tensor_load(b + column * LayoutB::kColumn, filters_, full, c_, tap_, filter_);
            advance();
        }
    }

  private:
    static constexpr int kColumns = kTmaDepth / kChannels;

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

    const simt::TensorMap &windows_, &filters_;
    int filter_, channels_, taps_w_, taps_;
    int n_, h_, w_;  // where the window of the first pixel begins
    int tap_, r_, s_, c_;
};

template <class Tile, int Line>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    fprop_tma_kernel(const __grid_constant__ simt::TensorMap windows,
                     const __grid_constant__ simt::TensorMap filters, ConvShape shape, int k_tiles,
                     TiledWork work, Epilogue<typename Tile::Element> epilogue,
                     typename Tile::Element* y) {
    using Copies = FpropCopies<Tile, Line>;
    using Ring = TmaRing<Tile, Copies>;

    Ring ring(simt::dynamic_shared<unsigned char>());
    ring.set_up();
    const int pixels = shape.n * shape.p() * shape.q();
    const int tiles_n = divide_up(shape.k, Tile::kCols);

    if (threadIdx.x >= Tile::kConsumers) {
        simt::lower_registers<Tile::kProducerRegisters>();
        if (threadIdx.x > Tile::kConsumers) return;
        for (unsigned i = blockIdx.x; i < work.count(); i += gridDim.x) {
            const TileIndex index = work.at(i);
            const int tile_m = index.tile / tiles_n, tile_n = index.tile - tile_m * tiles_n;
            const DepthRange range(index, k_tiles, 1, work.k_tiles_per_split);
            Copies copies(windows, filters, shape, tile_m * Tile::kRows, tile_n * Tile::kCols,
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
        const auto offset = [&](int row) {
            const int pixel = tile_m * Tile::kRows + row;
            return pixel < pixels ? static_cast<std::uint32_t>(pixel) * shape.k : kNoRow;
        };
        store_split<Ring>(index, acc, offset, tile_n * Tile::kCols, shape.k, epilogue, y,
                          static_cast<std::size_t>(pixels) * shape.k);
    }
}

// ---- The launcher -------------------------------------------------------------------------------

// Of x, for the windows of `pixels` successive pixels of y.
inline simt::TensorMap window_map(const ConvShape& s, const BFloat16* x, int channels, int pixels) {
    const std::uint64_t c = s.c, w = s.w, h = s.h, n = s.n, row = sizeof(BFloat16) * c;
    return simt::im2col_map(
        {simt::TensorType::kBf16,
         x,
         {c, w, h, n},
         {row, row * w, row * w * h},
         {-s.pad_left, -s.pad_top},
         {s.pad_right - (s.s - 1), s.pad_bottom - (s.r - 1)},
         static_cast<std::uint32_t>(channels),
         static_cast<std::uint32_t>(pixels),
         {static_cast<std::uint32_t>(s.stride_w), static_cast<std::uint32_t>(s.stride_h)},
         channels == kTmaDepth ? simt::Swizzle::k128 : simt::Swizzle::k64});
}

// Of w, for one tap of `filters` filters.
inline simt::TensorMap filter_map(const ConvShape& s, const BFloat16* w, int channels,
                                  int filters) {
    const std::uint64_t c = s.c, taps = s.r * s.s, k = s.k, row = sizeof(BFloat16) * c;
    return simt::tiled_map(
        {simt::TensorType::kBf16,
         w,
         3,
         {c, taps, k},
         {row, row * taps},
         {static_cast<std::uint32_t>(channels), 1, static_cast<std::uint32_t>(filters)},
         {1, 1, 1},
         channels == kTmaDepth ? simt::Swizzle::k128 : simt::Swizzle::k64});
}

template <class Tile>
void launch_fprop_tma(const ConvShape& shape, const BFloat16* x, const BFloat16* w,
                      const Launch<BFloat16>& launch) {
    const TiledWork work{launch.grid.x, launch.grid.y, launch.k_tiles_per_split};
    const auto run = [&](auto line) {
        using Copies = FpropCopies<Tile, line>;
        const dim3 blocks(std::min(work.count(), static_cast<unsigned>(simt::multiprocessors())));
        simt::launch<fprop_tma_kernel<Tile, line>>(
            blocks, dim3(Tile::kThreads), TmaRing<Tile, Copies>::kBytes, launch.stream,
            window_map(shape, x, Copies::kChannels, Tile::kRows),
            filter_map(shape, w, Copies::kChannels, Tile::kCols), shape, count_tma_k_tiles(shape),
            work, launch.epilogue, launch.y);
    };
    if (has_half_lines(shape))
        run(std::integral_constant<int, 64>{});
    else
        run(std::integral_constant<int, 128>{});
}

}  // namespace zfcuda::conv
