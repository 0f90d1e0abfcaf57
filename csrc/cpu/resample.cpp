// Pictures in another size, on the CPU (resample.h).
//
// The lanes of a vector are four channels of a pixel in each of kLanes / 4 rows while columns are
// scaled, and neighbours in a row while rows are.
// Bound: arithmetic, two instructions a tap and vector. 500 x 375 pixels have 7 taps each way for
// 256 x 256, 168,000 and 86,000 of such pairs with AVX-512.
#include <algorithm>
#include <cstring>
#include <vector>

#include "../shapes.h"
#include "resample.h"
#include "simd.h"

namespace zfcuda {
namespace {

using simd::IntVec;
using simd::kLanes;

constexpr int kBits = 22;                        // of a weight, behind its point
constexpr int kHalf = 1 << (kBits - 1);          // what a sum begins with
constexpr int kPixelLanes = 4;                   // of a vector, for channels of one pixel
constexpr int kLaneRows = kLanes / kPixelLanes;  // whose pixels are in a vector

IntVec rounded(IntVec sum) {
    const IntVec value = sum >> kBits, most = IntVec{} + 255;
    return value < 0 ? IntVec{} : value > most ? most : value;
}

// What windows read, [first, end), after a check.
struct Part {
    int first, end;

    Part(int size, int out, int taps, const std::int32_t* starts) {
        const auto [least, most] = std::minmax_element(starts, starts + out);
        first = *least;
        end = *most + taps;
        shapes::require(first >= 0 && end <= size, "windows must lie in the picture");
    }
};

// Of kCount channels from the first of x and y on. pixels: scratch memory for a vector of bytes of
// each column of `part`.
template <int kCount>
void scale_channels(const Part& part, int rows, int w, int c, const std::uint8_t* x, int out,
                    int taps, const std::int32_t* starts, const std::int32_t* weights,
                    std::uint8_t* pixels, std::uint8_t* y) {
    const std::int64_t row_bytes = std::int64_t{w} * c, out_bytes = std::int64_t{out} * c;
    for (int row = 0; row < rows; row += kLaneRows) {
        const int count = std::min(kLaneRows, rows - row);
        for (int r = 0; r < count; ++r) {
            const std::uint8_t* from = x + (row + r) * row_bytes + std::int64_t{part.first} * c;
            std::uint8_t* to = pixels + r * kPixelLanes;
            for (int j = part.first; j < part.end; ++j, from += c, to += kLanes)
                std::memcpy(to, from, kCount);
        }
        std::uint8_t* to = y + row * out_bytes;
        for (int j = 0; j < out; ++j, to += c) {
            const std::uint8_t* from = pixels + std::int64_t{starts[j] - part.first} * kLanes;
            IntVec sum = IntVec{} + kHalf;
            for (int t = 0; t < taps; ++t)
                sum += simd::load_bytes(from + t * kLanes) * weights[std::int64_t{j} * taps + t];
            std::uint8_t made[kLanes];
            simd::store_bytes(made, rounded(sum));
            for (int r = 0; r < count; ++r)
                std::memcpy(to + r * out_bytes, made + r * kPixelLanes, kCount);
        }
    }
}

}  // namespace

void scale_columns(int rows, int w, int c, const std::uint8_t* x, int out, int taps,
                   const std::int32_t* starts, const std::int32_t* weights, std::uint8_t* y) {
    const Part part(w, out, taps, starts);
    std::vector<std::uint8_t> pixels(std::int64_t{part.end - part.first} * kLanes);
    for (int channel = 0; channel < c; channel += kPixelLanes) {
        const auto scale = c - channel >= 4   ? scale_channels<4>
                           : c - channel == 3 ? scale_channels<3>
                           : c - channel == 2 ? scale_channels<2>
                                              : scale_channels<1>;
        scale(part, rows, w, c, x + channel, out, taps, starts, weights, pixels.data(),
              y + channel);
    }
}

void scale_rows(int h, std::int64_t length, const std::uint8_t* x, int out, int taps,
                const std::int32_t* starts, const std::int32_t* weights, std::uint8_t* y) {
    const Part part(h, out, taps, starts);
    x += part.first * length;
    for (int i = 0; i < out; ++i, y += length, weights += taps) {
        const std::uint8_t* from = x + (starts[i] - part.first) * length;
        std::int64_t at = 0;
        for (; at + kLanes <= length; at += kLanes) {
            IntVec sum = IntVec{} + kHalf;
            for (int t = 0; t < taps; ++t)
                sum += simd::load_bytes(from + t * length + at) * weights[t];
            simd::store_bytes(y + at, rounded(sum));
        }
        for (; at < length; ++at) {
            std::int32_t sum = kHalf;
            for (int t = 0; t < taps; ++t)
                sum += from[t * length + at] * weights[t];
            y[at] = static_cast<std::uint8_t>(std::clamp(sum >> kBits, 0, 255));
        }
    }
}

}  // namespace zfcuda
