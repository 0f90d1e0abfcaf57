// The implicit matrix product with windows that are read in place (implicit_gemm.h).
#include <algorithm>

#include "../parallel.h"
#include "../simd.h"
#include "implicit_gemm.h"

namespace zfcuda::conv {
namespace {

using namespace gemm;

// Floats of a line with its padding: what the windows of one line of the result see.
std::int64_t line_floats(const Gather& gather) {
    return (std::int64_t{gather.grid_w - 1} * gather.step_w + gather.taps_w) * gather.c;
}

// Lines of x that `lines` lines of the result read.
int input_lines(const Gather& gather, int lines) {
    return (lines - 1) * gather.step_h + (gather.taps_h - 1) * gather.tap_step_h + 1;
}

std::int64_t strip_floats(const Gather& gather, int lines) {
    return input_lines(gather, lines) * line_floats(gather) + simd::kLanes;
}

// The lines of image n that the lines [i0, i1) of the result read, with padding.
void pad_lines(const Gather& gather, std::int64_t n, int i0, int i1, float* out) {
    const int size = static_cast<int>(line_floats(gather)), c = gather.c, width = size / c;
    const int margin = std::clamp(gather.pad_left, 0, width);
    const int skipped = margin - gather.pad_left;  // pixels of x before the first window
    const int inside = std::clamp(gather.w - skipped, 0, width - margin);
    const int first = i0 * gather.step_h - gather.pad_top;
    for (int i = 0; i < input_lines(gather, i1 - i0); ++i, out += size) {
        const int h = first + i;
        if (h < 0 || h >= gather.h || inside == 0) {
            simd::clear(out, size);
            continue;
        }
        const float* from = gather.x + ((n * gather.h + h) * gather.w + skipped) * gather.pitch;
        float* to = out + margin * c;
        simd::clear(out, margin * c);
        if (gather.pitch == c)
            simd::copy_spilling(to, from, inside * c);
        else
            for (int j = 0; j < inside; ++j)
                simd::copy_spilling(to + j * c, from + static_cast<std::int64_t>(j) * gather.pitch,
                                    c);
        simd::clear_spilling(to + inside * c, size - (margin + inside) * c);
    }
}

// Fetches what `lines` lines of the result from i1 on of image n read and those before do not, of the
// next image where this one has no more, while `steps` are made.
FetchRows fetch_lines(const Gather& gather, std::int64_t n, int i1, int lines, std::int64_t steps) {
    const int begin = std::clamp(input_lines(gather, i1) - gather.pad_top, 0, gather.h);
    const std::int64_t first = n * gather.h + begin;
    const std::int64_t count = std::min<std::int64_t>(std::int64_t{lines} * gather.step_h,
                                                      std::int64_t{gather.n} * gather.h - first);
    const float* from = gather.x + first * gather.w * gather.pitch;
    FetchRows next;
    if (gather.pitch == gather.c)
        next.add(from, 1, 0, count * gather.w * gather.c);
    else
        next.add(from, static_cast<int>(count * gather.w), gather.pitch, gather.c);
    next.spread(steps);
    return next;
}

}  // namespace

bool reads_lines(const Gather& gather, int columns) {
    return gather.taps_h * gather.taps_w > 1 && gather.tap_step_w == 1 &&
           gather.grid_w >= kTileRows / 2 && ceil_div(columns, kPanel) <= kLinesPanels &&
           gather.depth() <= kLinesDepth && strip_floats(gather, 1) <= kBlockScratch;
}

void multiply_lines(const Gather& gather, const float* panels, int columns, const Epilogue& whole,
                    const RowPlacement& placement, int team, float* scratch) {
    const std::int64_t size = line_floats(gather);
    int lines = std::clamp(static_cast<int>(std::int64_t{gather.n} * gather.grid_h / (4 * team)), 1,
                           std::min(kStripLines, gather.grid_h));
    while (strip_floats(gather, lines) > kBlockScratch)
        --lines;
    const int strips = ceil_div(gather.grid_h, lines);
    // Where a line of the result needs several of x that do not stay in the threads' own caches.
    const bool fetches =
        gather.step_h > 1 &&
        std::int64_t{gather.n} * gather.h * gather.w * gather.pitch * 4 > kSecondCacheBytes * team;
    const std::int64_t line_steps = std::int64_t{ceil_div(columns, kPanel)} *
                                    ceil_div(gather.grid_w, kTileRows) * gather.depth();

    Tasks tasks(std::int64_t{gather.n} * strips);
#pragma omp parallel num_threads(team)
    {
        float* mine = scratch + thread_index() * kBlockScratch;
        tasks.run([&](std::int64_t task) {
            const std::int64_t n = task / strips;
            const int strip = static_cast<int>(task % strips);
            const int i0 = part_begin(gather.grid_h, strips, strip);
            const int i1 = part_begin(gather.grid_h, strips, strip + 1);
            pad_lines(gather, n, i0, i1, mine);
            FetchRows next;
            if (fetches) next = fetch_lines(gather, n, i1, i1 - i0, line_steps * (i1 - i0));
            for (int column = 0; column < columns; column += kPanel)
                for (int i = i0; i < i1; ++i) {
                    Operands operands{};
                    operands.row_stride = gather.step_w * gather.c;
                    operands.a = mine + (i - i0) * gather.step_h * size;
                    operands.runs = gather.taps_h;
                    operands.run_distance = gather.tap_step_h * size;
                    operands.depth = gather.taps_w * gather.c;
                    operands.fetch = fetches ? &next : nullptr;
                    operands.b = panels + std::int64_t{gather.depth()} * column;
                    float* first =
                        placement.out + n * placement.image_stride + i * placement.line_stride;
                    gemm::multiply(gather.grid_w, operands, first + column, placement.pixel_stride,
                                   columns - column, whole.from(column));
                }
        });
        if (whole.stream) simd::stream_fence();
    }
}

}  // namespace zfcuda::conv
