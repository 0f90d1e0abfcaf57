// The microkernel of gemm.h, instantiated for every number of rows, and the choice among them.
#include "gemm.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
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

// Products of shallow depth are few beside what this does, so it has no branch for each vector: what
// is not asked for is a scale of 1, a bias of -0, which changes nothing, and a floor of -infinity.
template <int Rows, int Vectors>
inline void write(const Tile& tile, const Vec (&acc)[Rows][Vectors]) {
    const Epilogue& epilogue = *tile.epilogue;
    const Vec floor =
        simd::broadcast(epilogue.relu ? 0.0f : -std::numeric_limits<float>::infinity());
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) {
        const int at = j * kLanes;
        const int count = std::min(kLanes, tile.columns - at);
        const bool whole = count == kLanes;
        const Vec scale =
            epilogue.scale ? simd::load_up_to(epilogue.scale + at, count) : simd::broadcast(1.0f);
        const Vec bias =
            epilogue.bias ? simd::load_up_to(epilogue.bias + at, count) : simd::broadcast(-0.0f);
        const auto rectified = [&](Vec v) { return v < floor ? floor : v; };  // NaN stays
        const auto row = [&](int i) { return tile.rows[i] + tile.column + at; };
        if (whole && !epilogue.accumulate && !epilogue.add && !epilogue.stream) {
#pragma GCC unroll 16
            for (int i = 0; i < Rows; ++i)
                simd::store(row(i), rectified(acc[i][j] * scale + bias));
            continue;
        }
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) {
            Vec v = acc[i][j];
            if (epilogue.accumulate) v += simd::load_up_to(row(i), count);
            v = v * scale + bias;
            if (epilogue.add) v += simd::load_up_to(epilogue.added(row(i)), count);
            v = rectified(v);
            if (epilogue.stream && whole)
                simd::stream(row(i), v);
            else
                simd::store_up_to(row(i), v, count);
        }
    }
}

// The elements of a column of A, whose rows lie a compile-time distance apart, or a given one where
// that is kAnyStride.
template <int RowStride>
struct Column {
    explicit Column(int) {}
    float operator()(const float* a, int i) const { return a[i * RowStride]; }
};

template <>
struct Column<kAnyStride> {
    std::ptrdiff_t stride;
    explicit Column(int stride) : stride(stride) {}
    float operator()(const float* a, int i) const { return a[i * stride]; }
};

template <int Rows, int Vectors, int RowStride>
void multiply(const Tile& tile) {
    const Operands& operands = *tile.operands;
    const int a_step = operands.a_step, b_stride = operands.b_stride;
    const Column<RowStride> column(operands.row_stride);
    Vec acc[Rows][Vectors] = {};
    const float* b = operands.b;
    if (const Epilogue& epilogue = *tile.epilogue; epilogue.add) {
        for (int i = 0; i < Rows; ++i)
            for (int j = 0; j < Vectors; ++j)
                __builtin_prefetch(epilogue.added(tile.rows[i] + tile.column) + j * kLanes);
    }
    for (int run = 0; run < operands.runs; ++run) {
        const float* a = operands.a + run * operands.run_distance;
        for (int d = 0; d < operands.depth; ++d) {
            Vec bd[Vectors];
#pragma GCC unroll 2
            for (int j = 0; j < Vectors; ++j)
                bd[j] = simd::load(b + j * kLanes);
#pragma GCC unroll 16
            for (int i = 0; i < Rows; ++i) {
                const Vec ai = simd::broadcast(column(a, i));
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
    std::size_t layout = 0;
    while (kRowStrides[layout] != operands.row_stride && kRowStrides[layout] != kAnyStride)
        ++layout;
    kTileFunctions[layout][columns > kLanes][count - 1](
        {&operands, rows, column, std::min(columns, kPanel), &epilogue});
}

}  // namespace zfcuda::gemm
