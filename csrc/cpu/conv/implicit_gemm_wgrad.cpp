// The gradient of a convolution's filters, as an implicit matrix product over the pixels:
//
//   dw[k][d] = sum over m of dy[m][k] * gather[m][d],    d = (r, s, c)
//
// The tiles of gemm.h run down K and across d, the depth is m. Work is cut into shares of panels of
// d and, where these are few (3 x 3 x 8 are 72 columns), into chunks of pixels too, which write
// partial results that are added in the order of the chunks: the cut depends on the shape alone, so
// the bits do not depend on the threads. A thread goes through its pixels in blocks: it gathers x
// for all d of the share, pixel by pixel as they lie in memory, or leaves it there if it is a matrix
// (few 1 x 1 filters), and multiplies panel by panel. dy is read in place: copying it costs more
// than the lines that it shares with other tiles. dw of the share stays in the second-level cache.
// Where many taps see many windows' padding only, a share has columns of one tap, and the lines of
// those pixels whose windows see it. Bounded by the multiply-adds.
#include <algorithm>
#include <limits>

#include "../gemm.h"
#include "../parallel.h"
#include "gather.h"
#include "methods.h"
#include "regions.h"

namespace zfcuda::conv {
namespace {

using namespace gemm;

// Whether pixels of x are read where they are. They are read once for each tile of filters: for a few
// tiles x stays there, if the products, which read whole vectors, do not end behind it.
bool reads_in_place(const Gather& gather, int filters) {
    return gather.is_matrix() && filters <= kWgradFewFilters && gather.c % simd::kLanes == 0;
}

// Whether x and dy do not stay in the last-level cache.
bool is_far(const ConvShape& s) {
    const std::int64_t x = std::int64_t{s.n} * s.h * s.w * s.c;
    return (x + std::int64_t{s.n} * s.p() * s.q() * s.k) * 4 > kFarBytes;
}

// Pixels that a region's products take the time of: in blocks of lines, which end with each image.
double cost(const Region& region) {
    constexpr double kBlock = 6;
    const int width = region.j.size();
    if (width > kWgradPixels) return std::numeric_limits<double>::infinity();
    if (region.size() == 0) return 0;
    return region.size() + kBlock * ceil_div(region.i.size(), kWgradPixels / width);
}

// The windows whose products the taps [tap0, tap1) need, or all where that is nearly as fast.
Region needed_windows(const Gather& gather, int tap0, int tap1) {
    constexpr double kLess = 0.97;
    const Region all{{0, gather.grid_h}, {0, gather.grid_w}};
    const Region region = windows_that_see(gather, tap0, tap1);
    return cost(region) < kLess * all.size() ? region : all;
}

// Whether shares of one tap need far fewer products than those of all windows.
bool sees_few_windows(const ConvShape& shape) {
    constexpr double kLess = 0.95;
    const Gather gather = windows(shape, shape.n, nullptr, 0);
    const int taps = shape.r * shape.s;
    const double all = static_cast<double>(shape.p()) * shape.q();
    double seen = 0;
    for (int tap = 0; tap < taps; ++tap)
        seen += std::min(all, cost(needed_windows(gather, tap, tap + 1)));
    return seen < kLess * taps * all;
}

// Sizes; but for the chunks, of one group of the convolution.
struct Plan {
    int filters, depth;
    int panels, shares;  // of d, and how many take a share of them
    int chunks;          // of pixels
    int parts;           // of filters

