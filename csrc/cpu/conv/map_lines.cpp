// Lines of a map, stored or unpooled (map_lines.h): bounded by reading the pooled map and its
// switches.
#include "map_lines.h"

#include "../pool.h"
#include "../simd.h"

namespace zfcuda {

const float* MapLines::read(int n, int p, int count, float* buffer) const {
    if (!pool) return values + (static_cast<std::int64_t>(n) * height + p) * line_size;
    const std::int64_t image = static_cast<std::int64_t>(n) * pool->p() * pool->q() * pool->c;
    for (int i = 0; i < count; ++i)
        max_unpool_row(*pool, p + i, values + image, switches + image, buffer + i * line_size,
                       false);
    if (rectify)
        for (std::int64_t i = 0; i < count * line_size; ++i)
            buffer[i] = buffer[i] < 0.0f ? 0.0f : buffer[i];
    return buffer;
}

}  // namespace zfcuda
