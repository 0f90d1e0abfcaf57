// Windows of images, each cut at its own place from an image of its own.
//
//   y[n,i,j,c] = x[images[n], top+i, left+j, c], (top, left) = corners[n]; zero outside x
//
// A window that is larger than the image, or begins outside it, is a way to paste: cut at the
// corner's negative, a window becomes a whole map that is zero elsewhere.
//
// Work: a thread moves a vector of `Bytes` bytes of one pixel, in blocks of 4 rows by 64 vectors
// (RowTiles). Elements have no type here: a pixel is so many bytes.
// Bound: memory, each byte of y written, and read where it lies in x.
#pragma once

#include "indexing.cuh"
#include "shapes.h"
#include "vector.cuh"

namespace zfcuda {

// `vectors`: of a pixel.
template <int Bytes>
__global__ void cut_windows_kernel(WindowShape shape, RowTiles tiles, FastDivisor vectors,
                                   const std::uint8_t* __restrict__ x,
                                   const std::int32_t* __restrict__ corners,
                                   const std::int32_t* __restrict__ images,
                                   std::uint8_t* __restrict__ y) {
    const RowTiles::Place at = tiles.place();
    if (!at.inside) return;
    const int j = at.column / vectors, vector = at.column % vectors;
    // Unsigned, so that a corner far outside wraps around to a pixel that is outside, too.
    const unsigned h = static_cast<unsigned>(corners[2 * at.image]) + at.row;
    const unsigned w = static_cast<unsigned>(corners[2 * at.image + 1]) + j;
    const auto image = static_cast<unsigned>(images == nullptr ? at.image : images[at.image]);

    auto value = Vector<std::uint8_t, Bytes>::filled(0);
    if (h < static_cast<unsigned>(shape.h) && w < static_cast<unsigned>(shape.w) &&
        image < static_cast<unsigned>(shape.batch)) {
        const std::size_t pixel = (static_cast<std::size_t>(image) * shape.h + h) * shape.w + w;
        value = load<Bytes>(x + (pixel * vectors.divisor + vector) * Bytes);
    }
    const std::size_t row = static_cast<std::size_t>(at.image) * shape.out_h + at.row;
    store(y + (row * tiles.columns + at.column) * Bytes, value);
}

}  // namespace zfcuda