    Plan(const ConvShape& shape)
        : filters(shape.group_k()), depth(shape.r * shape.s * shape.group_c()) {
        const std::int64_t pixels = static_cast<std::int64_t>(shape.n) * shape.p() * shape.q();
        panels = ceil_div(depth, kPanel);
        shares = ceil_div(panels, kWgradPanels);
        // Parts of pixels that are read in place come slower from memory than whole ones.
        if (is_far(shape) && depth <= kWgradRow &&
            reads_in_place(windows(shape, shape.n, nullptr, 0), filters))
            shares = 1;
        if (shares > 2) shares = ceil_div(shares, 4) * 4;
        shares = std::min(shares, panels);
        if (shape.group_c() % kPanel == 0 && sees_few_windows(shape))
            shares = shape.r * shape.s * ceil_div(shape.group_c() / kPanel, kWgradPanels);
        const std::int64_t tasks = static_cast<std::int64_t>(shares) * shape.groups;
        chunks = tasks >= kWgradTasks ? 1
                                      : std::clamp(ceil_div(pixels, 2 * kWgradPixels), 1,
                                                   ceil_div(kWgradTasks, static_cast<int>(tasks)));
        // Of few pixels, filters are cut too; but each part gathers the windows again.
        parts = std::clamp(ceil_div(filters, kWgradFewFilters), 1,
                           ceil_div(kLeastWgradTasks, static_cast<int>(tasks) * chunks));
    }

    std::int64_t size() const { return static_cast<std::int64_t>(filters) * depth; }

    // Of a pixel in the gathered x.
    int x_distance() const {
        return static_cast<int>(
            odd_lines(static_cast<std::int64_t>(ceil_div(panels, shares)) * kPanel));
    }

