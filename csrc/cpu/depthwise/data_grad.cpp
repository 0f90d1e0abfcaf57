// The data gradient of depthwise convolution on the CPU, bound like the convolution itself.
//
// At stride 1 it is the convolution with mirrored filters. Of 3 x 3 filters at stride 2, a tile of 2
// x 4 pixels has two windows down and three across: 6 loads of y serve 18 multiplications. Filters 5
// or 7 wide take rows of y, by window_rows.h. At others a pixel gathers from the windows that cover it.
#include <algorithm>
#include <numeric>
#include <type_traits>
#include <vector>

#include "../../ops.h"
#include "../parallel.h"
#include "channels.h"
#include "window_rows.h"

namespace zfcuda {
namespace {

using namespace depthwise;
using simd::kLanes;
using simd::Vec;

// ---- Compiled filters at stride 2 ---------------------------------------------------------------

// An axis of x in pairs of pixels. Counted from where the first window begins, pair i is pixels 2 i +
// 1 and 2 i + 2: window i has tap 1 on one and tap 2 on the other, where window i + 1 has tap 0.
struct Pairs {
    int first, count, before;

    Pairs(int size, int before)
        : first((before + 1) / 2 - 1), count((before + size) / 2 - first), before(before) {}

    int pixel(int pair) const { return 2 * pair + 1 - before; }
};

template <int kColumns>
void gather_pairs(const DepthwiseShape& sh, const float* y, const float* packed, float* x,
                  bool stream) {
    constexpr int kWindows = kColumns / 2 + 1;
    const int P = sh.p(), Q = sh.q(), H = sh.h, W = sh.w, C = sh.c;
    const Pairs down(H, sh.top), across(W, sh.left);
    const RowTasks tasks(down.count, C);
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < tasks.count(sh.n); ++i) {
        const RowTasks::Task at = tasks.at(i);
        const int p = down.first + at.row, h = down.pixel(p);
        const float* y_image = y + at.image * P * Q * C;
        float* x_image = x + at.image * H * W * C;
        const auto tile = [&](int w, const auto& windows, auto clipped) __attribute__((noinline)) {
            // Copies: to the compiler, a store of a vector may change what is captured.
            float* const to_image = x_image;
            const std::int64_t first = (std::int64_t{h} * W + w) * C, x_pixel = C,
                               x_down = std::int64_t{W} * C;
            const float* const filters = packed;
            const bool past_caches = stream;
            bool exists[2][kColumns];
            for (int a = 0; a < 2; ++a)
                for (int b = 0; b < kColumns; ++b)
                    exists[a][b] = has(H, h + a, 1) && has(W, w + b, 1);
            for_channels(at.begin, at.end, 1, [&](const auto& load, int c, int count) {
                const float* const of_channels = filters + std::int64_t{c} * kWindow * kWindow;
                Vec tap[kWindow][kWindow], sum[2][kColumns] = {};
#pragma GCC unroll 4
                for (int r = 0; r < kWindow; ++r)
#pragma GCC unroll 4
                    for (int s = 0; s < kWindow; ++s)
                        tap[r][s] = simd::load(of_channels + (r * kWindow + s) * kLanes);
#pragma GCC unroll 4
                for (int i = 0; i < 2; ++i)
#pragma GCC unroll 4
                    for (int j = 0; j < kWindows; ++j) {
                        const Vec v = load(windows(i, j));
#pragma GCC unroll 4
                        for (int a = 0; a < 2; ++a)
#pragma GCC unroll 4
                            for (int b = 0; b < kColumns; ++b) {
                                const int r = 1 + a - 2 * i, s = 1 + b - 2 * j;
                                if (r >= 0 && r < kWindow && s >= 0 && s < kWindow)
                                    sum[a][b] += v * tap[r][s];
                            }
                    }
                const auto for_each = [&](const auto& write) {
#pragma GCC unroll 4
                    for (int a = 0; a < 2; ++a)
#pragma GCC unroll 4
                        for (int b = 0; b < kColumns; ++b)
                            if (!clipped || exists[a][b])
                                write(to_image + (first + a * x_down + b * x_pixel + c), sum[a][b]);
                };
                if (past_caches)
                    for_each([](float* to, Vec v) { simd::stream(to, v); });
                else
                    for_each([&](float* to, Vec v) { simd::store_up_to(to, v, count); });
            });
        };
        for (int j = 0; j < across.count; j += kColumns / 2) {
            const int q = across.first + j, w = across.pixel(q);
            if (has(P, p, 2) && has(Q, q, kWindows) && has(H, h, 2) && has(W, w, kColumns))
                tile(w, InnerPixels(y_image, Q, C, p, q), std::false_type());
            else
                tile(w, Pixels<2, kWindows>(y_image, P, Q, C, p, q, kZeros - at.begin),
                     std::true_type());
        }
    }
}

void gather_pairs(const DepthwiseShape& sh, const float* y, const float* packed, float* x) {
    const std::int64_t row = std::int64_t{sh.w} * sh.c;
    const bool stream = streams_to_rows(sh.n * sh.h * row, sh.c, x, row);
    // A tile's pixels get a vector by turns: where that is part of a line, few may wait for the rest.
    if (stream && !kStreamsWholeLines)
        gather_pairs<2>(sh, y, packed, x, stream);
    else
        gather_pairs<4>(sh, y, packed, x, stream);
}

// ---- Windows that cover a pixel -----------------------------------------------------------------

// The windows that cover a position of an axis: the first, its tap there, and how many.
struct Windows {
    int window, tap, count = 0;
};

struct Axis {
    int before, taps, stride, dilation, windows;
    // From one window that covers a position to the next.
    int tap_step = stride / std::gcd(stride, dilation);
    int window_step = dilation / std::gcd(stride, dilation);

