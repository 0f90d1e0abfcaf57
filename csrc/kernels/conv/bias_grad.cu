// Bias gradient of a convolution: db[k] = sum over rows of dy[row, k].
//
// Two passes, each in a fixed order. A block sums a range of rows for 32 channels (one
// per lane; 32 * V where V of them can be loaded at once): its warps take turns over the rows, a
// tree in shared memory joins them. The second pass does the same with the sums of the first.
// Bound: memory, the bytes of dy.
#include <algorithm>

#include "kernels/indexing.cuh"
#include "kernels/vector.cuh"
#include "ops.h"
#include "simt/simt.h"

namespace zfcuda {
namespace conv {
namespace {

constexpr int kWarps = 8;
constexpr int kRowsPerBlock = 512;  // at least; more where there would be too many blocks
constexpr int kMaxRanges = 512;

// How the rows of dy are cut into ranges, one for each block of the first pass.
struct Ranges {
    int count;
    std::int64_t rows;  // in each but the last, which may have fewer
};

Ranges make_ranges(std::int64_t rows) {
    const std::int64_t count =
        std::min<std::int64_t>(kMaxRanges, (rows + kRowsPerBlock - 1) / kRowsPerBlock);
    const std::int64_t per_range = (rows + count - 1) / count;
    return {static_cast<int>((rows + per_range - 1) / per_range), per_range};
}

template <class T, int V>
__global__ void __launch_bounds__(kWarps* kWarp)
    sum_rows_kernel(std::int64_t rows, std::int64_t rows_per_block, int channels, const T* dy,
                    float* sums) {
    SIMT_SHARED(float, partial, kWarps* kWarp* V);
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int channel = (blockIdx.x * kWarp + lane) * V;
    const std::int64_t first = blockIdx.y * rows_per_block;
    const std::int64_t last = min(first + rows_per_block, rows);

    auto sum = Vector<float, V>::filled(0.0f);
    if (channel < channels) {
#pragma unroll 4
        for (std::int64_t row = first + warp; row < last; row += kWarps) {
            const auto value = to_floats(load<V>(dy + row * channels + channel));
#pragma unroll
            for (int e = 0; e < V; ++e)
                sum.at[e] += value.at[e];
        }
    }
    store(partial + threadIdx.x * V, sum);
    __syncthreads();

    for (int half = kWarps / 2; half > 0; half /= 2) {
        if (warp < half) {
            const auto other = load<V>(partial + (threadIdx.x + half * kWarp) * V);
#pragma unroll
            for (int e = 0; e < V; ++e)
                sum.at[e] += other.at[e];
            store(partial + threadIdx.x * V, sum);
        }
        __syncthreads();
    }
    if (warp == 0 && channel < channels)
        store(sums + static_cast<std::int64_t>(blockIdx.y) * channels + channel, sum);
}

template <class T>
void sum_rows(const Ranges& ranges, std::int64_t rows, int channels, const T* dy, float* sums,
              Stream stream) {
    constexpr int kWidth = kVectorWidth<T>;
    const bool vectorised = channels % kWidth == 0 && aligned_for_vectors<kWidth>(dy, sums);
    const dim3 grid(divide_up(channels, vectorised ? kWidth * kWarp : kWarp), ranges.count);
    const dim3 block(kWarps * kWarp);
    if (vectorised) {
        simt::launch<sum_rows_kernel<T, kWidth>>(grid, block, 0, stream, rows, ranges.rows,
                                                 channels, dy, sums);
    } else {
        simt::launch<sum_rows_kernel<T, 1>>(grid, block, 0, stream, rows, ranges.rows, channels, dy,
                                            sums);
    }
}

}  // namespace
}  // namespace conv

std::size_t conv2d_bias_grad_workspace(std::int64_t rows, int channels) {
    const conv::Ranges ranges = conv::make_ranges(rows);
    return ranges.count > 1 ? sizeof(float) * ranges.count * channels : 0;
}

template <class T>
void conv2d_bias_grad(std::int64_t rows, int channels, const T* dy, float* db, void* workspace,
                      Stream stream) {
    const conv::Ranges ranges = conv::make_ranges(rows);
    if (ranges.count == 1) {
        conv::sum_rows(ranges, rows, channels, dy, db, stream);
        return;
    }
    float* const partial = static_cast<float*>(workspace);
    conv::sum_rows(ranges, rows, channels, dy, partial, stream);
    conv::sum_rows({1, ranges.count}, ranges.count, channels, partial, db, stream);
}

template decltype(conv2d_bias_grad<float>) conv2d_bias_grad<float>;
template decltype(conv2d_bias_grad<BFloat16>) conv2d_bias_grad<BFloat16>;

}  // namespace zfcuda
