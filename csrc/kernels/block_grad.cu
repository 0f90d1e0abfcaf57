// A block backward: the gradients of the convolution through the switches of the pool.
//
//   weights  dw = conv2d_weight_grad(x, map),  map = max_unpool2d(dy, switches)
//   data     x  = conv_transpose2d(f(map), w), f = ReLU (the deconvnet) or the identity
//
// The weight gradient of a first layer reads each pixel of dy once per tile of dw's columns, that
// is once or twice: there dy is unpooled while it is read (block_unpool.cuh) and no map exists. A
// gather costs some 17 instructions a value, though, and the other products read each pixel 9 to 20
// times (once per tap or tile): there one pass writes the map, unpooled and rectified, and the
// product copies it asynchronously. `kMaxGathers` is where the one becomes dearer than the other.
#include "block_map.h"
#include "block_unpool.cuh"
#include "conv_wgrad.cuh"
#include "ops.h"

namespace zfcuda {
namespace conv {
namespace {

// 17 instructions on 132 SMs x 128 lanes x 1.7 GHz take 0.6 ps a value; writing and reading it, 8
// bytes at 4.3 TB/s, 1.9 ps.
constexpr int kMaxGathers = 3;

bool reads_through_switches(const ConvShape& shape, const PoolShape& pool) {
    int cols = 0;
    for_each_tile(WgradTiles{}, [&, plan = plan_wgrad(shape)](auto tile, int index) {
        if (index == plan.tile) cols = decltype(tile)::kCols;
    });
    return has_small_cover(pool) && divide_up(shape.r * shape.s * shape.c, cols) <= kMaxGathers;
}

// ---- Unpool and rectify in one pass -------------------------------------------------------------

constexpr int kUnpoolThreads = 256;

// One thread for V channels of one pixel. Bound: memory, 4 bytes a pixel of the map, 5 of y.
template <int V>
__global__ void __launch_bounds__(kUnpoolThreads)
    unpool_rectified_kernel(UnpooledMap map, PixelIndex index, FastDivisor groups, int total,
                            float* x) {
    const int item = static_cast<int>(blockIdx.x * kUnpoolThreads + threadIdx.x);
    if (!inside(item, total)) return;
    const int pixel = groups.quotient(item);
    const int k = (item - pixel * groups.divisor) * V;
    const PixelIndex::Pixel at = index.locate(pixel);
    auto value = map.template at<V>(at.n, at.p, at.q, k);
#pragma unroll
    for (int e = 0; e < V; ++e)
        value.at[e] = rectify(value.at[e]);
    store(x + static_cast<std::size_t>(item) * V, value);
}

template <int V>
void launch_unpool_rectified(const PoolShape& pool, const UnpooledMap& map, float* x,
                             Stream stream) {
    const PixelIndex index{FastDivisor(pool.w), FastDivisor(pool.h)};
    const int total = pool.n * pool.h * pool.w * (pool.c / V);
    simt::launch<unpool_rectified_kernel<V>>(dim3((total - 1) / kUnpoolThreads + 1),
                                             dim3(kUnpoolThreads), 0, stream, map, index,
                                             FastDivisor(pool.c / V), total, x);
}

// map = relu(max_unpool2d(y, switches)).
void unpool_rectified(const PoolShape& pool, const float* y, const std::uint8_t* switches,
                      float* map, Stream stream) {
    if (!has_small_cover(pool)) {
        max_unpool2d(pool, y, switches, map, stream);
        relu(static_cast<std::int64_t>(pool.n) * pool.h * pool.w * pool.c, map, map, stream);
        return;
    }
    const UnpooledMap unpooled(pool, y, switches);
    if (pool.c % 4 == 0 && aligned_for_vectors(y, switches, map))
        launch_unpool_rectified<4>(pool, unpooled, map, stream);
    else
        launch_unpool_rectified<1>(pool, unpooled, map, stream);
}

}  // namespace
}  // namespace conv

std::size_t unpool_conv_transpose2d_workspace(const ConvShape& shape, const PoolShape& pool) {
    check_block(shape, pool);
    return conv::map_bytes(shape) + conv_transpose2d_workspace(shape);
}

void unpool_conv_transpose2d(const ConvShape& shape, const PoolShape& pool, const float* y,
                             const std::uint8_t* switches, const float* w, bool rectify, float* x,
                             void* workspace, Stream stream) {
    float* const map = static_cast<float*>(workspace);
    if (rectify)
        conv::unpool_rectified(pool, y, switches, map, stream);
    else
        max_unpool2d(pool, y, switches, map, stream);
    conv_transpose2d(shape, map, w, x, conv::after_map(shape, workspace), stream);
}

std::size_t unpool_conv2d_weight_grad_workspace(const ConvShape& shape, const PoolShape& pool) {
    check_block(shape, pool);
    const std::size_t partial = conv2d_weight_grad_workspace(shape);
    return conv::reads_through_switches(shape, pool) ? partial : conv::map_bytes(shape) + partial;
}

void unpool_conv2d_weight_grad(const ConvShape& shape, const PoolShape& pool, const float* x,
                               const float* dy, const std::uint8_t* switches, float* dw,
                               void* workspace, Stream stream) {
    if (conv::reads_through_switches(shape, pool)) {
        const bool wide = shape.k % 4 == 0 && aligned_for_vectors(dy, switches);
        conv::weight_grad<conv::UnpooledPixels>(shape, x, conv::UnpooledMap(pool, dy, switches),
                                                wide, dw, workspace, stream);
        return;
    }
    float* const map = static_cast<float*>(workspace);
    max_unpool2d(pool, dy, switches, map, stream);
    conv2d_weight_grad(shape, x, map, dw, conv::after_map(shape, workspace), stream);
}

}  // namespace zfcuda
