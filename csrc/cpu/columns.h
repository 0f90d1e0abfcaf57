// Rows of channels: sums over them for each channel, in an order that depends on nothing but the
// shape, and work whose parameters are the channels'. In vectors of channels.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

#include "blocking.h"
#include "parallel.h"
#include "simd.h"
#include "streams.h"

namespace zfcuda {

// How a term loads what belongs to its channels: whole vectors, or what is left of a row, with zeros
// behind it.
struct LoadVector {
    simd::Vec operator()(const float* p) const { return simd::load(p); }
};
struct LoadRest {
    int count;
    simd::Vec operator()(const float* p) const { return simd::load_partial(p, count); }
};

// Floats from one sum of the channels to the next: whole vectors.
inline std::int64_t sum_pitch(std::int64_t channels) {
    return (channels + simd::kLanes - 1) / simd::kLanes * simd::kLanes;
}

// add_rows of rows of kVectors whole vectors, and perhaps a rest: the sums stay in registers, and the
// rows are read in order. Not inlined: where one function had all numbers of vectors, the sums were
// spilled, and the statistics of 48 channels took 2.5 times as long (Zen 5).
template <int kSums, int kVectors, bool kRest, typename Term>
__attribute__((noinline)) void add_short_rows(std::int64_t first, std::int64_t end, int channels,
                                              float* sums, const Term& term) {
    using simd::kLanes, simd::Vec;
    constexpr int kAll = kVectors + kRest;
    const std::int64_t pitch = sum_pitch(channels);
    const LoadRest load_rest{channels - kVectors * kLanes};
    Vec sum[kAll][kSums] = {};
    for (std::int64_t row = first; row < end; ++row) {
        for (int i = 0; i < kVectors; ++i)
            term(LoadVector(), row, i * kLanes, sum[i]);
        if constexpr (kRest) term(load_rest, row, kVectors * kLanes, sum[kVectors]);
    }
    for (int s = 0; s < kSums; ++s)
        for (int i = 0; i < kAll; ++i) {
            float* const at = sums + s * pitch + i * kLanes;
            simd::store(at, simd::load(at) + sum[i][s]);
        }
}

// The same of longer rows, one after the other, or four at a time where each has a page of its own:
// a sum is then loaded and stored once for them.
template <int kSums, typename Term>
void add_long_rows(std::int64_t first, std::int64_t end, int channels, float* sums,
                   const Term& term) {
    using simd::kLanes, simd::Vec;
    constexpr int kRows = 4;
    const std::int64_t pitch = sum_pitch(channels);
    const auto add = [&](const auto& load, std::int64_t row, int rows, int c) {
        Vec sum[kSums];
        for (int s = 0; s < kSums; ++s)
            sum[s] = simd::load(sums + s * pitch + c);
        for (int r = 0; r < rows; ++r)
            term(load, row + r, c, sum);
        for (int s = 0; s < kSums; ++s)
            simd::store(sums + s * pitch + c, sum[s]);
    };
    const auto add_all = [&](std::int64_t row, auto rows) {
        int c = 0;
        for (; c <= channels - kLanes; c += kLanes)
            add(LoadVector(), row, rows, c);
        if (c < channels) add(LoadRest{channels - c}, row, rows, c);
    };
    std::int64_t row = first;
    if (channels >= kPageFloats)
        for (; row + kRows <= end; row += kRows)
            add_all(row, std::integral_constant<int, kRows>());
    for (; row < end; ++row)
        add_all(row, std::integral_constant<int, 1>());
}

// sums[s][c] += the terms of the rows first <= row < end; term(load, row, c, sum) adds those of the
// channels c and up of one row to sum[kSums].
template <int kSums, int kVectors = simd::kLanes / kSums, typename Term>
void add_rows(std::int64_t first, std::int64_t end, int channels, float* sums, const Term& term) {
    const int vectors = channels / simd::kLanes;
    if (vectors > kVectors)
        add_long_rows<kSums>(first, end, channels, sums, term);
    else if (vectors < kVectors) {
        if constexpr (kVectors > 0) add_rows<kSums, kVectors - 1>(first, end, channels, sums, term);
    } else if (channels % simd::kLanes != 0)
        add_short_rows<kSums, kVectors, true>(first, end, channels, sums, term);
    else if constexpr (kVectors > 0)
        add_short_rows<kSums, kVectors, false>(first, end, channels, sums, term);
}

// The parts that the rows of `images` arrays (rows, channels) are cut into: sums of kSumRows rows
// are added up, which keeps float32 accurate however many rows there are.
struct ColumnParts {
    int images;
    std::int64_t rows;  // of an image
    int channels, parts;

    ColumnParts(int images, std::int64_t rows, int channels)
        : images(images),
          rows(rows),
          channels(channels),
          parts(static_cast<int>(
              std::clamp<std::int64_t>((rows + kSumRows - 1) / kSumRows, 1, kSumParts))) {}

