// The gradient of a convolution's filters, as an implicit matrix product over the pixels:
//
//   dw[k][d] = sum over m of dy[m][k] * gather[m][d],    d = (r, s, c)
//
// The tiles of gemm.h run down K and across d, the depth is m. Work is cut into shares of panels of
// d and, where these are few (3 x 3 x 8 are 72 columns), into chunks of pixels too, which write
// partial results that are added in the order of the chunks: the cut depends on the shape alone, so
// the bits do not depend on the threads. A thread goes through its pixels in blocks: it packs dy
// for all K (read by every panel of the share), then panel by panel gathers x and multiplies. dw of
// the share stays in the second-level cache. Bounded by the multiply-adds.
#include <algorithm>

#include "../gemm.h"
#include "../parallel.h"
#include "gather.h"
#include "methods.h"

namespace zfcuda::conv {
namespace {

using namespace gemm;

// Sizes; but for the chunks, of one group of the convolution.
struct Plan {
    int filters, depth;
    int tiles;           // of the filters
    int panels, shares;  // of d, and how many take a share of them
    int chunks;          // of pixels

    Plan(const ConvShape& shape)
        : filters(shape.group_k()), depth(shape.r * shape.s * shape.group_c()) {
        const std::int64_t pixels = static_cast<std::int64_t>(shape.n) * shape.p() * shape.q();
        tiles = ceil_div(filters, kTileRows);
        panels = ceil_div(depth, kPanel);
        shares = ceil_div(panels, kWgradPanels);
        if (shares > 2) shares = ceil_div(shares, 4) * 4;
        shares = std::min(shares, panels);
        const std::int64_t tasks = static_cast<std::int64_t>(shares) * shape.groups;
        chunks = tasks >= kWgradTasks ? 1
                                      : std::clamp(ceil_div(pixels, 2 * kWgradPixels), 1,
                                                   ceil_div(kWgradTasks, static_cast<int>(tasks)));
    }

    std::int64_t size() const { return static_cast<std::int64_t>(filters) * depth; }

    std::int64_t dy_floats() const {
        return static_cast<std::int64_t>(tiles) * kTileRows * kWgradPixels;
    }
    std::int64_t thread_floats() const {
        return dy_floats() + kWgradPixels * kPanel + simd::kLanes;
    }
    std::int64_t partial_floats(const ConvShape& shape) const {
        return chunks > 1 ? chunks * shape.groups * size() : 0;
    }
};

// Tile by tile, pixel by pixel, kTileRows values of dy: k of each pixel, which lie `pitch` apart.
void pack_gradient(const float* dy, int k, int pitch, int tiles, int count, float* out) {
    for (int m = 0; m < count; ++m, dy += pitch)
        for (int tile = 0; tile < tiles; ++tile) {
            const int k0 = part_begin(k, tiles, tile), k1 = part_begin(k, tiles, tile + 1);
            simd::copy(out + (tile * kWgradPixels + m) * kTileRows, dy + k0, k1 - k0);
        }
}

// Adds the products of `count` pixels from m on for one panel of d.
void gather_and_multiply(const Plan& plan, const Gather& gather, int panel, std::int64_t m,
                         int count, const float* packed_dy, float* packed_x, float* dw,
                         const Epilogue& epilogue) {
    const int d0 = panel * kPanel, d1 = std::min(d0 + kPanel, plan.depth);
    gather.pack(m, count, d0, d1, packed_x, kPanel);
    for (int tile = 0; tile < plan.tiles; ++tile) {
        const int k0 = part_begin(plan.filters, plan.tiles, tile);
        const int k1 = part_begin(plan.filters, plan.tiles, tile + 1);
        multiply_tile(
            k1 - k0, {packed_dy + tile * (kTileRows * kWgradPixels), 1, packed_x, count, kTileRows},
            dw + static_cast<std::int64_t>(k0) * plan.depth + d0, plan.depth, d1 - d0, epilogue);
    }
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
    float* partials = plan.chunks > 1 ? call.workspace : call.out;
    float* scratch = call.workspace + plan.partial_floats(s);

#pragma omp parallel num_threads(threads())
    {
        float* packed_dy = scratch + thread_index() * plan.thread_floats();
        float* packed_x = packed_dy + plan.dy_floats();
#pragma omp for collapse(3) schedule(dynamic)
        for (int chunk = 0; chunk < plan.chunks; ++chunk)
            for (int group = 0; group < s.groups; ++group)
                for (int share = 0; share < plan.shares; ++share) {
                    const Gather gather = windows(s, call.images, call.x, group);
                    float* partial = partials + chunk * size + group * plan.size();
                    const std::int64_t end = part_begin(pixels, plan.chunks, chunk + 1);
                    std::int64_t m = part_begin(pixels, plan.chunks, chunk);
                    Epilogue epilogue;
                    epilogue.accumulate = call.accumulate;
                    // A chunk without pixels (fewer images than there is room for) adds a depth of
                    // zero.
                    do {
                        const int count =
                            static_cast<int>(std::min<std::int64_t>(kWgradPixels, end - m));
                        pack_gradient(call.y + m * s.k + group * plan.filters, plan.filters, s.k,
                                      plan.tiles, count, packed_dy);
                        for (int panel = part_begin(plan.panels, plan.shares, share);
                             panel < part_begin(plan.panels, plan.shares, share + 1); ++panel) {
                            gather_and_multiply(plan, gather, panel, m, count, packed_dy, packed_x,
                                                partial, epilogue);
                        }
                        epilogue.accumulate = true;
                        m += count;
                    } while (m < end);
                }
    }
}

void finish(const Call& call) {
    const ConvShape& s = call.shape;
    const Plan plan(s);
    if (plan.chunks == 1) return;
    const std::int64_t size = plan.size() * s.groups;
    const float* partials = call.workspace;
#pragma omp parallel for num_threads(threads())
    for (std::int64_t i = 0; i < size; ++i) {
        float sum = partials[i];
        for (int chunk = 1; chunk < plan.chunks; ++chunk)
            sum += partials[chunk * size + i];
        call.out[i] = sum;
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
