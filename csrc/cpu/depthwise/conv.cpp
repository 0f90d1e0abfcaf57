// Depthwise convolution on the CPU: bound by memory where maps are large, by a multiplication for
// each tap and element of y where they are in the caches.
//
// A task is a row of the result, or two, of a block of channels, and keeps neighbours of a row in
// registers. 3 x 3 filters at stride 1 or 2 are compiled in, so that four neighbours (three, where
// there are 16 registers) of two rows share what is loaded: 24 loads serve 72 multiplications at
// stride 1. (Row by row, as window_rows.h takes those 5 or 7 wide, they were up to a third slower.)
#include <algorithm>
#include <type_traits>

#include "../../ops.h"
#include "../fetch.h"
#include "../parallel.h"
#include "channels.h"
#include "window_rows.h"

namespace zfcuda {
namespace {

using namespace depthwise;
using simd::kLanes;
using simd::Vec;

// ---- What comes next ----------------------------------------------------------------------------

// Fetches the rows of x that the next rows of y read first, while a task makes `groups` groups of
// neighbours of its `together` rows: a part for each block of channels.
struct NextRows {
    const DepthwiseShape& sh;
    const float* x;
    int together, groups;
    const RowTasks& tasks;
    bool fetches;

    NextRows(const DepthwiseShape& sh, const float* x, int together, int groups,
             const RowTasks& tasks, bool fetches)
        : sh(sh), x(x), together(together), groups(groups), tasks(tasks), fetches(fetches) {}

