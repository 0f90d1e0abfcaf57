// Where a thread works: division, rounded up or by a multiplication, and tiles over the rows of a
// batch.
#pragma once

#include <cstdint>

#include "simt/simt.h"

namespace zfcuda {

constexpr int kWarp = 32;

__host__ __device__ constexpr int divide_up(int a, int b) {
    return a / b + (a % b != 0);
}

// A divisor that only the launcher knows: `n / divisor` is a multiplication and a shift (Granlund
// and Montgomery 1994). Exact for 0 <= n < 2^31 and divisor >= 1.
struct FastDivisor {
    int divisor;
    std::uint32_t multiplier;
    int shift;

    explicit FastDivisor(int value) : divisor(value), shift(0) {
        while ((std::uint64_t{1} << shift) < static_cast<std::uint64_t>(divisor))
            ++shift;
        const std::uint64_t excess = (std::uint64_t{1} << shift) - divisor;
        multiplier = static_cast<std::uint32_t>((excess << 32) / divisor + 1);
    }

    __host__ __device__ explicit operator int() const { return divisor; }
    friend __host__ __device__ int operator/(int dividend, const FastDivisor& by) {
        const auto n = static_cast<std::uint32_t>(dividend);
        const auto high =
            static_cast<std::uint32_t>((static_cast<std::uint64_t>(n) * by.multiplier) >> 32);
        return static_cast<int>((high + n) >> by.shift);
    }
    friend __host__ __device__ int operator%(int dividend, const FastDivisor& by) {
        return dividend - dividend / by * by.divisor;
    }
};

// A batch of `images`, each of `rows` rows of `columns` vectors, cut into tiles of 4 rows by 64
// columns: one block each, one vector a thread. The block is a rectangle so that windows that
// overlap in both directions share the L1 cache; the grid is one-dimensional, so that no legal
// shape exceeds its limits.
struct RowTiles {
    static constexpr int kRows = 4;
    static constexpr int kColumns = 64;

    int images, rows, columns;
    FastDivisor tiles_across, tiles_down;

    RowTiles(int images_, int rows_, int columns_)
        : images(images_),
          rows(rows_),
          columns(columns_),
          tiles_across(divide_up(columns_, kColumns)),
          tiles_down(divide_up(rows_, kRows)) {}

    dim3 grid() const {
        return dim3(static_cast<unsigned>(images) * tiles_down.divisor * tiles_across.divisor);
    }
    static dim3 block() { return dim3(kColumns, kRows); }

    struct Place {
        int image, row, column;
        bool inside;
    };

    __device__ Place place() const {
        const int tile = static_cast<int>(blockIdx.x);
        const int above = tile / tiles_across;
        const int row = above % tiles_down * kRows + static_cast<int>(threadIdx.y);
        const int column = tile % tiles_across * kColumns + static_cast<int>(threadIdx.x);
        return {above / tiles_down, row, column, row < rows && column < columns};
    }
};

}  // namespace zfcuda
