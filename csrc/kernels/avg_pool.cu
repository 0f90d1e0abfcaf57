// Average pooling and its gradient: the choice of kernel.
#include "avg_pool.cuh"

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

namespace {

ColumnRanges pixels(const AvgPoolShape& shape) {
    return {shape.n, static_cast<std::int64_t>(shape.h) * shape.w, shape.c};
}

}  // namespace

std::size_t avg_pool2d_workspace(const AvgPoolShape& shape) {
    return shape.is_global() ? pixels(shape).workspace(1) : 0;
}

template <typename T>
void avg_pool2d(const AvgPoolShape& shape, const T* x, T* y, void* workspace, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    with_constant(shape.c % kVector == 0 && aligned_for_vectors<kVector>(x, y), [&](auto vectors) {
        constexpr int kWidth = vectors ? kVector : 1;
        if (shape.is_global()) {
            const double cells = static_cast<double>(shape.rows(0).count) * shape.columns(0).count;
            const FinishAverage<T> finish{y, shape.c, static_cast<float>(1 / cells)};
            reduce_columns<kWidth>(pixels(shape), SumColumns<T>(x, shape.c), finish, workspace,
                                   stream);
            return;
        }
        const RowTiles tiles(shape.n, shape.p(), shape.q() * (shape.c / kWidth));
        simt::launch<avg_pool2d_kernel<T, kWidth>>(tiles.grid(), tiles.block(), 0, stream, shape,
                                                   tiles, FastDivisor(shape.c / kWidth), x, y);
    });
}

template <typename T>
void avg_pool2d_grad(const AvgPoolShape& shape, const T* dy, T* dx, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    with_constant(shape.c % kVector == 0 && aligned_for_vectors<kVector>(dy, dx),
                  [&](auto vectors) {
                      constexpr int kWidth = vectors ? kVector : 1;
                      const RowTiles tiles(shape.n, shape.h, shape.w * (shape.c / kWidth));
                      simt::launch<avg_pool2d_grad_kernel<T, kWidth>>(
                          tiles.grid(), tiles.block(), 0, stream, shape, tiles,
                          FastDivisor(shape.c / kWidth), FastDivisor(shape.stride_h),
                          FastDivisor(shape.stride_w), shape.p(), shape.q(), dy, dx);
                  });
}

template decltype(avg_pool2d<float>) avg_pool2d<float>;
template decltype(avg_pool2d<BFloat16>) avg_pool2d<BFloat16>;
template decltype(avg_pool2d_grad<float>) avg_pool2d_grad<float>;
template decltype(avg_pool2d_grad<BFloat16>) avg_pool2d_grad<BFloat16>;

}  // namespace zfcuda
