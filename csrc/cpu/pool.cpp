// Max pooling with switches, and unpooling, on the CPU.
//
// y[n,p,q,c] = max over r,s of x[n, p*stride_h - pad_top + r, q*stride_w - pad_left + s, c], and back.
//
// Both are bound by memory where the map is large, and by the vector units where it is in a cache.
// Pooling walks the rows of y in order, so that the rows of x that two windows share are still in
// the second-level cache when the second one reads them, fetches the rows that come next, and
// vectorises over channels. A row is first pooled as if it had no NaN; whether it has one, the sum
// of what was read tells, and then it is pooled again. Unpooling gathers: a pixel of x looks at the
// windows that cover it and adds the values whose switch names it, so that x is written once, past
// the caches, and never cleared or read, and rows of x are independent tasks even in one image.
#include "pool.h"

#include <algorithm>

#include "../ops.h"
#include "blocking.h"
#include "fetch.h"
#include "parallel.h"
#include "simd.h"

namespace zfcuda {
namespace {

constexpr int kMaxCells = 256;  // of a window, by PoolShape::check

// The cells of one window that lie in x: rows [first_row, end_row), columns [first, end), the first
// of them at `x_column`.
struct Cells {
    int first_row, end_row, first, end, x_column;

    Cells(const PoolShape& sh, int first_row, int end_row, int q)
        : first_row(first_row), end_row(end_row) {
        const int corner = q * sh.stride_w - sh.pad_left;
        first = std::max(0, -corner);
        end = std::min(sh.window_w, sh.w - corner);
        x_column = corner + first;
    }

    bool are_all(int side, const PoolShape& sh) const {
        return sh.window_h == side && sh.window_w == side && end_row - first_row == side &&
               end - first == side;
    }
};

// A sum of everything that was read, each lane by itself: NaN if anything was NaN, and sometimes
// where infinities or huge values meet.
struct Sum {
    simd::Vec lanes{};
    float single = 0;