    Fetch<float> of(const RowTasks::Task& at) const {
        const std::int64_t row = std::int64_t{sh.w} * sh.c;
        const std::int64_t floats = together * sh.stride_h * row / tasks.blocks;
        const int end = (at.row * together + together - 1) * sh.stride_h - sh.top +
                        (sh.r - 1) * sh.dilation_h + 1;
        const float* next = x + (at.image * sh.h + std::clamp(end, 0, sh.h)) * row +
                            at.begin / kDepthwiseChannels * floats;
        const std::int64_t left = std::max<std::int64_t>(0, x + sh.n * sh.h * row - next);
        // Spread evenly, so that what is computed never waits for many lines at once.
        const int steps = groups * ceil_div(at.end - at.begin, kLanes);
        return Fetch<float>(next, fetches ? std::min(floats, left) : 0, steps);
    }
};

// ---- Convolution --------------------------------------------------------------------------------

// Neighbours of a row that are computed together; of maps with fewer, one at a time. Of two rows,
// where the filter is compiled in: they share most of what is loaded, and with 16 registers the sums
// of three leave room for the 9 taps. The last ones are kFewer, so that none is computed twice, but in
// rows of 5.
constexpr int kOutputs = kLanes == 16 ? 4 : 3;
constexpr int kFewer = kOutputs - 1;

// The stride of compiled filters, or of those that read the shape instead.
constexpr int kAnyFilter = 0;

constexpr int rows_together(int stride) {
    return stride == kAnyFilter ? 1 : 2;
}

// sum += the taps of any filter on one vector of channels, for windows of a row that begin at cell
// (top, left) of `image` and a stride apart. `filter` points to the channels, as `load` does.
// `kClipped`: whether they meet cells outside x.
template <int kColumns, bool kClipped, typename Load>
inline void add_any_taps(const DepthwiseShape& sh, const float* image, int top, int left,
                         const Load& load, const float* filter, Vec (&sum)[kColumns]) {
    const std::int64_t C = sh.c;
    for (int r = 0; r < sh.r; ++r) {
        const int h = top + r * sh.dilation_h;
        if (kClipped && (h < 0 || h >= sh.h)) continue;
        const float* taps = filter + std::int64_t{r} * sh.s * kLanes;
        for (int s = 0; s < sh.s; ++s, taps += kLanes) {
            const Vec tap = simd::load(taps);
            for (int j = 0; j < kColumns; ++j) {
                const int w = left + s * sh.dilation_w + j * sh.stride_w;
                if (kClipped && (w < 0 || w >= sh.w)) continue;
                sum[j] += load(image + (std::int64_t{h} * sh.w + w) * C) * tap;
            }
        }
    }
}

// sum += the taps of compiled filters on one vector of channels.
template <int kStride, int kRows, int kColumns, typename Input, typename Load>
inline void add_compiled_taps(const Input& pixels, const Load& load, const float* filter,
                              Vec (&sum)[kRows][kColumns]) {
    constexpr int kDown = covered(kRows, kStride), kAcross = covered(kColumns, kStride);
    Vec tap[kWindow][kWindow];
#pragma GCC unroll 4
    for (int r = 0; r < kWindow; ++r)
#pragma GCC unroll 4
        for (int s = 0; s < kWindow; ++s)
            tap[r][s] = simd::load(filter + (r * kWindow + s) * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kDown; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < kAcross; ++j) {
            const Vec v = load(pixels(i, j));
        // For the window that begins a rows down and b columns right.
#pragma GCC unroll 4
            for (int a = 0; a < kRows; ++a)
#pragma GCC unroll 4
                for (int b = 0; b < kColumns; ++b) {
                    const int r = i - a * kStride, s = j - b * kStride;
                    if (r >= 0 && r < kWindow && s >= 0 && s < kWindow) sum[a][b] += v * tap[r][s];
                }
        }
}

template <int kStride>
void convolve(const DepthwiseShape& sh, const float* x, const float* packed, const float* b,
              bool relu, float* y) {
    constexpr int kRows = rows_together(kStride);
    const int P = sh.p(), Q = sh.q(), K = sh.k;
    const int last_tap = (sh.s - 1) * sh.dilation_w, last_tap_down = (sh.r - 1) * sh.dilation_h;
    const std::int64_t x_image = std::int64_t{sh.h} * sh.w * sh.c;
    const bool stream = streams_to_rows(std::int64_t{sh.n} * P * Q * K, K, y, std::int64_t{Q} * K);
    const RowTasks tasks(ceil_div(P, kRows), K);
    const NextRows next(sh, x, kRows, ceil_div(Q, kOutputs), tasks,
                        sh.n * x_image * 4 > kSecondCacheBytes);
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < tasks.count(sh.n); ++i) {
        const RowTasks::Task at = tasks.at(i);
        const int p = at.row * kRows;
        const float* image = x + at.image * x_image;
        Fetch<float> fetch = next.of(at);
        float* y_row = y + (at.image * P + p) * Q * K;
        const int top = p * sh.stride_h - sh.top;

        const float* const zeros = kZeros - at.begin / sh.multiplier();
        // In one function with all others, a group took a fifth longer with 16 registers.
        const auto outputs = [&](int q, auto rows, auto columns,
                                 const auto& add_taps) __attribute__((noinline)) {
            constexpr int kTogether = decltype(rows)::value, kColumns = decltype(columns)::value;
            // Copies: to the compiler, a store of a vector may change what is captured.
            float* const first = y_row + std::int64_t{q} * K;
            const std::int64_t y_pixel = K, y_down = std::int64_t{Q} * K;
            const float *const bias = b, *const filters = packed;
            const bool rectify = relu, past_caches = stream;
            const std::int64_t all_taps = sh.taps();
            for_channels(at.begin, at.end, sh.multiplier(), [&](const auto& load, int k, int some) {
                fetch.step();
                Vec sum[kTogether][kColumns];
                const Vec start = bias ? simd::load_up_to(bias + k, some) : Vec{};
                for (int i = 0; i < kTogether; ++i)
                    for (int j = 0; j < kColumns; ++j)
                        sum[i][j] = start;
                add_taps(load, filters + k * all_taps, sum);
                const auto for_each = [&](const auto& body) {
                    for (int i = 0; i < kTogether; ++i)
                        for (int j = 0; j < kColumns; ++j)
                            body(first + i * y_down + j * y_pixel + k, sum[i][j]);
                };
                if (rectify) for_each([](float*, Vec& v) { v = simd::relu(v); });
                if (past_caches)
                    for_each([](float* to, Vec v) { simd::stream(to, v); });
                else
                    for_each([&](float* to, Vec v) { simd::store_up_to(to, v, some); });
            });
        };
        const auto outputs_from = [&](int q, auto rows, auto columns) {
            const int left = q * sh.stride_w - sh.left;
            const bool inside = has(sh.h, top, (rows - 1) * sh.stride_h + last_tap_down + 1) &&
                                has(sh.w, left, (columns - 1) * sh.stride_w + last_tap + 1);
            if constexpr (kStride == kAnyFilter) {
                const auto with = [&](auto clipped) {
                    outputs(q, rows, columns,
                            [&](const auto& load, const float* filter, auto& sum) {
                                add_any_taps<columns, clipped>(sh, image, top, left, load, filter,
                                                               sum[0]);
                            });
                };
                inside ? with(std::false_type()) : with(std::true_type());
            } else {
                const auto with = [&](const auto& pixels) {
                    outputs(q, rows, columns,
                            [&](const auto& load, const float* filter, auto& sum) {
                                add_compiled_taps<kStride>(pixels, load, filter, sum);
                            });
                };
                if (inside)
                    with(InnerPixels(image, sh.w, sh.c, top, left));
                else
                    with(Pixels<covered(rows, kStride), covered(columns, kStride)>(
                        image, sh.h, sh.w, sh.c, top, left, zeros));
            }
        };
        // `columns` at a time; the last ones may repeat some of those before them.
        const auto outputs_up_to = [&](int begin, int end, auto rows, auto columns) {
            for (int q = begin; q < end; q += columns)
                outputs_from(std::min<int>(q, end - columns), rows, columns);
        };
        const auto some_rows = [&](auto rows) {
            if (Q < kFewer) return outputs_up_to(0, Q, rows, std::integral_constant<int, 1>());
            // Groups of kFewer, and the columns before them.
            const int narrow = ceil_div(Q, kOutputs) * kOutputs - Q;
            const int wide = std::max(0, Q - narrow * kFewer);
            outputs_up_to(wide, Q, rows, std::integral_constant<int, kFewer>());
            outputs_up_to(0, wide, rows, std::integral_constant<int, kOutputs>());
        };
        if (p + kRows <= P)
            some_rows(std::integral_constant<int, kRows>());
        else
            some_rows(std::integral_constant<int, 1>());
    }
}

// ---- Filters 5 or 7 wide ------------------------------------------------------------------------

template <int kWidth, int kStride>
void convolve_rows(const DepthwiseShape& sh, const float* x, const float* packed, const float* b,
                   bool relu, float* y) {
    using Row = ConvolutionRow<kWidth, kStride>;
    const int P = sh.p(), Q = sh.q(), C = sh.c;
    const std::int64_t x_row = std::int64_t{sh.w} * C;
    constexpr std::int64_t kRow = kWidth * kLanes;  // of taps
    constexpr int kColumns = Row::kOutputs;
    const bool stream = streams_to_places<kColumns>(std::int64_t{sh.n} * P * Q * C, C, y);
    const RowTasks tasks(P, C);
    // Where x and y fill half of the last-level cache, part of x has left it.
    const NextRows next(sh, x, 1, ceil_div(Q, kColumns), tasks, bytes(sh) > kStreamBytes);
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < tasks.count(sh.n); ++i) {
        const RowTasks::Task at = tasks.at(i);
        const int top = at.row * sh.stride_h - sh.top;
        const Taps taps(top, sh.r, sh.dilation_h, sh.h);
        const float* first = x + (at.image * sh.h + top + taps.begin * sh.dilation_h) * x_row;
        float* const y_row = y + (at.image * P + at.row) * Q * C;
        Fetch<float> fetch = next.of(at);
        for (int q = 0; q < Q; q += kColumns) {
            const int left = q * kStride - sh.left, count = std::min(kColumns, Q - q);
            const WindowRows rows{
                first + std::int64_t{left} * C, sh.dilation_h * x_row,
                packed + taps.begin * kRow,     kRow,
                taps.end - taps.begin,          Range(sh.w, left, Row::covered(count))};
            const Outputs to{y_row + std::int64_t{q} * C, Range(count, 0, count), b, relu, stream};
            sum_rows<Row>(rows, to, at, C, sh.taps(), [&] { fetch.step(); });
        }
    }
}

