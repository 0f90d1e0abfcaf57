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

// add_rows of `count` channels from `c` on, at most kVectors vectors and a rest: their sums stay in
// registers.
template <int kSums, int kVectors, typename Term>
void add_some(std::int64_t first, std::int64_t end, int c, int count, std::int64_t pitch,
              float* sums, const Term& term) {
    using simd::kLanes, simd::Vec;
    if constexpr (kVectors > 0)
        if (count < kVectors * kLanes)
            return add_some<kSums, kVectors - 1>(first, end, c, count, pitch, sums, term);
    const int rest = count - kVectors * kLanes;
    Vec sum[kVectors + 1][kSums] = {};
    for (std::int64_t row = first; row < end; ++row) {
        for (int i = 0; i < kVectors; ++i)
            term(LoadVector(), row, c + i * kLanes, sum[i]);
        if (rest > 0) term(LoadRest{rest}, row, c + kVectors * kLanes, sum[kVectors]);
    }
    for (int s = 0; s < kSums; ++s)
        for (int i = 0; i < kVectors + (rest > 0); ++i) {
            float* const at = sums + s * pitch + c + i * kLanes;
            simd::store(at, simd::load(at) + sum[i][s]);
        }
}

// sums[s][c] += the terms of the rows first <= row < end; term(load, row, c, sum) adds those of the
// channels c and up of one row to sum[kSums]. Of rows with more channels than registers hold sums
// for, a few at a time, so that what is read lies together.
template <int kSums, typename Term>
void add_rows(std::int64_t first, std::int64_t end, int channels, float* sums, const Term& term) {
    constexpr int kVectors = simd::kLanes / kSums;
    constexpr int kHeld = kVectors * simd::kLanes;
    const std::int64_t rows = channels < kHeld + simd::kLanes ? end - first : 16;
    for (std::int64_t row = first; row < end; row += rows) {
        for (int c = 0; c < channels;) {
            const int count = channels - c < kHeld + simd::kLanes ? channels - c : kHeld;
            add_some<kSums, kVectors>(row, std::min(end, row + rows), c, count, sum_pitch(channels),
                                      sums, term);
            c += count;
        }
    }
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

// result[row, c] = f(load, row * channels + c, c) for all rows, past the caches where it is large.
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
                const simd::Vec value = f(LoadVector(), first + c, c);
                if (stream)
                    simd::stream(result + first + c, value);
                else
                    simd::store(result + first + c, value);
            }
            if (c < channels)
                simd::store_partial(result + first + c, f(LoadRest{channels - c}, first + c, c),
                                    channels - c);
        }
        simd::stream_fence();
    }
}

}  // namespace zfcuda
