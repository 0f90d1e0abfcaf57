// Pictures in another size, for zfcuda/data: bound beside the operations of ops.h.
#pragma once

#include <cstdint>

namespace zfcuda {

// One axis of a picture in another size: each line `to` of y is of lines of x
//
//   to[j] = sum over t < taps of from[starts[j] + t] * weights[j,t] / 2^22,
//
// rounded to the nearest number in [0, 255], halves upwards. starts int32 (out,); no window leaves x.
// weights int32 (out, taps), of which no row's magnitudes add up to 2^31 / 255.
//
// x uint8 (rows, w, c) -> y (rows, out, c).
void scale_columns(int rows, int w, int c, const std::uint8_t* x, int out, int taps,
                   const std::int32_t* starts, const std::int32_t* weights, std::uint8_t* y);
// x uint8 (h, length) -> y (out, length).
void scale_rows(int h, std::int64_t length, const std::uint8_t* x, int out, int taps,
                const std::int32_t* starts, const std::int32_t* weights, std::uint8_t* y);

}  // namespace zfcuda
