// The microkernel of gemm.h, instantiated for every number of rows, and the choice among them.
#include "gemm.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <utility>

namespace zfcuda::gemm {
namespace {

using simd::kLanes;
using simd::Vec;

struct Tile {
    int depth;
    const float* a;
    const float* b;
    float* const* rows;
    std::int64_t column;
    int columns;
    const Epilogue* epilogue;
};

template <int Rows, int Vectors>
inline void write(const Tile& tile, const Vec (&acc)[Rows][Vectors]) {
    const Epilogue& epilogue = *tile.epilogue;
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) {
        const int at = j * kLanes;
        const int count = std::min(kLanes, tile.columns - at);
        const bool whole = count == kLanes;
        Vec bias{};
        if (epilogue.bias)
            bias = whole ? simd::load(epilogue.bias + at)
                         : simd::load_partial(epilogue.bias + at, count);
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) {
            float* c = tile.rows[i] + tile.column + at;
            Vec v = acc[i][j];
            if (epilogue.accumulate) v += whole ? simd::load(c) : simd::load_partial(c, count);
            if (epilogue.bias) v += bias;
            if (epilogue.relu) v = simd::relu(v);
            if (!whole)
                simd::store_partial(c, v, count);
            else if (epilogue.stream)
                simd::stream(c, v);
            else
                simd::store(c, v);
        }
    }
}

// A[i][d] is a[i * RowStride + d * DepthStride].
template <int Rows, int Vectors, int RowStride, int DepthStride>
void multiply(const Tile& tile) {
    Vec acc[Rows][Vectors] = {};
    const float* a = tile.a;
    const float* b = tile.b;
    for (int d = 0; d < tile.depth; ++d) {
        Vec bd[Vectors];
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j)
            bd[j] = simd::load(b + j * kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) {
            const Vec ai = simd::broadcast(a[i * RowStride]);
#pragma GCC unroll 2
            for (int j = 0; j < Vectors; ++j)
                acc[i][j] += ai * bd[j];
        }
        a += DepthStride;
        b += kPanel;
    }
    write<Rows, Vectors>(tile, acc);
}

using TileFunction = void (*)(const Tile&);

template <int Vectors, int RowStride, int DepthStride, int... I>
constexpr std::array<TileFunction, kTileRows> tile_functions(std::integer_sequence<int, I...>) {
    return {multiply<I + 1, Vectors, RowStride, DepthStride>...};
}

// [columns > one vector][rows - 1]
template <int RowStride, int DepthStride>
constexpr std::array<std::array<TileFunction, kTileRows>, 2> kTileFunctions = {
    tile_functions<1, RowStride, DepthStride>(std::make_integer_sequence<int, kTileRows>()),
    tile_functions<2, RowStride, DepthStride>(std::make_integer_sequence<int, kTileRows>())};

}  // namespace

void multiply_row_tile(int count, int depth, const float* a, const float* panel, float* const* rows,
                       std::int64_t column, int columns, const Epilogue& epilogue) {
    kTileFunctions<kRowStride, 1>[columns > kLanes][count - 1](
        {depth, a, panel, rows, column, columns, &epilogue});
}

void multiply_packed_tile(int count, int depth, const float* a, const float* panel,
                          float* const* rows, std::int64_t column, int columns,
                          const Epilogue& epilogue) {
    kTileFunctions<1, kTileRows>[columns > kLanes][count - 1](
        {depth, a, panel, rows, column, columns, &epilogue});
}

int max_threads() {
    static const int limit = omp_get_num_procs();
    return limit;
}

int threads() {
    return std::min(omp_get_max_threads(), max_threads());
}

int thread_index() {
    return omp_get_thread_num();
}

}  // namespace zfcuda::gemm
