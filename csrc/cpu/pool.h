// Max pooling and unpooling of some rows: those of a whole map, or of a tile.
// And what both share.
#pragma once

#include <cstdint>

#include "../shapes.h"
#include "streams.h"

namespace zfcuda {

// One row (q, c) of y and switches from the rows first_row <= r < end_row of the window that lie in
// x; rows[r] is a row (w, c). Past the caches if `stream`, for which y must be aligned to a vector
// and c a multiple of it. Meanwhile fetches `next_floats` from `next` on, the rows that come after.
void max_pool_row(const PoolShape& shape, const float* const* rows, int first_row, int end_row,
                  float* y, std::uint8_t* switches, bool stream, const float* next = nullptr,
                  std::int64_t next_floats = 0);

// Rows begin <= h < end of x (w, c), one image, from the windows that meet them: y and switches are
// (p, q, c), and x begins with row `begin`. Past the caches if `stream`, as above.
void max_unpool_rows(const PoolShape& shape, int begin, int end, const float* y,
                     const std::uint8_t* switches, float* x, bool stream);

namespace pool {

constexpr int kMaxCells = 256;  // of a window, by PoolShape::check

}  // namespace pool

}  // namespace zfcuda
