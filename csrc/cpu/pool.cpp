// Max pooling with switches, and unpooling, on the CPU.
//
// y[n,p,q,c] = max over r,s of x[n, p*stride_h - pad_h + r, q*stride_w - pad_w + s, c], and back.
//
// Both are bound by memory. Pooling walks the rows of y in order, so that the rows of x that two
// windows share are still in the second-level cache when the second one reads them, fetches the
// rows that come next, and vectorises over channels. Unpooling gathers: a pixel of x looks at the
// windows that cover it and adds the values whose switch names it, so that x is written once, past
// the caches, and never cleared or read, and rows of x are independent tasks even in one image.
#include "pool.h"

#include <algorithm>

#include "../ops.h"
#include "gemm.h"
#include "parallel.h"
#include "simd.h"

namespace zfcuda {
namespace {

constexpr int kMaxWindow = 256;  // rows or columns: PoolShape::check allows no more cells

// The cells of one window that lie in x: rows [first_row, end_row), columns [first, end), the first
// of them at `x_column`.
struct Cells {
    int first_row, end_row, first, end, x_column;

    Cells(const PoolShape& sh, int first_row, int end_row, int q)
        : first_row(first_row), end_row(end_row) {
        const int corner = q * sh.stride_w - sh.pad_w;
        first = std::max(0, -corner);
        end = std::min(sh.window_w, sh.w - corner);
        x_column = corner + first;
    }

