// The transposed convolution to images with few channels, which would fill a fraction of a vector, or
// with many more pixels than the map has, most of whose windows would reach beyond it. Here the
// columns are all R * S * C taps:
//
//   taps[q][r, s, c] = sum over k of y[p][q][k] * w[k][r][s][c]
//
// for one line p of the map at a time, in the second-level cache, and a line of the image adds up
// the taps of the windows that cover it. The windows of ceil(S / stride) neighbours overlap, so
// that many lines take turns at receiving them, without reading them back, and are added at the
// end.
#include <algorithm>

#include "../gemm.h"
#include "../simd.h"
#include "implicit_gemm.h"
#include "lines.h"

namespace zfcuda::conv {
namespace {

using namespace gemm;

// Sizes. A task makes the lines of one image that begin in a strip of the map; the products of the
// last `ring` lines of the map are kept, since as many cover one line of the image.
struct Plan {
    int columns, ring, turns, strips;
    std::int64_t product_stride, product_floats;  // between pixels, between lines of the map
    std::int64_t line_floats, map_floats;
    std::int64_t panel_floats;

    explicit Plan(const ConvShape& s) {
        columns = s.r * s.s * s.c;
        ring = ceil_div(s.r, s.stride_h);
        turns = ceil_div(s.s, s.stride_w);
        strips = std::clamp(ceil_div(kStripTasks, s.n), 1, std::max(1, s.p() / kMinStripLines));
        product_stride = odd_lines(columns + simd::kLanes);
        product_floats = odd_lines(product_stride * s.q());
        line_floats = odd_lines(static_cast<std::int64_t>(turns) * turn_floats(s));
        map_floats = odd_lines(static_cast<std::int64_t>(s.q()) * s.k);
        panel_floats = panels_size(s.k, columns);
    }

