// Convolution, forward as in fprop.cuh and, at stride 1, transposed as in dgrad.cuh, on Hopper's own
// main loop (tma.cuh): the product of windows (rows) with filters over the depth R*S*C or R*S*K; of
// dense filters; of channels in multiples of 8, transposed also of filters, in bfloat16, and of 4 in
// tf32.
//
//   forward      windows of x, filters w[k, r, s, c]: one a column
//   transposed   windows of y, (h + pad - (R - 1)) ..., w[k, R - 1 - r, S - 1 - s, c]: one c a column
//
// In tf32 tensor cores want operands K-major, which filters are forward alone. Transposed, a kernel
// turns them first, and the product is then one with filters as they lie: that of the forward kernels.
//
// The depth is cut tap by tap (tma_windows.h); filters are copied in boxes of one tap. Bound: that
// of tma.cuh; what is filled up with zeros is multiplied, too.
#pragma once

#include <cstddef>
#include <type_traits>

#include "conv_tma.h"
#include "epilogue.cuh"
#include "tiles.cuh"
#include "tma_windows.cuh"

namespace zfcuda::conv {

// ---- Filters (B) of one tap and the channels of a line ------------------------------------------

struct FilterSizes {
    int k, taps, c;
};

// Of filters w, (k, taps, c): boxes of one tap.
template <class T>
simt::TensorMap filter_map(const FilterSizes& sizes, const T* w, int channels, int filters,
                           int line) {
    const std::uint64_t c = sizes.c, taps = sizes.taps, k = sizes.k, row = sizeof(T) * c;
    return simt::tiled_map(
        {kTensorType<T>,
         w,
         3,
         {c, taps, k},
         {row, row * taps},
         {static_cast<std::uint32_t>(channels), 1, static_cast<std::uint32_t>(filters)},
         {1, 1, 1},
         swizzle_of(line)});
}

// Forward: as they lie, the depth is the faster index.
template <class Tile, int Line>
struct FpropFilters {
    using Element = typename Tile::Element;
    using Layout = TmaKMajor<Element, Tile::kCols, Line>;

    static simt::TensorMap map(const FilterSizes& sizes, const Element* w) {
        return filter_map(sizes, w, Layout::kLine, Tile::kCols, Line);
    }
    // Column `column` of lines: of filters from `first` on, tap `tap` of `taps`, channels from `c` on.
    __device__ static void load(Element* b, int column, const simt::TensorMap& map,
                                simt::Mbarrier& full, int first, int, int tap, int c) {
        simt::tensor_load(b + column * Layout::kColumn, map, full, c, tap, first);
    }
};

// Transposed, in bfloat16: the depth is the slower index, and taps come last first.
template <class Tile, int Line>
struct DgradFilters {
    using Layout = TmaMNMajor<Tile::kCols, kSwizzleBytes>;
    static constexpr int kChannels = Line / sizeof(BFloat16);

    static simt::TensorMap map(const FilterSizes& sizes, const BFloat16* w) {
        return filter_map(sizes, w, Layout::kBlockRows, kChannels, kSwizzleBytes);
    }
    __device__ static void load(BFloat16* b, int column, const simt::TensorMap& map,
                                simt::Mbarrier& full, int first, int taps, int tap, int c) {
#pragma unroll
        for (int block = 0; block < Layout::kBlocks; ++block)
            simt::tensor_load(b + block * Layout::kBlock + column * kChannels * Layout::kBlockRows,
                              map, full, first + block * Layout::kBlockRows, taps - 1 - tap, c);
    }
};

// ---- The copies for one tile, k-tile after k-tile -----------------------------------------------

template <class Tile, int Line, template <class, int> class Filters>
class ConvCopies {
  public:
    using Element = typename Tile::Element;
    using LayoutA = TmaKMajor<Element, Tile::kRows, Line>;
    using LayoutB = typename Filters<Tile, Line>::Layout;
    static constexpr int kChannels = LayoutA::kLine;

    // From window `window`, column `column` and k-tile `k_tile` on.
    __device__ ConvCopies(const simt::TensorMap& image, const simt::TensorMap& filters,
                          const TmaWindows& windows, int window, int column, int k_tile)
        : image_(image),
          filters_(filters),
          taps_(windows.taps()),
          column_(column),
          line_(windows, k_tile * kColumns) {
        const WindowPlace place(windows, window);
        n_ = place.n;
        h_ = place.h(windows);
        w_ = place.w(windows);
    }

    __device__ void load(Element* a, Element* b, simt::Mbarrier& full) {
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
            simt::tensor_load_im2col(a + column * LayoutA::kColumn, image_, full, line_.c, w_, h_,
                                     n_, line_.s, line_.r);
            Filters<Tile, Line>::load(b, column, filters_, full, column_, taps_, line_.tap,
                                      line_.c);
            line_.advance();
        }
    }

  private:
    static constexpr int kColumns = Tile::kDepth / kChannels;  // of lines

    const simt::TensorMap &image_, &filters_;
    int taps_, column_;
    WindowLine<kChannels> line_;
    int n_, h_, w_;  // where the first window begins
};

// ---- The kernel ---------------------------------------------------------------------------------

