// Crops of images that are still in files, for zfcuda/data: bound beside the operations of ops.h.
#pragma once

#include <cstdint>

#include "../shapes.h"

namespace zfcuda {

// crop_images (ops.h) of images in files: image n is the H*W*C bytes from offsets[n] on, int64 (N,),
// of the open file with the descriptor files[n], int32 (N,). What a crop needs of its image is read
// when it is cropped. failures int32 (N,): 0, what errno was, or -1 where the file ends before; of
// such images y is any.
void crop_stored_images(const CropShape& shape, const std::int32_t* files,
                        const std::int64_t* offsets, const float* mean, const std::int32_t* corners,
                        const std::uint8_t* flips, float* y, std::int32_t* failures);

}  // namespace zfcuda
