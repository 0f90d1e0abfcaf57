// Average pooling, and its gradient.
//
//   avg_pool2d       y = sum over the window's cells in x / count
//   avg_pool2d_grad  dx = sum over the windows that cover the pixel of dy / count
//
// Work: a thread takes one vector of channels of one pixel of the result, in blocks of 4 rows by 64
// vectors (RowTiles), and gathers: there are no atomics. A window that meets all of x is a
// reduction of its pixels, as all channels' sums are (columns.cuh).
// Bound: memory, the bytes of x and y.
#pragma once

#include "columns.cuh"
#include "indexing.cuh"
#include "shapes.h"
#include "vector.cuh"

namespace zfcuda {

// The windows, in one direction, that cover a pixel.
struct AveragesOfPixel {
    int first, last;

    __device__ AveragesOfPixel(int padded, int window, const FastDivisor& stride, int windows)
        : first(padded < window ? 0 : (padded - window) / stride + 1),
          last(min(padded / stride, windows - 1)) {}
};

__device__ inline float average_scale(const Averaged& rows, const Averaged& columns) {
    return 1.0f / (static_cast<float>(rows.count) * static_cast<float>(columns.count));
}

template <typename T, int Width>
__global__ void avg_pool2d_kernel(AvgPoolShape shape, RowTiles tiles, FastDivisor vectors,
                                  const T* __restrict__ x, T* __restrict__ y) {
    const RowTiles::Place at = tiles.place();
    if (!at.inside) return;
    const int q = at.column / vectors, c = at.column % vectors * Width;
    const Averaged rows = shape.rows(at.row), columns = shape.columns(q);
    const T* image = x + at.image * (shape.h * shape.w * shape.c) + c;

    auto sum = Vector<float, Width>::filled(0.0f);
    for (int h = rows.begin; h < rows.end; ++h) {
        auto row_sum = Vector<float, Width>::filled(0.0f);
#pragma unroll 4
        for (int w = columns.begin; w < columns.end; ++w) {
            const auto value = to_floats(load<Width>(image + (h * shape.w + w) * shape.c));
#pragma unroll
            for (int j = 0; j < Width; ++j)
                row_sum.at[j] += value.at[j];
        }
#pragma unroll
        for (int j = 0; j < Width; ++j)
            sum.at[j] += row_sum.at[j];
    }
    const float scale = average_scale(rows, columns);
#pragma unroll
    for (int j = 0; j < Width; ++j)
        sum.at[j] *= scale;
    store(y + (at.image * tiles.rows + at.row) * tiles.columns * Width + at.column * Width,
          from_floats<T>(sum));
}

// `height` and `width`: of dy.
template <typename T, int Width>
__global__ void avg_pool2d_grad_kernel(AvgPoolShape shape, RowTiles tiles, FastDivisor vectors,
                                       FastDivisor stride_h, FastDivisor stride_w, int height,
                                       int width, const T* __restrict__ dy, T* __restrict__ dx) {
    const RowTiles::Place at = tiles.place();
    if (!at.inside) return;
    const int w = at.column / vectors, c = at.column % vectors * Width;
    const AveragesOfPixel rows(at.row + shape.top, shape.window_h, stride_h, height);
    const AveragesOfPixel columns(w + shape.left, shape.window_w, stride_w, width);
    const T* image = dy + at.image * (height * width * shape.c) + c;

    auto sum = Vector<float, Width>::filled(0.0f);
    for (int p = rows.first; p <= rows.last; ++p) {
        const Averaged of_row = shape.rows(p);
#pragma unroll 2
        for (int q = columns.first; q <= columns.last; ++q) {
            const auto value = to_floats(load<Width>(image + (p * width + q) * shape.c));
            const float scale = average_scale(of_row, shape.columns(q));
#pragma unroll
            for (int j = 0; j < Width; ++j)
                sum.at[j] += value.at[j] * scale;
        }
    }
    store(dx + (at.image * tiles.rows + at.row) * tiles.columns * Width + at.column * Width,
          from_floats<T>(sum));
}

// y[image, c] = sum * scale.
template <typename T>
struct FinishAverage {
    T* y;
    int channels;
    float scale;

    template <int Width>
    __device__ void operator()(int image, int c, const ColumnParts<1, Width>& sum) const {
        Vector<T, Width> average;
#pragma unroll
        for (int j = 0; j < Width; ++j)
            average.at[j] = from_float<T>(sum.part[0].at[j] * scale);
        store(y + image * channels + c, average);
    }
};

}  // namespace zfcuda
