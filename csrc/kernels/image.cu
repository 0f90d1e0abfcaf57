// Crops of images: the choice of kernel.
#include "image.cuh"

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

void crop_images(const CropShape& shape, const std::uint8_t* images, const float* mean,
                 const std::int32_t* corners, const std::uint8_t* flips, float* y, Stream stream) {
    const int row_length = shape.out_w * shape.c;
    with_constant(row_length % 4 == 0 && aligned_for_vectors(y), [&](auto vectors) {
        constexpr int kWidth = vectors ? 4 : 1;
        const RowTiles tiles(shape.n, shape.out_h, row_length / kWidth);
        simt::launch<crop_images_kernel<kWidth>>(tiles.grid(), tiles.block(), 0, stream, shape,
                                                 tiles, FastDivisor(shape.c), images, mean, corners,
                                                 flips, y);
    });
}

}  // namespace zfcuda