template <int kWidth>
void convolve_rows(const DepthwiseShape& sh, const float* x, const float* packed, const float* b,
                   bool relu, float* y) {
    if (sh.stride_w == 1)
        convolve_rows<kWidth, 1>(sh, x, packed, b, relu, y);
    else
        convolve_rows<kWidth, 2>(sh, x, packed, b, relu, y);
}

}  // namespace

void depthwise::convolve_packed(const DepthwiseShape& sh, bool in_tiles, const float* x,
                                const float* packed, const float* b, bool relu, float* y) {
    const int compiled = in_tiles ? sh.stride_h : kAnyFilter;
    if (has_window_rows(sh))
        sh.s == 5 ? convolve_rows<5>(sh, x, packed, b, relu, y)
                  : convolve_rows<7>(sh, x, packed, b, relu, y);
    else if (compiled == 1)
        convolve<1>(sh, x, packed, b, relu, y);
    else if (compiled == 2)
        convolve<2>(sh, x, packed, b, relu, y);
    else
        convolve<kAnyFilter>(sh, x, packed, b, relu, y);
}

std::size_t depthwise_conv2d_workspace(const DepthwiseShape& sh) {
    return packed_bytes(sh);
}

template <class T>
void depthwise_conv2d(const DepthwiseShape& sh, const T* x, const T* w, const float* b, bool relu,
                      T* y, void* workspace, Stream) {
    float* const packed = static_cast<float*>(workspace);
    const bool in_tiles = takes_tiles(sh, w);
#pragma omp parallel if (worth_threads(work(sh)))
    {
        pack(sh, false, w, packed);
        convolve_packed(sh, in_tiles, x, packed, b, relu, y);
        simd::stream_fence();
    }
}

template decltype(depthwise_conv2d<float>) depthwise_conv2d<float>;

}  // namespace zfcuda
