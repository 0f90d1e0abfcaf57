// Unpool and rectify in one pass: map = relu(max_unpool2d(y, switches)).
#include "block_map.h"
#include "epilogue.cuh"
#include "ops.h"
#include "unpooled_map.cuh"

namespace zfcuda::conv {
namespace {

constexpr int kUnpoolThreads = 256;

// One thread for V channels of one pixel. Bound: memory, an element of the map, one of y and its
// switch.
template <int V, class T>
__global__ void __launch_bounds__(kUnpoolThreads)
    unpool_rectified_kernel(UnpooledMap<T> map, PixelIndex index, FastDivisor groups, int total,
                            T* x) {
    const int item = static_cast<int>(blockIdx.x * kUnpoolThreads + threadIdx.x);
    if (!inside(item, total)) return;
    const int pixel = item / groups, k = item % groups * V;
    const PixelIndex::Pixel at = index.locate(pixel);
    auto value = map.template at<V>(at.n, at.p, at.q, k);
#pragma unroll
    for (int e = 0; e < V; ++e)
        value.at[e] = rectify(value.at[e]);
    store(x + static_cast<std::size_t>(item) * V, from_floats<T>(value));
}

template <int V, class T>
void launch_unpool_rectified(const PoolShape& pool, const UnpooledMap<T>& map, T* x,
                             Stream stream) {
    const PixelIndex index{FastDivisor(pool.w), FastDivisor(pool.h)};
    const int total = pool.n * pool.h * pool.w * (pool.c / V);
    simt::launch<unpool_rectified_kernel<V, T>>(dim3(divide_up(total, kUnpoolThreads)),
                                                dim3(kUnpoolThreads), 0, stream, map, index,
                                                FastDivisor(pool.c / V), total, x);
}

}  // namespace

template <class T>
void unpool_rectified(const PoolShape& pool, const T* y, const std::uint8_t* switches, T* map,
                      Stream stream) {
    if (!has_small_cover(pool)) {
        max_unpool2d(pool, y, switches, map, stream);
        relu(static_cast<std::int64_t>(pool.n) * pool.h * pool.w * pool.c, map, map, stream);
        return;
    }
    const UnpooledMap<T> unpooled(pool, y, switches);
    constexpr int kWidth = kVectorWidth<T>;
    if (pool.c % kWidth == 0 && aligned_for_vectors<kWidth>(y, switches, map))
        launch_unpool_rectified<kWidth>(pool, unpooled, map, stream);
    else
        launch_unpool_rectified<1>(pool, unpooled, map, stream);
}

template void unpool_rectified(const PoolShape&, const float*, const std::uint8_t*, float*, Stream);
template void unpool_rectified(const PoolShape&, const BFloat16*, const std::uint8_t*, BFloat16*,
                               Stream);

}  // namespace zfcuda::conv
