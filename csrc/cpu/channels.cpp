// Copies of channels and channels in another order, on the CPU: bound by memory.
//
// Rows of a copy are as long as there are channels, a few cache lines; where the array that they go
// to would push all else out of the caches, and whole vectors lie at the right places, they go past
// them. A permutation gathers a row at a time from the first-level cache.
#include <cstring>

#include "../ops.h"
#include "parallel.h"
#include "simd.h"
#include "streams.h"

namespace zfcuda {
namespace {

template <typename T>
void permute(std::int64_t rows, int channels, const void* x, const std::int32_t* order, void* y) {
#pragma omp parallel for schedule(static) if (worth_threads(rows * channels))
    for (std::int64_t row = 0; row < rows; ++row) {
        const T* from = static_cast<const T*>(x) + row * channels;
        T* to = static_cast<T*>(y) + row * channels;
#pragma omp simd
        for (int c = 0; c < channels; ++c) {
            const std::int32_t at = order[c];
            to[c] = at >= 0 && at < channels ? from[at] : T{0};
        }
    }
}

}  // namespace

void copy_channels(std::int64_t rows, int x_channels, int source, int out_channels, int target,
                   int channels, int bytes, const void* x, void* out, Stream) {
    constexpr int kVector = sizeof(simd::Vec);
    const std::int64_t x_pitch = std::int64_t{x_channels} * bytes,
                       out_pitch = std::int64_t{out_channels} * bytes,
                       length = std::int64_t{channels} * bytes;
    const auto* from = static_cast<const std::uint8_t*>(x) + std::int64_t{source} * bytes;
    auto* to = static_cast<std::uint8_t*>(out) + std::int64_t{target} * bytes;
    const bool stream =
        out_pitch % kVector == 0 && length % kVector == 0 &&
        streams(rows * out_pitch / 4, out_pitch / 4, reinterpret_cast<const float*>(to));
#pragma omp parallel if (worth_threads(rows * length / 4))
    {
#pragma omp for schedule(static) nowait
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::uint8_t* x_row = from + row * x_pitch;
            std::uint8_t* out_row = to + row * out_pitch;
            if (!stream) {
                std::memcpy(out_row, x_row, length);
                continue;
            }
            for (std::int64_t at = 0; at < length; at += kVector)
                simd::stream(reinterpret_cast<float*>(out_row + at),
                             simd::load_as<simd::Vec>(x_row + at));
        }
        simd::stream_fence();
    }
}

void permute_channels(std::int64_t rows, int channels, int bytes, const void* x,
                      const std::int32_t* order, void* y, Stream) {
    if (bytes == 4)
        permute<std::uint32_t>(rows, channels, x, order, y);
    else
        permute<std::uint16_t>(rows, channels, x, order, y);
}

}  // namespace zfcuda
