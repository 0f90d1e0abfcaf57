// The implicit matrix product of 1 x 1 filters whose panels stay in the first-level cache
// (implicit_gemm.h): few multiply-adds for each float that is read or written, so that what comes
// next is fetched while a tile is computed.
#include <algorithm>

#include "../parallel.h"
#include "implicit_gemm.h"

namespace zfcuda::conv {

using namespace gemm;

bool reads_pixels(const Gather& gather, int columns, const RowPlacement& placement) {
    return gather.is_matrix() && reads_well_in_place(gather.pitch) &&
           panels_size(gather.depth(), columns) <= kPixelPanelFloats &&
           placement.line_stride == gather.grid_w * placement.pixel_stride &&
           placement.image_stride == gather.grid_h * placement.line_stride &&
           gather.rows() >= std::int64_t{kBlockRows} * threads();
}

void multiply_pixels(const Gather& gather, const float* panels, int columns, const Epilogue& whole,
                     const RowPlacement& placement) {
    const std::int64_t rows = gather.rows();
    const int depth = gather.depth(), team = threads();
    const int blocks = ceil_div(ceil_div(rows, kBlockRows), team) * team;
    const bool fetches_x = gather.pitch == depth && is_far(gather, columns);
    const bool fetches_out = rows * columns * 4 > kStreamBytes && columns <= kFetchedColumns &&
                             placement.pixel_stride == columns;
    // Halves of lines are not faster past the caches: 16 channels to 96 filters took 1.05 times as
    // long (Zen 5, AVX2).
    constexpr bool kWholeLines = simd::kLanes == kLineFloats;
    Epilogue epilogue = whole;
    epilogue.stream = kWholeLines && whole.stream && !fetches_out;

    Tasks tasks(blocks);
#pragma omp parallel num_threads(team)
    {
        tasks.run([&](std::int64_t task) {
            const int block = static_cast<int>(task);
            const std::int64_t begin = part_begin(rows, blocks, block);
            const int count = static_cast<int>(part_begin(rows, blocks, block + 1) - begin);
            const int tiles = ceil_div(count, kTileRows);
            for (int tile = 0; tile < tiles; ++tile) {
                const std::int64_t m = begin + part_begin(count, tiles, tile);
                const std::int64_t next = begin + part_begin(count, tiles, tile + 1);
                const std::int64_t after = std::min(rows, next + kTileRows);
                const float* x = gather.x + m * gather.pitch;
                float* out = placement.out + m * placement.pixel_stride;
                if (fetches_x)
                    for (std::int64_t i = next * depth; i < after * depth; i += kLineFloats)
                        __builtin_prefetch(gather.x + i, 0, 3);
                if (fetches_out)
                    for (std::int64_t i = next * columns; i < after * columns; i += kLineFloats)
                        __builtin_prefetch(placement.out + i, 1, 3);
                for (int column = 0; column < columns; column += kPanel)
                    multiply_tile(static_cast<int>(next - m),
                                  {x, gather.pitch, panels + std::int64_t{depth} * column, depth},
                                  out + column, placement.pixel_stride, columns - column,
                                  epilogue.from(column));
            }
        });
        if (epilogue.stream) simd::stream_fence();
    }
}

}  // namespace zfcuda::conv
