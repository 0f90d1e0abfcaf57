// The microkernel of gemm.h, instantiated for every number of rows, and the choice among them.
#include "gemm.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

namespace zfcuda::gemm {
namespace {

using simd::kLanes;
using simd::Vec;

struct Tile {
    const Operands* operands;
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
        Vec scale{}, bias{};
        if (epilogue.scale) scale = simd::load_up_to(epilogue.scale + at, count);
        if (epilogue.bias) bias = simd::load_up_to(epilogue.bias + at, count);
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) {
            float* c = tile.rows[i] + tile.column + at;
            Vec v = acc[i][j];
            if (epilogue.accumulate) v += whole ? simd::load(c) : simd::load_partial(c, count);
            if (epilogue.scale) v *= scale;
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

template <int Rows, int Vectors, int RowStride>
void multiply(const Tile& tile) {
    const Operands& operands = *tile.operands;
    const int a_step = operands.a_step, b_stride = operands.b_stride;
    Vec acc[Rows][Vectors] = {};
    const float* b = operands.b;
    for (int run = 0; run < operands.runs; ++run) {
        const float* a = operands.a + run * operands.run_distance;
        for (int d = 0; d < operands.depth; ++d) {
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
            a += a_step;
            b += b_stride;
        }
    }
    write<Rows, Vectors>(tile, acc);
}

using TileFunction = void (*)(const Tile&);
using TileFunctions =
    std::array<std::array<TileFunction, kTileRows>, 2>;  // [two vectors][rows - 1]

template <int RowStride, int... I>
constexpr TileFunctions tile_functions(std::integer_sequence<int, I...>) {
    return {{{multiply<I + 1, 1, RowStride>...}, {multiply<I + 1, 2, RowStride>...}}};
}

// One for each of kRowStrides.
template <std::size_t... I>
constexpr std::array<TileFunctions, sizeof...(I)> all_tile_functions(std::index_sequence<I...>) {
    return {tile_functions<kRowStrides[I]>(std::make_integer_sequence<int, kTileRows>())...};
}

constexpr auto kTileFunctions =
    all_tile_functions(std::make_index_sequence<std::size(kRowStrides)>());

}  // namespace

void multiply_tile(int count, const Operands& operands, float* const* rows, std::int64_t column,
                   int columns, const Epilogue& epilogue) {
    int layout = 0;
    while (kRowStrides[layout] != operands.row_stride)
        ++layout;
    kTileFunctions[layout][columns > kLanes][count - 1](
        {&operands, rows, column, std::min(columns, kPanel), &epilogue});
}

}  // namespace zfcuda::gemm
