// Which part of a product a block computes.
#pragma once

#include "kernels/indexing.cuh"
#include "shapes.h"
#include "simt/simt.h"

namespace zfcuda::conv {

// One tile of the result over one split of the depth. Kernels learn it here and nowhere else.
struct TileIndex {
    unsigned tile, split, splits;

    __device__ static TileIndex of_block() { return {blockIdx.x, blockIdx.y, gridDim.y}; }
};

// What a launch does whose blocks take several tiles, one after the other: of its `tiles` x `splits`
// parts block b takes b, b + gridDim.x, ...
struct TiledWork {
    unsigned tiles, splits;
    int k_tiles_per_split;

    ZFCUDA_HOST_DEVICE unsigned count() const { return tiles * splits; }
    __device__ TileIndex at(unsigned part) const { return {part % tiles, part / tiles, splits}; }
};

// The part of the depth that a split sums: `k_tiles` k-tiles from depth index `first` on.
struct DepthRange {
    int first, k_tiles;

    __device__ DepthRange(const TileIndex& index, int depth, int tile_depth,
                          int k_tiles_per_split) {
        const int first_k_tile = static_cast<int>(index.split) * k_tiles_per_split;
        first = first_k_tile * tile_depth;
        k_tiles = max(0, min(k_tiles_per_split, divide_up(depth, tile_depth) - first_k_tile));
    }
};

}  // namespace zfcuda::conv
