// The full-size map of a block in its workspace, where an operation on a block is composed of two.
#pragma once

#include <cstddef>

#include "ops.h"
#include "shapes.h"

namespace zfcuda::conv {

// Bytes of the convolution's output, rounded up so that what follows is aligned.
template <class T>
std::size_t map_bytes(const ConvShape& shape) {
    const std::size_t bytes = sizeof(T) * shape.n * shape.p() * shape.q() * shape.k;
    return (bytes + 255) / 256 * 256;
}

// The workspace of the convolution, behind the map.
template <class T>
void* after_map(const ConvShape& shape, void* workspace) {
    return static_cast<char*>(workspace) + map_bytes<T>(shape);
}

// map = relu(max_unpool2d(y, switches)). Defined in ../pool.cu.
template <class T>
void unpool_rectified(const PoolShape& pool, const T* y, const std::uint8_t* switches, T* map,
                      Stream stream);

}  // namespace zfcuda::conv
