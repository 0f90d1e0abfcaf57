// What the depthwise convolution and its gradients share: vectors of channels, tasks, and filters
// packed as (vectors of channels, taps, lanes).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../../shapes.h"
#include "../blocking.h"
#include "../lanes.h"
#include "../streams.h"

namespace zfcuda::depthwise {

using simd::kLanes;
using simd::Vec;

// ---- Channels -----------------------------------------------------------------------------------

// How channels are loaded from a pixel for a vector of results: a whole vector, the `count` that are
// left, or where a channel meets several filters, each for its filters. place() is where the first is.
struct WholeChannels {
    int first;
    const float* place(const float* pixel) const { return pixel + first; }
    Vec operator()(const float* pixel) const { return simd::load(pixel + first); }
};
struct RestOfChannels {
    int first, count;
    const float* place(const float* pixel) const { return pixel + first; }
    Vec operator()(const float* pixel) const { return simd::load_partial(pixel + first, count); }
};
struct RepeatedChannels {
    int first, count;
    simd::IntVec from;  // of those, for each lane

    // Channel (k + i) / times for lane i of `lanes`.
    RepeatedChannels(int k, int lanes, int times)
        : first(k / times), count((k + lanes - 1) / times - first + 1), from{} {
        for (int i = 0; i < lanes; ++i)
            from[i] = (k + i) / times - first;
    }
    const float* place(const float* pixel) const { return pixel + first; }
    Vec operator()(const float* pixel) const {
        return simd::permute(simd::load_partial(pixel + first, count), from);
    }
};

// body(load, k, count) for vectors of the channels begin <= k < end. `load` takes from a pixel what
// lies at channel k / divisor.
template <typename Body>
void for_channels(int begin, int end, int divisor, const Body& body) {
    int k = begin;
    if (divisor == 1) {
        for (; k + kLanes <= end; k += kLanes)
            body(WholeChannels{k}, k, kLanes);
        if (k < end) body(RestOfChannels{k, end - k}, k, end - k);
        return;
    }
    for (; k < end; k += kLanes) {
        const int count = std::min(kLanes, end - k);
        body(RepeatedChannels(k, count, divisor), k, count);
    }
}

// Rows of a result, each in blocks of channels.
struct RowTasks {
    int rows, channels, blocks;

    RowTasks(int rows, int channels)
        : rows(rows), channels(channels), blocks(ceil_div(channels, kDepthwiseChannels)) {}

    std::int64_t count(int images) const { return std::int64_t{images} * rows * blocks; }

    struct Task {
        std::int64_t image;
        int row, begin, end;  // channels
    };
    Task at(std::int64_t i) const {
        const int begin = static_cast<int>(i % blocks) * kDepthwiseChannels;
        const std::int64_t row = i / blocks;
        return {row / rows, static_cast<int>(row % rows), begin,
                std::min(channels, begin + kDepthwiseChannels)};
    }
};

inline void store(float* to, Vec value, int count, bool stream) {
    if (stream)
        simd::stream(to, value);
    else
        simd::store_up_to(to, value, count);
}

// Floats of the larger of x and y.
inline std::int64_t work(const DepthwiseShape& sh) {
    return sh.n * std::max(std::int64_t{sh.h} * sh.w * sh.c, std::int64_t{sh.p()} * sh.q() * sh.k);
}

// Of x and y together.
inline std::int64_t bytes(const DepthwiseShape& sh) {
    const std::int64_t x = std::int64_t{sh.h} * sh.w * sh.c,
                       y = std::int64_t{sh.p()} * sh.q() * sh.k;
    return sh.n * (x + y) * 4;
}

// ---- Filters ------------------------------------------------------------------------------------

// The taps of a vector of filters, the first of which is k, begin at k * taps, each kLanes floats: a
// line behind the other, where taps a row of channels apart would compete for few lines of a cache.

// In whole vectors.
inline int all_filters(const DepthwiseShape& sh) {
    return round_up(sh.k, kLanes);
}

inline std::size_t packed_bytes(const DepthwiseShape& sh) {
    return sizeof(float) * sh.taps() * static_cast<std::size_t>(all_filters(sh));
}

// visit(first channel, last + 1) for the blocks of the filters; by all threads of a parallel region.
template <typename Visit>
void for_blocks(const DepthwiseShape& sh, const Visit& visit) {
#pragma omp for schedule(static)
    for (int block = 0; block < ceil_div(sh.k, kDepthwiseChannels); ++block)
        visit(block * kDepthwiseChannels, std::min(sh.k, (block + 1) * kDepthwiseChannels));
}

// Tap i of filter k = w[k, i], or w[k, taps - 1 - i] if `mirrored`: a square of both at a time.
inline void pack(const DepthwiseShape& sh, bool mirrored, const float* w, float* packed) {
    const int taps = sh.taps();
    for_blocks(sh, [&](int begin, int end) {
        for (int k = begin; k < end; k += kLanes)
            for (int tap = 0; tap < taps; tap += kLanes) {
                const int count = std::min(kLanes, taps - tap);
                Vec square[kLanes] = {};
                for (int i = 0; i < std::min(kLanes, end - k); ++i)
                    square[i] = simd::load_up_to(w + std::int64_t{k + i} * taps + tap, count);
                simd::transpose(square);
                for (int i = 0; i < count; ++i) {
                    const int to = mirrored ? taps - 1 - tap - i : tap + i;
                    simd::store(packed + std::int64_t{k} * taps + std::int64_t{to} * kLanes,
                                square[i]);
                }
            }
    });
}

// ---- Tiles of compiled filters ------------------------------------------------------------------

// The filters that are compiled in are 3 x 3, at stride 1 or 2.
constexpr int kWindow = 3;

inline bool has_compiled_filter(const DepthwiseShape& sh) {
    return sh.r == kWindow && sh.s == kWindow && sh.dilation_h == 1 && sh.dilation_w == 1 &&
           sh.stride_h == sh.stride_w && sh.stride_h <= 2;
}

// What the channels of a task read from pixels outside an image.
alignas(64) constexpr float kZeros[kDepthwiseChannels + kLanes] = {};

// kDown x kAcross neighbouring pixels, as pointers.
template <int kDown, int kAcross>
struct Pixels {
    const float* at[kDown][kAcross];

