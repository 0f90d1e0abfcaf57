// Which part of a product a block computes, and where partial sums go.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/indexing.cuh"
#include "shapes.h"
#include "simt/simt.h"

namespace zfcuda::conv {

// One tile of the result over one split of the depth. Kernels learn it here and nowhere else.
struct TileIndex {
    unsigned tile, split, splits;  // of this tile

    // Where all tiles have as many splits.
    __device__ static TileIndex of_block() { return {blockIdx.x, blockIdx.y, gridDim.y}; }
};

// Where a row begins that does not exist.
constexpr std::uint32_t kNoRow = 0xffffffffu;

// Of a row of a tile: where it begins in the result, and how many columns of the result it has.
struct PartialRow {
    std::uint32_t first;
    int cols;
};

// A workspace for tiles that are split. Their rows lie one after the other, as many columns in each
// as a tile has.
struct PartialSums {
    PartialRow* rows;
    float* sums;  // of the rows, split after split

    static std::size_t bytes(std::size_t rows, int cols, int splits) {
        return rows * (sizeof(PartialRow) + sizeof(float) * cols * splits);
    }
    PartialSums(void* workspace, std::size_t row_count)
        : rows(static_cast<PartialRow*>(workspace)),
          sums(reinterpret_cast<float*>(rows + row_count)) {}
};

// What a launch does: the first `whole` tiles, then `splits` parts of each other one.
struct TiledWork {
    unsigned whole, splits, parts;
    FastDivisor split_tiles;
    int k_tiles_per_split;
    PartialSums partial;

    TiledWork(int tiles, int whole_, int splits_, int k_tiles_per_split_,
              const PartialSums& partial_)
        : whole(whole_),
          splits(splits_),
          parts(whole + (tiles - whole_) * splits),
          split_tiles(std::max(1, tiles - whole_)),
          k_tiles_per_split(k_tiles_per_split_),
          partial(partial_) {}

    ZFCUDA_HOST_DEVICE unsigned count() const { return parts; }

    __device__ TileIndex at(unsigned part) const {
        if (part < whole) return {part, 0, 1};
        const int piece = static_cast<int>(part - whole), split = piece / split_tiles;
        return {part - split * split_tiles.divisor, static_cast<unsigned>(split), splits};
    }
};

// The part of the depth that a split sums: `k_tiles` k-tiles from depth index `first` on.
struct DepthRange {
    int first, k_tiles;

    __device__ DepthRange(const TileIndex& index, int depth, int tile_depth,
                          int k_tiles_per_split) {
        const int all = divide_up(depth, tile_depth);
        const int first_k_tile = static_cast<int>(index.split) * k_tiles_per_split;
        first = first_k_tile * tile_depth;
        k_tiles = index.splits == 1 ? all : max(0, min(k_tiles_per_split, all - first_k_tile));
    }
};

}  // namespace zfcuda::conv
