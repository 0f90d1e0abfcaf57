// Maps line by line (lines.h). What is unpooled while it is read is bounded by the pooled map and
// its switches.
#include "lines.h"

#include <algorithm>

#include "../gemm.h"
#include "../pool.h"
#include "../streams.h"

namespace zfcuda::conv {
namespace {

std::int64_t line_floats(const ConvShape& s) {
    return static_cast<std::int64_t>(s.q()) * s.k;
}

// Floats of scratch for a strip, which has no more lines than the map: of huge strides even one line
// more would take gigabytes.
std::int64_t strip_floats(const LineMaker& maker, const ConvShape& s) {
    return maker.scratch_floats(s, std::min(kStripLines, s.p()));
}

// Lines of the map that a pool reads, made `step` at a time, at multiples of it, which never wrap
// around the ring.
struct Ring {
    int step, lines, strips;
    std::int64_t floats, scratch_floats;

    Ring(const LineMaker& maker, const ConvShape& s, const PoolShape& pool) {
        step = round_up(std::max(kRingLines, pool.stride_h), maker.step(s));
        step = std::min(step, s.p());
        lines = (ceil_div(pool.window_h, step) + 1) * step;
        strips = std::clamp(ceil_div(kStripTasks, s.n), 1, ceil_div(pool.p(), kMinPooledLines));
        floats = odd_lines(lines * line_floats(s));
        scratch_floats = maker.scratch_floats(s, step);
    }
};

// Rows [p0, p1) of one pooled image.
void pool_lines(const LineMaker& maker, const Call& call, const Ring& ring, int n, int p0, int p1,
                float* lines) {
    const ConvShape& s = call.shape;
    const PoolShape& pool = *call.pool;
    const std::int64_t row_floats = static_cast<std::int64_t>(pool.q()) * pool.c;
    int next = std::max(0, p0 * pool.stride_h - pool.pad_top) / ring.step * ring.step;
    for (int p = p0; p < p1; ++p) {
        const int corner = p * pool.stride_h - pool.pad_top;
        const int first = std::max(0, -corner), end = std::min(pool.window_h, pool.h - corner);
        for (; next < corner + end; next += ring.step)
            maker.make(call, n, next, std::min(next + ring.step, s.p()), false,
                       lines + next % ring.lines * line_floats(s), lines + ring.floats);
        const float* rows[256];
        for (int r = first; r < end; ++r)
            rows[r] = lines + (corner + r) % ring.lines * line_floats(s);
        const std::int64_t at = (static_cast<std::int64_t>(n) * pool.p() + p) * row_floats;
        max_pool_row(pool, rows, first, end, call.out + at, call.out_switches + at, false);
    }
}

}  // namespace

bool has_near_windows(const ConvShape& s) {
    return s.is_dense() && s.c <= 4 && gemm::is_row_stride(s.stride_w * s.c) &&
           s.q() >= gemm::kTileRows / 2;
}

std::int64_t lines_workspace(const LineMaker& maker, const ConvShape& s, const PoolShape* pool) {
    std::int64_t thread_floats = strip_floats(maker, s);
    if (pool) {
        const Ring ring(maker, s, *pool);
        thread_floats = ring.floats + ring.scratch_floats;
    }
    return maker.packed_floats(s) + thread_floats * max_threads();
}

void run_lines(const LineMaker& maker, const Call& call) {
    const ConvShape& s = call.shape;
    float* scratch = call.workspace + maker.packed_floats(s);
    if (call.pool) {
        const Ring ring(maker, s, *call.pool);
        const int rows = call.pool->p();
        return for_strips(call.images, ring.strips, scratch, ring.floats + ring.scratch_floats,
                          [&](int n, int strip, float* mine) {
                              pool_lines(maker, call, ring, n, part_begin(rows, ring.strips, strip),
                                         part_begin(rows, ring.strips, strip + 1), mine);
                          });
    }
    const int p = s.p(), step = maker.step(s), steps = ceil_div(p, step);
    const int strips = ceil_div(steps, kStripLines / step);
    const std::int64_t out_line = static_cast<std::int64_t>(s.q()) * call.out_pitch;
    const bool stream = streams(call.images * p * line_floats(s), s.k, call.out) &&
                        call.out_pitch % simd::kLanes == 0;
    for_strips(call.images, strips, scratch, strip_floats(maker, s),
               [&](int n, int strip, float* mine) {
                   const int p0 = part_begin(steps, strips, strip) * step;
                   const int p1 = std::min<int>(part_begin(steps, strips, strip + 1) * step, p);
                   maker.make(call, n, p0, p1, stream,
                              call.out + (static_cast<std::int64_t>(n) * p + p0) * out_line, mine);
               });
}

const float* read_lines(const Call& call, int n, int p, int count, float* buffer) {
    const ConvShape& s = call.shape;
    if (!call.pool) return call.y + (static_cast<std::int64_t>(n) * s.p() + p) * line_floats(s);
    const PoolShape& pool = *call.pool;
    const std::int64_t image = static_cast<std::int64_t>(n) * pool.p() * pool.q() * pool.c;
    const std::int64_t floats = count * line_floats(s);
    max_unpool_rows(pool, p, p + count, call.y + image, call.switches + image, buffer, false);
    if (call.rectify)
        for (std::int64_t i = 0; i < floats; ++i)
            buffer[i] = buffer[i] < 0.0f ? 0.0f : buffer[i];
    return buffer;
}

}  // namespace zfcuda::conv
