// A virtual unpool: the values that max_unpool2d would put into a map, made from the pooled map and
// its switches where they are used.
//
//   map[n,p,q,k] = sum of y[n,i,j,k] over the windows (i, j) whose switch names the pixel (p, q)
//
// Cut. For windows of at most 3 x 3 at stride 2 (`can_read_through_switches`). Pixels come in quads of
// 2 x 2 that begin where a window does: then the same four windows meet all pixels of a quad, the
// one that begins there and its neighbours above and to the left, and of each only certain cells,
// the same in every quad. A thread loads the four, V channels of each, a k-tile ahead, and
// compares four switches at a time with the word of a cell. Bound: instructions; of a pixel's
// channel 1/4 of a load, 9/4 comparisons.
#pragma once

#include <type_traits>

#include "copies.cuh"
#include "shapes.h"

namespace zfcuda::conv {

constexpr int kQuad = 4;          // pixels, row by row; windows: above left, above, left, own
constexpr int kUnpoolStride = 2;  // of the pool
constexpr int kUnpoolWindow = 3;  // at most

// What decodes a depth index that runs through an image's quads, pixel by pixel. Those at the edge
// have pixels outside the map.
struct QuadIndex {
    FastDivisor across, down;  // quads
    int first_i, first_j;      // the window that begins where the first quad does
    int first_p, first_q;      // its first pixel, maybe in the padding
    int height, width;         // of the map

    explicit QuadIndex(const PoolShape& pool)
        : across(divide_up(pool.w + pool.pad_left % kUnpoolStride, kUnpoolStride)),
          down(divide_up(pool.h + pool.pad_top % kUnpoolStride, kUnpoolStride)),
          first_i(pool.pad_top / kUnpoolStride),
          first_j(pool.pad_left / kUnpoolStride),
          first_p(-(pool.pad_top % kUnpoolStride)),
          first_q(-(pool.pad_left % kUnpoolStride)),
          height(pool.h),
          width(pool.w) {}

    // Of the depth, for a batch of n.
    std::int64_t size(int n) const {
        return std::int64_t{n} * down.divisor * across.divisor * kQuad;
    }

    struct Quad {
        int n, row, column;
    };
    __device__ Quad quad(unsigned number) const {
        const int row = static_cast<int>(number) / across;
        return {row / down, row % down, static_cast<int>(number) % across};
    }

    __device__ Pixel locate(unsigned depth) const {
        const Quad at = quad(depth / kQuad);
        return {at.n, first_p + kUnpoolStride * at.row + static_cast<int>(depth / 2 % 2),
                first_q + kUnpoolStride * at.column + static_cast<int>(depth % 2)};
    }
    __device__ bool has(const Pixel& pixel) const {
        return inside(pixel.p, height) & inside(pixel.q, width);
    }
};

// Whether the pool is one that quads serve, and their depth can be counted.
inline bool can_read_through_switches(const PoolShape& pool) {
    return pool.stride_h == kUnpoolStride && pool.stride_w == kUnpoolStride &&
           pool.window_h <= kUnpoolWindow && pool.window_w <= kUnpoolWindow &&
           QuadIndex(pool).size(pool.n) <= shapes::kMaxElements;
}

// Finds the switches that name a cell, four at a time.
struct CellTest {
    std::uint32_t cell, carry;

    // None does if `exists` is false.
    CellTest(int cell_, bool exists)
        : cell(0x01010101u * cell_), carry(exists ? 0x7f7f7f7fu : 0x80808080u) {}
    CellTest() : CellTest(0, false) {}

    // The highest bit of each byte: whether that of `switches` does.
    __device__ std::uint32_t operator()(std::uint32_t switches) const {
        const std::uint32_t differ = switches ^ cell;
        return ~(((differ & 0x7f7f7f7fu) + carry) | differ);
    }
};

template <class T>
struct UnpooledMap {
    int height, width, channels;  // of y
    const T* y;
    const std::uint8_t* switches;
    CellTest tests[kQuad][kQuad];  // of each pixel of a quad, in each window

