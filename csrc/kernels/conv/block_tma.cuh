// A block forward, as in block_fprop.cuh, on Hopper's own main loop (tma.cuh): of dense filters, of
// channels in multiples of 8 in bfloat16, and of 4 in tf32.
//
//   map = relu(conv2d(x, w) + b);  y, switches = max_pool2d(map)
//
// Cut (MapCut, block_tma.h). Where windows of the pool lie side by side, a tile's rows are successive
// ones, and the accelerator gathers the pixels under a tap as in conv_tma.cuh, for each line of the
// windows: nothing is computed twice. Else they are the pixels of a region of one image's map: under a
// tap a rectangle of the image, of which the stride takes some pixels, is a box of the accelerator. No
// more rows are copied than there are; behind them lie zeros, whose results are not stored.
//
// Shared memory: the ring, and beside it the map of the tile, 128 bytes of channels at a time: what
// the consumers store and pool there is never the accelerator's, and the next tile's k-tiles are being
// copied meanwhile. The price is a stage of the larger tiles, which leaves two that are being filled:
// 96 KB under way, where 28 bytes a cycle for a thousand cycles of latency are 28. Consumers meet at a
// barrier of their own, for the producer does not wait for tiles to be stored.
//
// Bound. That of tma.cuh; rows that are not copied take tensor cores' time alone. The pooling of a tile
// takes time where it is longer than the ring's k-tiles are in coming. The map, two or four bytes a
// value written and read again, is never in memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "block_tma.h"
#include "conv_tma.cuh"

namespace zfcuda::conv {

// ---- The copies for one tile, k-tile after k-tile -----------------------------------------------

template <class Tile, int Line>
class MapCopies {
  public:
    using Element = typename Tile::Element;
    using Filters = FpropFilters<Tile, Line>;
    using LayoutA = TmaKMajor<Element, Tile::kRows, Line>;
    using LayoutB = typename Filters::Layout;
    static constexpr int kChannels = LayoutA::kLine;
    static constexpr int kColumns = Tile::kDepth / kChannels;  // of lines

    // Of a tile whose rows are this region, and the filters from `column` on.
    __device__ MapCopies(const simt::TensorMap& image, const simt::TensorMap& filters,
                         const MapCut& map, const Region& region, int column)
        : image_(image),
          filters_(filters),
          map_(map),
          column_(column),
          line_(map.windows.channels, map.windows.taps_h, map.windows.taps_w, 0) {
        if (map.line_step > 0) {
            const WindowPlace place(map.windows, region.q0);
            n_ = place.n;
            h_ = place.h(map.windows);
            w_ = place.w(map.windows);
        } else {
            n_ = region.n;
            h_ = region.p0 * map.windows.stride_h + map.windows.first_h;
            w_ = region.q0 * map.windows.stride_w + map.windows.first_w;
        }
    }

    // Of a k-tile.
    __device__ unsigned bytes() const { return kSwizzleBytes * (map_.rows() + Tile::kCols); }

    __device__ void load(Element* a, Element* b, simt::Mbarrier& full) {
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
            load_rows(a + column * LayoutA::kColumn, full);
            Filters::load(b, column, filters_, full, column_, map_.windows.taps(), line_.tap,
                          line_.c);
            line_.advance();
        }
    }

  private:
    __device__ void load_rows(Element* a, simt::Mbarrier& full) const {
        if (map_.line_step == 0) {
            simt::tensor_load(a, image_, full, line_.c, w_ + line_.s, h_ + line_.r, n_);
            return;
        }
        const int size = map_.tiling.region_w * LayoutA::kLine;
        for (int i = 0; i < map_.tiling.region_h; ++i)
            simt::tensor_load_im2col(a + i * size, image_, full, line_.c, w_, h_, n_, line_.s,
                                     line_.r + i * map_.line_step);
    }

