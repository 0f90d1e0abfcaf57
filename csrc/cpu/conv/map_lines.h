// The lines of a feature map (n, p, q, k), read from memory or unpooled while they are read.
#pragma once

#include <cstdint>

#include "../../shapes.h"

namespace zfcuda {

struct MapLines {
    const float* values;  // the map, or the pooled map
    int height;
    std::int64_t line_size;           // q * k
    const PoolShape* pool = nullptr;  // unpooled if not null
    const std::uint8_t* switches = nullptr;
    bool rectify = false;  // then the unpooled map's ReLU

    // `count` lines from line p of image n; `buffer` has room for them.
    const float* read(int n, int p, int count, float* buffer) const;
};

}  // namespace zfcuda
