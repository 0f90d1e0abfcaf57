// Batch normalisation: the choice of kernel.
#include "batch_norm.cuh"

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

std::size_t batch_norm_statistics_workspace(std::int64_t rows, int channels) {
    return ColumnRanges(1, rows, channels).workspace(JoinMoments::kParts);
}

std::size_t batch_norm_grad_workspace(std::int64_t rows, int channels) {
    return ColumnRanges(1, rows, channels).workspace(BatchNormGradColumns<float>::kParts);
}

template <typename T>
void batch_norm(std::int64_t rows, int channels, int x_pitch, const T* x, const float* mean,
                const float* variance, const float* weight, const float* bias, float eps, bool relu,
                T* y, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const bool in_vectors = channels % kVector == 0 && x_pitch % kVector == 0 &&
                            aligned_for_vectors<kVector>(x, y) &&
                            aligned_for_vectors(mean, variance, weight, bias);
    with_constants(in_vectors, relu, [&](auto vectors, auto relu) {
        constexpr int kWidth = vectors ? kVector : 1;
        const RowGroups<kWidth> groups(rows, channels);
        simt::launch<batch_norm_kernel<T, kWidth, relu>>(
            groups.grid(), groups.block(), 0, stream, groups,
            BatchNormParameters{mean, variance, weight, eps}, bias, x_pitch, x, y);
    });
}

template <typename T>
void batch_norm_statistics(std::int64_t rows, int channels, const T* x, float* mean,
                           float* variance, void* workspace, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const bool in_vectors = channels % kVector == 0 && aligned_for_vectors<kVector>(x) &&
                            aligned_for_vectors(mean, variance);
    with_constant(in_vectors, [&](auto vectors) {
        constexpr int kWidth = vectors ? kVector : 1;
        reduce_columns<kWidth>({1, rows, channels}, MomentColumns<T>(x, channels),
                               FinishMoments{mean, variance}, workspace, stream);
    });
}

template <typename T>
void batch_norm_grad(std::int64_t rows, int channels, const T* dy, const T* x, const float* mean,
                     const float* variance, const float* weight, float eps, T* dx, float* dweight,
                     float* dbias, void* workspace, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const BatchNormParameters parameters{mean, variance, weight, eps};
    const bool in_vectors = channels % kVector == 0 && aligned_for_vectors<kVector>(dy, x, dx) &&
                            aligned_for_vectors(mean, variance, weight, dweight, dbias);
    with_constant(in_vectors, [&](auto vectors) {
        constexpr int kWidth = vectors ? kVector : 1;
        reduce_columns<kWidth>({1, rows, channels}, BatchNormGradColumns<T>(dy, x, mean, channels),
                               FinishBatchNormGrad{parameters, dweight, dbias}, workspace, stream);
        const RowGroups<kWidth> groups(rows, channels);
        simt::launch<batch_norm_grad_kernel<T, kWidth>>(
            groups.grid(), groups.block(), 0, stream, groups, parameters, dweight, dbias,
            static_cast<float>(1.0 / static_cast<double>(rows)), dy, x, dx);
    });
}

template decltype(batch_norm<float>) batch_norm<float>;
template decltype(batch_norm<BFloat16>) batch_norm<BFloat16>;
template decltype(batch_norm_statistics<float>) batch_norm_statistics<float>;
template decltype(batch_norm_statistics<BFloat16>) batch_norm_statistics<BFloat16>;
template decltype(batch_norm_grad<float>) batch_norm_grad<float>;
template decltype(batch_norm_grad<BFloat16>) batch_norm_grad<BFloat16>;

}  // namespace zfcuda
