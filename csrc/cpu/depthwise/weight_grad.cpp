// The weight gradient of depthwise convolution on the CPU, bound like the convolution itself.
//
// A task is a part of the rows of dy, of all images, by twos, and a block of channels. Of compiled
// filters, the sums of 9 taps are loaded and stored once for a tile of dy of 2 x 4 pixels (2 x 2 with
// 16 registers), which makes 72 multiplications of 32 loads at stride 1; of others, they stay in
// registers along a row. The parts depend on nothing but the shape; their sums are added up in order.
#include <algorithm>
#include <type_traits>

#include "../../ops.h"
#include "../parallel.h"
#include "channels.h"

namespace zfcuda {
namespace {

using namespace depthwise;
using simd::kLanes;
using simd::Vec;

// Rows of dy that are taken together, and of those the pixels of compiled filters.
constexpr int kRows = 2;
constexpr int kColumns = kLanes == 16 ? 4 : 2;

// Parts that the rows of dy, of all images, are cut into.
int row_parts(const DepthwiseShape& sh) {
    const int blocks = ceil_div(sh.k, kDepthwiseChannels);
    const std::int64_t rows = std::int64_t{sh.n} * ceil_div(sh.p(), kRows);
    return static_cast<int>(std::min<std::int64_t>(rows, ceil_div(kDepthwiseTasks, blocks)));
}

// Fetches what the same tile of the next rows reads first, as far behind this tile as those rows are;
// beyond an image, from the next one, or nothing that exists. Where all of it is in the last-level
// cache, the processor foresees enough.
template <int kStride>
struct FetchNextRows {
    std::int64_t x_distance, dy_distance;
    bool fetches;

    FetchNextRows(const DepthwiseShape& sh)
        : x_distance(std::int64_t{kRows} * kStride * sh.w * sh.c),
          dy_distance(std::int64_t{kRows} * sh.q() * sh.k),
          fetches(bytes(sh) > kFarBytes) {}

