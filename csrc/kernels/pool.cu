// Pooling and unpooling: the choice of kernel.
#include "pool.cuh"

#include "conv/block_map.h"
#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

namespace {

bool is_paper_window(const PoolShape& shape) {
    return shape.window_h == kPaperWindow && shape.window_w == kPaperWindow &&
           shape.stride_h == kPaperStride && shape.stride_w == kPaperStride;
}

}  // namespace

template <typename T>
void max_pool2d(const PoolShape& shape, const T* x, T* y, std::uint8_t* switches, Stream stream) {
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

namespace {

template <bool Rectify, typename T>
void unpool(const PoolShape& shape, const T* y, const std::uint8_t* switches, T* x, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const bool in_vectors = shape.c % kVector == 0 && aligned_for_vectors<kVector>(y, switches, x);
    with_constants(in_vectors, is_paper_window(shape), [&](auto in_vectors, auto is_paper) {
        constexpr int kWidth = in_vectors ? kVector : 1;
        const int vectors = shape.c / kWidth;
        if constexpr (is_paper) {
            const PaperSteps down(shape.h, shape.pad_top), across(shape.w, shape.pad_left);
            const RowTiles tiles(shape.n, down.count, across.count * vectors);
            simt::launch<max_unpool2d_paper_kernel<T, kWidth, Rectify>>(
                tiles.grid(), tiles.block(), 0, stream, shape, tiles, FastDivisor(vectors),
                down.first, across.first, shape.p(), shape.q(), y, switches, x);
        } else {
            const RowTiles tiles(shape.n, shape.h, shape.w * vectors);
            simt::launch<max_unpool2d_kernel<T, kWidth, Rectify>>(
                tiles.grid(), tiles.block(), 0, stream, shape, tiles, FastDivisor(vectors),
                FastDivisor(shape.stride_h), FastDivisor(shape.stride_w), shape.p(), shape.q(), y,
                switches, x);
        }
    });
}

}  // namespace

template <typename T>
void max_unpool2d(const PoolShape& shape, const T* y, const std::uint8_t* switches, T* x,
                  Stream stream) {
    unpool<false>(shape, y, switches, x, stream);
}

template <typename T>
void conv::unpool_rectified(const PoolShape& shape, const T* y, const std::uint8_t* switches,
                            T* map, Stream stream) {
    unpool<true>(shape, y, switches, map, stream);
}

template <typename T>
void spatial_max(int n, int h, int w, int c, const T* x, T* values, std::int32_t* positions,
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

template decltype(max_pool2d<float>) max_pool2d<float>;
template decltype(max_pool2d<BFloat16>) max_pool2d<BFloat16>;
template decltype(max_unpool2d<float>) max_unpool2d<float>;
template decltype(max_unpool2d<BFloat16>) max_unpool2d<BFloat16>;
template decltype(conv::unpool_rectified<float>) conv::unpool_rectified<float>;
template decltype(conv::unpool_rectified<BFloat16>) conv::unpool_rectified<BFloat16>;
template decltype(spatial_max<float>) spatial_max<float>;
template decltype(spatial_max<BFloat16>) spatial_max<BFloat16>;

}  // namespace zfcuda
