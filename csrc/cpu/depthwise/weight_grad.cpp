// The weight gradient of depthwise convolution on the CPU, bound like the convolution itself.
//
// A task is a part of the rows of dy, of all images, and a block of channels: it keeps the sums of 3
// x 3 taps in registers along a row. The parts depend on nothing but the shape; their sums are added
// up in order.
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

std::size_t depthwise_conv2d_weight_grad_workspace(const DepthwiseShape& sh) {
    return packed_bytes(sh) * row_parts(sh);
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
        for_blocks(sh, [&](int begin, int end) {
            for (int tap = 0; tap < taps; ++tap) {
                float total[kDepthwiseChannels] = {};
                for (int part = 0; part < parts; ++part)
                    for (int k = begin; k < end; ++k)
                        total[k - begin] += all[(std::int64_t{part} * taps + tap) * distance + k];
                for (int k = begin; k < end; ++k)
                    dw[std::int64_t{k} * taps + tap] = total[k - begin];
            }
        });
    }
}

template decltype(depthwise_conv2d_weight_grad<float>) depthwise_conv2d_weight_grad<float>;

}  // namespace zfcuda