    std::size_t workspace(int sums) const {
        return sizeof(float) * 2 * sums * images * parts *
               static_cast<std::size_t>(sum_pitch(channels));
    }
};

// sums += more; `count` is a multiple of a vector.
inline void add_vectors(std::int64_t count, const float* more, float* sums) {
    for (std::int64_t i = 0; i < count; i += simd::kLanes)
        simd::store(sums + i, simd::load(sums + i) + simd::load(more + i));
}

// finish(image, channel, sum[kSums]) for all images and channels. Rows are counted through all
// images.
template <int kSums, typename Term, typename Finish>
void sum_columns(const ColumnParts& cut, void* workspace, const Term& term, const Finish& finish) {
    const int C = cut.channels, parts = cut.parts;
    const std::int64_t pitch = sum_pitch(C);
    const std::int64_t distance = std::int64_t{2} * kSums * pitch;  // from one part to the next
    float* const all = static_cast<float*>(workspace);
    const auto finish_image = [&](int image) {
        float* const sums = all + std::int64_t{image} * parts * distance;
        for (int part = 1; part < parts; ++part)
            add_vectors(kSums * pitch, sums + part * distance, sums);
        for (int c = 0; c < C; ++c) {
            float sum[kSums];
            for (int s = 0; s < kSums; ++s)
                sum[s] = sums[s * pitch + c];
            finish(image, c, sum);
        }
    };
#pragma omp parallel num_threads(threads()) if (worth_threads(cut.images * cut.rows * C))
    {
#pragma omp for
        for (std::int64_t task = 0; task < std::int64_t{cut.images} * parts; ++task) {
            const int part = static_cast<int>(task % parts);
            const std::int64_t image_row = task / parts * cut.rows;
            float* const sums = all + task * distance;
            float* const block = sums + kSums * pitch;
            const std::int64_t begin = image_row + part_begin(cut.rows, parts, part);
            const std::int64_t end = image_row + part_begin(cut.rows, parts, part + 1);
            for (std::int64_t row = begin; row < end; row += kSumRows) {
                float* const sum = row == begin ? sums : block;
                simd::clear(sum, kSums * pitch);
                add_rows<kSums>(row, std::min(end, row + kSumRows), C, sum, term);
                if (sum == block) add_vectors(kSums * pitch, block, sums);
            }
            if (parts == 1) finish_image(static_cast<int>(task));
        }
        if (parts > 1) {
#pragma omp for
            for (int image = 0; image < cut.images; ++image)
                finish_image(image);
        }
    }
}

// Rows that by_channel takes as one, which is whole vectors then: 1 where channels are, are many, or
// rows are few.
inline int merged_rows(std::int64_t rows, int channels) {
    const int merged = simd::kLanes / std::gcd(channels, simd::kLanes);
    return merged * channels <= kMergedFloats && rows >= kLeastMerges * merged ? merged : 1;
}

// result[row, c] = f(load, row, c, of) for all rows, past the caches where it is large; of[i] is
// parameters[i] of the channels, and `merged` rows are taken as one: c counts through all of them,
// so that what f reads lies as the result does where there is more than one.
template <std::size_t kParameters, typename F>
void by_channel(std::int64_t rows, int channels, int merged, float* result, bool in_place,
                const std::array<const float*, kParameters>& parameters, const F& f) {
    using simd::kLanes, simd::Vec;
    const std::int64_t length = std::int64_t{merged} * channels, pitch = sum_pitch(length);
    std::array<const float*, kParameters> of_all = parameters;
    // Of many rows, copies are aligned: else nearly every load of them would meet two cache lines.
    std::vector<Vec> copies(rows < kLeastMerges ? 0 : kParameters * pitch / kLanes);
    for (std::size_t i = 0; i < kParameters && !copies.empty(); ++i) {
        float* const copy = reinterpret_cast<float*>(copies.data()) + i * pitch;
        for (int row = 0; row < merged; ++row)
            std::copy_n(parameters[i], channels, copy + row * channels);
        of_all[i] = copy;
    }
    const bool stream = !in_place && streams(rows * channels, length, result);
#pragma omp parallel if (worth_threads(rows * channels))
    {
        const std::array<const float*, kParameters> mine = of_all;  // in registers
#pragma omp for schedule(static) nowait
        for (std::int64_t row = 0; row < rows; row += merged) {
            float* const to = result + row * channels;
            const std::int64_t count = std::min<std::int64_t>(merged, rows - row) * channels;
            const auto value = [&](const auto& load, int c) {
                Vec of[kParameters];
                for (std::size_t i = 0; i < kParameters; ++i)
                    of[i] = load(mine[i] + c);
                return f(load, row, c, of);
            };
            int c = 0;
            for (; c <= count - kLanes; c += kLanes) {
                if (stream)
                    simd::stream(to + c, value(LoadVector(), c));
                else
                    simd::store(to + c, value(LoadVector(), c));
            }
            const int rest = static_cast<int>(count - c);
            if (rest > 0) simd::store_partial(to + c, value(LoadRest{rest}, c), rest);
        }
        simd::stream_fence();
    }
}

}  // namespace zfcuda
