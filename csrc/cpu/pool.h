// Max pooling and unpooling, one row at a time: the rows may be those of a whole map or of a tile.
#pragma once

#include "../shapes.h"

namespace zfcuda {

// One row (q, c) of y and switches from the rows first_row <= r < end_row of the window that lie in
// x; rows[r] is a row (w, c). Past the caches if `stream`, for which y must be aligned to a vector
// and c a multiple of it. Meanwhile fetches `next_floats` from `next` on, the rows that come after.
void max_pool_row(const PoolShape& shape, const float* const* rows, int first_row, int end_row,
                  float* y, std::uint8_t* switches, bool stream, const float* next = nullptr,
                  std::int64_t next_floats = 0);

// Row h of x (w, c), gathered from the windows of one image that cover it: y and switches are
// (p, q, c).
void max_unpool_row(const PoolShape& shape, int h, const float* y, const std::uint8_t* switches,
                    float* x, bool stream);

}  // namespace zfcuda
