// Depthwise convolution and its data gradient on the CPU: bound by memory where maps are large, by 9
// multiplications for each element of y where they are in the caches.
//
// A task is a row of the result, of a block of channels. The convolution keeps four neighbours of a
// row in registers; 3 x 3 filters at stride 1 or 2 are compiled in, so that neighbours share what is
// loaded. The data gradient at stride 1 is that convolution with mirrored filters; at others a pixel
// gathers from the windows that cover it.
#include <algorithm>
#include <numeric>
#include <type_traits>

#include "../../ops.h"
#include "../fetch.h"
#include "../parallel.h"
#include "channels.h"

namespace zfcuda {
namespace {

using namespace depthwise;
using simd::kLanes;
using simd::Vec;

// ---- Convolution --------------------------------------------------------------------------------

// Neighbours of a row that are computed together; of maps with fewer, one at a time.
constexpr int kOutputs = 4;

// The stride of compiled filters, or of those that read the shape instead.
constexpr int kAnyFilter = 0;

// The outputs from column `q` on of one row and one vector of channels. `filter` points to their
// channels, as `load` does. `kStride`: of compiled filters, or kAnyFilter. `kClipped`: whether they
// meet cells outside x.
template <int kCount, int kStride, bool kClipped, typename Load>
void add_taps(const DepthwiseShape& sh, const float* image, int top, const Taps& rows, int left,
              const Load& load, const float* filter, std::int64_t pitch, Vec (&sum)[kCount]) {
    const auto cell = [&](const float* row, int w, const auto& use) {
        if (kClipped && (w < 0 || w >= sh.w)) return;
        use(load(row + std::int64_t{w} * sh.c));
    };
    for (int r = rows.begin; r < rows.end; ++r) {
        const float* row = image + (std::int64_t{top} + r * sh.dilation_h) * sh.w * sh.c;
        const float* taps = filter + r * sh.s * pitch;
        if constexpr (kStride == kAnyFilter) {
            for (int s = 0; s < sh.s; ++s, taps += pitch) {
                const Vec tap = simd::load(taps);
                for (int i = 0; i < kCount; ++i)
                    cell(row, left + s * sh.dilation_w + i * sh.stride_w,
                         [&](Vec v) { sum[i] += v * tap; });
            }
        } else {
            Vec tap[kWindow];
            for (int s = 0; s < kWindow; ++s)
                tap[s] = simd::load(taps + s * pitch);
#pragma GCC unroll 16
            for (int i = 0; i < (kCount - 1) * kStride + kWindow; ++i)
                cell(row, left + i, [&](Vec v) {
#pragma GCC unroll 4
                    for (int s = 0; s < kWindow; ++s)
                        if (i >= s && (i - s) % kStride == 0 && (i - s) / kStride < kCount)
                            sum[(i - s) / kStride] += v * tap[s];
                });
        }
    }
}

template <int kStride>
void convolve(const DepthwiseShape& sh, const float* x, const float* packed, const float* b,
              bool relu, float* y) {
    const int P = sh.p(), Q = sh.q(), K = sh.k;
    const int last_tap = (sh.s - 1) * sh.dilation_w, last_tap_down = (sh.r - 1) * sh.dilation_h;
    const std::int64_t x_image = std::int64_t{sh.h} * sh.w * sh.c;
    const std::int64_t distance = pitch(sh);
    const bool stream = streams(std::int64_t{sh.n} * P * Q * K, K, y);
    const RowTasks tasks(P, K);
    const float* const x_end = x + sh.n * x_image;
    // The rows of x that the next row of y reads first come from memory, or from the cache that all
    // cores share: a part for each block of channels.
    const bool fetches = sh.n * x_image * 4 > kSecondCacheBytes;
    const auto what_comes_next = [&](const RowTasks::Task& at) {
        const std::int64_t floats = std::int64_t{sh.stride_h} * sh.w * sh.c / tasks.blocks;
        const int row = std::max(0, at.row * sh.stride_h - sh.top + last_tap_down + 1);
        const float* next = x + at.image * x_image + std::int64_t{row} * sh.w * sh.c +
                            at.begin / kDepthwiseChannels * floats;
        const std::int64_t left = std::max<std::int64_t>(0, x_end - next);
        return Fetch<float>(next, fetches ? std::min(floats, left) : 0, ceil_div(Q, kOutputs));
    };
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < tasks.count(sh.n); ++i) {
        const RowTasks::Task at = tasks.at(i);
        const float* image = x + at.image * x_image;
        Fetch<float> fetch = what_comes_next(at);
        float* y_row = y + (at.image * P + at.row) * Q * K;
        const int top = at.row * sh.stride_h - sh.top;
        const Taps rows(top, sh.r, sh.dilation_h, sh.h);

        const auto outputs = [&](int q, auto count, auto clipped) {
            constexpr int kCount = decltype(count)::value;
            constexpr bool kClipped = decltype(clipped)::value;
            const int left = q * sh.stride_w - sh.left;
            for_channels(at.begin, at.end, sh.multiplier(), [&](const auto& load, int k, int some) {
                Vec sum[kCount];
                const Vec bias = b ? simd::load_up_to(b + k, some) : Vec{};
                for (int j = 0; j < kCount; ++j)
                    sum[j] = bias;
                add_taps<kCount, kStride, kClipped>(sh, image, top, rows, left, load, packed + k,
                                                    distance, sum);
                for (int j = 0; j < kCount; ++j)
                    store(y_row + std::int64_t{q + j} * K + k, relu ? simd::relu(sum[j]) : sum[j],
                          some, stream);
            });
        };
        const auto outputs_from = [&](int q, auto count) {
            const int left = q * sh.stride_w - sh.left;
            if (left < 0 || left + (count - 1) * sh.stride_w + last_tap >= sh.w)
                outputs(q, count, std::true_type());
            else
                outputs(q, count, std::false_type());
        };
        // The last four may repeat some of those before them.
        const auto all_outputs = [&](auto count) {
            for (int q = 0; q < Q; q += count) {
                fetch.step();
                outputs_from(std::min<int>(q, Q - count), count);
            }
        };
        if (Q >= kOutputs)
            all_outputs(std::integral_constant<int, kOutputs>());
        else
            all_outputs(std::integral_constant<int, 1>());
    }
}

void convolve_packed(const DepthwiseShape& sh, const float* x, const float* packed, const float* b,
                     bool relu, float* y) {
    const bool compiled = sh.r == kWindow && sh.s == kWindow && sh.stride_h == sh.stride_w &&
                          sh.dilation_h == 1 && sh.dilation_w == 1;
    if (compiled && sh.stride_h == 1)
        convolve<1>(sh, x, packed, b, relu, y);
    else if (compiled && sh.stride_h == 2)
        convolve<2>(sh, x, packed, b, relu, y);
    else
        convolve<kAnyFilter>(sh, x, packed, b, relu, y);
}

// ---- Data gradient ------------------------------------------------------------------------------

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

// Each pixel of x from the windows that cover it; `packed` is (taps, multiplier, c).
void gather(const DepthwiseShape& sh, const float* y, const float* packed, float* x) {
    constexpr int kVectors = 4;  // of channels, in registers
    const int P = sh.p(), Q = sh.q(), K = sh.k, C = sh.c, multiplier = sh.multiplier();
    const std::int64_t y_row = std::int64_t{Q} * K, distance = pitch(sh);
    const int plane = round_up(C, kLanes);
    const Axis down{sh.top, sh.r, sh.stride_h, sh.dilation_h, P};
    const Axis across{sh.left, sh.s, sh.stride_w, sh.dilation_w, Q};
    const bool stream = streams(std::int64_t{sh.n} * sh.h * sh.w * C, C, x);
    const RowTasks tasks(sh.h, C);
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < tasks.count(sh.n); ++i) {
        const RowTasks::Task at = tasks.at(i);
        const float* image = y + at.image * P * y_row;
        float* row = x + (at.image * sh.h + at.row) * sh.w * C;
        const Windows rows = down.at(at.row);
        for (int w = 0; w < sh.w; ++w) {
            const Windows columns = across.at(w);
            const auto add = [&](const auto& load, auto vectors, int c, int count) {
                Vec sum[vectors] = {};
                for (int i = 0; i < rows.count; ++i)
                    for (int j = 0; j < columns.count; ++j) {
                        const int r = rows.tap + i * down.tap_step;
                        const int s = columns.tap + j * across.tap_step;
                        const float* from =
                            image + (rows.window - i * down.window_step) * y_row +
                            std::int64_t{columns.window - j * across.window_step} * K +
                            c * multiplier;
                        const float* taps = packed + (r * sh.s + s) * distance + c;
                        for (int m = 0; m < multiplier; ++m, taps += plane)
                            for (int v = 0; v < vectors; ++v)
                                sum[v] +=
                                    load(from + v * kLanes + m) * simd::load(taps + v * kLanes);
                    }
                for (int v = 0; v < vectors; ++v)
                    store(row + std::int64_t{w} * C + c + v * kLanes, sum[v], count, stream);
            };
            const std::integral_constant<int, 1> one;
            int c = at.begin;
            if (multiplier == 1) {
                for (; c + kVectors * kLanes <= at.end; c += kVectors * kLanes)
                    add(WholeChannels{0}, std::integral_constant<int, kVectors>(), c, kLanes);
                for (; c + kLanes <= at.end; c += kLanes)
                    add(WholeChannels{0}, one, c, kLanes);
                if (c < at.end) add(RestOfChannels{0, at.end - c}, one, c, at.end - c);
            }
            for (; multiplier > 1 && c < at.end; c += kLanes) {
                const int count = std::min(kLanes, at.end - c);
                add(GatheredChannels(count, [&](int i) { return i * multiplier; }), one, c, count);
            }
        }
    }
}

}  // namespace

