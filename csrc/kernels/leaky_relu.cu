// Leaky ReLU and its gradients: the choice of kernel.
#include "leaky_relu.cuh"

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

namespace {

// Where the workspace of prelu_weight_grad holds what: sums by channel, then those of ranges of
// rows, and of channels.
struct SlopeGradWorkspace {
    ColumnRanges by_channel, of_channels;
    std::size_t sums, partial;  // bytes

    SlopeGradWorkspace(std::int64_t rows, int channels)
        : by_channel(1, rows, channels),
          of_channels(1, channels, 1),
          sums(divide_up(channels, 64) * std::size_t{64} * sizeof(float)),
          partial(std::max(by_channel.workspace(1), of_channels.workspace(1))) {}
};

}  // namespace

template <typename T>
void leaky_relu_grad(std::int64_t rows, int channels, const T* dy, const T* x, const float* slopes,
                     float slope, T* dx, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const bool aligned = aligned_for_vectors<kVector>(dy, x, dx);
    if (slopes == nullptr || channels == 1) {
        with_constant(aligned, [&](auto aligned) {
            using Threads = Run<kVector, aligned>;
            const std::int64_t size = rows * channels;
            simt::launch<leaky_relu_kernel<T, aligned>>(Threads::grid(size), Threads::block(), 0,
                                                        stream, size, slopes, slope, dy, x, dx);
        });
        return;
    }
    const bool in_vectors = aligned && channels % kVector == 0 && aligned_for_vectors(slopes);
    with_constant(in_vectors, [&](auto vectors) {
        constexpr int kWidth = vectors ? kVector : 1;
        const RowGroups<kWidth> groups(rows, channels);
        simt::launch<leaky_relu_by_channel_kernel<T, kWidth>>(groups.grid(), groups.block(), 0,
                                                              stream, groups, slopes, dy, x, dx);
    });
}

template <typename T>
void leaky_relu(std::int64_t rows, int channels, const T* x, const float* slopes, float slope, T* y,
                Stream stream) {
    leaky_relu_grad(rows, channels, x, x, slopes, slope, y, stream);
}

std::size_t prelu_weight_grad_workspace(std::int64_t rows, int channels) {
    const SlopeGradWorkspace layout(rows, channels);
    return layout.sums + layout.partial;
}

template <typename T>
void prelu_weight_grad(std::int64_t rows, int channels, bool shared, const T* dy, const T* x,
                       float* dslope, void* workspace, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const SlopeGradWorkspace layout(rows, channels);
    void* partial = static_cast<char*>(workspace) + layout.sums;
    float* sums = shared ? static_cast<float*>(workspace) : dslope;
    const bool in_vectors =
        channels % kVector == 0 && aligned_for_vectors<kVector>(dy, x) && aligned_for_vectors(sums);
    with_constant(in_vectors, [&](auto vectors) {
        constexpr int kWidth = vectors ? kVector : 1;
        reduce_columns<kWidth>(layout.by_channel, SlopeGradColumns<T>(dy, x, channels),
                               FinishSum{sums}, partial, stream);
    });
    if (shared) {
        reduce_columns<1>(layout.of_channels, SumColumns<float>(sums, 1), FinishSum{dslope},
                          partial, stream);
    }
}

template decltype(leaky_relu<float>) leaky_relu<float>;
template decltype(leaky_relu<BFloat16>) leaky_relu<BFloat16>;
template decltype(leaky_relu_grad<float>) leaky_relu_grad<float>;
template decltype(leaky_relu_grad<BFloat16>) leaky_relu_grad<BFloat16>;
template decltype(prelu_weight_grad<float>) prelu_weight_grad<float>;
template decltype(prelu_weight_grad<BFloat16>) prelu_weight_grad<BFloat16>;

}  // namespace zfcuda
