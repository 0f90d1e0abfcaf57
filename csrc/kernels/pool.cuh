// Max pooling with switches, unpooling through them, and the strongest activation of each map.
//
//   max_pool2d    y = maximum over the window, switch = r * window_w + s of its first occurrence
//   max_unpool2d  x = sum of the y whose switch names this pixel
//   spatial_max   values[n,c] = maximum over h,w of x, positions = h * W + w of its first
//   occurrence
//
// In all three NaN counts as larger than any number, as in PyTorch.
//
// Work: pooling and unpooling give each thread one vector of channels of one output pixel, in
// blocks of 4 rows by 64 vectors (RowTiles): the pixels that several windows share are read from
// the L1 cache again, not from memory. Unpooling gathers: a pixel asks the windows that cover it,
// in row-major order, so there are no atomics and no zero-filling pass. The paper's windows (3 x 3,
// stride 2) are compiled in, so that all loads of a thread are in flight at once; unpooling from
// them, a thread makes the 2 x 2 pixels of one step of the stride.
// Bound: memory, 4 bytes a pixel of x, 5 a pixel of y (the switch is one byte); 2 and 3 in
// bfloat16.
//
// spatial_max gives a block 32 neighbouring channels of one image: the threads across
// hold a vector each, the threads down take turns over the pixels; a tree in shared memory
// combines them. Bound: memory, 4 or 2 bytes a pixel.
#pragma once

#include <cmath>

#include "indexing.cuh"
#include "shapes.h"
#include "vector.cuh"

