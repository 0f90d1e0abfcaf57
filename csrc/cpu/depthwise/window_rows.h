// Filters 5 or 7 wide: outputs from the rows of their windows.
//
// Neighbours of a row have their sums in registers while the rows of the filter pass by, each with its
// taps in registers: at stride 1, 20 pixels and 7 taps that are loaded serve 98 multiplications (13
// and 7 serve 49 with 16 registers). Pixels outside an image are left out, so taps may have any value.
#pragma once

#include <algorithm>
#include <cstdint>

#include "channels.h"

namespace zfcuda::depthwise {

// Other heights, strides down and dilations down cost nothing: they say where rows are.
inline bool has_window_rows(const DepthwiseShape& sh) {
    return (sh.s == 5 || sh.s == 7) && sh.stride_w <= 2 && sh.dilation_w == 1 &&
           sh.multiplier() == 1;
}

// Outputs j = 0, 1, ... of a row take pixels i = 0, 1, ... to taps of a row of the filter; pixel 0 is
// the first that output 0 takes. Those of the convolution are windows:
template <int kWidth, int kStride>
struct ConvolutionRow {
    static constexpr int kTaps = kWidth;
    static constexpr int kOutputs = kLanes == 16 && kStride == 1 ? 14 : 7;
    static constexpr int tap(int i, int j) { return i - j * kStride; }
    static constexpr int covered(int outputs) { return (outputs - 1) * kStride + kWidth; }
};
// Those of its data gradient take pixels of y; output 0 is the last pixel of x that pixel 0 reaches.
template <int kWidth, int kStride>
struct GradientRow {
    static constexpr int kTaps = kWidth;
    static constexpr int kOutputs = kLanes == 16 ? 14 : 6;
    static constexpr int tap(int i, int j) { return j + kWidth - 1 - i * kStride; }
    static constexpr int covered(int outputs) { return (outputs + kWidth - 2) / kStride + 1; }
};

// Of `count` pixels of an axis, from `first` on, those that an image has. (Compared with constants,
// the bounds cost less than a bit for each pixel: compilers keep every bit, in memory.)
struct Range {
    int begin, end;

    Range(int size, int first, int count)
        : begin(std::clamp(-first, 0, count)), end(std::clamp(size - first, 0, count)) {}
};

// Rows of an image, each from pixel 0 on, and the rows of taps that they are multiplied by. Pixels
// outside the range are left out.
struct WindowRows {
    const float* pixels;
    std::int64_t pixel_step;
    const float* taps;
    std::int64_t tap_step;
    int count;
    Range inside;
};

// Where outputs go, those of the range.
struct Outputs {
    float* first;
    Range wanted;
    const float* bias;  // or null
    bool relu, stream;
};

// sum += a row of pixels * a row of taps, for one vector of channels.
template <typename Row, typename Load>
inline void add_row(const float* pixel, std::int64_t channels, Range inside, const Load& load,
                    const float* taps, Vec (&sum)[Row::kOutputs]) {
    constexpr int kPixels = Row::covered(Row::kOutputs);
    Vec tap[Row::kTaps];
#pragma GCC unroll 8
    for (int s = 0; s < Row::kTaps; ++s)
        tap[s] = simd::load(taps + s * kLanes);
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i, pixel += channels) {
        if (i < inside.begin) continue;
        if (i >= inside.end) break;
        asm("" : "+r"(pixel));  // one address that steps along, not one for each pixel
        const Vec v = load(pixel);
#pragma GCC unroll 16
        for (int j = 0; j < Row::kOutputs; ++j) {
            const int s = Row::tap(i, j);
            if (s >= 0 && s < Row::kTaps) sum[j] += v * tap[s];
        }
    }
}

// The outputs' sums of rows, for the channels of a task, whose filters have `all_taps`; step() is called
// for each vector of channels.
template <typename Row, typename Step>
[[gnu::noinline]] void sum_rows(const WindowRows& window_rows, const Outputs& outputs,
                                const RowTasks::Task& at, std::int64_t channels, int all_taps,
                                const Step& step) {
    // Copies: to the compiler, a store of a vector may change what is referred to.
    const WindowRows rows = window_rows;
    const Outputs to = outputs;
    for_channels(
        at.begin, at.end, 1,
        [=, &step](const auto& load, int c, int some) __attribute__((always_inline)) {
            step();
            Vec sum[Row::kOutputs];
            const Vec start = to.bias ? simd::load_up_to(to.bias + c, some) : Vec{};
#pragma GCC unroll 16
            for (int j = 0; j < Row::kOutputs; ++j)
                sum[j] = start;
            const float *pixels = rows.pixels, *taps = rows.taps + std::int64_t{c} * all_taps;
            for (int r = 0; r < rows.count; ++r, pixels += rows.pixel_step, taps += rows.tap_step)
                add_row<Row>(pixels, channels, rows.inside, load, taps, sum);
#pragma GCC unroll 16
            for (int j = 0; j < Row::kOutputs; ++j)
                if (j >= to.wanted.begin && j < to.wanted.end)
                    store(to.first + j * channels + c, to.relu ? simd::relu(sum[j]) : sum[j], some,
                          to.stream);
        });
}

}  // namespace zfcuda::depthwise
