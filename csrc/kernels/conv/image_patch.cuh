// The windows of few channels, read from a patch of the image in shared memory.
//
// A block computes a region of the map (pooled_regions.cuh) for kCols filters. The part of the image
// that the region's windows see lies in shared memory, once, as chunks of 16 bytes: 8 bfloat16s or 4
// floats are neighbouring pixels of 4 channels (of 1 or 2 where the image has no more), missing ones
// zero. What ldmatrix reads as a row of a matrix is one such chunk: a window's depth is R rows of T =
// ceil(S / pixels of a chunk) chunks, and neighbouring windows overlap in place.
//
// Where a window begins in the middle of a chunk, it reads another copy of the patch, shifted by some
// pixels: of window q, which begins at pixel q * stride_w, copy q % shifts holds chunk t at
// q / shifts * step + t, with step = stride_w * shifts / pixels. So that eight neighbouring windows
// are neighbours in shared memory whatever the strides, every step-th chunk of a line lies in a plane
// of its own, and so does every stride_h-th line:
//
//   slot = ((plane * lines + line) * shifts + copy) * pitch + q / shifts + t / step
//
// with `pitch` equal to the windows across modulo 8: the slots of the rows of a matrix tile are equal
// to the rows modulo 8, and nothing conflicts. A row's slot plus a chunk's (`taps`, a table) is where
// ldmatrix reads.
//
// Pixels of a chunk beyond the window meet filters of zero (padded_sums.cuh).
//
// In float32 a thread reads a chunk of each of its rows as they lie there, and multiplies of its
// elements those that are channels: nothing is gathered, and of three channels nothing is padded.
//
// Cut. Warps of WarpRows x WarpCols results; k-tiles of four chunks, 64 bytes, whose filters come by
// cp.async in the order in which lanes want them (a first kernel packs them).
// Bound: rows x cols x chunks of 16 bytes FMAs. A warp of 64 x 48 reads 14 matrices for 24
// instructions of mma.sync, 112 cycles of shared memory for 152 of Hopper's tensor cores (four such
// warps, a step); filters are 64 bytes a column and k-tile from L2, the image is read about once.
// In float32 a chunk of three channels takes a thread 192 FMAs and 14 loads of 16 bytes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <type_traits>

#include "ffma.cuh"
#include "mma.cuh"
#include "plan.h"
#include "pooled_regions.cuh"

namespace zfcuda::conv {

constexpr int kMaxImageChannels = 4;
constexpr int kKTileChunks = 4;  // of a window, in a k-tile of fprop

// ---- The patch ----------------------------------------------------------------------------------

// Where what lies, with divisors that only the launcher knows.
template <class Math>
struct ImagePatch {
    static constexpr int kChunk = 16 / sizeof(Element<Math>);  // elements of a chunk

    int channels;  // of a pixel in the patch
    int pixels;    // of a chunk
    int step;      // in chunks, from a window to the next of the same copy
    FastDivisor shifts, across, pitch, lines, planes_down, taps_across;
    int rows;    // of the region, with those that only fill its lines up
    int chunks;  // of a window
    int k_tiles;
    std::int64_t slots;

    ImagePatch(const ConvShape& s, int region_h, int region_w)
        : channels(s.c > 2 ? kMaxImageChannels : s.c),
          pixels(kChunk / channels),
          step(s.stride_w / std::gcd(s.stride_w, pixels)),
          shifts(shifts_of(s)),
          across(divide_up(region_w, shifts.divisor)),
          pitch(across.divisor + divide_up((divide_up(s.s, pixels) - 1) / step, 8) * 8),
          lines(region_h + (s.r - 1) / s.stride_h),
          planes_down(std::min(s.r, s.stride_h)),
          taps_across(divide_up(s.s, pixels)),
          rows(region_h * shifts.divisor * across.divisor),
          chunks(s.r * taps_across.divisor),
          k_tiles(divide_up(chunks, kKTileChunks)),
          slots(std::int64_t{std::min(step, taps_across.divisor)} * planes_down.divisor *
                lines.divisor * shifts.divisor * pitch.divisor) {}

    // Copies of an image that the windows of a convolution need.
    static int shifts_of(const ConvShape& s) {
        const int pixels = kChunk / (s.c > 2 ? kMaxImageChannels : s.c);
        return pixels / std::gcd(s.stride_w, pixels);
    }

