// Pooling and unpooling: the choice of kernel.
#include "pool.cuh"

#include "dispatch.h"
#include "ops_bf16.h"

namespace zfcuda {

namespace {

bool is_paper_window(const PoolShape& shape) {
    return shape.window_h == kPaperWindow && shape.window_w == kPaperWindow &&
           shape.stride_h == kPaperStride && shape.stride_w == kPaperStride;
}

template <typename T>
void launch_pool(const PoolShape& shape, const T* x, T* y, std::uint8_t* switches, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const bool in_vectors = shape.c % kVector == 0 && aligned_for_vectors<kVector>(x, y, switches);
    with_constants(in_vectors, is_paper_window(shape), [&](auto vectors, auto paper) {
        constexpr int kWidth = vectors ? kVector : 1;
        constexpr int kWindow = paper ? kPaperWindow : kAnyWindow;
        const RowTiles tiles(shape.n, shape.p(), shape.q() * (shape.c / kWidth));
        simt::launch<max_pool2d_kernel<T, kWidth, kWindow>>(
            tiles.grid(), tiles.block(), 0, stream, shape, tiles, FastDivisor(shape.c / kWidth), x,
            y, switches);
    });
}

template <typename T>
void launch_unpool(const PoolShape& shape, const T* y, const std::uint8_t* switches, T* x,
                   Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const bool in_vectors = shape.c % kVector == 0 && aligned_for_vectors<kVector>(y, switches, x);
    with_constants(in_vectors, is_paper_window(shape), [&](auto vectors, auto paper) {
        constexpr int kWidth = vectors ? kVector : 1;
        constexpr int kWindow = paper ? kPaperWindow : kAnyWindow;
        const RowTiles tiles(shape.n, shape.h, shape.w * (shape.c / kWidth));
        simt::launch<max_unpool2d_kernel<T, kWidth, kWindow>>(
            tiles.grid(), tiles.block(), 0, stream, shape, tiles, FastDivisor(shape.c / kWidth),
            FastDivisor(shape.stride_h), FastDivisor(shape.stride_w), y, switches, x);
    });
}

template <typename T>
void launch_spatial_max(int n, int h, int w, int c, const T* x, T* values, std::int32_t* positions,
                        Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    with_constant(c % kVector == 0 && aligned_for_vectors<kVector>(x), [&](auto vectors) {
        constexpr int kWidth = vectors ? kVector : 1;
        using Tile = SpatialMaxTile<kWidth>;
        const FastDivisor tiles((c - 1) / Tile::kChannels + 1);
        simt::launch<spatial_max_kernel<T, kWidth>>(dim3(static_cast<unsigned>(n) * tiles.divisor),
                                                    dim3(Tile::kAcross, Tile::kDown), 0, stream,
                                                    h * w, c, tiles, x, values, positions);
    });
}

}  // namespace

void max_pool2d(const PoolShape& shape, const float* x, float* y, std::uint8_t* switches,
                Stream stream) {
    launch_pool(shape, x, y, switches, stream);
}
void max_pool2d(const PoolShape& shape, const Bf16* x, Bf16* y, std::uint8_t* switches,
                Stream stream) {
    launch_pool(shape, x, y, switches, stream);
}

void max_unpool2d(const PoolShape& shape, const float* y, const std::uint8_t* switches, float* x,
                  Stream stream) {
    launch_unpool(shape, y, switches, x, stream);
}
void max_unpool2d(const PoolShape& shape, const Bf16* y, const std::uint8_t* switches, Bf16* x,
                  Stream stream) {
    launch_unpool(shape, y, switches, x, stream);
}

void spatial_max(int n, int h, int w, int c, const float* x, float* values, std::int32_t* positions,
                 Stream stream) {
    launch_spatial_max(n, h, w, c, x, values, positions, stream);
}
void spatial_max(int n, int h, int w, int c, const Bf16* x, Bf16* values, std::int32_t* positions,
                 Stream stream) {
    launch_spatial_max(n, h, w, c, x, values, positions, stream);
}

}  // namespace zfcuda
