// Average pooling, and its gradient, on the CPU: bound by memory where maps are large.
//
// y = sum over the window's cells / count, and back. Both gather: a task is a row of the result, and
// as many channels of one pixel as there are registers for stay in them while its cells or windows
// pass. A window that meets all of a large map sums its pixels as other sums of many rows are made
// (columns.h): in parts, so that one map keeps all threads busy.
#include <type_traits>

#include "../ops.h"
#include "blocking.h"
#include "columns.h"
#include "parallel.h"
#include "simd.h"
#include "streams.h"

namespace zfcuda {
namespace {

using simd::kLanes;
using simd::Vec;

ColumnParts pixels(const AvgPoolShape& sh) {
    return {sh.n, static_cast<std::int64_t>(sh.h) * sh.w, sh.c};
}

bool is_summed_in_parts(const AvgPoolShape& sh) {
    return sh.is_global() && pixels(sh).parts > 1;
}

float average_scale(const Averaged& rows, const Averaged& columns) {
    return 1.0f / (static_cast<float>(rows.count) * static_cast<float>(columns.count));
}

// Calls body(load, number of vectors, channel, floats of the last vector) until all channels are
// done: at once where they are one of the usual numbers, so that pixels are read in order.
template <typename Body>
void for_channels(int channels, const Body& body) {
    constexpr int kMost = kLanes == 16 ? 16 : 8;  // half of the registers
    int c = 0;
    const auto in_vectors = [&](auto... counts) {
        const auto in_some = [&](auto vectors) {
            if constexpr (vectors <= kMost)
                for (; c <= channels - vectors * kLanes; c += vectors * kLanes)
                    body(LoadVector(), vectors, c, kLanes);
        };
        (in_some(counts), ...);
    };
    in_vectors(std::integral_constant<int, 16>(), std::integral_constant<int, 12>(),
               std::integral_constant<int, 8>(), std::integral_constant<int, 6>(),
               std::integral_constant<int, 4>(), std::integral_constant<int, 3>(),
               std::integral_constant<int, 2>(), std::integral_constant<int, 1>());
    if (c < channels)
        body(LoadRest{channels - c}, std::integral_constant<int, 1>(), c, channels - c);
}

template <int kVectors>
void store_all(float* to, const Vec (&values)[kVectors], int last, bool stream) {
    for (int i = 0; i < kVectors; ++i) {
        if (stream)
            simd::stream(to + i * kLanes, values[i]);
        else
            simd::store_up_to(to + i * kLanes, values[i], last);
    }
}

// The windows that cover position `at` of an axis: first <= window < end.
struct Windows {
    int first = 0, end = 0;

    bool operator!=(const Windows& other) const { return first != other.first || end != other.end; }

    // From those of an earlier position.
    void move_to(int at, int before, int window, int stride, int count) {
        while (first < count && std::int64_t{first} * stride - before + window <= at)
            ++first;
        while (end < count && std::int64_t{end} * stride - before <= at)
            ++end;
    }
};

}  // namespace

std::size_t avg_pool2d_workspace(const AvgPoolShape& sh) {
    return is_summed_in_parts(sh) ? pixels(sh).workspace(1) : 0;
}

template <class T>
void avg_pool2d(const AvgPoolShape& sh, const T* x, T* y, void* workspace, Stream) {
    const int C = sh.c, P = sh.p(), Q = sh.q();
    if (is_summed_in_parts(sh)) {
        const float scale = average_scale(sh.rows(0), sh.columns(0));
        sum_columns<1>(
            pixels(sh), workspace,
            [=](const auto& load, std::int64_t row, int c, Vec* sum) {
                sum[0] += load(x + row * C + c);
            },
            [=](std::int64_t image, int c, const float* sum) {
                y[image * C + c] = sum[0] * scale;
            });
        return;
    }
    const std::int64_t x_row = static_cast<std::int64_t>(sh.w) * C;
    const std::int64_t y_row = static_cast<std::int64_t>(Q) * C;
    const std::int64_t tasks = std::int64_t{sh.n} * P;
    const bool stream = streams(y_row * tasks, C, y);
#pragma omp parallel if (tasks > 1 && worth_threads(x_row * sh.h * sh.n))
    {
#pragma omp for schedule(static) nowait
        for (std::int64_t row = 0; row < tasks; ++row) {
            const Averaged rows = sh.rows(static_cast<int>(row % P));
            const float* image = x + row / P * sh.h * x_row;
            for (int q = 0; q < Q; ++q) {
                const Averaged columns = sh.columns(q);
                const float scale = average_scale(rows, columns);
                for_channels(C, [&](const auto& load, auto vectors, int c, int last) {
                    Vec sum[vectors] = {};
                    for (int h = rows.begin; h < rows.end; ++h) {
                        const float* cell = image + h * x_row + std::int64_t{columns.begin} * C + c;
                        for (int w = columns.begin; w < columns.end; ++w, cell += C)
                            for (int i = 0; i < vectors; ++i)
                                sum[i] += load(cell + i * kLanes);
                    }
                    for (int i = 0; i < vectors; ++i)
                        sum[i] *= scale;
                    store_all(y + row * y_row + std::int64_t{q} * C + c, sum, last, stream);
                });
            }
        }
        simd::stream_fence();
    }
}

template <class T>
void avg_pool2d_grad(const AvgPoolShape& sh, const T* dy, T* dx, Stream) {
    const int C = sh.c, P = sh.p(), Q = sh.q();
    const std::int64_t x_row = static_cast<std::int64_t>(sh.w) * C;
    const std::int64_t y_row = static_cast<std::int64_t>(Q) * C;
    const bool stream = streams(x_row * sh.h * sh.n, C, dx);
#pragma omp parallel if (worth_threads(x_row * sh.h * sh.n))
    {
#pragma omp for schedule(static) nowait
        for (std::int64_t row = 0; row < std::int64_t{sh.n} * sh.h; ++row) {
            const float* image = dy + row / sh.h * P * y_row;
            Windows rows, columns;
            rows.move_to(static_cast<int>(row % sh.h), sh.top, sh.window_h, sh.stride_h, P);
            columns.move_to(0, sh.left, sh.window_w, sh.stride_w, Q);
            for (int w = 0, next; w < sh.w; w = next) {
                // Neighbours in the same windows have the same gradient.
                const Windows these = columns;
                for (next = w + 1; next < sh.w; ++next) {
                    columns.move_to(next, sh.left, sh.window_w, sh.stride_w, Q);
                    if (columns != these) break;
                }
                for_channels(C, [&](const auto& load, auto vectors, int c, int last) {
                    Vec sum[vectors] = {};
                    for (int p = rows.first; p < rows.end; ++p)
                        for (int q = these.first; q < these.end; ++q) {
                            const float scale = average_scale(sh.rows(p), sh.columns(q));
                            const float* from = image + p * y_row + std::int64_t{q} * C + c;
                            for (int i = 0; i < vectors; ++i)
                                sum[i] += load(from + i * kLanes) * scale;
                        }
                    for (int at = w; at < next; ++at)
                        store_all(dx + row * x_row + std::int64_t{at} * C + c, sum, last, stream);
                });
            }
        }
        simd::stream_fence();
    }
}

template decltype(avg_pool2d<float>) avg_pool2d<float>;
template decltype(avg_pool2d_grad<float>) avg_pool2d_grad<float>;

}  // namespace zfcuda