    // Inline, for GCC removes calls of functions that only fetch.
    template <typename Input, typename Gradient, typename Load>
    [[gnu::always_inline]] void operator()(const Input& x, const Gradient& dy, const Load& load,
                                           int k) const {
        constexpr int kDown = covered(kRows, kStride), kAcross = covered(kColumns, kStride);
        if (!fetches) return;
#pragma GCC unroll 16
        for (int i = kDown - kRows * kStride; i < kDown; ++i)
#pragma GCC unroll 16
            for (int j = kAcross - kColumns * kStride; j < kAcross; ++j)
                __builtin_prefetch(load.place(x(i, j)) + x_distance, 0, 3);
#pragma GCC unroll 4
        for (int a = 0; a < kRows; ++a)
#pragma GCC unroll 4
            for (int b = 0; b < kColumns; ++b)
                __builtin_prefetch(dy(a, b) + k + dy_distance, 0, 3);
    }
};

// sums[tap] += x * dy of a tile, for one vector of channels, `load` of x and `count` from k on of dy.
template <int kStride, typename Input, typename Gradient, typename Load>
inline void add_tile(const Input& x, const Gradient& dy, int count, int k, const Load& load,
                     float* sums) {
    constexpr int kDown = covered(kRows, kStride), kAcross = covered(kColumns, kStride);
    Vec sum[kWindow][kWindow], gradient[kRows][kColumns];
#pragma GCC unroll 4
    for (int r = 0; r < kWindow; ++r)
#pragma GCC unroll 4
        for (int s = 0; s < kWindow; ++s)
            sum[r][s] = simd::load(sums + (r * kWindow + s) * kLanes);
#pragma GCC unroll 4
    for (int a = 0; a < kRows; ++a)
#pragma GCC unroll 4
        for (int b = 0; b < kColumns; ++b)
            gradient[a][b] = simd::load_up_to(dy(a, b) + k, count);
#pragma GCC unroll 16
    for (int i = 0; i < kDown; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < kAcross; ++j) {
            const Vec v = load(x(i, j));
#pragma GCC unroll 4
            for (int a = 0; a < kRows; ++a)
#pragma GCC unroll 4
                for (int b = 0; b < kColumns; ++b) {
                    const int r = i - a * kStride, s = j - b * kStride;
                    if (r >= 0 && r < kWindow && s >= 0 && s < kWindow)
                        sum[r][s] += v * gradient[a][b];
                }
        }
#pragma GCC unroll 4
    for (int r = 0; r < kWindow; ++r)
#pragma GCC unroll 4
        for (int s = 0; s < kWindow; ++s)
            simd::store(sums + (r * kWindow + s) * kLanes, sum[r][s]);
}

// The same for the rows of dy from p on and a block of channels.
template <int kStride>
void add_tiles(const DepthwiseShape& sh, const float* image, const float* dy_image, int p,
               const RowTasks::Task& at, float* sums) {
    const FetchNextRows<kStride> fetch_next(sh);
    constexpr int kDown = covered(kRows, kStride), kAcross = covered(kColumns, kStride);
    const int P = sh.p(), Q = sh.q(), top = p * kStride - sh.top;
    for (int q = 0; q < Q; q += kColumns) {
        const int left = q * kStride - sh.left;
        const auto tile = [&](const auto& x, const auto& dy) {
            for_channels(
                at.begin, at.end, sh.multiplier(), [&](const auto& load, int k, int count) {
                    fetch_next(x, dy, load, k);
                    add_tile<kStride>(x, dy, count, k, load, sums + std::int64_t{k} * sh.taps());
                });
        };
        if (has(sh.h, top, kDown) && has(sh.w, left, kAcross) && has(P, p, kRows) &&
            has(Q, q, kColumns))
            tile(InnerPixels(image, sh.w, sh.c, top, left), InnerPixels(dy_image, Q, sh.k, p, q));
        else
            tile(Pixels<kDown, kAcross>(image, sh.h, sh.w, sh.c, top, left,
                                        kZeros - at.begin / sh.multiplier()),
                 Pixels<kRows, kColumns>(dy_image, P, Q, sh.k, p, q, kZeros - at.begin));
    }
}

// sums[tap] += x * dy along a row of dy, for the taps from (r, s) on, kRows x kColumns of them, and
// one vector of channels.
template <int kRows, int kColumns, typename Load>
void add_products(const DepthwiseShape& sh, const float* row, const float* dy_row, int r, int s,
                  int count, int k, const Load& load, float* sums) {
    const int Q = sh.q();
    const std::int64_t x_row = std::int64_t{sh.w} * sh.c * sh.dilation_h;
    Vec sum[kRows][kColumns];
    const auto place = [&](int i, int j) { return sums + ((r + i) * sh.s + s + j) * kLanes; };
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
             int k, const Load& load, float* sums) {
    const int top = p * sh.stride_h - sh.top;
    const Taps rows(top, sh.r, sh.dilation_h, sh.h);
    const auto row = [&](int r) {
        return image + (std::int64_t{top} + r * sh.dilation_h) * sh.w * sh.c;
    };
    for (int s = 0; s < sh.s;) {
        const bool wide = s + kWindow <= sh.s;
        int r = rows.begin;
        for (; wide && r + kWindow <= rows.end; r += kWindow)
            add_products<kWindow, kWindow>(sh, row(r), dy_row, r, s, count, k, load, sums);
        for (; r < rows.end; ++r) {
            if (wide)
                add_products<1, kWindow>(sh, row(r), dy_row, r, s, count, k, load, sums);
            else
                add_products<1, 1>(sh, row(r), dy_row, r, s, count, k, load, sums);
        }
        s += wide ? kWindow : 1;
    }
}

// dw, by tiles of compiled filters or not.
void sum_products(const DepthwiseShape& sh, bool in_tiles, const float* x, const float* dy,
                  float* dw, float* workspace) {
    const int P = sh.p(), Q = sh.q(), K = sh.k, taps = sh.taps(), parts = row_parts(sh);
    const int image_pairs = ceil_div(P, kRows);
    const std::int64_t pairs = std::int64_t{sh.n} * image_pairs;
    const std::int64_t part_floats = std::int64_t{all_filters(sh)} * taps;
    const RowTasks tasks(parts, K);
#pragma omp parallel if (worth_threads(work(sh)))
    {
#pragma omp for
        for (std::int64_t i = 0; i < tasks.count(1); ++i) {
            const RowTasks::Task at = tasks.at(i);
            float* const sums = workspace + at.row * part_floats;  // lie as packed filters do
            simd::clear(sums + std::int64_t{at.begin} * taps,
                        std::int64_t{round_up(at.end - at.begin, kLanes)} * taps);
            const std::int64_t end = part_begin(pairs, parts, at.row + 1);
            for (std::int64_t pair = part_begin(pairs, parts, at.row); pair < end; ++pair) {
                const std::int64_t image = pair / image_pairs;
                const int p = static_cast<int>(pair % image_pairs) * kRows;
                const float* x_image = x + image * sh.h * sh.w * sh.c;
                const float* dy_image = dy + image * P * Q * K;
                if (in_tiles) {
                    sh.stride_h == 1 ? add_tiles<1>(sh, x_image, dy_image, p, at, sums)
                                     : add_tiles<2>(sh, x_image, dy_image, p, at, sums);
                    continue;
                }
                for (int row = p; row < std::min(P, p + kRows); ++row)
                    for_channels(at.begin, at.end, sh.multiplier(),
                                 [&](const auto& load, int k, int count) {
                                     add_row(sh, x_image, dy_image + std::int64_t{row} * Q * K, row,
                                             count, k, load, sums + std::int64_t{k} * taps);
                                 });
            }
        }
        for_blocks(sh, [&](int begin, int end) {
            for (int k = begin; k < end; k += kLanes)
                for (int tap = 0; tap < taps; ++tap) {
                    const float* of_part = workspace + std::int64_t{k} * taps + tap * kLanes;
                    Vec total{};
                    for (int part = 0; part < parts; ++part, of_part += part_floats)
                        total += simd::load(of_part);
                    for (int i = 0; i < std::min(kLanes, end - k); ++i)
                        dw[std::int64_t{k + i} * taps + tap] = total[i];
                }
        });
    }
}

}  // namespace

std::size_t depthwise_conv2d_weight_grad_workspace(const DepthwiseShape& sh) {
    return packed_bytes(sh) * row_parts(sh);
}

template <class T>
void depthwise_conv2d_weight_grad(const DepthwiseShape& sh, const T* x, const T* dy, float* dw,
                                  void* workspace, Stream) {
    float* const sums = static_cast<float*>(workspace);
    const bool in_tiles = has_compiled_filter(sh);
    sum_products(sh, in_tiles, x, dy, dw, sums);
    // Tiles multiply the zeros outside x and dy by what may not be finite.
    if (in_tiles && !all_finite(dw, std::int64_t{sh.k} * sh.taps()))
        sum_products(sh, false, x, dy, dw, sums);
}

template decltype(depthwise_conv2d_weight_grad<float>) depthwise_conv2d_weight_grad<float>;

}  // namespace zfcuda