    std::int64_t thread_floats() const {
        return static_cast<std::int64_t>(kWgradPixels) * x_distance() + simd::kLanes;
    }
    std::int64_t partial_floats(const ConvShape& shape) const {
        return chunks > 1 ? chunks * shape.groups * size() : 0;
    }
};

// Pixels from one on, how far each lies behind the one before, and how many of those that come next
// are fetched. Lines of them may lie apart.
struct Pixels {
    const float* first;
    int distance, next;
    int lines = 1;
    std::int64_t line_distance = 0;
};

// Adds the products of `count` pixels to columns [d0, d1) of dw: `dy` with its `filters`, `x` with these
// columns. Meanwhile fetches the pixels that come next.
void multiply(const Plan& plan, int filters, int d0, int d1, int count, const Pixels& dy,
              const Pixels& x, float* dw, const Epilogue& epilogue) {
    FetchRows fetch;
    fetch.add(dy.first + std::int64_t{count} * dy.distance, dy.next, dy.distance, filters);
    fetch.add(x.first + std::int64_t{count} * x.distance, x.next, x.distance, d1 - d0);
    fetch.spread(std::int64_t{ceil_div(d1 - d0, kPanel)} * ceil_div(filters, kTileRows) * count);
    for (int d = d0; d < d1; d += kPanel) {
        Operands operands{dy.first, 1, x.first + d - d0, count / dy.lines, dy.distance};
        operands.runs = dy.lines;
        operands.run_distance = dy.line_distance;
        operands.b_stride = x.distance;
        operands.fetch = &fetch;
        gemm::multiply(filters, operands, dw + d, plan.depth, d1 - d, epilogue);
    }
}

// Columns [d0, d1) of `count` pixels from m on.
Pixels read(const Gather& gather, std::int64_t m, int count, int next, int d0, int d1,
            const Plan& plan, float* scratch) {
    if (reads_in_place(gather, plan.filters))
        return {gather.x + m * gather.pitch + d0, gather.pitch, next};
    gather.pack(m, count, d0, d1, scratch, plan.x_distance());
    return {scratch, plan.x_distance(), 0};
}

std::int64_t workspace(const ConvShape& s, const PoolShape*) {
    const Plan plan(s);
    return plan.partial_floats(s) + plan.thread_floats() * max_threads();
}

void run(const Call& call) {
    const ConvShape& s = call.shape;
    const Plan plan(s);
    const std::int64_t size = plan.size() * s.groups;  // of dw
    const std::int64_t pixels = static_cast<std::int64_t>(call.images) * s.p() * s.q();
    const bool far = is_far(s);
    float* partials = plan.chunks > 1 ? call.workspace : call.out;
    float* scratch = call.workspace + plan.partial_floats(s);

    Tasks tasks(static_cast<std::int64_t>(plan.chunks) * plan.parts * s.groups * plan.shares);
#pragma omp parallel num_threads(threads())
    {
        float* mine = scratch + thread_index() * plan.thread_floats();
        tasks.run([&](std::int64_t task) {
            const int share = static_cast<int>(task % plan.shares);
            const int group = static_cast<int>(task / plan.shares % s.groups);
            const int part = static_cast<int>(task / plan.shares / s.groups % plan.parts);
            const int chunk = static_cast<int>(task / plan.shares / s.groups / plan.parts);
            const int k0 = part_begin(plan.filters, plan.parts, part);
            const int filters = part_begin(plan.filters, plan.parts, part + 1) - k0;
            const float* all_dy = call.y + group * plan.filters + k0;
            const Gather gather = windows(s, call.images, call.x, group);
            const int d0 = kPanel * part_begin(plan.panels, plan.shares, share);
            const int d1 =
                std::min<int>(kPanel * part_begin(plan.panels, plan.shares, share + 1), plan.depth);
            float* partial =
                partials + chunk * size + group * plan.size() + std::int64_t{k0} * plan.depth;
            Epilogue epilogue;
            epilogue.accumulate = call.accumulate;
            const auto add = [&](const Pixels& dy, const Pixels& x, int count) {
                multiply(plan, filters, d0, d1, count, dy, x, partial, epilogue);
                epilogue.accumulate = true;
            };
            const Region region = needed_windows(gather, d0 / gather.c, ceil_div(d1, gather.c));
            const int width = region.j.size(), height = region.i.size();
            // A chunk without pixels (fewer images than there is room for, or no window that sees
            // its taps) adds a depth of zero.
            if (region.size() == 0) return add({call.y, s.k, 0}, {mine, plan.x_distance(), 0}, 0);
            if (region.size() == std::int64_t{s.p()} * s.q()) {
                const std::int64_t end = part_begin(pixels, plan.chunks, chunk + 1);
                std::int64_t m = part_begin(pixels, plan.chunks, chunk);
                do {
                    const int count =
                        static_cast<int>(std::min<std::int64_t>(kWgradPixels, end - m));
                    const int next = static_cast<int>(
                        far ? std::min<std::int64_t>(kWgradPixels, end - m - count) : 0);
                    add({all_dy + m * s.k, s.k, next},
                        read(gather, m, count, next, d0, d1, plan, mine), count);
                    m += count;
                } while (m < end);
                return;
            }
            const Gather seen = part_of(gather, region);
            const std::int64_t lines = std::int64_t{call.images} * height;
            const std::int64_t end = part_begin(lines, plan.chunks, chunk + 1);
            std::int64_t line = part_begin(lines, plan.chunks, chunk);
            do {
                const int i = static_cast<int>(line % height);
                const int block = static_cast<int>(std::min<std::int64_t>(
                    {end - line, std::int64_t{height} - i, kWgradPixels / width}));
                const std::int64_t first =
                    (line / height * s.p() + region.i.begin + i) * s.q() + region.j.begin;
                seen.pack(line * width, block * width, d0, d1, mine, plan.x_distance());
                add({all_dy + first * s.k, s.k, 0, std::max(1, block), std::int64_t{s.q()} * s.k},
                    {mine, plan.x_distance(), 0}, block * width);
                line += block;
            } while (line < end);
        });
    }
}

void finish(const Call& call) {
    const ConvShape& s = call.shape;
    const Plan plan(s);
    if (plan.chunks == 1) return;
    const std::int64_t size = plan.size() * s.groups;
    const float* partials = call.workspace;
#pragma omp parallel for num_threads(threads()) if (worth_threads(plan.chunks * size))
    for (std::int64_t i = 0; i < size; i += simd::kLanes) {
        const int count = static_cast<int>(std::min<std::int64_t>(simd::kLanes, size - i));
        simd::Vec sum = simd::load_up_to(partials + i, count);
        for (int chunk = 1; chunk < plan.chunks; ++chunk)
            sum += simd::load_up_to(partials + chunk * size + i, count);
        simd::store_up_to(call.out + i, sum, count);
    }
}

}  // namespace

const Method implicit_gemm_wgrad{"implicit gemm",
                                 Direction::kWgrad,
                                 Fusion::kImages,
                                 [](const ConvShape&) { return true; },
                                 workspace,
                                 nullptr,
                                 run,
                                 finish};

}  // namespace zfcuda::conv
