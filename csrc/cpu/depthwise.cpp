// Depthwise convolution, its data gradient and its weight gradient on the CPU: bound by memory
// where maps are large, by 9 multiplications for each element of y where they are in the caches.
//
// All work in vectors of channels, with filters packed as (taps, channels). A task is a row of the
// result, of a block of channels. The convolution keeps four neighbours of a row in registers; 3 x
// 3 filters at stride 1 or 2 are compiled in, so that neighbours share what is loaded. The data
// gradient at stride 1 is that convolution with mirrored filters; at others a pixel gathers from
// the windows that cover it. The weight gradient keeps the taps' sums in registers along a row of
// dy; its rows are cut into parts by nothing but the shape.
#include <algorithm>
#include <type_traits>

#include "../ops.h"
#include "blocking.h"
#include "parallel.h"
#include "simd.h"

namespace zfcuda {
namespace {

using simd::kLanes;
using simd::Vec;

// ---- Channels -----------------------------------------------------------------------------------

// How neighbouring channels are loaded from a pixel: a whole vector, the `count` that are left, or
// one by one, where channels of x and y are not paired one to one.
struct WholeChannels {
    int first;
    Vec operator()(const float* pixel) const { return simd::load(pixel + first); }
};
struct RestOfChannels {
    int first, count;
    Vec operator()(const float* pixel) const { return simd::load_partial(pixel + first, count); }
};
struct GatheredChannels {
    int count, channel[kLanes];
    Vec operator()(const float* pixel) const {
        Vec v{};
        for (int i = 0; i < count; ++i)
            v[i] = pixel[channel[i]];
        return v;
    }
};

// body(load, k, count) for vectors of the channels begin <= k < end. `load` takes from a pixel what
// lies at channel k / divisor.
template <typename Body>
void for_channels(int begin, int end, int divisor, const Body& body) {
    int k = begin;
    if (divisor == 1) {
        for (; k + kLanes <= end; k += kLanes)
            body(WholeChannels{k}, k, kLanes);
        if (k < end) body(RestOfChannels{k, end - k}, k, end - k);
        return;
    }
    for (; k < end; k += kLanes) {
        GatheredChannels load{std::min(kLanes, end - k), {}};
        for (int i = 0; i < load.count; ++i)
            load.channel[i] = (k + i) / divisor;
        body(load, k, load.count);
    }
}

// Rows of a result, each in blocks of channels.
struct RowTasks {
    int rows, channels, blocks;

    RowTasks(int rows, int channels)
        : rows(rows), channels(channels), blocks(ceil_div(channels, kDepthwiseChannels)) {}

    std::int64_t count(int images) const { return std::int64_t{images} * rows * blocks; }

    struct Task {
        std::int64_t image;
        int row, begin, end;  // channels
    };
    Task at(std::int64_t i) const {
        const int begin = static_cast<int>(i % blocks) * kDepthwiseChannels;
        const std::int64_t row = i / blocks;
        return {row / rows, static_cast<int>(row % rows), begin,
                std::min(channels, begin + kDepthwiseChannels)};
    }
};

void store(float* to, Vec value, int count, bool stream) {
    if (stream)
        simd::stream(to, value);
    else
        simd::store_up_to(to, value, count);
}

bool streams(std::int64_t floats, int channels, const float* result) {
    return floats * 4 > kStreamBytes && channels % kLanes == 0 && simd::is_aligned(result);
}

// Floats of the larger of x and y.
std::int64_t work(const DepthwiseShape& sh) {
    return sh.n * std::max(std::int64_t{sh.h} * sh.w * sh.c, std::int64_t{sh.p()} * sh.q() * sh.k);
}

// ---- Filters ------------------------------------------------------------------------------------

// From one tap to the next: room for whole vectors, also of the channels k % multiplier == i.
int pitch(const DepthwiseShape& sh) {
    return round_up(sh.c, kLanes) * sh.multiplier();
}

std::size_t packed_bytes(const DepthwiseShape& sh) {
    return sizeof(float) * sh.taps() * static_cast<std::size_t>(pitch(sh));
}

// packed[tap, place(k)] = w[k, tap], or w[k, taps - 1 - tap] if `mirrored`; by all threads of a
// parallel region.
template <typename Place>
void pack(const DepthwiseShape& sh, bool mirrored, const float* w, float* packed,
          const Place& place) {
    const int taps = sh.taps();
    const std::int64_t distance = pitch(sh);
#pragma omp for schedule(static)
    for (int k = 0; k < sh.k; ++k)
        for (int tap = 0; tap < taps; ++tap)
            packed[tap * distance + place(k)] =
                w[std::int64_t{k} * taps + (mirrored ? taps - 1 - tap : tap)];
}

// ---- Convolution --------------------------------------------------------------------------------

// Neighbours of a row that are computed together.
constexpr int kOutputs = 4;

// The filters that are compiled in are 3 x 3; kAnyFilter reads the shape instead.
constexpr int kWindow = 3;
constexpr int kAnyFilter = 0;

// Taps of a filter, in one direction, that meet x.
struct Taps {
    int begin, end;

