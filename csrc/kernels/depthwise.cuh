// Depthwise convolution, its data gradient and its weight gradient.
//
//   depthwise_conv2d              y[k] = act(b[k] + sum over the taps of x[k / multiplier] * w[k])
//   depthwise_conv2d_data_grad    x[c] = sum over its k and the windows that cover the pixel of
//                                 y[k] * w[k]
//   depthwise_conv2d_weight_grad  dw[k, tap] = sum over all windows of x[k / multiplier] * dy[k]
//
// Work: filters are first packed as floats, (taps, k), so that neighbouring threads read them side
// by side. A thread takes one vector of channels of one pixel of the result, in blocks of 4 rows by
// 64 vectors (RowTiles), and gathers: there are no atomics. Of 3 x 3 filters at stride 1 or 2 it
// takes a strip of 4 pixels, which share what they read; the data gradient at stride 1 is that
// convolution with mirrored filters. Weight gradients are reductions of all windows for each
// channel (columns.cuh), 3 x 3 taps at a time.
// Bound: memory, the bytes of x and y: 9 multiplications for every 8 bytes or 4.
#pragma once

#include "columns.cuh"
#include "indexing.cuh"
#include "shapes.h"
#include "vector.cuh"

namespace zfcuda {

// ---- Filters ------------------------------------------------------------------------------------

constexpr int kPackThreads = 256;

// packed[tap, k] = w[k, tap], or w[k, taps - 1 - tap] if `mirrored`.
template <typename T>
__global__ void pack_depthwise_kernel(int taps, FastDivisor channels, bool mirrored,
                                      const T* __restrict__ w, float* __restrict__ packed) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
    if (i >= static_cast<std::int64_t>(taps) * channels.divisor) return;
    const int tap = static_cast<int>(i) / channels, k = static_cast<int>(i) % channels;
    packed[i] = to_float(w[k * taps + (mirrored ? taps - 1 - tap : tap)]);
}

template <int Width>
__device__ inline void multiply_add(Vector<float, Width>& sum, const Vector<float, Width>& a,
                                    const Vector<float, Width>& b) {
#pragma unroll
    for (int j = 0; j < Width; ++j)
        sum.at[j] += a.at[j] * b.at[j];
}

// ---- Convolution --------------------------------------------------------------------------------

// What becomes of a sum.
struct DepthwiseEpilogue {
    const float* bias;  // may be null
    bool relu;

    template <int Width>
    __device__ Vector<float, Width> begin(int k) const {
        return bias == nullptr ? Vector<float, Width>::filled(0.0f) : load<Width>(bias + k);
    }
    template <typename T, int Width>
    __device__ Vector<T, Width> finish(Vector<float, Width> sum) const {
#pragma unroll
        for (int j = 0; j < Width; ++j)
            if (relu && sum.at[j] < 0.0f) sum.at[j] = 0.0f;
        return from_floats<T>(sum);
    }
};

// Any filter. Vectors wider than one channel are for a multiplier of 1.
template <typename T, int Width>
__global__ void depthwise_conv2d_kernel(DepthwiseShape shape, RowTiles tiles, FastDivisor vectors,
                                        FastDivisor multiplier, const T* __restrict__ x,
                                        const float* __restrict__ filter,
                                        DepthwiseEpilogue epilogue, T* __restrict__ y) {
    const RowTiles::Place at = tiles.place();
    if (!at.inside) return;
    const int q = at.column / vectors, k = at.column % vectors * Width;
    const int top = at.row * shape.stride_h - shape.top;
    const int left = q * shape.stride_w - shape.left;
    const T* image = x + at.image * (shape.h * shape.w * shape.c) + k / multiplier;

    auto sum = epilogue.template begin<Width>(k);
    for (int r = 0; r < shape.r; ++r) {
        const int h = top + r * shape.dilation_h;
        if (h < 0 || h >= shape.h) continue;
#pragma unroll 4
        for (int s = 0; s < shape.s; ++s) {
            const int w = left + s * shape.dilation_w;
            if (w < 0 || w >= shape.w) continue;
            multiply_add(sum, to_floats(load<Width>(image + (h * shape.w + w) * shape.c)),
                         load<Width>(filter + (r * shape.s + s) * shape.k + k));
        }
    }
    store(y + ((at.image * tiles.rows + at.row) * tiles.columns + at.column) * Width,
          epilogue.template finish<T>(sum));
}