    Windows at(int position) const {
        const int padded = position + before;
        int tap = 0;
        while (tap < taps && (padded - tap * dilation) % stride != 0)
            ++tap;
        int window = (padded - tap * dilation) / stride;
        for (; tap < taps && window >= windows; tap += tap_step)
            window -= window_step;
        Windows found{window, tap};
        for (; tap < taps && window >= 0; tap += tap_step, window -= window_step)
            ++found.count;
        return found;
    }
};

// ---- Filters 5 or 7 wide at stride 2 ------------------------------------------------------------

template <int kWidth>
void gather_rows(const DepthwiseShape& sh, const float* y, const float* packed, float* x) {
    using Row = GradientRow<kWidth, 2>;
    const int Q = sh.q(), W = sh.w, C = sh.c;
    const std::int64_t y_row = std::int64_t{Q} * C;
    constexpr std::int64_t kRow = kWidth * kLanes;  // of taps
    const Axis down{sh.top, sh.r, sh.stride_h, sh.dilation_h, sh.p()};
    const bool stream = streams(std::int64_t{sh.n} * sh.h * W * C, C, x);
    // The last window that begins so far left that it ends at the first pixel, or one before.
    const int first_window = sh.left / 2 - kWidth / 2;
    const RowTasks tasks(sh.h, C);
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < tasks.count(sh.n); ++i) {
        const RowTasks::Task at = tasks.at(i);
        const Windows windows = down.at(at.row);
        const float* first = y + (at.image * sh.p() + windows.window) * y_row;
        float* const x_row = x + (at.image * sh.h + at.row) * W * C;
        for (int q = first_window;; q += Row::kOutputs / 2) {
            const int w = 2 * q + kWidth - 1 - sh.left;
            if (w >= W) break;
            const WindowRows rows{first + std::int64_t{q} * C,
                                  -down.window_step * y_row,
                                  packed + windows.tap * kRow,
                                  down.tap_step * kRow,
                                  windows.count,
                                  Range(Q, q, Row::covered(Row::kOutputs))};
            const Outputs to{x_row + std::int64_t{w} * C, Range(W, w, Row::kOutputs), nullptr,
                             false, stream};
            sum_rows<Row>(rows, to, at, C, sh.taps(), [] {});
        }
    }
}

// ---- Any filter ---------------------------------------------------------------------------------

// Lane i = from[i * step].
Vec every_lane(const float* from, int count, int step) {
    Vec v{};
    for (int i = 0; i < count; ++i)
        v[i] = from[i * step];
    return v;
}