    UnpooledMap(const PoolShape& pool, const T* y_, const std::uint8_t* switches_)
        : height(pool.p()), width(pool.q()), channels(pool.c), y(y_), switches(switches_) {
        for (int pixel = 0; pixel < kQuad; ++pixel)
            for (int window = 0; window < kQuad; ++window) {
                const int r = pixel / 2 + (1 - window / 2) * kUnpoolStride;
                const int s = pixel % 2 + (1 - window % 2) * kUnpoolStride;
                if (r < pool.window_h && s < pool.window_w)
                    tests[pixel][window] = CellTest(r * pool.window_w + s, true);
            }
    }
};

// Whether a window of at most kUnpoolWindow cells a side meets a pixel of the quad.
__host__ __device__ constexpr bool can_meet(int pixel, int window) {
    return pixel / 2 + (1 - window / 2) * kUnpoolStride < kUnpoolWindow &&
           pixel % 2 + (1 - window % 2) * kUnpoolStride < kUnpoolWindow;
}

// What a thread holds V channels in: bfloat16 by pairs in a word, switches by fours.
template <class T, int V>
using Held = std::conditional_t<std::is_same_v<T, BFloat16> && V % 2 == 0,
                                Vector<std::uint32_t, V / 2>, Vector<T, V>>;
template <int V>
using HeldSwitches =
    std::conditional_t<V % 4 == 0, Vector<std::uint32_t, V / 4>, Vector<std::uint8_t, 1>>;

// Values of V channels of a window, and their switches.
template <class T, int V>
struct PooledWindow {
    static_assert(V == 1 || V % 4 == 0);
    Held<T, V> values;
    HeldSwitches<V> switches;

    __device__ void load(const T* y, const std::uint8_t* from) {
        values = *reinterpret_cast<const Held<T, V>*>(y);
        switches = *reinterpret_cast<const HeldSwitches<V>*>(from);
    }
};

// A pixel's values from the windows of its quad, added in their order.
template <int Pixel, class T, int V>
__device__ inline Held<T, V> unpool_pixel(const UnpooledMap<T>& map,
                                          const PooledWindow<T, V> (&windows)[kQuad]) {
    auto sum = Vector<float, V>::filled(0.0f);
#pragma unroll
    for (int window = 0; window < kQuad; ++window) {
        if (!can_meet(Pixel, window)) continue;
#pragma unroll
        for (int e = 0; e < V; ++e) {
            const auto named = map.tests[Pixel][window](windows[window].switches.at[e / 4]);
            if (named & 0x80u << e % 4 * 8) sum.at[e] += to_float(windows[window].values.at[e]);
        }
    }
    return from_floats<T>(sum);
}

// Of bfloat16 two at a time. Where two windows meet, their sum is rounded once as it is; of four it is
// taken in float, so that it is rounded once, too, as that of a map is.
template <int Pixel>
__device__ inline Held<BFloat16, 8> unpool_pixel(
    const UnpooledMap<BFloat16>& map, const PooledWindow<BFloat16, 8> (&windows)[kQuad]) {
    Held<BFloat16, 8> parts[kQuad];
#pragma unroll
    for (int window = 0; window < kQuad; ++window) {
        if (!can_meet(Pixel, window)) continue;
        parts[window] = windows[window].values;
#pragma unroll
        for (int word = 0; word < 2; ++word) {
            const auto named = map.tests[Pixel][window](windows[window].switches.at[word]);
            parts[window].at[2 * word] &= simt::spread_signs<0>(named);
            parts[window].at[2 * word + 1] &= simt::spread_signs<2>(named);
        }
    }
    Held<BFloat16, 8>& sum = parts[3];
#pragma unroll
    for (int word = 0; word < 4; ++word) {
        if (can_meet(Pixel, 0)) {
            float low = 0.0f, high = 0.0f;
#pragma unroll
            for (int window = 0; window < kQuad; ++window) {
                low += __uint_as_float(parts[window].at[word] << 16);
                high += __uint_as_float(parts[window].at[word] & 0xffff0000u);
            }
            const __nv_bfloat162 rounded = __floats2bfloat162_rn(low, high);
            sum.at[word] = *reinterpret_cast<const std::uint32_t*>(&rounded);
        } else if (can_meet(Pixel, 1)) {
            sum.at[word] = simt::add_bf16x2(parts[1].at[word], sum.at[word]);
        } else if (can_meet(Pixel, 2)) {
            sum.at[word] = simt::add_bf16x2(parts[2].at[word], sum.at[word]);
        }
    }
    return sum;
}

// `Pixels` of an unpooled map (A of wgrad): value (k, depth) is map[pixel, k], the pixels in the order
// of QuadIndex.
template <class Tile, int V>
class UnpooledPixels {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template MNMajor<Tile::kRows>;
    using Source = UnpooledMap<Element>;
    using Index = QuadIndex;