    Taps(int start, int taps, int dilation, int size)
        : begin(start < 0 ? std::min(taps, ceil_div(-std::int64_t{start}, dilation)) : 0),
          end(start < size ? std::min(taps, ceil_div(std::int64_t{size} - start, dilation)) : 0) {}
};

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
    const int last_tap = (sh.s - 1) * sh.dilation_w;
    const std::int64_t x_image = std::int64_t{sh.h} * sh.w * sh.c;
    const std::int64_t distance = pitch(sh);
    const bool stream = streams(std::int64_t{sh.n} * P * Q * K, K, y);
    const RowTasks tasks(P, K);
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < tasks.count(sh.n); ++i) {
        const RowTasks::Task at = tasks.at(i);
        const float* image = x + at.image * x_image;
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
        if (Q < kOutputs) {
            for (int q = 0; q < Q; ++q)
                outputs_from(q, std::integral_constant<int, 1>());
        } else {
            // The last four may repeat some of those before them.
            for (int q = 0; q < Q; q += kOutputs)
                outputs_from(std::min(q, Q - kOutputs), std::integral_constant<int, kOutputs>());
        }
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

// The windows that cover position `at` of an axis: visit(tap, window).
template <typename Visit>
void for_windows(int at, int before, int taps, int stride, int dilation, int windows,
                 const Visit& visit) {
    for (int tap = 0; tap < taps; ++tap) {
        const int start = at + before - tap * dilation;
        if (start < 0) return;
        if (start % stride == 0 && start / stride < windows) visit(tap, start / stride);
    }
}

// Each pixel of x from the windows that cover it; `packed` is (taps, multiplier, c).
void gather(const DepthwiseShape& sh, const float* y, const float* packed, float* x) {
    const int P = sh.p(), Q = sh.q(), K = sh.k, C = sh.c, multiplier = sh.multiplier();
    const std::int64_t y_image = std::int64_t{P} * Q * K, distance = pitch(sh);
    const int plane = round_up(C, kLanes);
    const RowTasks tasks(sh.h, C);
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < tasks.count(sh.n); ++i) {
        const RowTasks::Task at = tasks.at(i);
        const float* image = y + at.image * y_image;
        const auto rows = [&](const auto& visit) {
            for_windows(at.row, sh.top, sh.r, sh.stride_h, sh.dilation_h, P, visit);
        };
        for (int w = 0; w < sh.w; ++w) {
            float* pixel = x + ((at.image * sh.h + at.row) * sh.w + w) * C;
            for (int c = at.begin; c < at.end; c += kLanes)
                simd::store_up_to(pixel + c, Vec{}, at.end - c);
            rows([&](int r, int p) {
                for_windows(w, sh.left, sh.s, sh.stride_w, sh.dilation_w, Q, [&](int s, int q) {
                    const float* from = image + (std::int64_t{p} * Q + q) * K;
                    const float* taps = packed + (r * sh.s + s) * distance;
                    for (int j = 0; j < multiplier; ++j, taps += plane)
                        for (int c = at.begin; c < at.end; c += kLanes) {
                            const int count = std::min(kLanes, at.end - c);
                            Vec value{};
                            if (multiplier == 1)
                                value = simd::load_up_to(from + c, count);
                            else
                                for (int lane = 0; lane < count; ++lane)
                                    value[lane] = from[(c + lane) * multiplier + j];
                            const Vec sum = simd::load_up_to(pixel + c, count);
                            simd::store_up_to(pixel + c, sum + value * simd::load(taps + c), count);
                        }
                });
            });
        }
    }
}

// ---- Weight gradient ----------------------------------------------------------------------------

// Parts that the rows of dy, of all images, are cut into.
int row_parts(const DepthwiseShape& sh) {
    const int blocks = ceil_div(sh.k, kDepthwiseChannels);
    const std::int64_t rows = std::int64_t{sh.n} * sh.p();
    return static_cast<int>(std::min<std::int64_t>(rows, ceil_div(kDepthwiseTasks, blocks)));
}

// sums[tap] += x * dy along a row of dy, for the taps from (r, s) on, kRows x kColumns of them, and
// one vector of channels.
template <int kRows, int kColumns, typename Load>
void add_products(const DepthwiseShape& sh, const float* row, const float* dy_row, int r, int s,
                  int count, int k, const Load& load, float* sums, std::int64_t pitch) {
    const int Q = sh.q();
    const std::int64_t x_row = std::int64_t{sh.w} * sh.c * sh.dilation_h;
    Vec sum[kRows][kColumns];
    const auto place = [&](int i, int j) { return sums + ((r + i) * sh.s + s + j) * pitch; };
    for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j)
            sum[i][j] = simd::load(place(i, j));
    const auto add = [&](int q, auto clipped) {
        const Vec gradient = simd::load_up_to(dy_row + std::int64_t{q} * sh.k + k, count);
        const int left = q * sh.stride_w - sh.left + s * sh.dilation_w;
        for (int j = 0; j < kColumns; ++j) {
            const int w = left + j * sh.dilation_w;
            if (clipped && (w < 0 || w >= sh.w)) continue;
            for (int i = 0; i < kRows; ++i)
                sum[i][j] += gradient * load(row + i * x_row + std::int64_t{w} * sh.c);
        }
    };
    for (int q = 0; q < Q; ++q) {
        const int left = q * sh.stride_w - sh.left + s * sh.dilation_w;
        if (left < 0 || left + (kColumns - 1) * sh.dilation_w >= sh.w)
            add(q, std::true_type());
        else
            add(q, std::false_type());
    }
    for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j)
            simd::store(place(i, j), sum[i][j]);
}

