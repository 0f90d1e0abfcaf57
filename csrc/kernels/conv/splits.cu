// Adds the partial sums of a product whose depth was split:
//
//   y[i] = act(scale[i % cols] * sum over splits of partial[split][i] + bias[i % cols] + add[i])
//
// One thread for one value, or for four neighbours where rows allow 16-byte accesses; the splits
// are added in order, so the result does not depend on which block finished first. Bound: (splits +
// 1) * 4 bytes per value, most of them from L2.
#include "run_product.cuh"

namespace zfcuda::conv {
namespace {

constexpr int kThreads = 256;

template <int V, class T>
__global__ void __launch_bounds__(kThreads)
    add_splits_kernel(int splits, std::uint32_t groups, int cols, const float* partial,
                      Epilogue<T> epilogue, T* y) {
    const std::uint32_t group = blockIdx.x * kThreads + threadIdx.x;
    if (group >= groups) return;

    const float* from = partial + static_cast<std::size_t>(group) * V;
    auto sum = load<V>(from);
    for (int split = 1; split < splits; ++split) {
        from += static_cast<std::size_t>(groups) * V;
        const auto more = load<V>(from);
#pragma unroll
        for (int e = 0; e < V; ++e)
            sum.at[e] += more.at[e];
    }
    const int col = static_cast<int>(group * V % cols);
#pragma unroll
    for (int e = 0; e < V; ++e) {
        if (epilogue.scale) sum.at[e] *= epilogue.scale[col + e];
        if (epilogue.bias) sum.at[e] += epilogue.bias[col + e];
    }
    if (epilogue.add) {
        const auto added = to_floats(load<V>(epilogue.add + static_cast<std::size_t>(group) * V));
#pragma unroll
        for (int e = 0; e < V; ++e)
            sum.at[e] += added.at[e];
    }
#pragma unroll
    for (int e = 0; e < V; ++e)
        if (epilogue.relu) sum.at[e] = rectify(sum.at[e]);
    store(y + static_cast<std::size_t>(group) * V, from_floats<T>(sum));
}

template <int V, class T>
void launch_add_splits(int splits, std::int64_t size, int cols, const float* partial,
                       const Epilogue<T>& epilogue, T* y, Stream stream) {
    const auto groups = static_cast<std::uint32_t>(size / V);
    simt::launch<add_splits_kernel<V, T>>(dim3((groups + kThreads - 1) / kThreads), dim3(kThreads),
                                          0, stream, splits, groups, cols, partial, epilogue, y);
}

}  // namespace

template <class T>
void add_splits(int splits, std::int64_t size, int cols, const float* partial,
                const Epilogue<T>& epilogue, T* y, Stream stream) {
    if (epilogue.vectorised)
        launch_add_splits<4>(splits, size, cols, partial, epilogue, y, stream);
    else
        launch_add_splits<1>(splits, size, cols, partial, epilogue, y, stream);
}

template void add_splits(int, std::int64_t, int, const float*, const Epilogue<float>&, float*,
                         Stream);
template void add_splits(int, std::int64_t, int, const float*, const Epilogue<BFloat16>&, BFloat16*,
                         Stream);

}  // namespace zfcuda::conv