    bool are_all(int side, const PoolShape& sh) const {
        return sh.window_h == side && sh.window_w == side && end_row - first_row == side &&
               end - first == side;
    }
};

// One step of a running maximum and its code.
template <typename V, typename I>
inline void keep_first(V value, I here, V& best, I& code) {
    const auto wins = simd::beats(value, best);
    best = simd::select(wins, value, best);
    code = simd::select(wins, here, code);
}

// Pools kVectors vectors of channels, `channel` and up, of one window; kSide is its side if it is a
// square of that side and lies in x, else 0. Each row of the window has a maximum of its own, since
// in one chain every comparison waits for the one before.
template <typename V, int kVectors, int kSide>
inline void pool_channels(const PoolShape& sh, const float* const* rows, const Cells& cells,
                          int channel, float* y, std::uint8_t* switches, bool stream) {
    using I = typename simd::Traits<V>::Int;
    constexpr int kLanes = simd::Traits<V>::kLanes;
    const int first_row = kSide ? 0 : cells.first_row, end_row = kSide ? kSide : cells.end_row;
    const int first = kSide ? 0 : cells.first, end = kSide ? kSide : cells.end;
    const int window_w = kSide ? kSide : sh.window_w;
    const std::int64_t start = static_cast<std::int64_t>(cells.x_column) * sh.c + channel;
    for (int i = 0; i < kVectors; ++i) {
        V best;
        I code;
        for (int r = first_row; r < end_row; ++r) {
            const float* x = rows[r] + start + i * kLanes;
            V row_best = simd::load_as<V>(x);
            I row_code = I{} + (r * window_w + first);
            for (int s = first + 1; s < end; ++s) {
                x += sh.c;
                keep_first(simd::load_as<V>(x), I{} + (r * window_w + s), row_best, row_code);
            }
            if (r == first_row) {
                best = row_best;
                code = row_code;
            } else {
                keep_first(row_best, row_code, best, code);
            }
        }
        const int at = channel + i * kLanes;
        if (stream)
            simd::stream(y + at, best);
        else
            simd::store_as(y + at, best);
        simd::store_bytes(switches + at, code);
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

// Calls body(V, number of vectors, channel) for as many vectors from `c` on as there are, at most
// kVectors at a time; returns the channel after them.
template <int kVectors, typename Body>
inline int for_vectors(int c, int channels, const Body& body) {
    for (; c + kVectors * simd::kLanes <= channels; c += kVectors * simd::kLanes)
        body(simd::Vec{}, std::integral_constant<int, kVectors>{}, c);
    if constexpr (kVectors > 1) c = for_vectors<kVectors / 2>(c, channels, body);
    return c;
}

// The same until all channels are done. The last vector overlaps the one before where the channels
// are no multiple of a vector; fewer than one vector go one by one.
template <int kVectors, typename Body>
inline void for_channels(int channels, const Body& body) {
    int c = for_vectors<kVectors>(0, channels, body);
    if (c < channels && channels >= simd::kLanes) {
        body(simd::Vec{}, std::integral_constant<int, 1>{}, channels - simd::kLanes);
        c = channels;
    }
    for (; c < channels; ++c)
        body(float{}, std::integral_constant<int, 1>{}, c);
}

// Fetches part `i` of `parts` of an array that comes next. The processor foresees a row's next
// lines, but not the next row (three times the speed was measured on large maps).
template <typename T>
inline void fetch_part(const T* array, std::int64_t size, int parts, int i) {
    constexpr int kLine = 64 / sizeof(T);
    const std::int64_t end = gemm::part_begin(size, parts, i + 1);
    for (std::int64_t at = gemm::part_begin(size, parts, i); at < end; at += kLine)
        __builtin_prefetch(array + at, 0, 3);
}

bool streams(std::int64_t floats, int channels, const float* result) {
    return floats * 4 > kStreamBytes && channels % simd::kLanes == 0 && simd::is_aligned(result);
}

}  // namespace

void max_pool_row(const PoolShape& sh, const float* const* rows, int first_row, int end_row,
                  float* y, std::uint8_t* switches, bool stream, const float* next,
                  std::int64_t next_floats) {
    constexpr int kSide = 3;  // of every pool of the paper; unrolled, it takes a quarter less time
    for (int q = 0; q < sh.q(); ++q, y += sh.c, switches += sh.c) {
        fetch_part(next, next_floats, sh.q(), q);
        const Cells cells(sh, first_row, end_row, q);
        const auto pool = [&](auto side) {
            for_channels<2>(sh.c, [&](auto vector, auto count, int channel) {
                pool_channels<decltype(vector), count, side>(sh, rows, cells, channel, y, switches,
                                                             stream);
            });
        };
        if (cells.are_all(kSide, sh))
            pool(std::integral_constant<int, kSide>{});
        else
            pool(std::integral_constant<int, 0>{});
    }
}

void max_unpool_row(const PoolShape& sh, int h, const float* y, const std::uint8_t* switches,
                    float* x, bool stream) {
    const Windows rows(h, sh.pad_h, sh.window_h, sh.stride_h, sh.p());
    const std::int64_t y_row = static_cast<std::int64_t>(sh.q()) * sh.c;
    const bool fetch = stream && rows.end < sh.p();  // a large map: the next row comes from memory
    for (int v = 0; v < sh.w; ++v, x += sh.c) {
        if (fetch) {
            fetch_part(y + rows.end * y_row, y_row, sh.w, v);
            fetch_part(switches + rows.end * y_row, y_row, sh.w, v);
        }
        const Windows columns(v, sh.pad_w, sh.window_w, sh.stride_w, sh.q());
        for_channels<8>(sh.c, [&](auto vector, auto count, int channel) {
            unpool_channels<decltype(vector), count>(sh, h, v, rows, columns, channel, y, switches,
                                                     x, stream);
        });
    }
}

void max_pool2d(const PoolShape& sh, const float* x, float* y, std::uint8_t* switches, Stream) {
    const int P = sh.p();
    const std::int64_t x_row = static_cast<std::int64_t>(sh.w) * sh.c;
    const std::int64_t y_row = static_cast<std::int64_t>(sh.q()) * sh.c;
    const float* x_end = x + x_row * sh.h * sh.n;
    const bool stream = streams(y_row * P * sh.n, sh.c, y);
    const bool fetch = (x_end - x) * 4 > kCacheBytes;
#pragma omp parallel if (worth_threads(x_row * sh.h * sh.n))
    {
#pragma omp for schedule(static) nowait
        for (int row = 0; row < sh.n * P; ++row) {
            const int n = row / P, corner = row % P * sh.stride_h - sh.pad_h;
            const int first = std::max(0, -corner), end = std::min(sh.window_h, sh.h - corner);
            const float* rows[kMaxWindow];
            for (int r = first; r < end; ++r)
                rows[r] = x + (static_cast<std::int64_t>(n) * sh.h + corner + r) * x_row;
            const float* next = rows[end - 1] + x_row;
            max_pool_row(sh, rows, first, end, y + row * y_row, switches + row * y_row, stream,
                         next, fetch ? std::min(sh.stride_h * x_row, x_end - next) : 0);
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
            for_channels<4>(channels, [&](auto vector, auto count, int channel) {
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
