// The convolutions and blocks of ops.h in one precision.
//
// `Math` is conv::Fp32Math, the exact float32 that ops.h declares for every backend;
// conv::Tf32Math, float32 arrays whose values are rounded to tf32 when they are multiplied, on
// tensor cores; or conv::Bf16Math, bfloat16 arrays on tensor cores. In all, sums are float32, and
// so are biases and the gradients of filters and biases.
#pragma once

#include <cstdint>
#include <vector>

#include "ops.h"
#include "ops_bf16.h"
#include "shapes.h"
#include "tuned_plans.h"

namespace zfcuda {

namespace conv {
struct Fp32Math;
struct Tf32Math;
struct Bf16Math;
}  // namespace conv

template <class Math>
struct ElementOf {
    using Type = float;
};
template <>
struct ElementOf<conv::Bf16Math> {
    using Type = Bf16;
};

template <class Math>
struct ConvOps {
    using T = typename ElementOf<Math>::Type;

    static void conv2d(const ConvShape& shape, const T* x, const T* w, const float* b, bool relu,
                       T* y, void* workspace, Stream stream);
    static std::size_t conv2d_workspace(const ConvShape& shape);

    static void conv_transpose2d(const ConvShape& shape, const T* y, const T* w, T* x,
                                 void* workspace, Stream stream);
    static std::size_t conv_transpose2d_workspace(const ConvShape& shape);

    static void conv2d_weight_grad(const ConvShape& shape, const T* x, const T* dy, float* dw,
                                   void* workspace, Stream stream);
    static std::size_t conv2d_weight_grad_workspace(const ConvShape& shape);

    static void conv2d_relu_pool(const ConvShape& conv, const PoolShape& pool, const T* x,
                                 const T* w, const float* b, T* y, std::uint8_t* switches,
                                 void* workspace, Stream stream);
    static std::size_t conv2d_relu_pool_workspace(const ConvShape& conv, const PoolShape& pool);

    static void unpool_conv_transpose2d(const ConvShape& conv, const PoolShape& pool, const T* y,
                                        const std::uint8_t* switches, const T* w, bool rectify,
                                        T* x, void* workspace, Stream stream);
    static std::size_t unpool_conv_transpose2d_workspace(const ConvShape& conv,
                                                         const PoolShape& pool);

    static void unpool_conv2d_weight_grad(const ConvShape& conv, const PoolShape& pool, const T* x,
                                          const T* dy, const std::uint8_t* switches, float* dw,
                                          void* workspace, Stream stream);
    static std::size_t unpool_conv2d_weight_grad_workspace(const ConvShape& conv,
                                                           const PoolShape& pool);

    // The plans that a tuner may choose for this problem if its arrays are aligned, that of the
    // heuristic in front.
    static std::vector<conv::Choice> candidates(const conv::Problem& problem);
};

}  // namespace zfcuda