// The same for all taps.
template <typename Load>
void add_row(const DepthwiseShape& sh, const float* image, const float* dy_row, int p, int count,
             int k, const Load& load, float* sums, std::int64_t pitch) {
    const int top = p * sh.stride_h - sh.top;
    const Taps rows(top, sh.r, sh.dilation_h, sh.h);
    const auto row = [&](int r) {
        return image + (std::int64_t{top} + r * sh.dilation_h) * sh.w * sh.c;
    };
    for (int s = 0; s < sh.s;) {
        const bool wide = s + kWindow <= sh.s;
        int r = rows.begin;
        for (; wide && r + kWindow <= rows.end; r += kWindow)
            add_products<kWindow, kWindow>(sh, row(r), dy_row, r, s, count, k, load, sums, pitch);
        for (; r < rows.end; ++r) {
            if (wide)
                add_products<1, kWindow>(sh, row(r), dy_row, r, s, count, k, load, sums, pitch);
            else
                add_products<1, 1>(sh, row(r), dy_row, r, s, count, k, load, sums, pitch);
        }
        s += wide ? kWindow : 1;
    }
}

}  // namespace

std::size_t depthwise_conv2d_workspace(const DepthwiseShape& sh) {
    return packed_bytes(sh);
}

std::size_t depthwise_conv2d_data_grad_workspace(const DepthwiseShape& sh) {
    return packed_bytes(sh);
}

std::size_t depthwise_conv2d_weight_grad_workspace(const DepthwiseShape& sh) {
    return packed_bytes(sh) * row_parts(sh);
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

template <class T>
void depthwise_conv2d_weight_grad(const DepthwiseShape& sh, const T* x, const T* dy, float* dw,
                                  void* workspace, Stream) {
    const int P = sh.p(), Q = sh.q(), K = sh.k, taps = sh.taps(), parts = row_parts(sh);
    const std::int64_t x_image = std::int64_t{sh.h} * sh.w * sh.c;
    const std::int64_t distance = pitch(sh), rows = std::int64_t{sh.n} * P;
    float* const all = static_cast<float*>(workspace);
    const RowTasks tasks(parts, K);
#pragma omp parallel if (worth_threads(work(sh)))
    {
#pragma omp for
        for (std::int64_t i = 0; i < tasks.count(1); ++i) {
            const RowTasks::Task at = tasks.at(i);
            float* const sums = all + at.row * taps * distance;
            for (int tap = 0; tap < taps; ++tap)
                simd::clear_spilling(sums + tap * distance + at.begin, at.end - at.begin);
            const std::int64_t end = part_begin(rows, parts, at.row + 1);
            for (std::int64_t row = part_begin(rows, parts, at.row); row < end; ++row) {
                const float* image = x + row / P * x_image;
                const float* dy_row = dy + row * Q * K;
                for_channels(at.begin, at.end, sh.multiplier(),
                             [&](const auto& load, int k, int count) {
                                 add_row(sh, image, dy_row, static_cast<int>(row % P), count, k,
                                         load, sums + k, distance);
                             });
            }
        }
#pragma omp for
        for (int k = 0; k < K; ++k)
            for (int tap = 0; tap < taps; ++tap) {
                float total = 0;
                for (int part = 0; part < parts; ++part)
                    total += all[(std::int64_t{part} * taps + tap) * distance + k];
                dw[std::int64_t{k} * taps + tap] = total;
            }
    }
}

template decltype(depthwise_conv2d<float>) depthwise_conv2d<float>;
template decltype(depthwise_conv2d_data_grad<float>) depthwise_conv2d_data_grad<float>;
template decltype(depthwise_conv2d_weight_grad<float>) depthwise_conv2d_weight_grad<float>;

}  // namespace zfcuda
