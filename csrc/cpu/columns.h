// Rows of channels: sums over them for each channel, in an order that depends on nothing but the
// shape, and work whose parameters are the channels'. In vectors of channels.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "blocking.h"
#include "parallel.h"
#include "simd.h"

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
// rows are read in order.
template <int kSums, int kVectors, typename Term>
void add_short_rows(std::int64_t first, std::int64_t end, int channels, float* sums,
                    const Term& term) {
    using simd::kLanes, simd::Vec;
    const std::int64_t pitch = sum_pitch(channels);
    const int rest = channels - kVectors * kLanes;
    const int vectors = kVectors + (rest > 0);
    Vec sum[kVectors + 1][kSums] = {};
    for (std::int64_t row = first; row < end; ++row) {
        for (int i = 0; i < kVectors; ++i)
            term(LoadVector(), row, i * kLanes, sum[i]);
        if (rest > 0) term(LoadRest{rest}, row, kVectors * kLanes, sum[kVectors]);
    }
    for (int s = 0; s < kSums; ++s)
        for (int i = 0; i < vectors; ++i) {
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
    else if (vectors == kVectors)
        add_short_rows<kSums, kVectors>(first, end, channels, sums, term);
    else if constexpr (kVectors > 0)
        add_rows<kSums, kVectors - 1>(first, end, channels, sums, term);
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

// result[row, c] = f(load, row, c) for all rows, past the caches where it is large.
template <typename F>
void by_channel(std::int64_t rows, int channels, float* result, bool in_place, const F& f) {
    const bool stream = !in_place && rows * channels * 4 > kStreamBytes &&
                        channels % simd::kLanes == 0 && simd::is_aligned(result);
#pragma omp parallel if (worth_threads(rows * channels))
    {
#pragma omp for schedule(static) nowait
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::int64_t first = row * channels;
            int c = 0;
            for (; c <= channels - simd::kLanes; c += simd::kLanes) {
                const simd::Vec value = f(LoadVector(), row, c);
                if (stream)
                    simd::stream(result + first + c, value);
                else
                    simd::store(result + first + c, value);
            }
            if (c < channels)
                simd::store_partial(result + first + c, f(LoadRest{channels - c}, row, c),
                                    channels - c);
        }
        simd::stream_fence();
    }
}

}  // namespace zfcuda