struct DepthwiseStrip {
    static constexpr int kWindow = 3;
    static constexpr int kOutputs = 4;
};

// 3 x 3 filters at `Stride`, without dilation, for a multiplier of 1. `width`: of y.
template <typename T, int Width, int Stride>
__global__ void depthwise_strip_kernel(DepthwiseShape shape, RowTiles tiles, FastDivisor vectors,
                                       int width, const T* __restrict__ x,
                                       const float* __restrict__ filter, DepthwiseEpilogue epilogue,
                                       T* __restrict__ y) {
    constexpr int kWindow = DepthwiseStrip::kWindow, kOutputs = DepthwiseStrip::kOutputs;
    constexpr int kCells = (kOutputs - 1) * Stride + kWindow;
    const RowTiles::Place at = tiles.place();
    if (!at.inside) return;
    const int first = at.column / vectors * kOutputs, k = at.column % vectors * Width;
    const int top = at.row * Stride - shape.top, left = first * Stride - shape.left;
    const T* image = x + at.image * (shape.h * shape.w * shape.c) + k;

    Vector<float, Width> sum[kOutputs];
#pragma unroll
    for (int i = 0; i < kOutputs; ++i)
        sum[i] = epilogue.template begin<Width>(k);
#pragma unroll
    for (int r = 0; r < kWindow; ++r) {
        const int h = top + r;
        if (h < 0 || h >= shape.h) continue;
        // Without a branch, so that all loads are in flight: a cell outside x reads its nearest
        // neighbour inside, and then does not count.
        Vector<T, Width> cells[kCells];
        Vector<float, Width> taps[kWindow];
#pragma unroll
        for (int i = 0; i < kCells; ++i)
            cells[i] =
                load<Width>(image + (h * shape.w + min(max(left + i, 0), shape.w - 1)) * shape.c);
#pragma unroll
        for (int s = 0; s < kWindow; ++s)
            taps[s] = load<Width>(filter + (r * kWindow + s) * shape.k + k);
#pragma unroll
        for (int i = 0; i < kCells; ++i) {
            if (left + i < 0 || left + i >= shape.w) continue;
            const auto cell = to_floats(cells[i]);
#pragma unroll
            for (int s = 0; s < kWindow; ++s)
                if (i >= s && (i - s) % Stride == 0 && (i - s) / Stride < kOutputs)
                    multiply_add(sum[(i - s) / Stride], cell, taps[s]);
        }
    }
    T* row = y + (at.image * tiles.rows + at.row) * width * shape.k + k;
#pragma unroll
    for (int i = 0; i < kOutputs; ++i)
        if (first + i < width)
            store(row + (first + i) * shape.k, epilogue.template finish<T>(sum[i]));
}

// ---- Data gradient ------------------------------------------------------------------------------

// Vectors wider than one channel are for a multiplier of 1. `height` and `width`: of y.
template <typename T, int Width>
__global__ void depthwise_data_grad_kernel(DepthwiseShape shape, RowTiles tiles,
                                           FastDivisor vectors, FastDivisor stride_h,
                                           FastDivisor stride_w, int height, int width,
                                           int multiplier, const T* __restrict__ y,
                                           const float* __restrict__ filter, T* __restrict__ x) {
    const RowTiles::Place at = tiles.place();
    if (!at.inside) return;
    const int w = at.column / vectors, c = at.column % vectors * Width;
    const T* image = y + at.image * (height * width * shape.k);

    auto sum = Vector<float, Width>::filled(0.0f);
    for (int r = 0; r < shape.r; ++r) {
        const int top = at.row + shape.top - r * shape.dilation_h;
        if (top < 0) break;
        const int p = top / stride_h;
        if (p >= height || p * stride_h.divisor != top) continue;
        for (int s = 0; s < shape.s; ++s) {
            const int left = w + shape.left - s * shape.dilation_w;
            if (left < 0) break;
            const int q = left / stride_w;
            if (q >= width || q * stride_w.divisor != left) continue;
            const T* from = image + (p * width + q) * shape.k;
            const float* taps = filter + (r * shape.s + s) * shape.k;
            for (int k = c * multiplier; k < (c + Width) * multiplier; k += Width)
                multiply_add(sum, to_floats(load<Width>(from + k)), load<Width>(taps + k));
        }
    }
    store(x + ((at.image * tiles.rows + at.row) * shape.w + w) * shape.c + c, from_floats<T>(sum));
}

