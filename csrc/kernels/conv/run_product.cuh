// From an operation to its kernels, the same way for every product: the list of tiles that its
// operands allow, the plan, the launch and, where tiles are split, the sum over the splits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "epilogue.cuh"
#include "kernels/vector.cuh"
#include "plan.h"

namespace zfcuda::conv {

// Whether arrays whose rows have this many elements may be copied 16 bytes at a time.
template <class... T>
bool is_vectorisable(int elements, const T*... arrays) {
    return ((elements % kVectorWidth<T> == 0 && aligned_for_vectors<kVectorWidth<T>>(arrays)) &&
            ...);
}

// Partial sums that lie as the result does: where that of value i belongs.
struct AsResult {
    __device__ std::uint32_t place(std::uint32_t i) const { return i; }
};

// Those of tiles, which have `tile_cols` columns: where value i belongs, or kNoRow.
struct AsTiles {
    const PartialRow* rows;
    FastDivisor tile_cols;

    __device__ std::uint32_t place(std::uint32_t i) const {
        const int row = static_cast<int>(i) / tile_cols;
        const int col = static_cast<int>(i) - row * tile_cols.divisor;
        const PartialRow there = rows[row];
        return col < there.cols ? there.first + col : kNoRow;
    }
};

// y[at] = act(scale[at % pitch] * sum over splits of partial[split][i] + bias[at % pitch] + add[at]),
// in the order of the splits, for at = places.place(i) and i below `size`. Defined in splits.cu, for
// float and BFloat16.
template <class Places, class T>
void add_splits(const Places& places, int splits, std::int64_t size, int pitch,
                const float* partial, const Epilogue<T>& epilogue, T* y, Stream stream);

inline std::size_t split_rows(const Plan& plan) {
    return static_cast<std::size_t>(plan.split_tiles()) * plan.kernel.rows;
}

// Bytes for the partial sums of a product, wherever its arrays lie.
template <class Lists>
std::size_t product_workspace(Lists lists, const Product& product) {
    std::size_t bytes = 0;
    for_each_list(lists, [&](auto tiles) {
        const Plan plan = make_plan(tiles, product);
        bytes =
            std::max(bytes, PartialSums::bytes(split_rows(plan), plan.kernel.cols, plan.splits));
    });
    return bytes;
}

// The launch of a product's kernel, but for its operands.
template <class T>
struct Launch {
    TiledWork work;
    Epilogue<T> epilogue;
    T* y;
    Stream stream;
};

// Computes y = act(scale * product + bias + add), as `epilogue` has these; the rows of y and `add`
// lie `y_pitch` elements apart. `vector_a`, `vector_b`: operand A, B can be copied 16 bytes at a
// time. Calls launch(tile, width_a, width_b, Launch<T>) with the widths of their copies in elements.
template <class Lists, class T, class LaunchKernel>
void run_product(Lists lists, const Product& product, bool vector_a, bool vector_b,
                 Epilogue<T> epilogue, T* y, int y_pitch, void* workspace, Stream stream,
                 LaunchKernel launch) {
    epilogue.vectorised =
        product.cols % 4 == 0 && y_pitch % 4 == 0 && aligned_for_vectors(y, epilogue.add);
    epilogue.pitch = y_pitch;
    with_list(lists, vector_a, vector_b, [&](auto tiles) {
        const Plan plan = make_plan(tiles, product);
        const PartialSums partial(workspace, split_rows(plan));
        const TiledWork work(plan.tiles, plan.whole, plan.splits, plan.k_tiles_per_split, partial);
        with_tile(tiles, plan.kernel, [&](auto tile) {
            launch(tile, tiles.kWidthA, tiles.kWidthB, Launch<T>{work, epilogue, y, stream});
        });
        if (plan.split_tiles() > 0) {
            const AsTiles places{partial.rows, FastDivisor(plan.kernel.cols)};
            add_splits(places, plan.splits, split_rows(plan) * plan.kernel.cols, y_pitch,
                       partial.sums, epilogue, y, stream);
        }
    });
}

}  // namespace zfcuda::conv
