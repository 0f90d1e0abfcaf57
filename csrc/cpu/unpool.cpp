// Max unpooling on the CPU: y goes to where the switches name, and what falls together adds up.
//
// The usual windows are compiled in, where channels fill vectors: a tile of x, the pixels of a step
// of the stride (two where it is 1), gathers from the windows that meet it, and adds the values whose
// switch names a pixel. So a window is loaded once for all pixels of a tile, and x is written once,
// past the caches where it is large, never cleared or read. 3 x 3 windows at a stride of 2 take 9
// comparisons of vectors for 8 loads and 4 stores.
//
// Others, and few channels, are scattered: x is cleared as the windows pass, and each value added to
// the pixel that its switch names, however many cells a window has. All windows come in order, so
// that rows of x are independent tasks even in one image.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "../ops.h"
#include "blocking.h"
#include "fetch.h"
#include "parallel.h"
#include "pool.h"
#include "simd.h"
#include "streams.h"

namespace zfcuda {
namespace {

using namespace pool;
using simd::kLanes;
using simd::Vec;

// ---- Tiles of compiled windows ------------------------------------------------------------------

// Fewer channels are scattered: masks that are no registers cost more than they save.
constexpr int kLeastChannels = kLanes == 16 ? 8 : kLanes;

// A square window, its stride, and the tiles, in one direction.
template <int kSide, int kStep>
struct Window {
    static constexpr int kWindow = kSide, kStride = kStep;

    // Pixels of a tile: it begins where a window does.
    static constexpr int kTile = kStride == 1 ? 2 : kStride;

    // Windows that meet a tile, and where in the first of them the tile begins.
    static constexpr int kCount = (kWindow - 1 + (kStride == 1)) / kStride + 1;
    static constexpr int kFirst = (kCount - 1) * kStride - (kStride == 1);

    // The first window that meets the tile that begins at a pixel.
    static int first(int pixel, int pad) { return (pixel + pad - kFirst) / kStride; }
};

// The kCount x kCount windows that meet a tile: values and switches of their channels.
struct InnerWindows {
    const float* y;
    const std::uint8_t* switches;
    std::int64_t row, channels;

    const float* values(int i, int j, int c) const { return y + i * row + j * channels + c; }
    const std::uint8_t* codes(int i, int j, int c) const {
        return switches + i * row + j * channels + c;
    }
};

// The same where y may not have all of them: the others have switches that name no cell.
template <int kCount>
class ClippedWindows {
  public:
    // From window (p, q) of an image (P, Q, channels) on.
    ClippedWindows(const float* y, const std::uint8_t* switches, int P, int Q, int channels, int p,
                   int q) {
        for (int i = 0; i < kCount; ++i)
            for (int j = 0; j < kCount; ++j) {
                const bool exists = p + i >= 0 && p + i < P && q + j >= 0 && q + j < Q;
                const std::int64_t at = exists ? (std::int64_t{p + i} * Q + q + j) * channels : 0;
                values_[i][j] = y + at;
                codes_[i][j] = exists ? switches + at : kNone.codes;
                channel_[i][j] = exists ? -1 : 0;
            }
    }
    const float* values(int i, int j, int c) const { return values_[i][j] + c; }
    const std::uint8_t* codes(int i, int j, int c) const {
        return codes_[i][j] + (c & channel_[i][j]);
    }

  private:
    static constexpr struct None {
        std::uint8_t codes[kLanes];
        constexpr None() : codes() {
            for (auto& code : codes)
                code = kMaxCells - 1;  // of no compiled window
        }
    } kNone{};