// Each pixel of x from the windows that cover it. Where a channel has several filters, what each of them
// gives is made in vectors of filters, and added up then.
void gather(const DepthwiseShape& sh, const float* y, const float* packed, float* x) {
    constexpr int kVectors = 4;  // of channels, in registers
    const int P = sh.p(), Q = sh.q(), K = sh.k, C = sh.c, multiplier = sh.multiplier();
    const std::int64_t y_row = std::int64_t{Q} * K,
                       taps_of_vector = std::int64_t{sh.taps()} * kLanes;
    const Axis down{sh.top, sh.r, sh.stride_h, sh.dilation_h, P};
    const Axis across{sh.left, sh.s, sh.stride_w, sh.dilation_w, Q};
    const bool stream = streams(std::int64_t{sh.n} * sh.h * sh.w * C, C, x);
    const RowTasks tasks(sh.h, C);
    std::vector<float> of_filters(multiplier > 1 ? multiplier * kLanes : 0);
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < tasks.count(sh.n); ++i) {
        const RowTasks::Task at = tasks.at(i);
        const float* image = y + at.image * P * y_row;
        float* row = x + (at.image * sh.h + at.row) * sh.w * C;
        const Windows rows = down.at(at.row);
        for (int w = 0; w < sh.w; ++w) {
            const Windows columns = across.at(w);
            // put(v, sum) for `vectors` vectors of filters from k on.
            const auto add = [&](const auto& load, auto vectors, int k, const auto& put) {
                Vec sum[vectors] = {};
                for (int i = 0; i < rows.count; ++i)
                    for (int j = 0; j < columns.count; ++j) {
                        const int r = rows.tap + i * down.tap_step;
                        const int s = columns.tap + j * across.tap_step;
                        const float* from =
                            image + (rows.window - i * down.window_step) * y_row +
                            std::int64_t{columns.window - j * across.window_step} * K + k;
                        const float* taps = packed + std::int64_t{k} * sh.taps() +
                                            (std::int64_t{r} * sh.s + s) * kLanes;
                        for (int v = 0; v < vectors; ++v)
                            sum[v] +=
                                load(from + v * kLanes) * simd::load(taps + v * taps_of_vector);
                    }
                for (int v = 0; v < vectors; ++v)
                    put(v, sum[v]);
            };
            const auto put_pixel = [&](int c, int count) {
                return [=](int v, Vec sum) {
                    store(row + std::int64_t{w} * C + c + v * kLanes, sum, count, stream);
                };
            };
            const std::integral_constant<int, 1> one;
            int c = at.begin;
            if (multiplier == 1) {
                for (; c + kVectors * kLanes <= at.end; c += kVectors * kLanes)
                    add(WholeChannels{0}, std::integral_constant<int, kVectors>(), c,
                        put_pixel(c, kLanes));
                for (; c + kLanes <= at.end; c += kLanes)
                    add(WholeChannels{0}, one, c, put_pixel(c, kLanes));
                if (c < at.end)
                    add(RestOfChannels{0, at.end - c}, one, c, put_pixel(c, at.end - c));
            }
            for (; multiplier > 1 && c < at.end; c += kLanes) {
                const int count = std::min(kLanes, at.end - c), filters = count * multiplier;
                for (int k = 0; k < filters; k += kLanes) {
                    const auto put = [&](int, Vec sum) { simd::store(&of_filters[k], sum); };
                    if (k + kLanes <= filters)
                        add(WholeChannels{0}, one, c * multiplier + k, put);
                    else
                        add(RestOfChannels{0, filters - k}, one, c * multiplier + k, put);
                }
                Vec sum{};
                for (int m = 0; m < multiplier; ++m)
                    sum += every_lane(&of_filters[m], count, multiplier);
                put_pixel(c, count)(0, sum);
            }
        }
    }
}

}  // namespace

std::size_t depthwise_conv2d_data_grad_workspace(const DepthwiseShape& sh) {
    return packed_bytes(sh);
}

template <class T>
void depthwise_conv2d_data_grad(const DepthwiseShape& sh, const T* y, const T* w, T* x,
                                void* workspace, Stream) {
    float* const packed = static_cast<float*>(workspace);
    const int multiplier = sh.multiplier();
    const bool mirrored = multiplier == 1 && sh.stride_h == 1 && sh.stride_w == 1;
    const bool in_tiles = takes_tiles(sh, w);
#pragma omp parallel if (worth_threads(work(sh)))
    {
        pack(sh, mirrored, w, packed);
        if (mirrored)
            convolve_packed(sh.mirrored(), in_tiles, y, packed, nullptr, false, x);
        else if (has_window_rows(sh) && sh.stride_w == 2)
            sh.s == 5 ? gather_rows<5>(sh, y, packed, x) : gather_rows<7>(sh, y, packed, x);
        else if (multiplier == 1 && in_tiles)
            gather_pairs(sh, y, packed, x);
        else
            gather(sh, y, packed, x);
        simd::stream_fence();
    }
}

template decltype(depthwise_conv2d_data_grad<float>) depthwise_conv2d_data_grad<float>;

}  // namespace zfcuda