    const simt::TensorMap &image_, &filters_;
    const MapCut& map_;
    int column_;
    WindowLine<kChannels> line_;
    int n_, h_, w_;  // where the first window begins
};

// ---- The map ------------------------------------------------------------------------------------

// Some columns of the accumulators, from First on.
template <class Ring, int First, int Cols>
struct ColumnsOf {
    using Accumulators = typename Ring::Accumulators;
    struct Multiplier : Ring::Multiplier {
        static constexpr int kVectors = Cols / 8;
        __device__ static float& at(Accumulators& acc, int i, int vector, int e) {
            return Ring::Multiplier::at(acc, i, First / 8 + vector, e);
        }
    };
};

// In shared memory, behind the ring. Its pitch puts the eight rows that a warp stores together on
// different banks.
template <class Tile, class Copies>
struct SharedMap {
    using Element = typename Tile::Element;
    using Ring = TmaRing<Tile, Copies>;
    static constexpr int kCols = kSwizzleBytes / sizeof(Element);
    static constexpr int kPitch = kCols + 8;
    static constexpr std::size_t kBytes = Ring::kBytes + sizeof(Element) * Tile::kRows * kPitch;

    __device__ static Element* begin() {
        return reinterpret_cast<Element*>(simt::dynamic_shared<unsigned char>() + Ring::kBytes);
    }
};

constexpr unsigned kConsumerBarrier = 1;

// What becomes of a tile's accumulators, from column First on: called by every consumer.
template <class Tile, class Copies, int First = 0>
__device__ __forceinline__ void pool_accumulators(const MapCut& map, const Region& region,
                                                  typename Tile::Accumulators& acc, const float* b,
                                                  typename Tile::Element* y, std::uint8_t* switches,
                                                  bool vectorised) {
    using T = typename Tile::Element;
    using Shared = SharedMap<Tile, Copies>;
    using Columns = ColumnsOf<typename Shared::Ring, First, Shared::kCols>;
    const int channels = map.pool.c, first_channel = region.tile_n * Tile::kCols + First;
    if (first_channel >= channels) return;
    const int rows = map.rows();

    // Nobody still pools what was there before.
    simt::named_barrier_sync(kConsumerBarrier, Tile::kConsumers);
    const auto offset = [&](int row) {
        return row < rows ? static_cast<std::uint32_t>(row) * Shared::kPitch : kNoRow;
    };
    store_tile<Columns>(acc, offset, first_channel, channels,
                        Epilogue<T>{nullptr, b, nullptr, true, true}, Shared::begin());
    simt::named_barrier_sync(kConsumerBarrier, Tile::kConsumers);
    pool_region<Tile::kConsumers, Shared::kCols, Shared::kPitch>(
        map.pool, map.tiling, region, first_channel, Shared::begin(), y, switches, vectorised);
    if constexpr (First + Shared::kCols < Tile::kCols)
        pool_accumulators<Tile, Copies, First + Shared::kCols>(map, region, acc, b, y, switches,
                                                               vectorised);
}

// ---- What no copy and no result fills -----------------------------------------------------------

// So many zeros, a multiple of a vector, by the whole block of threads.
template <class Tile>
__device__ inline void clear(typename Tile::Element* first, int count) {
    using T = typename Tile::Element;
    constexpr int kWidth = kVectorWidth<T>;
    for (int i = threadIdx.x * kWidth; i < count; i += Tile::kThreads * kWidth)
        store(first + i, Vector<T, kWidth>::filled(from_float<T>(0.0f)));
}

// Before the ring is set up: the rows of all stages that products read, too; and of the map, channels
// behind the last one that are pooled with it.
template <class Tile, class Copies>
__device__ inline void clear_shared(const MapCut& map) {
    using Layout = typename Copies::LayoutA;
    using Shared = SharedMap<Tile, Copies>;
    const int first = map.rows() * Layout::kLine;
    auto* const stages = simt::dynamic_shared<typename Tile::Element>();
    for (int stage = 0; stage < Tile::kStages; ++stage)
        for (int column = 0; column < Copies::kColumns; ++column)
            clear<Tile>(stages + stage * Shared::Ring::kStage + column * Layout::kColumn + first,
                        Layout::kColumn - first);
    simt::fence_proxy_async();
    if (map.pool.c % 4 != 0) clear<Tile>(Shared::begin(), Tile::kRows * Shared::kPitch);
}

