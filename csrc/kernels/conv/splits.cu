// Adds the partial sums of what is split of a product:
//
//   y[at] = act(scale[at % pitch] * sum over splits of partial[split][i] + bias[at % pitch] + add[at])
//
// where `at` is the place of value i in the result. One thread for one value, or for four neighbours
// where rows allow 16-byte accesses; the splits are added in order, so the result does not depend on
// which block finished first. Bound: (splits + 1) * 4 bytes per value, most of them from L2.
#include "run_product.cuh"

namespace zfcuda::conv {
namespace {

constexpr int kThreads = 256;

template <int V, class Places, class T>
__global__ void __launch_bounds__(kThreads)
    add_splits_kernel(Places places, int splits, std::uint32_t groups, int pitch,
                      const float* partial, Epilogue<T> epilogue, T* y) {
    const std::uint32_t group = blockIdx.x * kThreads + threadIdx.x;
    if (group >= groups) return;
    const std::uint32_t at = places.place(group * V);
    if (at == kNoRow) return;

    const float* from = partial + static_cast<std::size_t>(group) * V;
    auto sum = load<V>(from);
    for (int split = 1; split < splits; ++split) {
        from += static_cast<std::size_t>(groups) * V;
        const auto more = load<V>(from);
#pragma unroll
        for (int e = 0; e < V; ++e)
            sum.at[e] += more.at[e];
    }
    const int col = static_cast<int>(at % pitch);
#pragma unroll
    for (int e = 0; e < V; ++e) {
        if (epilogue.scale) sum.at[e] *= epilogue.scale[col + e];
        if (epilogue.bias) sum.at[e] += epilogue.bias[col + e];
    }
    if (epilogue.add) {
        const auto added = to_floats(load<V>(epilogue.add + at));
#pragma unroll
        for (int e = 0; e < V; ++e)
            sum.at[e] += added.at[e];
    }
#pragma unroll
    for (int e = 0; e < V; ++e)
        if (epilogue.relu) sum.at[e] = rectify(sum.at[e]);
    store(y + at, from_floats<T>(sum));
}

template <int V, class Places, class T>
void launch_add_splits(const Places& places, int splits, std::int64_t size, int pitch,
                       const float* partial, const Epilogue<T>& epilogue, T* y, Stream stream) {
    const auto groups = static_cast<std::uint32_t>(size / V);
    simt::launch<add_splits_kernel<V, Places, T>>(dim3((groups + kThreads - 1) / kThreads),
                                                  dim3(kThreads), 0, stream, places, splits, groups,
                                                  pitch, partial, epilogue, y);
}

}  // namespace

template <class Places, class T>
void add_splits(const Places& places, int splits, std::int64_t size, int pitch,
                const float* partial, const Epilogue<T>& epilogue, T* y, Stream stream) {
    if (epilogue.vectorised)
        launch_add_splits<4>(places, splits, size, pitch, partial, epilogue, y, stream);
    else
        launch_add_splits<1>(places, splits, size, pitch, partial, epilogue, y, stream);
}

template void add_splits(const AsResult&, int, std::int64_t, int, const float*,
                         const Epilogue<float>&, float*, Stream);
template void add_splits(const AsResult&, int, std::int64_t, int, const float*,
                         const Epilogue<BFloat16>&, BFloat16*, Stream);
template void add_splits(const AsTiles&, int, std::int64_t, int, const float*,
                         const Epilogue<float>&, float*, Stream);
template void add_splits(const AsTiles&, int, std::int64_t, int, const float*,
                         const Epilogue<BFloat16>&, BFloat16*, Stream);

}  // namespace zfcuda::conv