    // Where the window of a row of the tile begins; rows that are none repeat others.
    __device__ int slot_of_row(int row) const {
        if (row >= rows) row = rows >= 8 ? row % 8 : 0;
        const int line = row / across;
        return line * pitch.divisor + row - line * across.divisor;
    }
    // Where the window of a pixel of the region begins.
    __device__ int slot_of_pixel(int p, int q) const {
        const int across_copy = q / shifts, copy = q - across_copy * shifts.divisor;
        return (p * shifts.divisor + copy) * pitch.divisor + across_copy;
    }
    // Where a chunk lies, from where its window begins; past the last, as the last.
    __device__ int slot_of_chunk(int chunk, int stride_h) const {
        chunk = min(chunk, chunks - 1);
        const int r = chunk / taps_across, t = chunk - r * taps_across.divisor;
        const int plane = t % step * planes_down.divisor + r % stride_h;
        return (plane * lines.divisor + r / stride_h) * shifts.divisor * pitch.divisor + t / step;
    }
    // The pixel of a row, from the region's first.
    struct Pixel {
        int p, q;
    };
    __device__ Pixel locate(int row) const {
        const int line = row / across, p = line / shifts;
        const int copy = line - p * shifts.divisor;
        return {p, (row - line * across.divisor) * shifts.divisor + copy};
    }
};

// ---- The tile -----------------------------------------------------------------------------------

// Of Rows x Cols results, which multiplies Elements of each chunk.
template <class Math_, int Rows, int Cols, int Elements, int Stages, int MinBlocks>
struct ImageTileSizes {
    using Math = Math_;
    using Element = typename Math::Element;
    using Patch = ImagePatch<Math>;
    static constexpr MainLoop kMainLoop = MainLoop::kPatch;
    static constexpr int kRows = Rows, kCols = Cols;
    static constexpr int kElements = Elements;
    static constexpr int kDepth = kKTileChunks * Elements;
    static constexpr int kStages = Stages;
    static constexpr int kStage = kDepth * kCols;  // elements: filters
    static constexpr int kMinBlocks = MinBlocks;

    // Shared memory: where the rows' results go, the slots of the chunks, the patch, and the stages.
    static std::size_t shared_bytes(const Patch& patch) {
        return sizeof(std::uint32_t) * kRows + sizeof(int) * kKTileChunks * patch.k_tiles +
               16 * static_cast<std::size_t>(patch.slots) + sizeof(Element) * kStages * kStage;
    }
    // Of the packed filters.
    static std::int64_t filter_values(const Patch& patch, int k) {
        return std::int64_t{divide_up(k, kCols)} * patch.k_tiles * kStage;
    }
    // Their bytes, rounded up so that what follows is aligned.
    static std::size_t filter_bytes(const Patch& patch, int k) {
        return (sizeof(Element) * filter_values(patch, k) + 255) / 256 * 256;
    }
};

template <class Tile>
class PatchMmaRows;
template <class Tile>
class PatchMmaProduct;
template <class Tile>
class PatchFfmaProduct;

// Tensor cores: WarpsM x WarpsN warps of WarpRows x WarpCols results each.
template <class Math, int WarpsM, int WarpsN, int WarpRows, int WarpCols, int Stages, int MinBlocks>
struct ImageTile : ImageTileSizes<Math, WarpsM * WarpRows, WarpsN * WarpCols,
                                  ImagePatch<Math>::kChunk, Stages, MinBlocks> {
    static_assert(WarpRows % 16 == 0 && WarpCols % 16 == 0);
    static constexpr int kWarpsN = WarpsN, kWarpRows = WarpRows, kWarpCols = WarpCols;
    static constexpr int kThreads = WarpsM * WarpsN * kWarp;
    static constexpr double kEfficiency = 0.8;  // as mma.cuh has it

    using Multiplier = PatchMmaRows<ImageTile>;
    using Product = PatchMmaProduct<ImageTile>;
    using Accumulators = float[WarpRows / 16][WarpCols / 8][4];
};

// FMA instructions: warps as those of ffma.cuh, of 64 x 32 results.
template <int WarpsM, int WarpsN, int Elements, int Stages, int MinBlocks>
struct FfmaImageTile : ImageTileSizes<Fp32, WarpsM * 64, WarpsN * 32, Elements, Stages, MinBlocks> {
    static constexpr int kWarpsN = WarpsN;
    static constexpr int kLanesM = 8, kLanesN = 4;
    static constexpr int kThreadM = 8, kThreadN = 8;
    static constexpr int kThreads = WarpsM * WarpsN * kWarp;
    static constexpr double kEfficiency = 1.0;