    // One padded line of the image, and the spill of its last window.
    static std::int64_t turn_floats(const ConvShape& s) {
        const int width = std::max((s.q() - 1) * s.stride_w + s.s, s.w + s.pad_left);
        return static_cast<std::int64_t>(width) * s.c + simd::kLanes;
    }
    std::int64_t thread_floats() const {
        return odd_lines(kBlockScratch) + ring * product_floats + line_floats + map_floats;
    }
};

// The products of one line of the map (q, k) with all taps.
void multiply_line(const ConvShape& s, const Plan& plan, const float* map_line, const float* panels,
                   float* products, float* scratch) {
    const Gather gather{map_line, 1, 1, s.q(), s.k, 1, s.q(), 1, 1, 1, 1, 0, 0};
    const int panel_count = ceil_div(plan.columns, kPanel);
    for (int q = 0; q < s.q(); q += kBlockRows)
        multiply_block(gather, q, std::min(q + kBlockRows, s.q()), panels, plan.columns, 0,
                       panel_count, {}, {products, 0, 0, plan.product_stride}, scratch);
}

// Line h of the image from the products of the lines of the map that cover it; line p is in slot p
// % ring.
void add_taps(const ConvShape& s, const Plan& plan, int h, const float* products, float* turns,
              float* out) {
    const int run = s.s * s.c, step = s.stride_w * s.c;
    const std::int64_t turn_floats = Plan::turn_floats(s);
    std::fill(turns, turns + plan.turns * turn_floats, 0.0f);

    // Products of the lines p with h = p * stride - pad + r, from the smallest p on.
    const int last_p = std::min((h + s.pad_top) / s.stride_h, s.p() - 1);
    const int first_p = std::max(0, ceil_div(h + s.pad_top - s.r + 1, s.stride_h));
    for (int q = 0; q < s.q(); ++q) {
        float* to = turns + q % plan.turns * turn_floats + static_cast<std::int64_t>(q) * step;
        for (int i = 0; i < run; i += simd::kLanes) {
            simd::Vec sum{};
            for (int p = first_p; p <= last_p; ++p) {
                const int r = h + s.pad_top - p * s.stride_h;
                sum += simd::load(products + p % plan.ring * plan.product_floats +
                                  q * plan.product_stride + r * run + i);
            }
            simd::store_up_to(to + i, sum, run - i);
        }
    }
    const float* from = turns + s.pad_left * s.c;
    for (int i = 0; i < s.w * s.c; i += simd::kLanes) {
        simd::Vec sum = simd::load(from + i);
        for (int turn = 1; turn < plan.turns; ++turn)
            sum += simd::load(from + turn * turn_floats + i);
        simd::store_up_to(out + i, sum, s.w * s.c - i);
    }
}

std::int64_t workspace(const ConvShape& s, const PoolShape*) {
    const Plan plan(s);
    return plan.panel_floats + plan.thread_floats() * max_threads();
}

void pack(const Call& call) {
    const Plan plan(call.shape);
    pack_rows(call.w, call.shape.k, plan.columns, call.workspace);
}

void run(const Call& call) {
    const ConvShape& s = call.shape;
    const Plan plan(s);
    const float* panels = call.workspace;
    for_strips(call.images, plan.strips, call.workspace + plan.panel_floats, plan.thread_floats(),
               [&](int n, int strip, float* scratch) {
                   float* products = scratch + odd_lines(kBlockScratch);
                   float* turns = products + plan.ring * plan.product_floats;
                   float* map = turns + plan.line_floats;
                   const int h0 = part_begin(s.h, plan.strips, strip),
                             h1 = part_begin(s.h, plan.strips, strip + 1);
                   int next_p = std::max(0, ceil_div(h0 + s.pad_top - s.r + 1, s.stride_h));
                   for (int h = h0; h < h1; ++h) {
                       const int last_p = std::min((h + s.pad_top) / s.stride_h, s.p() - 1);
                       for (; next_p <= last_p; ++next_p)
                           multiply_line(s, plan, read_lines(call, n, next_p, 1, map), panels,
                                         products + next_p % plan.ring * plan.product_floats,
                                         scratch);
                       add_taps(s, plan, h, products, turns,
                                call.out + (static_cast<std::int64_t>(n) * s.h + h) * s.w * s.c);
                   }
               });
}

// Both ways in vectors of multiply-adds, as measured (Zen 5, AVX-512 and AVX2): each vector of the
// taps of a filter row waits for the sums it is added to, and so does each pixel.
double taps_cost(const ConvShape& s) {
    constexpr int kVector = 18, kPixel = 25;
    const double pixel = s.k * ceil_div(s.r * s.s * s.c, simd::kLanes) +
                         kVector * s.r * ceil_div(s.s * s.c, simd::kLanes) + kPixel;
    return pixel * s.n * s.p() * s.q();
}

double windows_cost(const ConvShape& s) {
    constexpr int kPixel = 20;
    double taps = static_cast<double>(s.r) * s.s / (s.stride_h * s.stride_w);
    if (s.stride_h == 1 && s.stride_w == 1)
        taps *= made_part({nullptr, s.n, s.p(), s.q(), s.k, s.h, s.w, s.r, s.s, 1, 1,
                           s.r - 1 - s.pad_top, s.s - 1 - s.pad_left},
                          s.c);
    return (taps * s.k * ceil_div(s.c, simd::kLanes) + kPixel) * s.n * s.h * s.w;
}

// Of channels that fill a vector, no more columns than fit.
bool applies(const ConvShape& s) {
    return s.is_dense() && (2 * s.c <= simd::kLanes || s.r * s.s * s.c <= kTapColumns) &&
           taps_cost(s) < windows_cost(s);
}

}  // namespace

double direct_dgrad_cost(const ConvShape& s) {
    return applies(s) ? taps_cost(s) : windows_cost(s);
}

const Method tap_columns_dgrad{
    "taps as columns", Direction::kDgrad, Fusion::kLines, applies, workspace, pack, run, nullptr};

}  // namespace zfcuda::conv