std::size_t depthwise_conv2d_workspace(const DepthwiseShape& sh) {
    return packed_bytes(sh);
}

std::size_t depthwise_conv2d_data_grad_workspace(const DepthwiseShape& sh) {
    return packed_bytes(sh);
}

template <class T>
void depthwise_conv2d(const DepthwiseShape& sh, const T* x, const T* w, const float* b, bool relu,
                      T* y, void* workspace, Stream) {
    float* const packed = static_cast<float*>(workspace);
#pragma omp parallel if (worth_threads(work(sh)))
    {
        pack(sh, false, w, packed, [](int k) { return k; });
        convolve_packed(sh, x, packed, b, relu, y);
        simd::stream_fence();
    }
}

template <class T>
void depthwise_conv2d_data_grad(const DepthwiseShape& sh, const T* y, const T* w, T* x,
                                void* workspace, Stream) {
    float* const packed = static_cast<float*>(workspace);
    const int multiplier = sh.multiplier(), plane = round_up(sh.c, kLanes);
    const bool mirrored = multiplier == 1 && sh.stride_h == 1 && sh.stride_w == 1;
#pragma omp parallel if (worth_threads(work(sh)))
    {
        pack(sh, mirrored, w, packed,
             [=](int k) { return k % multiplier * plane + k / multiplier; });
        if (mirrored)
            convolve_packed(sh.mirrored(), y, packed, nullptr, false, x);
        else
            gather(sh, y, packed, x);
        simd::stream_fence();
    }
}

template decltype(depthwise_conv2d<float>) depthwise_conv2d<float>;
template decltype(depthwise_conv2d_data_grad<float>) depthwise_conv2d_data_grad<float>;

}  // namespace zfcuda
