// Crops, horizontal flips and mean subtraction: uint8 images to a float32 batch, in one pass (P2).
//
//   y[n,i,j,c] = images[n, top+i, left+j', c] - mean[top+i, left+j', c], (top, left) = corners[n],
//   j' = j, or out_w - 1 - j where flips[n] is not zero; zero outside the image
//
// Work: a thread makes a vector of consecutive floats of one row of y (one 16-byte store where the
// row allows), in blocks of 4 rows by 64 vectors (RowTiles). Its bytes are read one by one, since
// a crop begins anywhere and a flip reverses pixels but not their channels.
// Bound: memory, 5 bytes an element (4 written, 1 read); the mean is shared by all images of the
// batch and stays in the L2 cache.
#pragma once

#include "indexing.cuh"
#include "shapes.h"
#include "vector.cuh"

namespace zfcuda {

template <int Width>
__global__ void crop_images_kernel(CropShape shape, RowTiles tiles, FastDivisor channels,
                                   const std::uint8_t* __restrict__ images,
                                   const float* __restrict__ mean,
                                   const std::int32_t* __restrict__ corners,
                                   const std::uint8_t* __restrict__ flips, float* __restrict__ y) {
    const RowTiles::Place at = tiles.place();
    if (!at.inside) return;
    // Unsigned, so that a corner far outside wraps around to a pixel that is outside, too.
    const unsigned h = static_cast<unsigned>(corners[2 * at.image]) + at.row;
    const auto left = static_cast<unsigned>(corners[2 * at.image + 1]);
    const bool flip = flips[at.image] != 0;
    const std::uint8_t* image = images + at.image * (shape.h * shape.w * shape.c);

    auto value = Vector<float, Width>::filled(0.0f);
    int j = at.column * Width / channels;
    int c = at.column * Width - j * shape.c;
#pragma unroll
    for (int e = 0; e < Width; ++e) {
        const unsigned w = left + (flip ? shape.out_w - 1 - j : j);
        if (h < static_cast<unsigned>(shape.h) && w < static_cast<unsigned>(shape.w)) {
            const unsigned pixel = (h * shape.w + w) * shape.c + c;
            value.at[e] = image[pixel];
            if (mean != nullptr) value.at[e] -= mean[pixel];
        }
        if (++c == shape.c) {
            c = 0;
            ++j;
        }
    }
    const int row_length = shape.out_w * shape.c;
    store(y + (at.image * shape.out_h + at.row) * row_length + at.column * Width, value);
}

}  // namespace zfcuda
