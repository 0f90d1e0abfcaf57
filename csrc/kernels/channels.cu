// Copies and permutations of channels: the choice of kernel.
#include "channels.cuh"

#include <type_traits>

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

namespace {

// Threads of a vector each.
unsigned channel_blocks(int vectors) {
    return (static_cast<unsigned>(vectors) + kChannelThreads - 1) / kChannelThreads;
}

template <typename T>
void permute(int rows, int channels, const void* x, const std::int32_t* order, void* y,
             Stream stream) {
    const auto* from = static_cast<const T*>(x);
    auto* to = static_cast<T*>(y);
    constexpr int kVector = kVectorWidth<T>;
    with_constant(
        channels % kVector == 0 && aligned_for_vectors<kVector>(to), [&](auto in_vectors) {
            constexpr int kWidth = in_vectors ? kVector : 1;
            const FastDivisor vectors(channels / kWidth);
            const int groups = divide_up(rows, kPermutedRows);
            const int total = groups * vectors.divisor;
            simt::launch<permute_channels_kernel<T, kWidth>>(channel_blocks(total), kChannelThreads,
                                                             0, stream, total, vectors, rows,
                                                             groups, from, order, to);
        });
}

}  // namespace

void copy_channels(std::int64_t rows, int x_channels, int source, int out_channels, int target,
                   int channels, int bytes, const void* x, void* out, Stream stream) {
    const auto* from = static_cast<const std::uint8_t*>(x) + std::int64_t{source} * bytes;
    auto* to = static_cast<std::uint8_t*>(out) + std::int64_t{target} * bytes;
    const auto fits = [&](auto width) {
        const auto divides = [&](int count) { return std::int64_t{count} * bytes % width == 0; };
        return divides(x_channels) && divides(out_channels) && divides(channels) &&
               aligned_for_vectors<width>(from, to);
    };
    const auto launch = [&](auto width) {
        const auto in_vectors = [&](int count) {
            return static_cast<int>(std::int64_t{count} * bytes / width);
        };
        const FastDivisor vectors(in_vectors(channels));
        const int total = static_cast<int>(rows) * vectors.divisor;
        simt::launch<copy_channels_kernel<width>>(channel_blocks(total), kChannelThreads, 0, stream,
                                                  total, vectors, in_vectors(x_channels),
                                                  in_vectors(out_channels), from, to);
    };
    if (std::integral_constant<int, 16> sixteen; fits(sixteen)) {
        launch(sixteen);
    } else if (std::integral_constant<int, 4> four; fits(four)) {
        launch(four);
    } else {
        launch(std::integral_constant<int, 2>());
    }
}

void permute_channels(std::int64_t rows, int channels, int bytes, const void* x,
                      const std::int32_t* order, void* y, Stream stream) {
    if (bytes == 4) {
        permute<std::uint32_t>(static_cast<int>(rows), channels, x, order, y, stream);
    } else {
        permute<std::uint16_t>(static_cast<int>(rows), channels, x, order, y, stream);
    }
}

}  // namespace zfcuda