// ---- Weight gradient ----------------------------------------------------------------------------

struct TapTile {
    static constexpr int kSize = 3;  // in both directions
    static constexpr int kTaps = kSize * kSize;
    // Of the vectors: the sums of a block's threads fill 36 KB of shared memory.
    static constexpr int kWidth = 4;
};

// The tiles of taps as the images of a reduction: each goes over the windows of the whole batch.
template <typename T>
struct DepthwiseGradColumns : JoinSums<TapTile::kTaps> {
    DepthwiseShape shape;
    FastDivisor width, height, multiplier;  // of y
    int tiles_across;
    const T *x, *dy;

    DepthwiseGradColumns(const DepthwiseShape& shape_, const T* x_, const T* dy_)
        : shape(shape_),
          width(shape_.q()),
          height(shape_.p()),
          multiplier(shape_.multiplier()),
          tiles_across(divide_up(shape_.s, TapTile::kSize)),
          x(x_),
          dy(dy_) {}

    template <int Width>
    __device__ void reduce(std::int64_t first, std::int64_t last, int step, int k,
                           ColumnParts<TapTile::kTaps, Width>& sum) const {
        constexpr int kSize = TapTile::kSize;
        const std::int64_t windows =
            static_cast<std::int64_t>(shape.n) * height.divisor * width.divisor;
        const int tile = static_cast<int>((last - 1) / windows);
        const int first_r = tile / tiles_across * kSize, first_s = tile % tiles_across * kSize;
        const int c = k / multiplier;
        for (std::int64_t i = first; i < last; i += step) {
            const auto row = static_cast<int>(i - tile * windows);
            const int above = row / width, q = row % width;
            const int n = above / height, p = above % height;
            const auto gradient = to_floats(load<Width>(dy + row * shape.k + k));
            const int top = p * shape.stride_h - shape.top + first_r * shape.dilation_h;
            const int left = q * shape.stride_w - shape.left + first_s * shape.dilation_w;
#pragma unroll
            for (int tap = 0; tap < TapTile::kTaps; ++tap) {
                const int r = tap / kSize, s = tap % kSize;
                if (first_r + r >= shape.r || first_s + s >= shape.s) continue;
                const int h = top + r * shape.dilation_h, w = left + s * shape.dilation_w;
                if (h < 0 || h >= shape.h || w < 0 || w >= shape.w) continue;
                const T* cell = x + ((n * shape.h + h) * shape.w + w) * shape.c + c;
                multiply_add(sum.part[tap], gradient, to_floats(load<Width>(cell)));
            }
        }
    }
};

// dw[k, tap] = sum.
struct FinishDepthwiseGrad {
    float* dw;
    int r, s, tiles_across;

    template <int Width>
    __device__ void operator()(int tile, int k,
                               const ColumnParts<TapTile::kTaps, Width>& sum) const {
        constexpr int kSize = TapTile::kSize;
#pragma unroll
        for (int i = 0; i < TapTile::kTaps; ++i) {
            const int row = tile / tiles_across * kSize + i / kSize;
            const int column = tile % tiles_across * kSize + i % kSize;
            if (row >= r || column >= s) continue;
#pragma unroll
            for (int j = 0; j < Width; ++j)
                dw[((k + j) * r + row) * s + column] = sum.part[i].at[j];
        }
    }
};

}  // namespace zfcuda
