// The microkernel of gemm.h, instantiated for every number of rows, and the choice among them.
#include "gemm.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <limits>
#include <type_traits>
#include <utility>

namespace zfcuda::gemm {
namespace {

using simd::kLanes;
using simd::Vec;

// Tiles of one height and width, one below the other, each with some panels or products. The
// pointers are to the first of them, whose first column is `column` of `columns`.
struct Tiles {
    int count, panels;
    const float *a, *b;
    float* const* rows;
    std::int64_t offset;  // of column 0 in a row
    int column, columns;
    std::int64_t offset_step;  // from product to product
    int column_step;           // from panel to panel
    int fetched_a, fetched_c;  // rows that may be fetched
    const Operands* operands;
    const Epilogue* epilogue;
};

// What becomes of a vector of columns, of all rows of a tile. What is not asked for is a scale of 1, a
// bias of -0, which changes nothing, and a floor of -infinity.
struct VectorEpilogue {
    Vec scale, bias, floor;

    VectorEpilogue(const Epilogue& epilogue, int at, int count)
        : scale(epilogue.scale ? simd::load_up_to(epilogue.scale + at, count)
                               : simd::broadcast(1.0f)),
          bias(epilogue.bias ? simd::load_up_to(epilogue.bias + at, count)
                             : simd::broadcast(-0.0f)),
          floor(simd::broadcast(epilogue.relu ? 0.0f : -std::numeric_limits<float>::infinity())) {}

    Vec scaled(Vec v) const { return simd::multiply_add(v, scale, bias); }
    Vec rectified(Vec v) const { return v < floor ? floor : v; }  // NaN stays
};

// A vector of columns of `count` rows, `pitch` vectors apart, with what was there or is to be added, or
// of fewer columns. Not a template: in each of the kernels, it took most of their time to compile.
[[gnu::noinline]] void write_more(const Epilogue& epilogue, float* const* rows, int count,
                                  std::int64_t offset, int at, int columns, const Vec* sums,
                                  int pitch) {
    const VectorEpilogue end(epilogue, at, columns);
    const auto for_rows = [&](auto whole, auto accumulate, auto add) {
        for (int i = 0; i < count; ++i, sums += pitch) {
            float* to = rows[i] + offset;
            const int some = whole ? kLanes : columns;
            Vec v = *sums;
            if (accumulate) v += simd::load_up_to(to, some);
            v = end.scaled(v);
            if (add) v += simd::load_up_to(epilogue.added(to), some);
            v = end.rectified(v);
            if (epilogue.stream && whole)
                simd::stream(to, v);
            else
                simd::store_up_to(to, v, some);
        }
    };
    constexpr std::true_type yes;
    constexpr std::false_type no;
    if (columns < kLanes)
        for_rows(no, epilogue.accumulate, epilogue.add != nullptr);
    else if (epilogue.accumulate)
        for_rows(yes, yes, epilogue.add != nullptr);
    else
        for_rows(yes, no, epilogue.add != nullptr);
}

// Products of shallow depth are few beside what this does, so most have no branch for each vector.
template <int Rows, int Vectors>
[[gnu::always_inline]] inline void write(const Tiles& tiles, float* const* rows,
                                         std::int64_t row_offset, int column,
                                         const Vec (&acc)[Rows][Vectors]) {
    const Epilogue& epilogue = *tiles.epilogue;
    if (tiles.columns - column >= Vectors * kLanes && !epilogue.add && !epilogue.accumulate) {
        // Row by row: past the caches, lines are written when they are whole, and few can wait for that.
        const auto for_vectors = [&](const auto& put) __attribute__((always_inline)) {
            const VectorEpilogue ends[] = {{epilogue, column, kLanes},
                                           {epilogue, column + (Vectors - 1) * kLanes, kLanes}};
#pragma GCC unroll 32
            for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
                for (int j = 0; j < Vectors; ++j)
                    put(rows[i] + row_offset + column + j * kLanes,
                        ends[j].rectified(ends[j].scaled(acc[i][j])));
        };
        if (epilogue.stream)
            for_vectors([](float* to, Vec v) { simd::stream(to, v); });
        else
            for_vectors([](float* to, Vec v) { simd::store(to, v); });
        return;
    }
    Vec sums[Rows][Vectors];  // a copy: of `acc` itself an address is not taken
#pragma GCC unroll 32
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j)
            sums[i][j] = acc[i][j];
    for (int j = 0; j < Vectors; ++j) {
        const int at = column + j * kLanes;
        write_more(epilogue, rows, Rows, row_offset + at, at, std::min(kLanes, tiles.columns - at),
                   &sums[0][j], Vectors);
    }
}

// The elements of a column of A, whose rows lie a compile-time distance apart, or a given one where
// that is kAnyStride.
template <int Rows, int RowStride>
class Column {
  public:
    Column(const float* first, int) : first_(first) {}

