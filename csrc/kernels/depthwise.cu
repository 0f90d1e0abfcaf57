// Depthwise convolution and its gradients: the choice of kernel.
#include "depthwise.cuh"

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

namespace {

std::size_t packed_bytes(const DepthwiseShape& shape) {
    return sizeof(float) * shape.k * shape.taps();
}

template <typename T>
const float* pack(const DepthwiseShape& shape, bool mirrored, const T* w, void* workspace,
                  Stream stream) {
    auto* packed = static_cast<float*>(workspace);
    const auto blocks = static_cast<unsigned>(divide_up(shape.k * shape.taps(), kPackThreads));
    simt::launch<pack_depthwise_kernel<T>>(dim3(blocks), dim3(kPackThreads), 0, stream,
                                           shape.taps(), FastDivisor(shape.k), mirrored, w, packed);
    return packed;
}

// Whether depthwise_strip_kernel serves it, in vectors.
bool has_strips(const DepthwiseShape& shape) {
    constexpr int kWindow = DepthwiseStrip::kWindow;
    return shape.r == kWindow && shape.s == kWindow && shape.stride_h == shape.stride_w &&
           shape.stride_h <= 2 && shape.dilation_h == 1 && shape.dilation_w == 1;
}

template <typename T>
void launch_strips(const DepthwiseShape& shape, const T* x, const float* filter,
                   const DepthwiseEpilogue& epilogue, T* y, Stream stream) {
    constexpr int kWidth = kVectorWidth<T>;
    const int vectors = shape.k / kWidth;
    const RowTiles tiles(shape.n, shape.p(),
                         divide_up(shape.q(), DepthwiseStrip::kOutputs) * vectors);
    with_constant(shape.stride_h == 1, [&](auto unit) {
        simt::launch<depthwise_strip_kernel<T, kWidth, unit ? 1 : 2>>(
            tiles.grid(), tiles.block(), 0, stream, shape, tiles, FastDivisor(vectors), shape.q(),
            x, filter, epilogue, y);
    });
}

template <int Width, typename... Arrays>
bool in_vectors(const DepthwiseShape& shape, const Arrays*... arrays) {
    return shape.multiplier() == 1 && shape.c % Width == 0 && aligned_for_vectors<Width>(arrays...);
}

ColumnRanges ranges(const DepthwiseShape& shape) {
    const int tiles = divide_up(shape.r, TapTile::kSize) * divide_up(shape.s, TapTile::kSize);
    return {tiles, static_cast<std::int64_t>(shape.n) * shape.p() * shape.q(), shape.k};
}

}  // namespace

std::size_t depthwise_conv2d_workspace(const DepthwiseShape& shape) {
    return packed_bytes(shape);
}

std::size_t depthwise_conv2d_data_grad_workspace(const DepthwiseShape& shape) {
    return packed_bytes(shape);
}

std::size_t depthwise_conv2d_weight_grad_workspace(const DepthwiseShape& shape) {
    return ranges(shape).workspace(TapTile::kTaps);
}

template <typename T>
void depthwise_conv2d(const DepthwiseShape& shape, const T* x, const T* w, const float* b,
                      bool relu, T* y, void* workspace, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const float* filter = pack(shape, false, w, workspace, stream);
    const DepthwiseEpilogue epilogue{b, relu};
    const bool vectors = in_vectors<kVector>(shape, x, b, y);
    if (vectors && has_strips(shape)) {
        launch_strips(shape, x, filter, epilogue, y, stream);
        return;
    }
    with_constant(vectors, [&](auto vectors) {
        constexpr int kWidth = vectors ? kVector : 1;
        const RowTiles tiles(shape.n, shape.p(), shape.q() * (shape.k / kWidth));
        simt::launch<depthwise_conv2d_kernel<T, kWidth>>(
            tiles.grid(), tiles.block(), 0, stream, shape, tiles, FastDivisor(shape.k / kWidth),
            FastDivisor(shape.multiplier()), x, filter, epilogue, y);
    });
}

template <typename T>
void depthwise_conv2d_data_grad(const DepthwiseShape& shape, const T* y, const T* w, T* x,
                                void* workspace, Stream stream) {
    constexpr int kVector = kVectorWidth<T>;
    const bool vectors = in_vectors<kVector>(shape, y, x);
    const bool mirrored = vectors && has_strips(shape) && shape.stride_h == 1;
    const float* filter = pack(shape, mirrored, w, workspace, stream);
    if (mirrored) {
        launch_strips(shape.mirrored(), y, filter, {nullptr, false}, x, stream);
        return;
    }
    with_constant(vectors, [&](auto vectors) {
        constexpr int kWidth = vectors ? kVector : 1;
        const RowTiles tiles(shape.n, shape.h, shape.w * (shape.c / kWidth));
        simt::launch<depthwise_data_grad_kernel<T, kWidth>>(
            tiles.grid(), tiles.block(), 0, stream, shape, tiles, FastDivisor(shape.c / kWidth),
            FastDivisor(shape.stride_h), FastDivisor(shape.stride_w), shape.p(), shape.q(),
            shape.multiplier(), y, filter, x);
    });
}

template <typename T>
void depthwise_conv2d_weight_grad(const DepthwiseShape& shape, const T* x, const T* dy, float* dw,
                                  void* workspace, Stream stream) {
    const DepthwiseGradColumns<T> columns(shape, x, dy);
    const FinishDepthwiseGrad finish{dw, shape.r, shape.s, columns.tiles_across};
    with_constant(in_vectors<TapTile::kWidth>(shape, x, dy), [&](auto vectors) {
        reduce_columns<vectors ? TapTile::kWidth : 1>(ranges(shape), columns, finish, workspace,
                                                      stream);
    });
}

template decltype(depthwise_conv2d<float>) depthwise_conv2d<float>;
template decltype(depthwise_conv2d<BFloat16>) depthwise_conv2d<BFloat16>;
template decltype(depthwise_conv2d_data_grad<float>) depthwise_conv2d_data_grad<float>;
template decltype(depthwise_conv2d_data_grad<BFloat16>) depthwise_conv2d_data_grad<BFloat16>;
template decltype(depthwise_conv2d_weight_grad<float>) depthwise_conv2d_weight_grad<float>;
template decltype(depthwise_conv2d_weight_grad<BFloat16>) depthwise_conv2d_weight_grad<BFloat16>;

}  // namespace zfcuda
