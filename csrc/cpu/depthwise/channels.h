// What the depthwise convolution and its gradients share: vectors of channels, tasks, and filters
// packed as (taps, channels).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../../shapes.h"
#include "../blocking.h"
#include "../simd.h"

namespace zfcuda::depthwise {

using simd::kLanes;
using simd::Vec;

// ---- Channels -----------------------------------------------------------------------------------

// How neighbouring channels are loaded from a pixel: a whole vector, the `count` that are left, or
// one by one, where channels of x and y are not paired one to one.
struct WholeChannels {
    int first;
    Vec operator()(const float* pixel) const { return simd::load(pixel + first); }
};
struct RestOfChannels {
    int first, count;
    Vec operator()(const float* pixel) const { return simd::load_partial(pixel + first, count); }
};
struct GatheredChannels {
    int count, channel[kLanes];

    // `of`: the channel of a lane.
    template <typename Channel>
    GatheredChannels(int count, const Channel& of) : count(count) {
        for (int i = 0; i < count; ++i)
            channel[i] = of(i);
    }
    Vec operator()(const float* pixel) const {
        Vec v{};
        for (int i = 0; i < count; ++i)
            v[i] = pixel[channel[i]];
        return v;
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
        const GatheredChannels load(std::min(kLanes, end - k),
                                    [&](int i) { return (k + i) / divisor; });
        body(load, k, load.count);
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

inline bool streams(std::int64_t floats, int channels, const float* result) {
    return floats * 4 > kStreamBytes && channels % kLanes == 0 && simd::is_aligned(result);
}

// Floats of the larger of x and y.
inline std::int64_t work(const DepthwiseShape& sh) {
    return sh.n * std::max(std::int64_t{sh.h} * sh.w * sh.c, std::int64_t{sh.p()} * sh.q() * sh.k);
}

// ---- Filters ------------------------------------------------------------------------------------

// From one tap to the next: room for whole vectors, also of the channels k % multiplier == i.
inline int pitch(const DepthwiseShape& sh) {
    return round_up(sh.c, kLanes) * sh.multiplier();
}

inline std::size_t packed_bytes(const DepthwiseShape& sh) {
    return sizeof(float) * sh.taps() * static_cast<std::size_t>(pitch(sh));
}

// visit(first channel, last + 1) for the blocks of the filters; by all threads of a parallel region.
template <typename Visit>
void for_blocks(const DepthwiseShape& sh, const Visit& visit) {
#pragma omp for schedule(static)
    for (int block = 0; block < ceil_div(sh.k, kDepthwiseChannels); ++block)
        visit(block * kDepthwiseChannels, std::min(sh.k, (block + 1) * kDepthwiseChannels));
}

// packed[tap, place(k)] = w[k, tap], or w[k, taps - 1 - tap] if `mirrored`.
template <typename Place>
void pack(const DepthwiseShape& sh, bool mirrored, const float* w, float* packed,
          const Place& place) {
    const int taps = sh.taps();
    for_blocks(sh, [&](int begin, int end) {
        for (int tap = 0; tap < taps; ++tap) {
            const float* from = w + (mirrored ? taps - 1 - tap : tap);
            for (int k = begin; k < end; ++k)
                packed[std::int64_t{tap} * pitch(sh) + place(k)] = from[std::int64_t{k} * taps];
        }
    });
}

// The filters that are compiled in are 3 x 3.
constexpr int kWindow = 3;

// Taps of a filter, in one direction, that meet x.
struct Taps {
    int begin, end;

    Taps(int start, int taps, int dilation, int size)
        : begin(start < 0 ? std::min(taps, ceil_div(-std::int64_t{start}, dilation)) : 0),
          end(start < size ? std::min(taps, ceil_div(std::int64_t{size} - start, dilation)) : 0) {}
};

}  // namespace zfcuda::depthwise
