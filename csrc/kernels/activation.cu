// Sums, ReLU, clipping, dropout and the conversions between float32 and bfloat16: the choice of kernel.
#include "activation.cuh"

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

template <typename T>
void relu(std::int64_t size, const T* x, T* y, Stream stream) {
    with_constant(aligned_for_vectors<kVectorWidth<T>>(x, y), [&](auto aligned) {
        using Threads = Run<kVectorWidth<T>, aligned>;
        simt::launch<relu_kernel<T, aligned>>(Threads::grid(size), Threads::block(), 0, stream,
                                              size, x, y);
    });
}

template <typename T>
void relu_grad(std::int64_t size, const T* dy, const T* y, T* dx, Stream stream) {
    with_constant(aligned_for_vectors<kVectorWidth<T>>(dy, y, dx), [&](auto aligned) {
        using Threads = Run<kVectorWidth<T>, aligned>;
        simt::launch<relu_grad_kernel<T, aligned>>(Threads::grid(size), Threads::block(), 0, stream,
                                                   size, dy, y, dx);
    });
}

template <typename T>
void clip(std::int64_t size, const T* x, float low, float high, T* y, Stream stream) {
    with_constant(aligned_for_vectors<kVectorWidth<T>>(x, y), [&](auto aligned) {
        using Threads = Run<kVectorWidth<T>, aligned>;
        simt::launch<clip_kernel<T, aligned>>(Threads::grid(size), Threads::block(), 0, stream,
                                              size, x, low, high, y);
    });
}

template <typename T>
void clip_grad(std::int64_t size, const T* dy, const T* x, float low, float high, T* dx,
               Stream stream) {
    with_constant(aligned_for_vectors<kVectorWidth<T>>(dy, x, dx), [&](auto aligned) {
        using Threads = Run<kVectorWidth<T>, aligned>;
        simt::launch<clip_grad_kernel<T, aligned>>(Threads::grid(size), Threads::block(), 0, stream,
                                                   size, dy, x, low, high, dx);
    });
}

template <typename T>
void add(std::int64_t size, const T* a, const T* b, bool relu, T* y, Stream stream) {
    with_constants(relu, aligned_for_vectors<kVectorWidth<T>>(a, b, y),
                   [&](auto relu, auto aligned) {
                       using Threads = Run<kVectorWidth<T>, aligned>;
                       simt::launch<add_kernel<T, relu, aligned>>(
                           Threads::grid(size), Threads::block(), 0, stream, size, a, b, y);
                   });
}

template <typename T>
void dropout(std::int64_t size, const T* x, float probability, std::uint64_t seed,
             const std::uint64_t* offset, T* y, Stream stream) {
    // Below 2^32, since the probability is below 1.
    const auto threshold = static_cast<std::uint32_t>(dropout_threshold(probability));
    const float scale = 1.0f / (1.0f - probability);
    with_constant(aligned_for_vectors<kVectorWidth<T>>(x, y), [&](auto aligned) {
        using Threads = Run<kVectorWidth<T>, aligned>;
        simt::launch<dropout_kernel<T, aligned>>(Threads::grid(size), Threads::block(), 0, stream,
                                                 size, x, threshold, scale, seed, offset, y);
    });
}

template <typename From, typename To>
void cast(std::int64_t size, const From* x, To* y, Stream stream) {
    with_constant(aligned_for_vectors<kVectorWidth<float>>(x, y), [&](auto aligned) {
        using Threads = Run<kVectorWidth<float>, aligned>;
        simt::launch<cast_kernel<From, To, aligned>>(Threads::grid(size), Threads::block(), 0,
                                                     stream, size, x, y);
    });
}

template decltype(relu<float>) relu<float>;
template decltype(relu<BFloat16>) relu<BFloat16>;
template decltype(relu_grad<float>) relu_grad<float>;
template decltype(relu_grad<BFloat16>) relu_grad<BFloat16>;
template decltype(add<float>) add<float>;
template decltype(add<BFloat16>) add<BFloat16>;
template decltype(clip<float>) clip<float>;
template decltype(clip<BFloat16>) clip<BFloat16>;
template decltype(clip_grad<float>) clip_grad<float>;
template decltype(clip_grad<BFloat16>) clip_grad<BFloat16>;
template decltype(dropout<float>) dropout<float>;
template decltype(dropout<BFloat16>) dropout<BFloat16>;
template decltype(cast<float, BFloat16>) cast<float, BFloat16>;
template decltype(cast<BFloat16, float>) cast<BFloat16, float>;

}  // namespace zfcuda