    using Multiplier = Ffma<FfmaImageTile, FfmaKMajor<WarpsM * 64>, FfmaMNMajor<WarpsN * 32>>;
    using Product = PatchFfmaProduct<FfmaImageTile>;
    using Accumulators = float[kThreadM][kThreadN];
};

template <class Math>
struct ImageTiles {
    using List =
        TileList<1, 1, ImageTile<Math, 2, 2, 64, 48, 3, 3>, ImageTile<Math, 2, 2, 64, 32, 3, 4>>;
};
template <>
struct ImageTiles<Fp32> {
    using List = TileList<1, 1, FfmaImageTile<2, 3, 3, 3, 2>, FfmaImageTile<2, 2, 3, 3, 3>,
                          FfmaImageTile<2, 3, 4, 3, 2>, FfmaImageTile<2, 2, 4, 3, 3>>;
};

// Whether a tile multiplies the chunks of so many channels as they are.
template <class Tile>
constexpr bool may_multiply(int channels) {
    return !std::is_same_v<typename Tile::Math, Fp32> ||
           Tile::kElements == (channels == 3 ? 3 : kMaxImageChannels);
}

// ---- Plans --------------------------------------------------------------------------------------

inline bool may_have_patch(const ConvShape& s) {
    constexpr int kMost = 64;  // taps or steps in a direction; a larger patch would not fit
    return s.is_dense() && s.c <= kMaxImageChannels &&
           std::max({s.r, s.s, s.stride_h, s.stride_w}) <= kMost;
}

// By which a map without a pool is cut.
inline PoolShape pool_of_pixels(const ConvShape& s) {
    return {s.n, s.p(), s.q(), s.k, 1, 1, 1, 1, 0, 0, 0, 0};
}

// Calls use(tile, tiling, patch) for each tile that the shapes allow.
template <class Math, class Use>
void for_each_image_tile(const ConvShape& conv, const PoolShape& pool, Use use) {
    if (!may_have_patch(conv)) return;
    for_each_tile(typename ImageTiles<Math>::List{}, [&](auto tile) {
        using Tile = decltype(tile);
        if (!may_multiply<Tile>(conv.c)) return;
        const auto tiling = make_tiling<Tile>(pool, ImagePatch<Math>::shifts_of(conv));
        if (!tiling) return;
        const ImagePatch<Math> patch(conv, tiling->region_h, tiling->region_w);
        if (Tile::shared_bytes(patch) <= simt::max_shared_bytes()) use(tile, *tiling, patch);
    });
}

template <class Tile>
Plan plan_image_tile(const PoolShape& pool, const PoolTiling& tiling,
                     const ImagePatch<typename Tile::Math>& patch, std::size_t shared_bytes) {
    const int blocks = count_regions(pool, tiling);
    const int on_sm = blocks_on_sm<Tile>(shared_bytes);
    return {
        kKernel<Tile>, blocks,
        blocks,        1,
        patch.k_tiles, tile_cost<Tile>(blocks, patch.k_tiles) + exposed_cost<Tile>(blocks, on_sm)};
}

// Kernels that copy windows element by element are slower than their tiles let expect: by 1.2
// (float32), 2.3 (tf32) and 3.5 (bfloat16), say the bounds of their machine code.
template <class Math>
constexpr double kElementCopyCost = std::is_same_v<Math, Fp32>   ? 1.2
                                    : std::is_same_v<Math, Tf32> ? 2.3
                                                                 : 3.5;

template <class Math>
double copy_cost(const ConvShape& shape) {
    const bool is_vectorisable = shape.group_c() % kVectorWidth<Element<Math>> == 0;
    return is_vectorisable ? 1 : kElementCopyCost<Math>;
}

}  // namespace zfcuda::conv