    const float* values_[kCount][kCount];
    const std::uint8_t* codes_[kCount][kCount];
    int channel_[kCount][kCount];  // a mask
};

struct WholeVector {
    Vec load(const float* p) const { return simd::load(p); }
    simd::CodeVec load_codes(const std::uint8_t* p) const { return simd::load_codes(p); }
    void store(float* p, Vec v) const { simd::store(p, v); }
};
struct PartOfVector {
    int count;
    Vec load(const float* p) const { return simd::load_partial(p, count); }
    simd::CodeVec load_codes(const std::uint8_t* p) const {
        return simd::load_codes_partial(p, count);
    }
    void store(float* p, Vec v) const { simd::store_partial(p, v, count); }
};

// kRows rows of tiles, from their row kRow on, which is row h of x; of one image. `x` begins there.
template <typename W, int kRow, int kRows>
void unpool_tiles(const PoolShape& sh, int h, const float* y, const std::uint8_t* switches,
                  float* x, bool stream) {
    constexpr int kTile = W::kTile, kCount = W::kCount;
    const int P = sh.p(), Q = sh.q(), C = sh.c;
    const std::int64_t x_row = std::int64_t{sh.w} * C, y_row = std::int64_t{Q} * C;
    const int p = W::first(h - kRow, sh.pad_top);
    const bool has_rows = p >= 0 && p + kCount <= P;
    const int left = -(sh.pad_left % W::kStride), tiles = ceil_div(sh.w - left, kTile);
    // Of a large map, the next row of windows comes from memory.
    const std::int64_t next = stream && has_rows && p + kCount < P ? y_row : 0;
    const std::int64_t ahead = next ? (p + kCount) * y_row : 0;
    Fetch<float> fetch_y(y + ahead, next, tiles);
    Fetch<std::uint8_t> fetch_switches(switches + ahead, next, tiles);
    for (int w = left; w < sh.w; w += kTile) {
        fetch_y.step();
        fetch_switches.step();
        const auto vector = [&](const auto& windows, const auto& vectors, int c, auto clipped) {
            Vec sum[kRows][kTile] = {};
#pragma GCC unroll 4
            for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < kCount; ++j) {
                    const Vec value = vectors.load(windows.values(i, j, c));
                    const simd::CodeVec codes = vectors.load_codes(windows.codes(i, j, c));
#pragma GCC unroll 4
                    for (int a = 0; a < kRows; ++a)
#pragma GCC unroll 4
                        for (int b = 0; b < kTile; ++b) {
                            const int r = W::kFirst - i * W::kStride + kRow + a;
                            const int s = W::kFirst - j * W::kStride + b;
                            if (r >= 0 && r < W::kWindow && s >= 0 && s < W::kWindow)
                                sum[a][b] = simd::add_where(
                                    sum[a][b], codes, static_cast<std::uint8_t>(r * W::kWindow + s),
                                    value);
                        }
                }
#pragma GCC unroll 4
            for (int a = 0; a < kRows; ++a)
#pragma GCC unroll 4
                for (int b = 0; b < kTile; ++b) {
                    if (clipped && (w + b < 0 || w + b >= sh.w)) continue;
                    float* const to = x + a * x_row + std::int64_t{w + b} * C + c;
                    if (stream)
                        simd::stream(to, sum[a][b]);
                    else
                        vectors.store(to, sum[a][b]);
                }
        };
        // The last vector overlaps the one before where the channels are no multiple of a vector.
        const auto tile = [&](const auto& windows, auto clipped) {
            if (C < kLanes) return vector(windows, PartOfVector{C}, 0, clipped);
            for (int c = 0; c < C; c += kLanes)
                vector(windows, WholeVector(), std::min(c, C - kLanes), clipped);
        };
        const int q = W::first(w, sh.pad_left);
        if (has_rows && q >= 0 && q + kCount <= Q && w >= 0 && w + kTile <= sh.w) {
            const std::int64_t at = p * y_row + std::int64_t{q} * C;
            tile(InnerWindows{y + at, switches + at, y_row, C}, std::false_type());
        } else {
            tile(ClippedWindows<kCount>(y, switches, P, Q, C, p, q), std::true_type());
        }
    }
}

// One row, of which the tile has kRow or more before it.
template <typename W, int kRow>
void unpool_row(const PoolShape& sh, int h, const float* y, const std::uint8_t* switches, float* x,
                bool stream) {
    if constexpr (kRow + 1 < W::kStride) {
        if ((h + sh.pad_top) % W::kStride > kRow)
            return unpool_row<W, kRow + 1>(sh, h, y, switches, x, stream);
    }
    unpool_tiles<W, kRow, 1>(sh, h, y, switches, x, stream);
}

template <typename W>
void gather_rows(const PoolShape& sh, int begin, int end, const float* y,
                 const std::uint8_t* switches, float* x, bool stream) {
    const std::int64_t x_row = std::int64_t{sh.w} * sh.c;
    for (int h = begin, rows; h < end; h += rows, x += rows * x_row) {
        const bool whole = (h + sh.pad_top) % W::kStride == 0 && h + W::kTile <= end;
        rows = whole ? W::kTile : 1;
        if (whole)
            unpool_tiles<W, 0, W::kTile>(sh, h, y, switches, x, stream);
        else
            unpool_row<W, 0>(sh, h, y, switches, x, stream);
    }
}

// ---- Scattered ----------------------------------------------------------------------------------

// Where the cells of a window lie, by switch.
class Cells {
  public:
    explicit Cells(const PoolShape& sh) {
        for (int r = 0, code = 0; r < sh.window_h; ++r)
            for (int s = 0; s < sh.window_w; ++s, ++code) {
                offset_[code] = (std::int64_t{r} * sh.w + s) * sh.c;
                column_[code] = static_cast<std::uint8_t>(s);
            }
    }

