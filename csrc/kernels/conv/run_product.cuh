// From an operation to its kernels, the same way for every product: the list of tiles that its
// operands allow, the plan, the launch and, where the depth is split, the sum over the splits.
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

// y[i] = act(scale[i % cols] * sum over splits of partial[split][i] + bias[i % cols] + add[i]), in
// the order of the splits, for i below `size`. Defined in splits.cu, for float and BFloat16.
template <class T>
void add_splits(int splits, std::int64_t size, int cols, const float* partial,
                const Epilogue<T>& epilogue, T* y, Stream stream);

// Bytes for the partial sums of a product, wherever its arrays lie.
template <class Lists>
std::size_t product_workspace(Lists lists, const Product& product) {
    std::size_t bytes = 0;
    for_each_list(lists, [&](auto tiles) {
        const Plan plan = make_plan(tiles, product);
        if (plan.splits > 1) bytes = std::max(bytes, sizeof(float) * plan.splits * product.size);
    });
    return bytes;
}

// The launch of a product's kernel, but for its operands.
template <class T>
struct Launch {
    dim3 grid;
    int k_tiles_per_split;
    Epilogue<T> epilogue;
    T* y;  // of several splits, the workspace: float32
    Stream stream;
};

// Computes y = act(scale * product + bias + add), as `epilogue` has these. `vector_a`, `vector_b`:
// operand A, B can be copied 16 bytes at a time. Calls launch(tile, width_a, width_b, Launch<T>) with
// the widths of their copies in elements.
template <class Lists, class T, class LaunchKernel>
void run_product(Lists lists, const Product& product, bool vector_a, bool vector_b,
                 const Epilogue<T>& epilogue, T* y, void* workspace, Stream stream,
                 LaunchKernel launch) {
    with_list(lists, vector_a, vector_b, [&](auto tiles) {
        const Plan plan = make_plan(tiles, product);
        const bool whole_vectors = product.cols % 4 == 0;
        Epilogue<T> whole = epilogue, part;
        whole.vectorised = whole_vectors && aligned_for_vectors(y, epilogue.add);
        part.vectorised = whole_vectors;
        const bool split = plan.splits > 1;
        with_tile(tiles, plan.kernel, [&](auto tile) {
            const dim3 grid(static_cast<unsigned>(count_blocks<decltype(tile)>(product)),
                            plan.splits);
            launch(tile, tiles.kWidthA, tiles.kWidthB,
                   Launch<T>{grid, plan.k_tiles_per_split, split ? part : whole,
                             split ? static_cast<T*>(workspace) : y, stream});
        });
        if (split) {
            add_splits(plan.splits, product.size, product.pitch,
                       static_cast<const float*>(workspace), whole, y, stream);
        }
    });
}

}  // namespace zfcuda::conv