    void advance(int floats) { first_ += floats; }
    float operator[](int row) const { return first_[row * RowStride]; }

  private:
    const float* first_;
};

// Nine rows from one pointer: 1, 2, 4 and 8 times a register are address modes of x86.
template <int Rows>
class Column<Rows, kAnyStride> {
  public:
    Column(const float* first, int stride)
        : once_(stride * std::ptrdiff_t{sizeof(float)}),
          thrice_(3 * once_),
          five_(5 * once_),
          seven_(7 * once_) {
        for (int i = 0; i < kPointers; ++i)
            first_[i] = first + kReach * i * std::ptrdiff_t{stride};
    }

    void advance(int floats) {
        for (int i = 0; i < kPointers; ++i)
            first_[i] += floats;
        // Else compilers keep every multiple, in memory.
        asm("" : "+r"(once_), "+r"(thrice_), "+r"(five_), "+r"(seven_));
    }

    float operator[](int row) const {
        const std::ptrdiff_t bytes[kReach] = {0,     once_,       2 * once_, thrice_,  4 * once_,
                                              five_, 2 * thrice_, seven_,    8 * once_};
        return *reinterpret_cast<const float*>(reinterpret_cast<const char*>(first_[row / kReach]) +
                                               bytes[row % kReach]);
    }

  private:
    static constexpr int kReach = 9, kPointers = (Rows + kReach - 1) / kReach;
    const float* first_[kPointers];
    std::ptrdiff_t once_, thrice_, five_, seven_;  // the stride in bytes
};

// Sums that the steps of the depth add to in turn, so that multiply-adds of a low tile need not wait
// for each other: where they lie depth by depth, which is where the height of a tile depends on
// the shape alone. (Others' depends on the threads, and then so would their last bits.)
template <int Rows, int Vectors, int RowStride>
constexpr int sums() {
    constexpr int kLatency = 8;  // in multiply-adds
    int count = 1;
    while (RowStride == 1 && count * Rows * Vectors < kLatency)
        count *= 2;
    return count;
}

template <int Rows, int Vectors, int RowStride>
void make_tiles(const Tiles& tiles) {
    constexpr int kSums = sums<Rows, Vectors, RowStride>();
    const Operands& operands = *tiles.operands;
    const Epilogue& epilogue = *tiles.epilogue;
    const int a_step = operands.a_step, b_stride = operands.b_stride;
    const int interval = operands.fetch ? operands.fetch->interval() : operands.depth;
    for (int tile = 0; tile < tiles.count; ++tile) {
        const float* first = tiles.a + std::int64_t{tile} * Rows * operands.row_stride;
        float* const* rows = tiles.rows + tile * Rows;
        const auto for_lines = [&](float* row, const auto& body) {
            for (int j = 0; j < tiles.panels * Vectors; ++j)
                body(row + tiles.offset + tiles.column + j * kLanes);
        };
        if (epilogue.add)
            for (int i = 0; i < Rows; ++i)
                for_lines(rows[i],
                          [&](const float* to) { __builtin_prefetch(epilogue.added(to)); });
        const int next = (tile + 1) * Rows;
        for (int i = next; i < std::min(next + Rows, tiles.fetched_c); ++i)
            for_lines(tiles.rows[i], [](const float* to) { __builtin_prefetch(to, 1, 3); });
        const bool fetches = next < tiles.fetched_a;
        for (int panel = 0; panel < tiles.panels; ++panel) {
            Vec acc[kSums][Rows][Vectors] = {};
            const float* b = tiles.b + panel * operands.panel_distance;
            const float* next_a = first + Rows * operands.row_stride;
            for (int run = 0; run < operands.runs; ++run) {
                Column<Rows, RowStride> a(
                    first + panel * operands.a_distance + run * operands.run_distance,
                    operands.row_stride);
                const auto step = [&](Vec(&sum)[Rows][Vectors]) __attribute__((always_inline)) {
                    if (RowStride == kAnyStride && fetches)
                        for (int i = 0; i < Rows; i += kLineFloats, next_a += kLineFloats)
                            __builtin_prefetch(next_a);
                    Vec bd[Vectors];
#pragma GCC unroll 2
                    for (int j = 0; j < Vectors; ++j)
                        bd[j] = simd::load(b + j * kLanes);
#pragma GCC unroll 32
                    for (int i = 0; i < Rows; ++i) {
                        const Vec ai = simd::broadcast(a[i]);
#pragma GCC unroll 2
                        for (int j = 0; j < Vectors; ++j)
                            sum[i][j] += ai * bd[j];
                    }
                    a.advance(a_step);
                    b += b_stride;
                };
                for (int d = 0; d < operands.depth;) {
                    const int stop = operands.depth - d > interval ? d + interval : operands.depth;
                    if constexpr (kSums > 1)
                        for (; d + kSums <= stop; d += kSums) {
#pragma GCC unroll 8
                            for (int i = 0; i < kSums; ++i)
                                step(acc[i]);
                        }
                    for (; d < stop; ++d)
                        step(acc[0]);
                    if (operands.fetch) operands.fetch->step();
                }
            }
            for (int sum = 1; sum < kSums; ++sum)
                for (int i = 0; i < Rows; ++i)
                    for (int j = 0; j < Vectors; ++j)
                        acc[0][i][j] += acc[sum][i][j];
            write<Rows, Vectors>(tiles, rows, tiles.offset + panel * tiles.offset_step,
                                 tiles.column + panel * tiles.column_step, acc[0]);
        }
    }
}

using TileFunction = void (*)(const Tiles&);

// [rows - 1]
struct TileFunctions {
    std::array<TileFunction, kTileRows> wide;
    std::array<TileFunction, kNarrowTileRows> narrow;
};

template <int Vectors, int RowStride, int... I>
constexpr std::array<TileFunction, sizeof...(I)> functions_of(std::integer_sequence<int, I...>) {
    return {make_tiles<I + 1, Vectors, RowStride>...};
}

// One for each of kRowStrides.
template <std::size_t... I>
constexpr std::array<TileFunctions, sizeof...(I)> all_tile_functions(std::index_sequence<I...>) {
    return {TileFunctions{
        functions_of<kPanelVectors, kRowStrides[I]>(std::make_integer_sequence<int, kTileRows>()),
        functions_of<1, kRowStrides[I]>(std::make_integer_sequence<int, kNarrowTileRows>())}...};
}

int most_rows(const Operands& operands) {
    const bool meet = operands.row_stride > 0 && operands.row_stride % kPageFloats == 0;
    return meet ? kPageTileRows : kNarrowTileRows;
}

constexpr auto kTileFunctions =
    all_tile_functions(std::make_index_sequence<std::size(kRowStrides)>());

}  // namespace

