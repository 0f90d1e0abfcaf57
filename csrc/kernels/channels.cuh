// Copies of some channels from one array to another (concatenation, and its way back), and channels
// in another order.
//
//   copy_channels     out[row, target + i] = x[row, source + i] for i < channels
//   permute_channels  y[row, i] = x[row, order[i]]
//
// Work: rows are cut into vectors of neighbouring channels. A copy gives each thread one of them; a
// permutation gives it the same vector of kPermutedRows rows, so that the order is read once for
// all of them and their loads are in flight together: a row's lines are read by several threads at
// the same time, from the L1 cache but for the first. Elements have no type here.
// Bound: memory, each byte read and written once.
#pragma once

#include "indexing.cuh"
#include "vector.cuh"

namespace zfcuda {

constexpr int kChannelThreads = 256;

// Pitches and offsets are in vectors of `Bytes` bytes, `vectors` is how many of them are copied of
// each row. x and out begin at the first one.
template <int Bytes>
__global__ void copy_channels_kernel(int total_vectors, FastDivisor vectors, int x_pitch,
                                     int out_pitch, const std::uint8_t* __restrict__ x,
                                     std::uint8_t* __restrict__ out) {
    const int i = static_cast<int>(blockIdx.x * kChannelThreads + threadIdx.x);
    if (i >= total_vectors) return;
    const int row = i / vectors, vector = i % vectors;
    const std::int64_t from = static_cast<std::int64_t>(row) * x_pitch + vector;
    const std::int64_t to = static_cast<std::int64_t>(row) * out_pitch + vector;
    store(out + to * Bytes, load<Bytes>(x + from * Bytes));
}

constexpr int kPermutedRows = 4;

// Thread `group` of a vector takes the rows group, group + groups, ..., so that neighbours read and
// write what lies side by side. `vectors`: of a row.
template <typename T, int Width>
__global__ void permute_channels_kernel(int total_vectors, FastDivisor vectors, int rows,
                                        int groups, const T* __restrict__ x,
                                        const std::int32_t* __restrict__ order, T* __restrict__ y) {
    const int i = static_cast<int>(blockIdx.x * kChannelThreads + threadIdx.x);
    if (i >= total_vectors) return;
    const int group = i / vectors, c = i % vectors * Width;
    const int channels = vectors.divisor * Width;

    int from[Width];
#pragma unroll
    for (int j = 0; j < Width; ++j)
        from[j] = order[c + j];
    Vector<T, Width> values[kPermutedRows];
#pragma unroll
    for (int r = 0; r < kPermutedRows; ++r) {
        const std::int64_t row = group + static_cast<std::int64_t>(r) * groups;
#pragma unroll
        for (int j = 0; j < Width; ++j) {
            const bool valid = row < rows && from[j] >= 0 && from[j] < channels;
            values[r].at[j] = valid ? x[row * channels + from[j]] : T{0};
        }
    }
#pragma unroll
    for (int r = 0; r < kPermutedRows; ++r) {
        const std::int64_t row = group + static_cast<std::int64_t>(r) * groups;
        if (row < rows) store(y + row * channels + c, values[r]);
    }
}

}  // namespace zfcuda
