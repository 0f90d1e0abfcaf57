// What becomes of the accumulators: y = act(scale[col] * sum + bias[col] + add), where `add` lies as y
// does, or partial sums where the tile is split.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/vector.cuh"
#include "simt/simt.h"
#include "tile_index.cuh"

namespace zfcuda::conv {

// Of a y of type T. What is null is not asked for. `vectorised`: rows of y and `add` allow accesses to
// four values at once. `pitch`: elements from row to row of both, where the kernel does not say.
template <class T>
struct Epilogue {
    const float* scale = nullptr;
    const float* bias = nullptr;
    const T* add = nullptr;
    bool relu = false;
    bool vectorised = false;
    int pitch = 0;
};

__device__ inline float rectify(float v) {
    return v < 0.0f ? 0.0f : v;  // NaN stays NaN
}

// values[col], values[col + 1] ... as far as there are `cols`; `otherwise` where there are none.
template <int V>
__device__ inline Vector<float, V> of_columns(const float* values, int col, int cols,
                                              float otherwise) {
    auto found = Vector<float, V>::filled(otherwise);
    if (values) {
#pragma unroll
        for (int e = 0; e < V; ++e)
            if (col + e < cols) found.at[e] = values[col + e];
    }
    return found;
}

// V values from `from` on; one by one, as far as there are `count`, if not `vectorised`.
template <int V, class T>
__device__ inline Vector<float, V> load_columns(const T* from, int count, bool vectorised) {
    if (vectorised) return to_floats(load<V>(from));
    auto found = Vector<float, V>::filled(0.0f);
#pragma unroll
    for (int e = 0; e < V; ++e)
        if (e < count) found.at[e] = to_float(from[e]);
    return found;
}

// Stores this thread's accumulators: row i goes to y + offset(row(i)) if that is not kNoRow, `y`
// being where column `first_col` of row 0 lies, and `epilogue.add` what is added to it; columns from
// `cols` on do not exist. `mine`: which rows and columns of the tile they are.
template <class Loop, class RowOffset, class T, class Places = typename Loop::Multiplier>
__device__ inline void store_tile(typename Loop::Accumulators& acc, RowOffset offset, int first_col,
                                  int cols, const Epilogue<T>& epilogue, T* y,
                                  const Places& mine = {}) {
    using Multiplier = typename Loop::Multiplier;
    constexpr int kVector = Multiplier::kVector;
#pragma unroll
    for (int vector = 0; vector < Multiplier::kVectors; ++vector) {
        const int col = first_col + mine.col(vector);
        if (col >= cols) continue;
        const auto scale = of_columns<kVector>(epilogue.scale, col, cols, 1.0f);
        const auto bias = of_columns<kVector>(epilogue.bias, col, cols, 0.0f);
        // All rows' before the first store, which the compiler would not let a load overtake.
        Vector<float, kVector> added[Multiplier::kRows] = {};
        if (epilogue.add) {
#pragma unroll
            for (int i = 0; i < Multiplier::kRows; ++i) {
                const std::uint32_t row = offset(mine.row(i));
                if (row != kNoRow)
                    added[i] = load_columns<kVector>(epilogue.add + row + mine.col(vector),
                                                     cols - col, epilogue.vectorised);
            }
        }
#pragma unroll
        for (int i = 0; i < Multiplier::kRows; ++i) {
            const std::uint32_t row = offset(mine.row(i));
            if (row == kNoRow) continue;
            Vector<float, kVector> v;
#pragma unroll
            for (int e = 0; e < kVector; ++e) {
                v.at[e] = Multiplier::at(acc, i, vector, e) * scale.at[e] + bias.at[e];
                v.at[e] += added[i].at[e];
                if (epilogue.relu) v.at[e] = rectify(v.at[e]);
            }
            const auto result = from_floats<T>(v);
            T* at = y + row + mine.col(vector);
            if (epilogue.vectorised) {
                store(at, result);
            } else {
#pragma unroll
                for (int e = 0; e < kVector; ++e)
                    if (col + e < cols) at[e] = result.at[e];
            }
        }
    }
}

// The same of a part of a product: a whole tile goes to y; what a split has of one to the workspace,
// unrounded and without an epilogue.
template <class Tile, class Loop, class RowOffset, class T,
          class Places = typename Loop::Multiplier>
__device__ inline void store_part(const TiledWork& work, const TileIndex& index,
                                  typename Loop::Accumulators& acc, RowOffset offset, int first_col,
                                  int cols, Epilogue<T> epilogue, T* y, const Places& mine = {}) {
    if (index.splits == 1) {
        if (epilogue.add) epilogue.add += first_col;
        return store_tile<Loop>(acc, offset, first_col, cols, epilogue, y + first_col, mine);
    }
    const std::size_t tile = index.tile - work.whole;
    if (index.split == 0 && mine.col(0) == 0) {
        PartialRow* const rows = work.partial.rows + tile * Tile::kRows;
        const int count = min(Tile::kCols, cols - first_col);
#pragma unroll
        for (int i = 0; i < Loop::Multiplier::kRows; ++i) {
            if (mine.row(i) >= Tile::kRows) continue;
            const std::uint32_t row = offset(mine.row(i));
            rows[mine.row(i)] = {row + first_col, row == kNoRow ? 0 : count};
        }
    }
    const std::size_t before = std::size_t{index.split} * work.split_tiles.divisor + tile;
    Epilogue<float> none;
    none.vectorised = true;
    store_tile<Loop>(
        acc,
        [&](int row) {
            return offset(row) == kNoRow ? kNoRow : static_cast<std::uint32_t>(row) * Tile::kCols;
        },
        first_col, cols, none, work.partial.sums + before * (Tile::kRows * Tile::kCols), mine);
}

}  // namespace zfcuda::conv
