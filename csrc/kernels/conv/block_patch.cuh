// A block forward (block_fprop.cuh) of few channels: by a patch of the image in shared memory
// (image_patch.cuh). Where that patch and the stages were comes the map of the region.
#pragma once

#include "image_patch.cuh"

namespace zfcuda::conv {

// The map's pitch: rows that are stored together, four of 8 bytes a lane or two of 16, lie on
// different banks.
template <class Tile>
constexpr int kMapPitch = Tile::kCols + 16;

// Shared memory of a block.
template <class Tile>
std::size_t block_bytes(const typename Tile::Patch& patch) {
    constexpr std::size_t kMap = sizeof(std::uint32_t) * Tile::kRows +
                                 sizeof(typename Tile::Element) * Tile::kRows * kMapPitch<Tile>;
    return std::max(Tile::shared_bytes(patch), kMap);
}

// Bytes for the filters. Defined in block_patch.cu, as is what follows.
template <class Math>
std::size_t block_patch_workspace(const ConvShape& conv, const PoolShape& pool, const Plan& plan);

// y, switches = max_pool2d(relu(conv2d(x, w) + b)). Arrays may lie anywhere.
template <class Math>
void block_patch(const ConvShape& conv, const PoolShape& pool, const Plan& plan,
                 const Element<Math>* x, const Element<Math>* w, const float* b, Element<Math>* y,
                 std::uint8_t* switches, void* workspace, Stream stream);

}  // namespace zfcuda::conv