// The result has a row of `cols` for each window.
template <class Tile, int Line, template <class, int> class Filters>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    conv_tma_kernel(const __grid_constant__ simt::TensorMap image,
                    const __grid_constant__ simt::TensorMap filters, TmaWindows windows,
                    int k_tiles, int cols, TiledWork work,
                    Epilogue<typename Tile::Element> epilogue, typename Tile::Element* y) {
    using Copies = ConvCopies<Tile, Line, Filters>;
    const int rows = windows.count();
    multiply_tiles<Tile, Copies>(
        k_tiles, divide_up(cols, Tile::kCols), work,
        [&](int tile_m, int tile_n, int k_tile) {
            return Copies(image, filters, windows, tile_m * Tile::kRows, tile_n * Tile::kCols,
                          k_tile);
        },
        [&](const TileIndex& index, int tile_m, int tile_n, auto& acc) {
            const auto offset = [&](int i) {
                const int row = tile_m * Tile::kRows + i;
                const bool exists = i < Tile::kRows && row < rows;
                return exists ? static_cast<std::uint32_t>(row) * epilogue.pitch : kNoRow;
            };
            store_part<Tile, TmaRing<Tile, Copies>>(work, index, acc, offset, tile_n * Tile::kCols,
                                                    cols, epilogue, y);
        });
}

template <template <class, int> class Filters, class Tile, class T>
void launch_conv_tma(const TmaWindows& windows, const FilterSizes& sizes, int cols, const T* image,
                     const T* w, const Launch<T>& launch) {
    launch_tiles(windows, launch, [&](auto line, dim3 blocks, const TiledWork& work) {
        simt::launch<conv_tma_kernel<Tile, line, Filters>>(
            blocks, dim3(Tile::kThreads), TmaRing<Tile, ConvCopies<Tile, line, Filters>>::kBytes,
            launch.stream, window_map(windows, image, line, Tile::kRows),
            Filters<Tile, line>::map(sizes, w), windows, windows.k_tiles(), cols, work,
            launch.epilogue, launch.y);
    });
}

template <class Tile, class T>
void launch_fprop_tma(const ConvShape& shape, const T* x, const T* w, const Launch<T>& launch) {
    launch_conv_tma<FpropFilters, Tile>(fprop_windows(shape, Tile::kDepth),
                                        {shape.k, shape.r * shape.s, shape.c}, shape.k, x, w,
                                        launch);
}

// ---- Filters, turned ----------------------------------------------------------------------------

constexpr int kTurnThreads = 256, kTurnSide = 32;  // of a square of filters and channels

// turned[c, taps - 1 - tap, k] = w[k, tap, c]: a block turns a square of one tap. Bound: w is read and
// written once.
template <class T>
__global__ void __launch_bounds__(kTurnThreads)
    turn_filters_kernel(FilterSizes sizes, const T* w, T* turned) {
    constexpr int kRows = kTurnThreads / kTurnSide, kPitch = kTurnSide + 1;
    SIMT_SHARED(T, square, kTurnSide * kPitch);
    const int squares_c = divide_up(sizes.c, kTurnSide), squares_k = divide_up(sizes.k, kTurnSide);
    const int number = static_cast<int>(blockIdx.x), row = number / squares_c;
    const int tap = row / squares_k;
    const int first_c = (number - row * squares_c) * kTurnSide;
    const int first_k = (row - tap * squares_k) * kTurnSide;
    const int fast = threadIdx.x % kTurnSide, slow = threadIdx.x / kTurnSide;
#pragma unroll
    for (int i = 0; i < kTurnSide; i += kRows) {
        const int k = first_k + slow + i, c = first_c + fast;
        if (k < sizes.k && c < sizes.c)
            square[(slow + i) * kPitch + fast] =
                w[(static_cast<std::size_t>(k) * sizes.taps + tap) * sizes.c + c];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTurnSide; i += kRows) {
        const int c = first_c + slow + i, k = first_k + fast;
        if (c < sizes.c && k < sizes.k)
            turned[(static_cast<std::size_t>(c) * sizes.taps + (sizes.taps - 1 - tap)) * sizes.k +
                   k] = square[fast * kPitch + slow + i];
    }
}

template <class T>
void turn_filters(const FilterSizes& sizes, const T* w, T* turned, Stream stream) {
    const int squares = divide_up(sizes.c, kTurnSide) * divide_up(sizes.k, kTurnSide) * sizes.taps;
    simt::launch<turn_filters_kernel<T>>(dim3(squares), dim3(kTurnThreads), 0, stream, sizes, w,
                                         turned);
}

template <class Tile, class T>
void launch_dgrad_tma(const ConvShape& shape, const T* y, const T* w, T* turned,
                      const Launch<T>& launch) {
    const TmaWindows windows = dgrad_windows(shape, Tile::kDepth);
    const FilterSizes sizes{shape.k, shape.r * shape.s, shape.c};
    if constexpr (std::is_same_v<T, float>) {
        turn_filters(sizes, w, turned, launch.stream);
        launch_conv_tma<FpropFilters, Tile, T>(windows, {sizes.c, sizes.taps, sizes.k}, shape.c, y,
                                               turned, launch);
    } else {
        launch_conv_tma<DgradFilters, Tile>(windows, sizes, shape.c, y, w, launch);
    }
}

}  // namespace zfcuda::conv
