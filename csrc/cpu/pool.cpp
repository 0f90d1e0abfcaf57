// Max pooling with switches, and unpooling, on the CPU.
//
// y[n,p,q,c] = max over r,s of x[n, p*stride_h - pad_h + r, q*stride_w - pad_w + s, c], and back.
//
// Both are bound by memory. Pooling walks the rows of y in order, so that the rows of x that two
// windows share are still in the second-level cache when the second one reads them, and vectorises
// over channels. Unpooling gathers: a pixel of x looks at the windows that cover it and adds the
// values whose switch names it, so that x is written once, past the caches, and never cleared or
// read, and rows of x are independent tasks even in one image.
#include "pool.h"

#include <algorithm>

#include "../ops.h"
#include "parallel.h"
#include "simd.h"

namespace zfcuda {
namespace {

constexpr int kMaxWindow = 256;  // rows or columns: PoolShape::check allows no more cells

// The columns of one window that lie in x: cells first..end, the first at `x_column`.
struct Columns {
    int x_column, first, end;

    Columns(const PoolShape& sh, int q) {
        const int corner = q * sh.stride_w - sh.pad_w;
        first = std::max(0, -corner);
        end = std::min(sh.window_w, sh.w - corner);
        x_column = corner + first;
    }
};

// Pools kVectors vectors of channels, `channel` and up, of one window.
template <typename V, int kVectors>
inline void pool_channels(const PoolShape& sh, const float* const* rows, int first_row, int end_row,
                          Columns columns, int channel, float* y, std::uint8_t* switches,
                          bool stream) {
    using I = typename simd::Traits<V>::Int;
    constexpr int kLanes = simd::Traits<V>::kLanes;
    const std::int64_t start = static_cast<std::int64_t>(columns.x_column) * sh.c + channel;
    V best[kVectors];
    I code[kVectors];
    for (int i = 0; i < kVectors; ++i) {
        best[i] = simd::load_as<V>(rows[first_row] + start + i * kLanes);
        code[i] = I{} + (first_row * sh.window_w + columns.first);
    }
    for (int r = first_row; r < end_row; ++r) {
        const float* x = rows[r] + start;
        for (int s = columns.first; s < columns.end; ++s, x += sh.c) {
            const I here = I{} + (r * sh.window_w + s);
            for (int i = 0; i < kVectors; ++i) {
                const V value = simd::load_as<V>(x + i * kLanes);
                const auto wins = simd::beats(value, best[i]);
                best[i] = simd::select(wins, value, best[i]);
                code[i] = simd::select(wins, here, code[i]);
            }
        }
    }
    for (int i = 0; i < kVectors; ++i) {
        const int at = channel + i * kLanes;
        if (stream)
            simd::stream(y + at, best[i]);
        else
            simd::store_as(y + at, best[i]);
        simd::store_bytes(switches + at, code[i]);
    }
}

// The windows that cover position `at` of an axis: first <= window < end.
struct Windows {
    int first, end;