    __device__ UnpooledPixels(const Source& map, const QuadIndex& index, int depth, int, int first,
                              int end, int from)
        : map_(map),
          index_(index),
          row_(threadIdx.x % kPerQuad * V),
          quad_(threadIdx.x / kPerQuad),
          next_(from / kQuad + quad_),
          quads_(first + row_ < end && quad_ < kQuadsPerPass ? depth / kQuad : 0),
          k_(first + row_) {
        if constexpr (kAhead) fetch(0);
    }

    // Not asynchronous: switches must be compared on the way. Where registers allow, the windows of the
    // next k-tile are fetched now, and come while this one is multiplied.
    __device__ void load(Element* k_tile) {
        // One pass after the other, where there are several: together they would spill.
#pragma unroll 1
        for (int pass = 0; pass < kPasses; ++pass) {
            const int depth = (quad_ + pass * kQuadsPerPass) * kQuad;
            if (!kWhole && (quad_ >= kQuadsPerPass || depth >= Tile::kDepth)) break;
            if constexpr (!kAhead) fetch(pass);
            put(k_tile, depth, unpool_pixel<0>(map_, windows_));
            put(k_tile, depth + 1, unpool_pixel<1>(map_, windows_));
            put(k_tile, depth + 2, unpool_pixel<2>(map_, windows_));
            put(k_tile, depth + 3, unpool_pixel<3>(map_, windows_));
        }
        next_ += kQuads;
        if constexpr (kAhead) fetch(0);
    }

  private:
    static constexpr int kPerQuad = Tile::kRows / V;  // threads
    static constexpr int kQuads = Tile::kDepth / kQuad;
    static_assert(kPerQuad <= Tile::kThreads && Tile::kDepth % kQuad == 0);
    static constexpr int kQuadsPerPass =
        Tile::kThreads / kPerQuad < kQuads ? Tile::kThreads / kPerQuad : kQuads;
    static constexpr int kPasses = (kQuads + kQuadsPerPass - 1) / kQuadsPerPass;
    static constexpr bool kWhole =
        kQuads % kQuadsPerPass == 0 && Tile::kThreads == kPerQuad * kQuadsPerPass;
    static constexpr bool kAhead = kPasses == 1 && Tile::kMainLoop == MainLoop::kMma;

    __device__ void put(Element* k_tile, int depth, const Held<Element, V>& values) const {
        *reinterpret_cast<Held<Element, V>*>(k_tile + Layout::at(row_, depth)) = values;
    }

    // The windows of the next quad of this pass; those outside the map count nothing.
    __device__ void fetch(int pass) {
        const int number = next_ + pass * kQuadsPerPass;
        const QuadIndex::Quad quad = index_.quad(number);
        const int i = quad.row + index_.first_i, j = quad.column + index_.first_j;
        const auto row = static_cast<std::uint32_t>(quad.n) * map_.height + i;
        const std::uint32_t own = (row * map_.width + j) * map_.channels + k_;
#pragma unroll
        for (int window = 0; window < kQuad; ++window) {
            const int up = 1 - window / 2, left = 1 - window % 2;
            auto& fetched = windows_[window];
            fetched = {};
            if ((number < quads_) & inside(i - up, map_.height) & inside(j - left, map_.width)) {
                const std::uint32_t at = own - (up * map_.width + left) * map_.channels;
                fetched.load(map_.y + at, map_.switches + at);
            }
        }
    }

    Source map_;
    QuadIndex index_;
    int row_, quad_, next_, quads_, k_;
    PooledWindow<Element, V> windows_[kQuad];
};

}  // namespace zfcuda::conv
