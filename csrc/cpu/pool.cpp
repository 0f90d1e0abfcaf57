// Max pooling with switches on the CPU.
//
// y[n,p,q,c] = max over r,s of x[n, p*stride_h - pad_top + r, q*stride_w - pad_left + s, c].
//
// Bound by memory where the map is large, and by the vector units where it is in a cache. Pooling
// walks the rows of y in order, so that the rows of x that two windows share are still in the
// second-level cache when the second one reads them, fetches the rows that come next, and
// vectorises over channels. A row is first pooled as if it had no NaN; whether it has one, the sum
// of what was read tells, and then it is pooled again.
#include "pool.h"

#include <algorithm>
#include <type_traits>

#include "../ops.h"
#include "blocking.h"
#include "fetch.h"
#include "lanes.h"
#include "parallel.h"

namespace zfcuda {
namespace {

using namespace pool;

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
        V best{}, read_here{};
        Code code{};
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
template decltype(spatial_max<float>) spatial_max<float>;

}  // namespace zfcuda