    Windows(int at, int pad, int window, int stride, int count) {
        const int last_start = at + pad;
        first = last_start < window ? 0 : (last_start - window) / stride + 1;
        end = std::min(count, last_start / stride + 1);
    }
};

// Gathers kVectors vectors of channels, `channel` and up, of pixel (h, v); `x` is the pixel.
template <typename V, int kVectors>
inline void unpool_channels(const PoolShape& sh, int h, int v, Windows rows, Windows columns,
                            int channel, const float* y, const std::uint8_t* switches, float* x,
                            bool stream) {
    constexpr int kLanes = simd::Traits<V>::kLanes;
    const int Q = sh.q();
    V sum[kVectors] = {};
    for (int p = rows.first; p < rows.end; ++p) {
        const int r = h + sh.pad_h - p * sh.stride_h;
        for (int q = columns.first; q < columns.end; ++q) {
            const int s = v + sh.pad_w - q * sh.stride_w;
            const auto code = static_cast<std::uint8_t>(r * sh.window_w + s);
            const std::int64_t at = (static_cast<std::int64_t>(p) * Q + q) * sh.c + channel;
            for (int i = 0; i < kVectors; ++i)
                sum[i] = simd::add_where_byte(sum[i], switches + at + i * kLanes, code,
                                              simd::load_as<V>(y + at + i * kLanes));
        }
    }
    for (int i = 0; i < kVectors; ++i) {
        if (stream)
            simd::stream(x + channel + i * kLanes, sum[i]);
        else
            simd::store_as(x + channel + i * kLanes, sum[i]);
    }
}

// Calls body(V, number of vectors, channel) until all channels are done. The last vector overlaps
// the one before where the channels are no multiple of a vector; fewer than one vector go one by
// one.
template <typename Body>
inline void for_channels(int channels, Body body) {
    using simd::kLanes;
    constexpr int kVectors = 4;
    int c = 0;
    for (; c + kVectors * kLanes <= channels; c += kVectors * kLanes)
        body(simd::Vec{}, std::integral_constant<int, kVectors>{}, c);
    for (; c + kLanes <= channels; c += kLanes)
        body(simd::Vec{}, std::integral_constant<int, 1>{}, c);
    if (c < channels && channels >= kLanes) {
        body(simd::Vec{}, std::integral_constant<int, 1>{}, channels - kLanes);
        c = channels;
    }
    for (; c < channels; ++c)
        body(float{}, std::integral_constant<int, 1>{}, c);
}

bool streams(std::int64_t floats, int channels, const float* result) {
    return floats * 4 > kStreamBytes && channels % simd::kLanes == 0 && simd::is_aligned(result);
}

}  // namespace

void max_pool_row(const PoolShape& sh, const float* const* rows, int first_row, int end_row,
                  float* y, std::uint8_t* switches, bool stream) {
    for (int q = 0; q < sh.q(); ++q, y += sh.c, switches += sh.c) {
        const Columns columns(sh, q);
        for_channels(sh.c, [&](auto vector, auto count, int channel) {
            pool_channels<decltype(vector), count>(sh, rows, first_row, end_row, columns, channel,
                                                   y, switches, stream);
        });
    }
}

void max_unpool_row(const PoolShape& sh, int h, const float* y, const std::uint8_t* switches,
                    float* x, bool stream) {
    const Windows rows(h, sh.pad_h, sh.window_h, sh.stride_h, sh.p());
    for (int v = 0; v < sh.w; ++v, x += sh.c) {
        const Windows columns(v, sh.pad_w, sh.window_w, sh.stride_w, sh.q());
        for_channels(sh.c, [&](auto vector, auto count, int channel) {
            unpool_channels<decltype(vector), count>(sh, h, v, rows, columns, channel, y, switches,
                                                     x, stream);
        });
    }
}

void max_pool2d(const PoolShape& sh, const float* x, float* y, std::uint8_t* switches, Stream) {
    const int P = sh.p();
    const std::int64_t x_row = static_cast<std::int64_t>(sh.w) * sh.c;
    const std::int64_t y_row = static_cast<std::int64_t>(sh.q()) * sh.c;
    const bool stream = streams(y_row * P * sh.n, sh.c, y);
#pragma omp parallel if (worth_threads(x_row * sh.h * sh.n))
    {
#pragma omp for schedule(static) nowait
        for (int row = 0; row < sh.n * P; ++row) {
            const int n = row / P, corner = row % P * sh.stride_h - sh.pad_h;
            const int first = std::max(0, -corner), end = std::min(sh.window_h, sh.h - corner);
            const float* rows[kMaxWindow];
            for (int r = first; r < end; ++r)
                rows[r] = x + (static_cast<std::int64_t>(n) * sh.h + corner + r) * x_row;
            max_pool_row(sh, rows, first, end, y + row * y_row, switches + row * y_row, stream);
        }
        simd::stream_fence();
    }
}

void max_unpool2d(const PoolShape& sh, const float* y, const std::uint8_t* switches, float* x,
                  Stream) {
    const std::int64_t x_row = static_cast<std::int64_t>(sh.w) * sh.c;
    const std::int64_t y_image = static_cast<std::int64_t>(sh.p()) * sh.q() * sh.c;
    const bool stream = streams(x_row * sh.h * sh.n, sh.c, x);
#pragma omp parallel if (worth_threads(x_row * sh.h * sh.n))
    {
#pragma omp for schedule(static) nowait
        for (int row = 0; row < sh.n * sh.h; ++row) {
            const int n = row / sh.h, h = row % sh.h;
            max_unpool_row(sh, h, y + n * y_image, switches + n * y_image, x + row * x_row, stream);
        }
        simd::stream_fence();
    }
}

void spatial_max(int n, int h, int w, int c, const float* x, float* values, std::int32_t* positions,
                 Stream) {
    // A task is one image's maps, or some of them: the running maxima stay in the first-level
    // cache while the pixels stream past.
    constexpr int kChannels = 128;
    const int blocks = (c + kChannels - 1) / kChannels;
    const std::int64_t image = static_cast<std::int64_t>(h) * w * c;
#pragma omp parallel for schedule(static) if (worth_threads(n * image))
    for (int task = 0; task < n * blocks; ++task) {
        const int first = task % blocks * kChannels, channels = std::min(kChannels, c - first);
        const float* pixel = x + task / blocks * image + first;
        float* best = values + static_cast<std::int64_t>(task / blocks) * c + first;
        std::int32_t* where = positions + static_cast<std::int64_t>(task / blocks) * c + first;
        std::copy(pixel, pixel + channels, best);
        std::fill(where, where + channels, 0);
        for (int t = 1; t < h * w; ++t) {
            pixel += c;
            for_channels(channels, [&](auto vector, auto count, int channel) {
                using V = decltype(vector);
                using I = typename simd::Traits<V>::Int;
                for (int at = channel; at < channel + count * simd::Traits<V>::kLanes;
                     at += simd::Traits<V>::kLanes) {
                    const V here = simd::load_as<V>(pixel + at), top = simd::load_as<V>(best + at);
                    const auto wins = simd::beats(here, top);
                    simd::store_as(best + at, simd::select(wins, here, top));
                    simd::store_as(where + at,
                                   simd::select(wins, I{} + (t), simd::load_as<I>(where + at)));
                }
            });
        }
    }
}

}  // namespace zfcuda
