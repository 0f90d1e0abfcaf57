// Max unpooling on the CPU: y goes to where the switches name, and what falls together adds up.
//
// Bound by memory where the map is large, and by the vector units where it is in a cache. Unpooling
// gathers: a pixel of x looks at the windows that cover it and adds the values whose switch names
// it, so that x is written once, past the caches, and never cleared or read, and rows of x are
// independent tasks even in one image.
#include <algorithm>

#include "../ops.h"
#include "blocking.h"
#include "fetch.h"
#include "parallel.h"
#include "pool.h"
#include "simd.h"

namespace zfcuda {
namespace {

using namespace pool;

// The windows that cover position `at` of an axis: first <= window < end.
struct Windows {
    int first = 0, end = 0;

    // From those of an earlier position.
    void move_to(int at, int pad, int window, int stride, int count) {
        while (first < count && first * stride - pad + window <= at)
            ++first;
        while (end < count && end * stride - pad <= at)
            ++end;
    }

    int count() const { return std::max(0, end - first); }
};

// The windows that cover a pixel, `rows` x `columns`: value and switch of channel 0 of the first
// one, how far the next ones in both directions lie behind it, and the switch that names the pixel
// in the first one.
struct Covers {
    int rows, columns;
    const float* y;
    const std::uint8_t* switches;
    std::int64_t row_distance, column_distance;
    int code;
};

// Gathers kVectors vectors of channels, `channel` and up, of the pixel `x` from the windows that
// cover it, kRows x kColumns if those are not 0.
template <typename V, int kVectors, int kRows, int kColumns>
inline void unpool_channels(const PoolShape& sh, const Covers& covers, int channel, float* x,
                            bool stream) {
    constexpr int kLanes = simd::Traits<V>::kLanes;
    const int rows = kRows ? kRows : covers.rows, columns = kColumns ? kColumns : covers.columns;
    V sum[kVectors] = {};
    for (int p = 0; p < rows; ++p)
        for (int q = 0; q < columns; ++q) {
            // In a later window the pixel lies nearer to the corner.
            const int code = covers.code - p * sh.stride_h * sh.window_w - q * sh.stride_w;
            const std::int64_t at = p * covers.row_distance + q * covers.column_distance + channel;
            for (int i = 0; i < kVectors; ++i)
                sum[i] = simd::add_where_byte(sum[i], covers.switches + at + i * kLanes,
                                              static_cast<std::uint8_t>(code),
                                              simd::load_as<V>(covers.y + at + i * kLanes));
        }
    for (int i = 0; i < kVectors; ++i) {
        if (stream)
            simd::stream(x + channel + i * kLanes, sum[i]);
        else
            simd::store_as(x + channel + i * kLanes, sum[i]);
    }
}

// Writes kVectors vectors of channels, `channel` and up, of `count` pixels in a row of one window;
// `code` is the switch that names the first.
template <typename V, int kVectors>
inline void unpool_window(int count, int code, const float* y, const std::uint8_t* switches,
                          int channel, int channels, float* x, bool stream) {
    constexpr int kLanes = simd::Traits<V>::kLanes;
    for (int s = 0; s < count; ++s, ++code, x += channels)
        for (int i = 0; i < kVectors; ++i) {
            const int at = channel + i * kLanes;
            const V value = simd::add_where_byte(
                V{}, switches + at, static_cast<std::uint8_t>(code), simd::load_as<V>(y + at));
            if (stream)
                simd::stream(x + at, value);
            else
                simd::store_as(x + at, value);
        }
}

// The same of all channels, fewer than a vector.
inline void unpool_part(int count, int code, const float* y, const std::uint8_t* switches,
                        int channels, float* x) {
    std::uint8_t codes[simd::kLanes] = {};
    std::copy_n(switches, channels, codes);
    const simd::Vec part = simd::load_partial(y, channels);
    for (int s = 0; s < count; ++s, ++code, x += channels)
        simd::store_partial(
            x, simd::add_where_byte(simd::Vec{}, codes, static_cast<std::uint8_t>(code), part),
            channels);
}

// How many windows of a row, from the first on, may be written in whole vectors that spill into what is
// written later: of few channels, where vectors of x and of y end in their rows.
inline int spilling_windows(const PoolShape& sh) {
    const int past = ceil_div(simd::kLanes, sh.c);  // pixels of a vector
    const int room = sh.w - past - (sh.window_w - 1) + sh.pad_left, last = sh.q() - past;
    return sh.c >= simd::kLanes || room < 0 ? 0 : std::min(room / sh.stride_w, last) + 1;
}

// Unpools such windows, which lie in x.
inline void unpool_spilling(const PoolShape& sh, int windows, int code, const float* y,
                            const std::uint8_t* switches, float* x) {
    const int c = sh.c, gap = (sh.stride_w - sh.window_w) * c;
    for (int q = 0; q < windows; ++q, y += c, switches += c, x += gap) {
        const simd::Vec value = simd::load(y);
        for (int s = 0; s < sh.window_w; ++s, x += c)
            simd::store(x, simd::add_where_byte(simd::Vec{}, switches,
                                                static_cast<std::uint8_t>(code + s), value));
        if (gap > 0) simd::clear(x, gap);
    }
}

// max_unpool_row of pool.h for columns that lie in one window each or in none: each window is read
// once. `p` is the row of windows, or negative if there is none.
void unpool_row_apart(const PoolShape& sh, int h, int p, const float* y,
                      const std::uint8_t* switches, float* x, bool stream) {
    const std::int64_t c = sh.c;
    int done = 0;  // columns
    if (p >= 0) {
        const int Q = sh.q(), code = (h + sh.pad_top - p * sh.stride_h) * sh.window_w;
        y += p * Q * c;
        switches += p * Q * c;
        const int spilling = spilling_windows(sh);
        for (int q = 0; q < Q; ++q, y += c, switches += c) {
            const int corner = q * sh.stride_w - sh.pad_left;
            if (corner >= 0 && q < spilling) {
                simd::clear(x + done * c, (corner - done) * c);
                const int windows = spilling - q;
                unpool_spilling(sh, windows, code, y, switches, x + corner * c);
                y += (windows - 1) * c;
                switches += (windows - 1) * c;
                q = spilling - 1;
                done = q * sh.stride_w - sh.pad_left + sh.window_w;
                continue;
            }
            const int first = std::max(0, -corner), end = std::min(sh.window_w, sh.w - corner);
            simd::clear(x + done * c, std::max(0, corner - done) * c);
            const auto unpool = [&](auto vector, auto count, int channel) {
                unpool_window<decltype(vector), count>(end - first, code + first, y, switches,
                                                       channel, sh.c, x + (corner + first) * c,
                                                       stream);
            };
            if (c >= simd::kLanes)
                for_channels<8>(sh.c, unpool);
            else
                unpool_part(end - first, code + first, y, switches, sh.c, x + (corner + first) * c);
            done = corner + end;
        }
    }
    simd::clear(x + done * c, (sh.w - done) * c);
}

}  // namespace

void max_unpool_row(const PoolShape& sh, int h, const float* y, const std::uint8_t* switches,
                    float* x, bool stream) {
    Windows rows, columns;
    rows.move_to(h, sh.pad_top, sh.window_h, sh.stride_h, sh.p());
    if (sh.window_w <= sh.stride_w && rows.count() < 2)
        return unpool_row_apart(sh, h, rows.count() ? rows.first : -1, y, switches, x, stream);
    const int Q = sh.q();
    const std::int64_t y_row = static_cast<std::int64_t>(Q) * sh.c;
    // Of a large map, the next row of windows comes from memory.
    const std::int64_t next = stream && rows.end < sh.p() ? y_row : 0;
    Fetch<float> fetch_y(y + rows.end * y_row, next, sh.w);
    Fetch<std::uint8_t> fetch_switches(switches + rows.end * y_row, next, sh.w);
    const int r = h + sh.pad_top - rows.first * sh.stride_h;
    for (int v = 0; v < sh.w; ++v, x += sh.c) {
        fetch_y.step();
        fetch_switches.step();
        columns.move_to(v, sh.pad_left, sh.window_w, sh.stride_w, Q);
        const std::int64_t first = rows.first * y_row + columns.first * sh.c;
        const int s = v + sh.pad_left - columns.first * sh.stride_w;
        const Covers covers{rows.count(), columns.count(),    y + first, switches + first, y_row,
                            sh.c,         r * sh.window_w + s};
        const auto unpool = [&](auto known_rows, auto known_columns) {
            for_channels<8>(sh.c, [&](auto vector, auto count, int channel) {
                unpool_channels<decltype(vector), count, known_rows, known_columns>(
                    sh, covers, channel, x, stream);
            });
        };
        // Windows of 3 at a stride of 2 are unrolled.
        constexpr std::integral_constant<int, 0> any{};
        constexpr std::integral_constant<int, 1> one{};
        constexpr std::integral_constant<int, 2> two{};
        if (covers.rows == 1 && covers.columns == 1)
            unpool(one, one);
        else if (covers.rows == 1 && covers.columns == 2)
            unpool(one, two);
        else if (covers.rows == 2 && covers.columns == 1)
            unpool(two, one);
        else if (covers.rows == 2 && covers.columns == 2)
            unpool(two, two);
        else
            unpool(any, any);
    }
}

template <class T>
void max_unpool2d(const PoolShape& sh, const T* y, const std::uint8_t* switches, T* x, Stream) {
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

template decltype(max_unpool2d<float>) max_unpool2d<float>;

}  // namespace zfcuda
