// A virtual unpool: the value that max_unpool2d would put at a pixel, read through the switches.
//
//   map[n,p,q,k] = sum of y[n,i,j,k] over the windows (i, j) whose switch names the pixel (p, q)
//
// A pixel asks the windows that cover it, of which there are at most kCover in each direction: all
// loads are in flight at once, and no map of full size exists.
#pragma once

#include "copies.cuh"
#include "shapes.h"

namespace zfcuda::conv {

constexpr int kCover = 2;

// Whether windows overlap so little that at most kCover cover a pixel in each direction.
inline bool has_small_cover(const PoolShape& pool) {
    return divide_up(pool.window_h, pool.stride_h) <= kCover &&
           divide_up(pool.window_w, pool.stride_w) <= kCover;
}

template <class T>
struct UnpooledMap {
    PoolShape pool;
    int height, width;  // of y
    FastDivisor stride_h, stride_w;
    const T* y;
    const std::uint8_t* switches;

    UnpooledMap(const PoolShape& pool_, const T* y_, const std::uint8_t* switches_)
        : pool(pool_),
          height(pool_.p()),
          width(pool_.q()),
          stride_h(pool_.stride_h),
          stride_w(pool_.stride_w),
          y(y_),
          switches(switches_) {}

    // Channels k to k + V - 1 of pixel (p, q) of map n, which must exist.
    template <int V>
    __device__ Vector<float, V> at(int n, int p, int q, int k) const {
        constexpr int kNever = 256;  // no switch
        const int last_i = (p + pool.pad_top) / stride_h;
        const int last_j = (q + pool.pad_left) / stride_w;
        Vector<T, V> values[kCover * kCover];
        Vector<std::uint8_t, V> named[kCover * kCover];
        int cell[kCover * kCover];
#pragma unroll
        for (int window = 0; window < kCover * kCover; ++window) {
            const int i = last_i - (kCover - 1) + window / kCover;
            const int j = last_j - (kCover - 1) + window % kCover;
            const int r = p + pool.pad_top - i * pool.stride_h;
            const int s = q + pool.pad_left - j * pool.stride_w;
            const bool covers =
                inside(i, height) & inside(j, width) & (r < pool.window_h) & (s < pool.window_w);
            cell[window] = covers ? r * pool.window_w + s : kNever;
            const int pooled = covers ? ((n * height + i) * width + j) * pool.c + k : k;
            values[window] = load<V>(y + pooled);
            named[window] = load<V>(switches + pooled);
        }
        auto sum = Vector<float, V>::filled(0.0f);
#pragma unroll
        for (int window = 0; window < kCover * kCover; ++window)
#pragma unroll
            for (int e = 0; e < V; ++e)
                if (named[window].at[e] == cell[window])
                    sum.at[e] += to_float(values[window].at[e]);
        return sum;
    }
};

// `Pixels` of an unpooled map (A of wgrad): value (k, pixel) is map[pixel, k].
template <class Tile, int V>
class UnpooledPixels {
  public:
    using Element = typename Tile::Element;
    using Layout = typename Tile::template MNMajor<Tile::kRows>;
    using Source = UnpooledMap<Element>;

    __device__ UnpooledPixels(const Source& map, const PixelIndex& index, int pixels, int,
                              int first, int end, int pixel)
        : map_(map),
          index_(index),
          pixel_(pixel + Copy::depth(0)),
          pixels_(pixels),
          k_(first + Copy::row()),
          inside_(k_ < end) {}

    // Not asynchronous: the values must be compared on the way. Other warps cover the wait.
    __device__ void load(Element* k_tile) {
#pragma unroll
        for (int pass = 0; pass < Copy::kPasses; ++pass) {
            if (!Copy::has(pass)) break;
            const int pixel = pixel_ + pass * Copy::kDepthsPerPass;
            auto value = Vector<float, V>::filled(0.0f);
            if (inside_ & (pixel < pixels_)) {
                const PixelIndex::Pixel at = index_.locate(pixel);
                value = map_.template at<V>(at.n, at.p, at.q, k_);
            }
            store(k_tile + Copy::template at<Layout>(pass), from_floats<Element>(value));
        }
        pixel_ += Tile::kDepth;
    }

  private:
    using Copy = MNMajorCopy<Tile, Tile::kRows, V>;
    Source map_;
    PixelIndex index_;
    int pixel_, pixels_, k_;
    bool inside_;
};

}  // namespace zfcuda::conv
