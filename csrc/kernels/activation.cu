// ReLU, dropout and the conversions between float32 and bfloat16: the choice of kernel.
#include "activation.cuh"

#include "dispatch.h"
#include "ops_bf16.h"

namespace zfcuda {

namespace {

template <typename T>
void launch_relu(std::int64_t size, const T* x, T* y, Stream stream) {
    with_constant(aligned_for_vectors<kVectorWidth<T>>(x, y), [&](auto aligned) {
        using Threads = Run<kVectorWidth<T>, aligned>;
        simt::launch<relu_kernel<T, aligned>>(Threads::grid(size), Threads::block(), 0, stream,
                                              size, x, y);
    });
}

template <typename T>
void launch_relu_grad(std::int64_t size, const T* dy, const T* y, T* dx, Stream stream) {
    with_constant(aligned_for_vectors<kVectorWidth<T>>(dy, y, dx), [&](auto aligned) {
        using Threads = Run<kVectorWidth<T>, aligned>;
        simt::launch<relu_grad_kernel<T, aligned>>(Threads::grid(size), Threads::block(), 0, stream,
                                                   size, dy, y, dx);
    });
}

template <typename T>
void launch_dropout(std::int64_t size, const T* x, float probability, std::uint64_t seed,
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
void launch_convert(std::int64_t size, const From* x, To* y, Stream stream) {
    with_constant(aligned_for_vectors<kVectorWidth<float>>(x, y), [&](auto aligned) {
        using Threads = Run<kVectorWidth<float>, aligned>;
        simt::launch<convert_kernel<From, To, aligned>>(Threads::grid(size), Threads::block(), 0,
                                                        stream, size, x, y);
    });
}

}  // namespace

void relu(std::int64_t size, const float* x, float* y, Stream stream) {
    launch_relu(size, x, y, stream);
}
void relu(std::int64_t size, const Bf16* x, Bf16* y, Stream stream) {
    launch_relu(size, x, y, stream);
}

void relu_grad(std::int64_t size, const float* dy, const float* y, float* dx, Stream stream) {
    launch_relu_grad(size, dy, y, dx, stream);
}
void relu_grad(std::int64_t size, const Bf16* dy, const Bf16* y, Bf16* dx, Stream stream) {
    launch_relu_grad(size, dy, y, dx, stream);
}

void dropout(std::int64_t size, const float* x, float probability, std::uint64_t seed,
             const std::uint64_t* offset, float* y, Stream stream) {
    launch_dropout(size, x, probability, seed, offset, y, stream);
}
void dropout(std::int64_t size, const Bf16* x, float probability, std::uint64_t seed,
             const std::uint64_t* offset, Bf16* y, Stream stream) {
    launch_dropout(size, x, probability, seed, offset, y, stream);
}

void narrow(std::int64_t size, const float* x, Bf16* y, Stream stream) {
    launch_convert(size, x, y, stream);
}

void widen(std::int64_t size, const Bf16* x, float* y, Stream stream) {
    launch_convert(size, x, y, stream);
}

}  // namespace zfcuda
