// Convolution, forward as in fprop.cuh and transposed as in dgrad.cuh, on Hopper's own main loop
// (tma.cuh): the product of windows (rows) with filters over the depth R*S*C or, phase by phase
// (tma_phases.cuh), taps*K; of dense filters; of channels in multiples of 8, transposed also of filters,
// in bfloat16, and of 4 in tf32.
//
//   forward      windows of x, filters w[k, r, s, c]: one a column
//   transposed   windows of y, filters w[k, r, s, c] of the phase's taps, the last first: one c a column
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
#include "tma_phases.cuh"
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

    static constexpr int kColumns = Tile::kDepth / kChannels;  // of lines

    // Of a phase, from window `window`, column `column` and k-tile `k_tile` on.
    __device__ ConvCopies(const simt::TensorMap& image, const simt::TensorMap& filters,
                          const TmaWindows& windows, const TmaResult& result, const TmaPhase& phase,
                          int window, int column, int k_tile)
        : image_(image),
          filters_(filters),
          taps_(phase.taps(result)),
          filter_taps_(result.taps()),
          column_(column),
          line_(windows.channels, phase.h.taps, phase.w.taps, k_tile * kColumns) {
        const WindowPlace place(windows, window);
        n_ = place.n;
        h_ = place.h(windows);
        w_ = place.w(windows);
    }

    // Of a k-tile.
    __device__ static constexpr unsigned bytes() {
        return sizeof(Element) * (LayoutA::kSize + LayoutB::kSize);
    }

    __device__ void load(Element* a, Element* b, simt::Mbarrier& full) {
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
            simt::tensor_load_im2col(a + column * LayoutA::kColumn, image_, full, line_.c, w_, h_,
                                     n_, taps_.s + line_.s, taps_.r + line_.r);
            Filters<Tile, Line>::load(b, column, filters_, full, column_, filter_taps_,
                                      taps_.filter_tap(line_.r, line_.s), line_.c);
            line_.advance();
        }
    }

  private:
    const simt::TensorMap &image_, &filters_;
    TmaTaps taps_;
    int filter_taps_, column_;
    WindowLine<kChannels> line_;
    int n_, h_, w_;  // where the first window begins
};

// ---- The kernel ---------------------------------------------------------------------------------

// Of the rows that a thread stores, of(row), computed once: the function that knows it of each.
template <class Multiplier, class Of>
__device__ inline auto offsets_of_rows(Of of) {
    struct Offsets {
        std::uint32_t of_rows[Multiplier::kRows];
        __device__ std::uint32_t operator()(int row) const {
            const Multiplier mine;
            std::uint32_t found = kNoRow;
#pragma unroll
            for (int i = 0; i < Multiplier::kRows; ++i)
                if (row == mine.row(i)) found = of_rows[i];
            return found;
        }
    };
    const Multiplier mine;
    Offsets offsets;
#pragma unroll
    for (int i = 0; i < Multiplier::kRows; ++i)
        offsets.of_rows[i] = of(mine.row(i));
    return offsets;
}

// The result has `cols` channels.
template <class Tile, int Line, template <class, int> class Filters>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    conv_tma_kernel(const __grid_constant__ simt::TensorMap image,
                    const __grid_constant__ simt::TensorMap filters, TmaWindows windows,
                    TmaResult result, int cols, TiledWork work,
                    Epilogue<typename Tile::Element> epilogue, typename Tile::Element* y) {
    using Copies = ConvCopies<Tile, Line, Filters>;
    multiply_tiles<Tile, Copies>(
        [&](int tile_m) {
            const TmaPhase phase(result, tile_m);
            const int lines =
                phase.h.taps * phase.w.taps * divide_up(windows.channels, Copies::kChannels);
            return divide_up(lines, Copies::kColumns);
        },
        divide_up(cols, Tile::kCols), work,
        [&](int tile_m, int tile_n, int k_tile) {
            const TmaPhase phase(result, tile_m);
            return Copies(image, filters, windows, result, phase, phase.tile_m * Tile::kRows,
                          tile_n * Tile::kCols, k_tile);
        },
        [&](const TileIndex& index, int tile_m, int tile_n, auto& acc) {
            const TmaPhase phase(result, tile_m);
            const auto offset =
                offsets_of_rows<typename TmaRing<Tile, Copies>::Multiplier>([&](int i) {
                    const int window = phase.tile_m * Tile::kRows + i;
                    return i < Tile::kRows ? phase.offset(result, window, epilogue.pitch) : kNoRow;
                });
            store_part<Tile, TmaRing<Tile, Copies>>(work, index, acc, offset, tile_n * Tile::kCols,
                                                    cols, epilogue, y);
        });
}

template <template <class, int> class Filters, class Tile, class T>
void launch_conv_tma(const TmaWindows& windows, const TmaResult& result, const FilterSizes& sizes,
                     int cols, const T* image, const T* w, const Launch<T>& launch) {
    launch_tiles(windows, launch, [&](auto line, dim3 blocks, const TiledWork& work) {
        simt::launch<conv_tma_kernel<Tile, line, Filters>>(
            blocks, dim3(Tile::kThreads), TmaRing<Tile, ConvCopies<Tile, line, Filters>>::kBytes,
            launch.stream, window_map(windows, image, line, Tile::kRows),
            Filters<Tile, line>::map(sizes, w), windows, result, cols, work, launch.epilogue,
            launch.y);
    });
}

template <class Tile, class T>
void launch_fprop_tma(const ConvShape& shape, const T* x, const T* w, const Launch<T>& launch) {
    const TmaWindows windows = fprop_windows(shape, Tile::kDepth);
    launch_conv_tma<FpropFilters, Tile>(windows, fprop_result(shape, windows, Tile::kRows),
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
    const TmaResult result = dgrad_result(shape, windows, Tile::kRows);
    const FilterSizes sizes{shape.k, shape.r * shape.s, shape.c};
    if constexpr (std::is_same_v<T, float>) {
        turn_filters(sizes, w, turned, launch.stream);
        launch_conv_tma<FpropFilters, Tile, T>(windows, result, {sizes.c, sizes.taps, sizes.k},
                                               shape.c, y, turned, launch);
    } else {
        launch_conv_tma<DgradFilters, Tile>(windows, result, sizes, shape.c, y, w, launch);
    }
}

}  // namespace zfcuda::conv
