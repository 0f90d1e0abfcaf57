// The full-size map of a block in its workspace, where an operation on a block is composed of two.
#pragma once

#include <cstddef>

#include "shapes.h"

namespace zfcuda::conv {

// Bytes of the convolution's output, rounded up so that what follows is aligned.
inline std::size_t map_bytes(const ConvShape& shape) {
    const std::size_t bytes = sizeof(float) * shape.n * shape.p() * shape.q() * shape.k;
    return (bytes + 255) / 256 * 256;
}

// The workspace of the convolution, behind the map.
inline void* after_map(const ConvShape& shape, void* workspace) {
    return static_cast<char*>(workspace) + map_bytes(shape);
}

}  // namespace zfcuda::conv