    void add(simd::Vec v) { lanes += v; }
    void add(float v) { single += v; }
    bool is_nan() const {
        const float sum = simd::sum(lanes) + single;
        return sum != sum;
    }
};

// One step of a running maximum and its code.
template <bool kNan, typename V, typename Code>
inline void keep_first(V value, Code here, V& best, Code& code) {
    const auto wins = kNan ? simd::beats(value, best) : simd::less(best, value);
    best = simd::select(wins, value, best);
    code = simd::select(wins, here, code);
}

// Pools kVectors vectors of channels, `channel` and up, of one window; kSide is its side if it is a
// square of that side and lies in x, else 0. Each row of the window has a maximum of its own, since
// in one chain every comparison waits for the one before. Where kNan is false, a NaN may win or
// not, and is added to `sum`.
template <typename V, int kVectors, int kSide, bool kNan>
inline void pool_channels(const PoolShape& sh, const float* const* rows, const Cells& cells,
                          int channel, float* y, std::uint8_t* switches, bool stream, Sum& sum) {
    using Code = typename simd::Traits<V>::Code;
    constexpr int kLanes = simd::Traits<V>::kLanes;
    const int first_row = kSide ? 0 : cells.first_row, end_row = kSide ? kSide : cells.end_row;
    const int first = kSide ? 0 : cells.first, end = kSide ? kSide : cells.end;
    const int window_w = kSide ? kSide : sh.window_w;
    const std::int64_t start = static_cast<std::int64_t>(cells.x_column) * sh.c + channel;
    const auto code_of = [&](int r, int s) {
        return Code{} + static_cast<std::uint8_t>(r * window_w + s);
    };
    V read;
    for (int i = 0; i < kVectors; ++i) {
        V best, read_here;
        Code code;
        for (int r = first_row; r < end_row; ++r) {
            const float* x = rows[r] + start + i * kLanes;
            V row_best = simd::load_as<V>(x), row_sum = row_best;
            Code row_code = code_of(r, first);
            for (int s = first + 1; s < end; ++s) {
                x += sh.c;
                const V value = simd::load_as<V>(x);
                row_sum += value;
                keep_first<kNan>(value, code_of(r, s), row_best, row_code);
            }
            if (r == first_row) {
                best = row_best;
                code = row_code;
                read_here = row_sum;
            } else {
                read_here += row_sum;
                keep_first<kNan>(row_best, row_code, best, code);
            }
        }
        read = i == 0 ? read_here : read + read_here;
        const int at = channel + i * kLanes;
        if (stream)
            simd::stream(y + at, best);
        else
            simd::store_as(y + at, best);
        simd::store_bytes(switches + at, code);
    }
    if constexpr (!kNan) sum.add(read);
}

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

bool streams(std::int64_t floats, int channels, const float* result) {
    return floats * 4 > kStreamBytes && channels % simd::kLanes == 0 && simd::is_aligned(result);
}

// max_pool_row of pool.h. Where kNan is false: whether there certainly was no NaN.
template <bool kNan>
bool pool_row(const PoolShape& sh, const float* const* rows, int first_row, int end_row, float* y,
              std::uint8_t* switches, bool stream, const float* next, std::int64_t next_floats) {
    constexpr int kSide = 3;  // of every pool of the paper; unrolled, it takes a quarter less time
    const int Q = sh.q();
    Fetch<float> fetch(next, next_floats, Q);
    Sum sum;
    for (int q = 0; q < Q; ++q, y += sh.c, switches += sh.c) {
        fetch.step();
        const Cells cells(sh, first_row, end_row, q);
        const auto pool = [&](auto side) {
            for_channels<2>(sh.c, [&](auto vector, auto count, int channel) {
                pool_channels<decltype(vector), count, side, kNan>(sh, rows, cells, channel, y,
                                                                   switches, stream, sum);
            });
        };
        if (cells.are_all(kSide, sh))
            pool(std::integral_constant<int, kSide>{});
        else
            pool(std::integral_constant<int, 0>{});
    }
    return !sum.is_nan();
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

void max_pool_row(const PoolShape& sh, const float* const* rows, int first_row, int end_row,
                  float* y, std::uint8_t* switches, bool stream, const float* next,
                  std::int64_t next_floats) {
    // With half as many registers, and no masks, the sums cost more than they save.
    constexpr bool kSumsPay = simd::kLanes == 16;
    if (kSumsPay &&
        pool_row<false>(sh, rows, first_row, end_row, y, switches, stream, next, next_floats))
        return;
    pool_row<true>(sh, rows, first_row, end_row, y, switches, stream, next, next_floats);
}

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
void max_pool2d(const PoolShape& sh, const T* x, T* y, std::uint8_t* switches, Stream) {
    const int P = sh.p();
    const std::int64_t x_row = static_cast<std::int64_t>(sh.w) * sh.c;
    const std::int64_t y_row = static_cast<std::int64_t>(sh.q()) * sh.c;
    const float* x_end = x + x_row * sh.h * sh.n;
    const bool stream = streams(y_row * P * sh.n, sh.c, y);
    const bool fetch = (x_end - x) * 4 > kFarBytes;
#pragma omp parallel if (worth_threads(x_row * sh.h * sh.n))
    {
#pragma omp for schedule(static) nowait
        for (int row = 0; row < sh.n * P; ++row) {
            const int n = row / P, corner = row % P * sh.stride_h - sh.pad_top;
            const int first = std::max(0, -corner), end = std::min(sh.window_h, sh.h - corner);
            const float* rows[kMaxCells];
            for (int r = first; r < end; ++r)
                rows[r] = x + (static_cast<std::int64_t>(n) * sh.h + corner + r) * x_row;
            const float* next = rows[end - 1] + x_row;
            max_pool_row(sh, rows, first, end, y + row * y_row, switches + row * y_row, stream,
                         next, fetch ? std::min(sh.stride_h * x_row, x_end - next) : 0);
        }
        simd::stream_fence();
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

template <class T>
void spatial_max(int n, int h, int w, int c, const T* x, T* values, std::int32_t* positions,
                 Stream) {
    // A task is one image's maps, or some of them: the running maxima stay in the first-level
    // cache while the pixels stream past.
    const int blocks = (c + kMaximaChannels - 1) / kMaximaChannels;
    const std::int64_t image = static_cast<std::int64_t>(h) * w * c;
#pragma omp parallel for schedule(static) if (worth_threads(n * image))
    for (int task = 0; task < n * blocks; ++task) {
        const int first = task % blocks * kMaximaChannels,
                  channels = std::min(kMaximaChannels, c - first);
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

template decltype(max_pool2d<float>) max_pool2d<float>;
template decltype(max_unpool2d<float>) max_unpool2d<float>;
template decltype(spatial_max<float>) spatial_max<float>;

}  // namespace zfcuda
