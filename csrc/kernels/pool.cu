// Pooling and unpooling: the choice of kernel.
#include "pool.cuh"

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

namespace {

bool is_paper_window(const PoolShape& shape) {
    return shape.window_h == kPaperWindow && shape.window_w == kPaperWindow &&
           shape.stride_h == kPaperStride && shape.stride_w == kPaperStride;
}

}  // namespace

void max_pool2d(const PoolShape& shape, const float* x, float* y, std::uint8_t* switches,
                Stream stream) {
    const bool in_vectors = shape.c % 4 == 0 && aligned_for_vectors(x, y, switches);
    with_constants(in_vectors, is_paper_window(shape), [&](auto vectors, auto paper) {
        constexpr int kWidth = vectors ? 4 : 1;
        constexpr int kWindow = paper ? kPaperWindow : kAnyWindow;
        const RowTiles tiles(shape.n, shape.p(), shape.q() * (shape.c / kWidth));
        simt::launch<max_pool2d_kernel<kWidth, kWindow>>(
            tiles.grid(), tiles.block(), 0, stream, shape, tiles, FastDivisor(shape.c / kWidth), x,
            y, switches);
    });
}

void max_unpool2d(const PoolShape& shape, const float* y, const std::uint8_t* switches, float* x,
                  Stream stream) {
    const bool in_vectors = shape.c % 4 == 0 && aligned_for_vectors(y, switches, x);
    with_constants(in_vectors, is_paper_window(shape), [&](auto vectors, auto paper) {
        constexpr int kWidth = vectors ? 4 : 1;
        constexpr int kWindow = paper ? kPaperWindow : kAnyWindow;
        const RowTiles tiles(shape.n, shape.h, shape.w * (shape.c / kWidth));
        simt::launch<max_unpool2d_kernel<kWidth, kWindow>>(
            tiles.grid(), tiles.block(), 0, stream, shape, tiles, FastDivisor(shape.c / kWidth),
            FastDivisor(shape.stride_h), FastDivisor(shape.stride_w), y, switches, x);
    });
}

void spatial_max(int n, int h, int w, int c, const float* x, float* values, std::int32_t* positions,
                 Stream stream) {
    with_constant(c % 4 == 0 && aligned_for_vectors(x), [&](auto vectors) {
        constexpr int kWidth = vectors ? 4 : 1;
        using Tile = SpatialMaxTile<kWidth>;
        const FastDivisor tiles((c - 1) / Tile::kChannels + 1);
        simt::launch<spatial_max_kernel<kWidth>>(dim3(static_cast<unsigned>(n) * tiles.divisor),
                                                 dim3(Tile::kAcross, Tile::kDown), 0, stream, h * w,
                                                 c, tiles, x, values, positions);
    });
}

}  // namespace zfcuda
