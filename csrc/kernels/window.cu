// Windows of images: the choice of kernel.
#include "window.cuh"

#include "ops.h"

namespace zfcuda {

namespace {

template <int Bytes>
void launch_cut_windows(const WindowShape& shape, const std::uint8_t* x,
                        const std::int32_t* corners, const std::int32_t* images, std::uint8_t* y,
                        Stream stream) {
    const int vectors = shape.c * shape.bytes / Bytes;
    const RowTiles tiles(shape.n, shape.out_h, shape.out_w * vectors);
    simt::launch<cut_windows_kernel<Bytes>>(tiles.grid(), tiles.block(), 0, stream, shape, tiles,
                                            FastDivisor(vectors), x, corners, images, y);
}

}  // namespace

void cut_windows(const WindowShape& shape, const void* x, const std::int32_t* corners,
                 const std::int32_t* images, void* y, Stream stream) {
    const auto* from = static_cast<const std::uint8_t*>(x);
    auto* to = static_cast<std::uint8_t*>(y);
    const auto fits = [&](auto width) {
        return shape.c * shape.bytes % width == 0 && aligned_for_vectors<width>(from, to);
    };
    auto* const launch = fits(std::integral_constant<int, 16>())  ? launch_cut_windows<16>
                         : fits(std::integral_constant<int, 4>()) ? launch_cut_windows<4>
                                                                  : launch_cut_windows<1>;
    launch(shape, from, corners, images, to, stream);
}

}  // namespace zfcuda