void multiply(int count, const Operands& operands, float* const* rows, std::int64_t column,
              int columns, const Epilogue& epilogue) {
    if (count == 0) return;
    std::size_t layout = 0;
    while (kRowStrides[layout] != operands.row_stride && kRowStrides[layout] != kAnyStride)
        ++layout;
    const bool batch = operands.products > 1;
    if (batch || operands.panel_distance == 0) columns = std::min(columns, kPanel);
    const int column_step = batch ? 0 : kPanel;
    const auto make_panels = [&](const auto& functions, int first, int panels, int fetched_a) {
        const float* b = operands.b + first * operands.panel_distance;
        const auto make = [&](int row, int height, int count) {
            functions[height - 1](
                {count, panels, operands.a + std::int64_t{row} * operands.row_stride, b, rows + row,
                 column, first * kPanel, columns, operands.c_distance, column_step, fetched_a - row,
                 epilogue.fetched_rows - row, &operands, &epilogue});
        };
        const int most = std::min(static_cast<int>(functions.size()), most_rows(operands));
        if (count <= most) return make(0, count, 1);
        // Tiles as even as possible: one with few rows takes as long as one of four.
        const int tiles = (count + most - 1) / most, height = count / tiles, higher = count % tiles;
        if (higher > 0) make(0, height + 1, higher);
        make(higher * (height + 1), height, tiles - higher);
    };
    const TileFunctions& functions = kTileFunctions[layout];
    // A last panel of at most one vector has narrow tiles.
    const int panels = (columns + kPanel - kLanes - 1) / kPanel;
    if (panels > 0)
        make_panels(functions.wide, 0, batch ? operands.products : panels, operands.fetched_rows);
    if (panels * kPanel < columns)
        make_panels(functions.narrow, panels, batch ? operands.products : 1,
                    panels > 0 ? 0 : operands.fetched_rows);
}

}  // namespace zfcuda::gemm