namespace zfcuda {

// The paper's pooling windows, square; kAnyWindow reads the shape instead.
constexpr int kPaperWindow = 3;
constexpr int kPaperStride = 2;
constexpr int kAnyWindow = 0;

__device__ inline bool exceeds(float value, float best) {
    return !(value <= best) && best == best;
}

template <typename T, int Width, int Window>
__global__ void max_pool2d_kernel(PoolShape shape, RowTiles tiles, FastDivisor vectors,
                                  const T* __restrict__ x, T* __restrict__ y,
                                  std::uint8_t* __restrict__ switches) {
    const RowTiles::Place at = tiles.place();
    if (!at.inside) return;
    const int q = at.column / vectors, c = at.column % vectors * Width;
    const int top = at.row * shape.stride_h - shape.pad_top;
    const int left = q * shape.stride_w - shape.pad_left;
    const int window_h = Window == kAnyWindow ? shape.window_h : Window;
    const int window_w = Window == kAnyWindow ? shape.window_w : Window;
    const T* image = x + at.image * (shape.h * shape.w * shape.c) + c;

    Vector<float, Width> best;
    Vector<std::uint8_t, Width> offset;
    bool is_done = false;
    if constexpr (Window != kAnyWindow) {
        // Without a branch, so that all loads are in flight: a cell outside x reads its nearest
        // neighbour inside, which the window holds as well.
        constexpr int kCells = Window * Window;
        Vector<T, Width> cells[kCells];
        int own[kCells];
#pragma unroll
        for (int cell = 0; cell < kCells; ++cell) {
            const int h = min(max(top + cell / Window, 0), shape.h - 1);
            const int w = min(max(left + cell % Window, 0), shape.w - 1);
            cells[cell] = load<Width>(image + (h * shape.w + w) * shape.c);
            own[cell] = (h - top) * Window + w - left;
        }
        float sum = 0.0f;  // NaN if a maximum is
#pragma unroll
        for (int j = 0; j < Width; ++j) {
            best.at[j] = to_float(cells[0].at[j]);
#pragma unroll
            for (int cell = 1; cell < kCells; ++cell)
                best.at[j] = simt::max_nan(best.at[j], to_float(cells[cell].at[j]));
            int first = own[kCells - 1];
#pragma unroll
            for (int cell = kCells - 2; cell >= 0; --cell)
                if (to_float(cells[cell].at[j]) == best.at[j]) first = own[cell];
            offset.at[j] = static_cast<std::uint8_t>(first);
            sum += best.at[j];
        }
        is_done = sum == sum;
    }
    // Any other window, or one that holds NaN.
    if (!is_done) {
        // The first cell inside x: the answer where no cell exceeds minus infinity.
        const int first = max(-top, 0) * window_w + max(-left, 0);
        best = Vector<float, Width>::filled(-INFINITY);
        offset = Vector<std::uint8_t, Width>::filled(static_cast<std::uint8_t>(first));
        const int last_h = min(top + window_h, shape.h);
        const int last_w = min(left + window_w, shape.w);
        for (int h = max(top, 0); h < last_h; ++h) {
            for (int w = max(left, 0); w < last_w; ++w) {
                const auto value = to_floats(load<Width>(image + (h * shape.w + w) * shape.c));
                const int cell = (h - top) * window_w + w - left;
#pragma unroll
                for (int j = 0; j < Width; ++j) {
                    if (!exceeds(value.at[j], best.at[j])) continue;
                    best.at[j] = value.at[j];
                    offset.at[j] = static_cast<std::uint8_t>(cell);
                }
            }
        }
    }
    const int out = ((at.image * tiles.rows + at.row) * tiles.columns + at.column) * Width;
    store(y + out, from_floats<T>(best));
    store(switches + out, offset);
}

// The windows, in one direction, that cover a pixel.
struct Covering {
    int first, last;
};

__device__ inline Covering covering(int padded, int window, const FastDivisor& stride,
                                    int windows) {
    return {padded < window ? 0 : (padded - window) / stride + 1,
            min(padded / stride, windows - 1)};
}

template <typename T, int Width, bool Rectify>
__device__ inline void store_unpooled(T* x, Vector<float, Width> sum) {
    if (Rectify) {
#pragma unroll
        for (int j = 0; j < Width; ++j)
            sum.at[j] = simt::max_nan(sum.at[j], 0.0f);
    }
    store(x, from_floats<T>(sum));
}

// `height` and `width`: of y. `Rectify`: x = max(x, 0).
template <typename T, int Width, bool Rectify>
__global__ void max_unpool2d_kernel(PoolShape shape, RowTiles tiles, FastDivisor vectors,
                                    FastDivisor stride_h, FastDivisor stride_w, int height,
                                    int width, const T* __restrict__ y,
                                    const std::uint8_t* __restrict__ switches, T* __restrict__ x) {
    const RowTiles::Place at = tiles.place();
    if (!at.inside) return;
    const int w = at.column / vectors, c = at.column % vectors * Width;
    const int padded_h = at.row + shape.pad_top;
    const int padded_w = w + shape.pad_left;
    const Covering rows = covering(padded_h, shape.window_h, stride_h, height);
    const Covering columns = covering(padded_w, shape.window_w, stride_w, width);

    auto sum = Vector<float, Width>::filled(0.0f);
    for (int p = rows.first; p <= rows.last; ++p) {
        for (int q = columns.first; q <= columns.last; ++q) {
            const int from = ((at.image * height + p) * width + q) * shape.c + c;
            const auto offset = load<Width>(switches + from);
            const auto value = to_floats(load<Width>(y + from));
            const int own =
                (padded_h - p * shape.stride_h) * shape.window_w + padded_w - q * shape.stride_w;
#pragma unroll
            for (int j = 0; j < Width; ++j)
                if (offset.at[j] == own) sum.at[j] += value.at[j];
        }
    }
    store_unpooled<T, Width, Rectify>(
        x + ((at.image * tiles.rows + at.row) * tiles.columns + at.column) * Width, sum);
}

// The steps of the stride, in one direction, that hold pixels. Step i is where window i begins;
// only windows i - 1 and i cover it.
struct PaperSteps {
    int first, count;