    // x[cell of switches[c]] += y[c] for the channels of `windows` neighbours, the first of which has
    // its corner at row `top` and column `left` of x. Only switches first <= switch < end count, and,
    // where the windows are `kClipped`, cells whose column is in x.
    template <bool kClipped>
    void add(const PoolShape& sh, int windows, const float* y, const std::uint8_t* switches,
             int first, int end, int top, int left, float* x) const {
        const int step = sh.stride_w, width = sh.w;
        const unsigned count = end - first;
        int channels = sh.c;
        if (!kClipped && step == 1) {  // neighbours lie side by side in x too
            channels *= windows;
            windows = 1;
        }
        const bool in_eights = !kClipped && first == 0 && count <= 128 && channels >= 8;
        for (; windows > 0; --windows, left += step, y += channels, switches += channels) {
            const std::int64_t corner = (std::int64_t{top} * width + left) * sh.c;
            int c = in_eights ? add_eights(channels, count, y, switches, x + corner) : 0;
            for (; c < channels; ++c) {
                const int code = switches[c];
                if (static_cast<unsigned>(code - first) >= count) continue;
                if (kClipped && is_outside(left + column_[code], width)) continue;
                x[corner + offset_[code] + c] += y[c];
            }
        }
    }

  private:
    static bool is_outside(int at, int size) {
        return static_cast<unsigned>(at) >= static_cast<unsigned>(size);
    }

    // The same by eights, until there are fewer, or one of them is not below `count`, which is at most
    // 128; returns where. To load and check each switch by itself takes a sixth longer.
    int add_eights(int channels, unsigned count, const float* y, const std::uint8_t* switches,
                   float* corner) const {
        constexpr std::uint64_t kOnes = 0x0101010101010101, kTops = 128 * kOnes;
        int c = 0;
        for (; c + 8 <= channels; c += 8) {
            std::uint64_t eight;
            std::memcpy(&eight, switches + c, sizeof eight);
            // A switch of 128 or more has its top bit, and one of `count` or more gets it.
            if (((eight + (128 - count) * kOnes) | eight) & kTops) break;
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i, eight >>= 8)
                corner[offset_[eight & 255] + c + i] += y[c + i];
        }
        return c;
    }

    std::int64_t offset_[kMaxCells];  // of channel 0, from the corner
    std::uint8_t column_[kMaxCells];
};

// The windows that meet positions begin <= at < end of an axis.
struct Meeting {
    int first, end;

    Meeting(int begin, int end, int pad, int window, int stride, int count)
        : first(std::max(0, ceil_div(std::int64_t{begin} + pad - window + 1, stride))),
          end(std::min(count, (end - 1 + pad) / stride + 1)) {}
};

