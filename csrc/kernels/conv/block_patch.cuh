// A block forward (block_fprop.cuh) of few channels: by a patch of the image in shared memory
// (image_patch.cuh). Where that patch and the stages were comes the map of the region.
#pragma once

#include "image_patch.cuh"

namespace zfcuda::conv {

// Bytes for the filters. Defined in block_patch.cu, as is what follows.
template <class Math>
std::size_t block_patch_workspace(const ConvShape& conv, const PoolShape& pool, const Plan& plan);

// y, switches = max_pool2d(relu(conv2d(x, w) + b)). Arrays may lie anywhere.
template <class Math>
void block_patch(const ConvShape& conv, const PoolShape& pool, const Plan& plan,
                 const Element<Math>* x, const Element<Math>* w, const float* b, Element<Math>* y,
                 std::uint8_t* switches, void* workspace, Stream stream);

}  // namespace zfcuda::conv
