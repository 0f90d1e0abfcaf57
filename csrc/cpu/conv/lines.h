// Maps of images with few channels (1 or 3: a network's first layer), line by line: made by fprop,
// read by the gradients. So a pool can be fused, which needs a few lines at a time.
#pragma once

#include <cstdint>

#include "../blocking.h"
#include "../parallel.h"
#include "../simd.h"
#include "methods.h"

namespace zfcuda::conv {

// Whether windows are dense, neighbouring ones of a line lie one of gemm::kRowStrides floats apart, and fill half a
// tile: then a line at a time is faster.
bool has_near_windows(const ConvShape& shape);

// Multiply-adds for a pixel of y, in vectors, in which a weight gradient costs what it does by the
// products of windows, read in place or gathered. The windows are dense.
double windows_wgrad_cost(const ConvShape& shape);

// The same for a whole data gradient, by products with taps as columns or of windows.
double direct_dgrad_cost(const ConvShape& shape);

// A fprop that makes lines of one image's map, by the calling thread.
struct LineMaker {
    int (*step)(const ConvShape&);  // ranges begin, and but for the last end, at multiples of it
    std::int64_t (*packed_floats)(const ConvShape&);  // of filters, first in the workspace
    std::int64_t (*scratch_floats)(const ConvShape&, int lines);  // for at most so many at a time
    // Lines [p0, p1) of image n to `out` (p1 - p0, q, k), its pixels as far apart as those of the
    // call's, past the caches if `stream`.
    void (*make)(const Call&, int n, int p0, int p1, bool stream, float* out, float* scratch);
};

// A Method that makes whole maps with it, in strips; or, where the call has a pool, pooled maps: a
// ring keeps the lines that a window needs, and a few more, in the second-level cache.
std::int64_t lines_workspace(const LineMaker&, const ConvShape&, const PoolShape* pool);
void run_lines(const LineMaker&, const Call&);

template <const LineMaker& maker>
constexpr Method by_lines(const char* name, bool (*applies)(const ConvShape&),
                          void (*pack)(const Call&)) {
    return {name,
            Direction::kFprop,
            Fusion::kLines,
            applies,
            [](const ConvShape& s, const PoolShape* p) { return lines_workspace(maker, s, p); },
            pack,
            [](const Call& call) { run_lines(maker, call); },
            nullptr};
}

// body(image, strip, scratch of the thread) for all strips of all images, as tasks.
template <typename Body>
void for_strips(int images, int strips, float* scratch, std::int64_t thread_floats,
                const Body& body) {
    Tasks tasks(static_cast<std::int64_t>(images) * strips);
#pragma omp parallel num_threads(threads())
    {
        float* mine = scratch + thread_index() * thread_floats;
        tasks.run([&](std::int64_t task) {
            body(static_cast<int>(task / strips), static_cast<int>(task % strips), mine);
        });
        simd::stream_fence();
    }
}

// `count` lines (q, k) of a call's y from line p of image n: as they are stored, or unpooled into
// `buffer`.
const float* read_lines(const Call& call, int n, int p, int count, float* buffer);

}  // namespace zfcuda::conv