    PaperSteps(int size, int padding)
        : first(padding / kPaperStride), count((size - 1 + padding) / kPaperStride - first + 1) {}
};

// From the paper's windows: `tiles` are of steps.
template <typename T, int Width, bool Rectify>
__global__ void max_unpool2d_paper_kernel(PoolShape shape, RowTiles tiles, FastDivisor vectors,
                                          int first_p, int first_q, int height, int width,
                                          const T* __restrict__ y,
                                          const std::uint8_t* __restrict__ switches,
                                          T* __restrict__ x) {
    constexpr int kCovering = 2;
    constexpr std::uint8_t kNever = 255;  // no cell
    const RowTiles::Place at = tiles.place();
    if (!at.inside) return;
    const int step_q = at.column / vectors, c = at.column % vectors * Width;
    const int p = first_p + at.row, q = first_q + step_q;

    Vector<T, Width> values[kCovering][kCovering];
    Vector<std::uint8_t, Width> offsets[kCovering][kCovering];
#pragma unroll
    for (int i = 0; i < kCovering; ++i) {
#pragma unroll
        for (int j = 0; j < kCovering; ++j) {
            const int window_p = p - 1 + i, window_q = q - 1 + j;
            const bool exists =
                window_p >= 0 && window_p < height && window_q >= 0 && window_q < width;
            const int from =
                exists ? ((at.image * height + window_p) * width + window_q) * shape.c + c : c;
            values[i][j] = load<Width>(y + from);
            offsets[i][j] = load<Width>(switches + from);
            if (!exists) offsets[i][j] = Vector<std::uint8_t, Width>::filled(kNever);
        }
    }
#pragma unroll
    for (int down = 0; down < kPaperStride; ++down) {
#pragma unroll
        for (int across = 0; across < kPaperStride; ++across) {
            const int h = p * kPaperStride + down - shape.pad_top;
            const int w = q * kPaperStride + across - shape.pad_left;
            auto sum = Vector<float, Width>::filled(0.0f);
#pragma unroll
            for (int i = 0; i < kCovering; ++i) {
#pragma unroll
                for (int j = 0; j < kCovering; ++j) {
                    const int r = down + (1 - i) * kPaperStride,
                              s = across + (1 - j) * kPaperStride;
                    if (r >= kPaperWindow || s >= kPaperWindow) continue;
#pragma unroll
                    for (int e = 0; e < Width; ++e)
                        if (offsets[i][j].at[e] == r * kPaperWindow + s)
                            sum.at[e] += to_float(values[i][j].at[e]);
                }
            }
            if (h >= 0 && h < shape.h && w >= 0 && w < shape.w)
                store_unpooled<T, Width, Rectify>(
                    x + ((at.image * shape.h + h) * shape.w + w) * shape.c + c, sum);
        }
    }
}

template <int Width>
struct SpatialMaxTile {
    static constexpr int kAcross = 32 / Width;  // vectors of channels
    static constexpr int kDown = 8 * Width;     // pixels at a time
    static constexpr int kChannels = 32;
};

// Whether (value, position) stands before (best, best_position) in the order of spatial_max.
__device__ inline bool precedes(float value, int position, float best, int best_position) {
    const bool equal = value == best || (value != value && best != best);
    return equal ? position < best_position : exceeds(value, best);
}

template <typename T, int Width>
__global__ void spatial_max_kernel(int pixels, int channels, FastDivisor channel_tiles,
                                   const T* __restrict__ x, T* __restrict__ values,
                                   std::int32_t* __restrict__ positions) {
    using Tile = SpatialMaxTile<Width>;
    SIMT_SHARED(float, best_values, Tile::kDown* Tile::kChannels);
    SIMT_SHARED(int, best_positions, Tile::kDown* Tile::kChannels);
    const int block = static_cast<int>(blockIdx.x);
    const int n = block / channel_tiles, tile = block % channel_tiles;
    const int across = static_cast<int>(threadIdx.x) * Width;
    const int down = static_cast<int>(threadIdx.y);
    const int c = tile * Tile::kChannels + across;
    const bool inside = c < channels;

    auto best = Vector<float, Width>::filled(-INFINITY);
    auto position = Vector<int, Width>::filled(0x7fffffff);
    if (inside) {
        const T* image = x + n * (pixels * channels) + c;
#pragma unroll 4
        for (int i = down; i < pixels; i += Tile::kDown) {
            const auto value = to_floats(load<Width>(image + i * channels));
#pragma unroll
            for (int j = 0; j < Width; ++j) {
                if (!precedes(value.at[j], i, best.at[j], position.at[j])) continue;
                best.at[j] = value.at[j];
                position.at[j] = i;
            }
        }
    }
    store(best_values + down * Tile::kChannels + across, best);
    store(best_positions + down * Tile::kChannels + across, position);
    __syncthreads();

    // One channel a thread from here on, so that neighbours fall into different banks.
    const int thread = down * Tile::kAcross + static_cast<int>(threadIdx.x);
    const int channel = thread % Tile::kChannels;
    const int group = thread / Tile::kChannels;
    constexpr int kGroups = Tile::kDown * Tile::kAcross / Tile::kChannels;
    for (int half = Tile::kDown / 2; half > 0; half /= 2) {
        for (int i = group; i < half; i += kGroups) {
            const int mine = i * Tile::kChannels + channel;
            const int other = (i + half) * Tile::kChannels + channel;
            if (precedes(best_values[other], best_positions[other], best_values[mine],
                         best_positions[mine])) {
                best_values[mine] = best_values[other];
                best_positions[mine] = best_positions[other];
            }
        }
        __syncthreads();
    }
    const int out = tile * Tile::kChannels + channel;
    if (group == 0 && out < channels) {
        values[n * channels + out] = from_float<T>(best_values[channel]);
        positions[n * channels + out] = best_positions[channel];
    }
}

}  // namespace zfcuda