void scatter_rows(const PoolShape& sh, int begin, int end, const float* y,
                  const std::uint8_t* switches, float* x) {
    const Cells cells(sh);
    const int Q = sh.q(), height = end - begin;
    const std::int64_t x_row = std::int64_t{sh.w} * sh.c;
    int cleared = 0;  // rows
    const auto clear_to = [&](int row) {
        if (row <= cleared) return;
        simd::clear(x + cleared * x_row, (row - cleared) * x_row);
        cleared = row;
    };
    // Windows of a row that have all their columns.
    const int room = sh.w + sh.pad_left - sh.window_w;
    const int inner_begin = std::min(Q, ceil_div(sh.pad_left, sh.stride_w));
    const int inner_end = std::max(inner_begin, room < 0 ? 0 : room / sh.stride_w + 1);
    const Meeting rows(begin, end, sh.pad_top, sh.window_h, sh.stride_h, sh.p());
    for (int p = rows.first; p < rows.end; ++p) {
        const int top = p * sh.stride_h - sh.pad_top - begin;
        clear_to(std::min(height, top + sh.window_h));
        // Switches of the rows from begin to end.
        const int first = std::max(0, -top) * sh.window_w;
        const int last = std::min(sh.window_h, height - top) * sh.window_w;
        const auto add = [&](int q, int q_end, auto clipped) {
            const std::int64_t at = (std::int64_t{p} * Q + q) * sh.c;
            cells.add<clipped>(sh, q_end - q, y + at, switches + at, first, last, top,
                               q * sh.stride_w - sh.pad_left, x);
        };
        add(0, inner_begin, std::true_type());
        add(inner_begin, inner_end, std::false_type());
        add(inner_end, Q, std::true_type());
    }
    clear_to(height);
}

using UnpoolRows = void (*)(const PoolShape&, int, int, const float*, const std::uint8_t*, float*,
                            bool);

// gather_rows of one of these windows, or null.
template <typename... W>
UnpoolRows compiled(const PoolShape& sh) {
    UnpoolRows found = nullptr;
    const auto is = [&](int window, int stride) {
        return sh.window_h == window && sh.window_w == window && sh.stride_h == stride &&
               sh.stride_w == stride;
    };
    ((found = is(W::kWindow, W::kStride) ? gather_rows<W> : found), ...);
    return found;
}

// gather_rows, or null for what is scattered.
UnpoolRows gather_of(const PoolShape& sh) {
    if (sh.c < kLeastChannels) return nullptr;
    // A tile of 4 x 4 pixels is in 16 registers.
    if (kLanes == 16 && compiled<Window<4, 4>>(sh)) return compiled<Window<4, 4>>(sh);
    return compiled<Window<2, 1>, Window<3, 1>, Window<2, 2>, Window<3, 2>, Window<4, 2>,
                    Window<3, 3>>(sh);
}

}  // namespace

void max_unpool_rows(const PoolShape& sh, int begin, int end, const float* y,
                     const std::uint8_t* switches, float* x, bool stream) {
    if (const UnpoolRows gather = gather_of(sh))
        gather(sh, begin, end, y, switches, x, stream);
    else
        scatter_rows(sh, begin, end, y, switches, x);
}

template <class T>
void max_unpool2d(const PoolShape& sh, const T* y, const std::uint8_t* switches, T* x, Stream) {
    const std::int64_t x_row = std::int64_t{sh.w} * sh.c;
    const std::int64_t y_image = std::int64_t{sh.p()} * sh.q() * sh.c;
    const std::int64_t rows = std::int64_t{sh.n} * sh.h;
    const bool stream = streams_to_rows(x_row * rows, sh.c, x, x_row);
    const int parts = worth_threads(x_row * rows) ? threads() : 1;
#pragma omp parallel for num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; ++part) {
        const std::int64_t end = part_begin(rows, parts, part + 1);
        for (std::int64_t row = part_begin(rows, parts, part), next; row < end; row = next) {
            const std::int64_t n = row / sh.h;
            next = std::min(end, (n + 1) * sh.h);
            max_unpool_rows(sh, static_cast<int>(row - n * sh.h), static_cast<int>(next - n * sh.h),
                            y + n * y_image, switches + n * y_image, x + row * x_row, stream);
        }
        simd::stream_fence();
    }
}

template decltype(max_unpool2d<float>) max_unpool2d<float>;

}  // namespace zfcuda