// ---- The kernel ---------------------------------------------------------------------------------

template <class Tile, int Line>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kMinBlocks)
    block_tma_kernel(const __grid_constant__ simt::TensorMap image,
                     const __grid_constant__ simt::TensorMap filters,
                     const __grid_constant__ MapCut map, int k_tiles, TiledWork work,
                     const float* b, typename Tile::Element* y, std::uint8_t* switches,
                     bool vectorised) {
    using Copies = MapCopies<Tile, Line>;
    clear_shared<Tile, Copies>(map);
    const int tiles_n = map.tiling.tiles_n.divisor;
    multiply_tiles<Tile, Copies>(
        [&](int) { return k_tiles; }, tiles_n, work,
        [&](int tile_m, int tile_n, int) {
            const TileIndex index{static_cast<unsigned>(tile_m * tiles_n + tile_n), 0, 1};
            return Copies(image, filters, map, Region(map.pool, map.tiling, index),
                          tile_n * Tile::kCols);
        },
        [&](const TileIndex& index, int, int, auto& acc) {
            pool_accumulators<Tile, Copies>(map, Region(map.pool, map.tiling, index), acc, b, y,
                                            switches, vectorised);
        });
}

// Of an image: what is copied of it at once.
template <class T>
simt::TensorMap image_map(const MapCut& map, const T* image, int line) {
    const TmaWindows& v = map.windows;
    if (map.line_step > 0) return window_map(v, image, line, map.tiling.region_w);
    const std::uint64_t c = v.channels, w = v.w, h = v.h, n = v.n, pixel = sizeof(T) * c;
    return simt::tiled_map(
        {kTensorType<T>,
         image,
         4,
         {c, w, h, n},
         {pixel, pixel * w, pixel * w * h},
         {static_cast<std::uint32_t>(line / sizeof(T)),
          static_cast<std::uint32_t>(box_side(map.tiling.region_w, v.stride_w)),
          static_cast<std::uint32_t>(box_side(map.tiling.region_h, v.stride_h)), 1},
         {1, static_cast<std::uint32_t>(v.stride_w), static_cast<std::uint32_t>(v.stride_h), 1},
         swizzle_of(line)});
}

template <class Tile>
void launch_block_tma(const ConvShape& conv, const PoolShape& pool, const typename Tile::Element* x,
                      const typename Tile::Element* w, const float* b, typename Tile::Element* y,
                      std::uint8_t* switches, Stream stream) {
    using T = typename Tile::Element;
    const MapCut map = *cut_map<Tile>(conv, pool);
    const int tiles = count_regions(map.pool, map.tiling), k_tiles = map.windows.k_tiles();
    const TiledWork all(tiles, tiles, 1, k_tiles, PartialSums(nullptr, 0));
    const FilterSizes sizes{conv.k, conv.r * conv.s, conv.c};
    const bool vectorised = conv.k % 4 == 0 && aligned_for_vectors(y, switches);
    launch_tiles<T>(map.windows, {all, {}, y, stream},
                    [&](auto line, dim3 blocks, const auto& work) {
                        using Copies = MapCopies<Tile, line>;
                        simt::launch<block_tma_kernel<Tile, line>>(
                            blocks, dim3(Tile::kThreads), SharedMap<Tile, Copies>::kBytes, stream,
                            image_map(map, x, line), Copies::Filters::map(sizes, w), map, k_tiles,
                            work, b, y, switches, vectorised);
                    });
}

}  // namespace zfcuda::conv