    // From (top, left) of an image on; `outside`: stands for those that it does not have.
    Pixels(const float* image, int height, int width, int channels, int top, int left,
           const float* outside) {
        for (int i = 0; i < kDown; ++i)
            for (int j = 0; j < kAcross; ++j) {
                const int h = top + i, w = left + j;
                const bool inside = h >= 0 && h < height && w >= 0 && w < width;
                at[i][j] = inside ? image + (std::int64_t{h} * width + w) * channels : outside;
            }
    }
    const float* operator()(int i, int j) const { return at[i][j]; }
};

// The same where an image has all of them.
struct InnerPixels {
    const float* first;
    std::int64_t row, pixel;

    InnerPixels(const float* image, int width, int channels, int top, int left)
        : first(image + (std::int64_t{top} * width + left) * channels),
          row(std::int64_t{width} * channels),
          pixel(channels) {}
    const float* operator()(int i, int j) const { return first + i * row + j * pixel; }
};

// Pixels that `count` neighbouring windows cover.
constexpr int covered(int count, int stride) {
    return (count - 1) * stride + kWindow;
}

// Whether an axis of `size` pixels has `count` of them from `first` on.
inline bool has(int size, int first, int count) {
    return first >= 0 && first + count <= size;
}

inline bool all_finite(const float* values, std::int64_t count) {
    Vec zeros{};  // NaN after a value that is not finite
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        zeros += 0.0f * simd::load(values + i);
    if (i < count) zeros += 0.0f * simd::load_partial(values + i, static_cast<int>(count - i));
    return simd::sum(zeros) == 0.0f;
}

// Whether tiles of compiled filters multiply by w: a tap that is not finite would make a NaN of the
// zeros outside an image.
inline bool takes_tiles(const DepthwiseShape& sh, const float* w) {
    return has_compiled_filter(sh) && all_finite(w, std::int64_t{sh.k} * sh.taps());
}

// y from filters that have been packed in order, by tiles of compiled filters or not; by all threads
// of a parallel region.
void convolve_packed(const DepthwiseShape& sh, bool in_tiles, const float* x, const float* packed,
                     const float* b, bool relu, float* y);

// ---- Other filters ------------------------------------------------------------------------------

// Taps of a filter, in one direction, that meet x.
struct Taps {
    int begin, end;

    Taps(int start, int taps, int dilation, int size)
        : begin(start < 0 ? std::min(taps, ceil_div(-std::int64_t{start}, dilation)) : 0),
          end(start < size ? std::min(taps, ceil_div(std::int64_t{size} - start, dilation)) : 0) {}
};

}  // namespace zfcuda::depthwise
