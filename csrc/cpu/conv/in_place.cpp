// Convolutions whose windows are read in place: forward of images with few channels.
//
// Gathering such windows costs as much as a seventh of the arithmetic, since each is many short
// runs. But windows that are neighbours in a line lie stride * channels floats apart, so that a
// tile's rows can be read in place, from lines of the image that are copied once with their
// padding: R runs of S * C floats. Forward that leaves the multiply-adds and the writing of the
// result, past the caches if it is large.
//
// The weight gradient's rows are the S * C taps of one filter row, its columns k, and its depth the
// pixels of some output lines. Its images may have more channels.
#include <algorithm>

#include "../gemm.h"
#include "implicit_gemm.h"
#include "lines.h"

namespace zfcuda::conv {
namespace {

using namespace gemm;

int taps(const ConvShape& s) {
    return s.r * s.s * s.c;
}

// Floats of a padded line.
int line_floats(const ConvShape& s) {
    return ((s.q() - 1) * s.stride_w + s.s) * s.c;
}

int input_lines(const ConvShape& s, int output_lines) {
    return (output_lines - 1) * s.stride_h + s.r;
}

// The lines that the output lines [p0, p1) read, with padding.
void pad_lines(const ConvShape& s, const float* x, int n, int p0, int p1, float* out) {
    const int size = line_floats(s), margin = std::min(s.pad_left * s.c, size);
    const int inside = std::min(size - margin, s.w * s.c);
    const int first = p0 * s.stride_h - s.pad_top;
    for (int i = 0; i < input_lines(s, p1 - p0); ++i, out += size) {
        const int h = first + i;
        if (h < 0 || h >= s.h) {
            simd::clear(out, size);
            continue;
        }
        simd::clear(out, margin);
        simd::copy(out + margin, x + (static_cast<std::int64_t>(n) * s.h + h) * s.w * s.c, inside);
        simd::clear(out + margin + inside, size - margin - inside);
    }
}

std::int64_t padded_floats(const ConvShape& s, int lines) {
    return odd_lines(static_cast<std::int64_t>(input_lines(s, lines)) * line_floats(s));
}

// ---- Fprop --------------------------------------------------------------------------------------

void pack(const Call& call) {
    pack_filters(call.w, call.shape.k, taps(call.shape), threads(), call.workspace);
}

void make_lines(const Call& call, int n, int p0, int p1, bool stream, float* out, float* scratch) {
    const ConvShape& s = call.shape;
    pad_lines(s, call.x, n, p0, p1, scratch);
    const int q = s.q(), size = line_floats(s);
    const Epilogue epilogue{false, call.scale, call.bias, call.relu, stream, call.add, call.out};
    for (int p = p0; p < p1; ++p)
        for (int column = 0; column < s.k; column += kPanel) {
            Operands operands{};
            operands.row_stride = s.stride_w * s.c;
            operands.a = scratch + static_cast<std::int64_t>(p - p0) * s.stride_h * size;
            operands.runs = s.r;
            operands.depth = s.s * s.c;
            operands.run_distance = size;
            operands.b = call.workspace + static_cast<std::int64_t>(column) * taps(s);
            const std::int64_t pixel = static_cast<std::int64_t>(p - p0) * q;
            gemm::multiply(q, operands, out + pixel * call.out_pitch + column, call.out_pitch,
                           s.k - column, epilogue.from(column));
        }
}

constexpr LineMaker kLines{[](const ConvShape&) { return 1; },
                           [](const ConvShape& s) { return panels_size(taps(s), s.k); },
                           padded_floats, make_lines};

// ---- Wgrad --------------------------------------------------------------------------------------

// Neighbours of a line of y taken as one pixel, so that few filters fill a vector: its columns are
// the filters of each of them, its window all that they see. Of the sums, those of filter k and tap s
// are in row s + i * stride_w and column i * k of the i-th pixel; the others nobody needs.
struct Merged {
    int pixels, columns;
    int run;      // floats of a filter row of the window
    double cost;  // multiply-adds for a pixel of y, in vectors: no fewer than hide their latency

    Merged(const ConvShape& s, int pixels)
        : pixels(pixels), columns(pixels * s.k), run((s.s + (pixels - 1) * s.stride_w) * s.c) {
        constexpr int kLatency = 8;
        const int step = std::max(kLatency, run * ceil_div(columns, simd::kLanes));
        cost = static_cast<double>(s.r) * step / pixels;
    }
};

// Of as many as a line has without a rest, those that cost least.
Merged merge_pixels(const ConvShape& s) {
    Merged best(s, 1);
    for (int pixels = 2; pixels * s.k <= simd::kLanes; ++pixels) {
        const Merged merged(s, pixels);
        if (s.q() % pixels == 0 && merged.cost < best.cost) best = merged;
    }
    return best;
}

// Sizes. dw is summed up transposed, (r, s, c) x k.
struct Plan {
    Merged merged;
    int chunks, block_lines, row_stride;  // of dw transposed
    std::int64_t sum_floats, line_floats, map_floats;

    explicit Plan(const ConvShape& s) : merged(merge_pixels(s)) {
        const int block = std::clamp(kWgradBlockFloats / (s.stride_h * s.stride_w * s.c + s.k),
                                     kWgradPixels, kWgradChunkPixels);
        block_lines = std::clamp(block / s.q(), 1, s.p());
        row_stride = round_up(merged.columns, simd::kLanes);
        sum_floats = static_cast<std::int64_t>(s.r) * merged.run * row_stride;
        const std::int64_t all_lines = std::int64_t{s.n} * s.p();
        const std::int64_t most =
            std::min<std::int64_t>(kWgradSumFloats / sum_floats, kWgradChunks);
        const int enough =
            round_up(ceil_div(all_lines * s.q(), kWgradChunkPixels), kLeastWgradChunks);
        chunks = static_cast<int>(std::clamp<std::int64_t>(
            std::min<std::int64_t>(all_lines, enough), 1, std::max<std::int64_t>(most, 1)));
        line_floats = padded_floats(s, block_lines);
        map_floats = odd_lines(static_cast<std::int64_t>(block_lines) * s.q() * s.k + kPanel);
    }

    std::int64_t thread_floats() const { return line_floats + map_floats; }
};

// Adds the products of `count` output lines: `lines` as from pad_lines, `map` (count * q, k), of
// which whole panels are read. Meanwhile fetches `next_floats` from `next` on, the gradients that
// come after: a panel reads them with gaps, which the processor does not foresee.
void add_lines(const ConvShape& s, const Plan& plan, const float* lines, int count,
               const float* map, const Epilogue& epilogue, float* sums, const float* next,
               std::int64_t next_floats) {
    const Merged& merged = plan.merged;
    const int size = line_floats(s), run = merged.run;
    const int products = ceil_div(merged.columns, kPanel) * s.r;
    FetchRows fetch;
    fetch.add(next, 1, 0, next_floats);
    fetch.spread(std::int64_t{products} * ceil_div(run, kTileRows) * count * s.q() / merged.pixels);
    for (int product = 0; product < products; ++product) {
        const int column = product / s.r * kPanel, r = product % s.r;
        Operands operands{lines + r * size, 1, map + column, s.q() / merged.pixels};
        operands.a_step = merged.pixels * s.stride_w * s.c;
        operands.b_stride = merged.columns;
        operands.runs = count;
        operands.run_distance = static_cast<std::int64_t>(s.stride_h) * size;
        operands.fetch = &fetch;
        gemm::multiply(run, operands,
                       sums + static_cast<std::int64_t>(r * run) * plan.row_stride + column,
                       plan.row_stride, plan.row_stride - column, epilogue);
    }
}

// The same cost of windows that are gathered, with what the copies take.
double gathered_cost(const ConvShape& s) {
    constexpr int kRun = 16, kVector = 4;
    const int products = s.k * ceil_div(taps(s), simd::kLanes);
    // Single pixels need not be gathered, but are copied here.
    if (s.r * s.s == 1) return 0.95 * products;
    return products + s.r * (kRun + kVector * ceil_div(s.s * s.c, simd::kLanes));
}

// Where the sums of all chunks are few, and gathering windows would take longer than what is wasted
// on filters that do not fill a vector.
bool wgrad_applies(const ConvShape& s) {
    if (!s.is_dense() || s.q() < kTileRows / 2) return false;
    // Lines and pixels that no window sees would be copied, too.
    if (s.stride_h > s.r || s.stride_w > s.s) return false;
    const Plan plan(s);
    return plan.sum_floats * kLeastWgradChunks <= kWgradSumFloats &&
           plan.merged.cost <= gathered_cost(s);
}

std::int64_t wgrad_workspace(const ConvShape& s, const PoolShape*) {
    const Plan plan(s);
    // The last vector of a pixel's sums may end behind them.
    return plan.chunks * plan.sum_floats + simd::kLanes + plan.thread_floats() * max_threads();
}

// The sums of all chunks in their order, whichever thread made them, by all threads of the team.
void add_sums(const ConvShape& s, const Plan& plan, const float* sums, float* dw) {
    const int run = s.s * s.c;
#pragma omp for
    for (int d = 0; d < taps(s); ++d)
        for (int k = 0; k < s.k; k += simd::kLanes) {
            simd::Vec sum{};
            for (int pixel = 0; pixel < plan.merged.pixels; ++pixel) {
                const int row = d / run * plan.merged.run + d % run + pixel * s.stride_w * s.c;
                const float* from =
                    sums + static_cast<std::int64_t>(row) * plan.row_stride + pixel * s.k + k;
                for (int chunk = 0; chunk < plan.chunks; ++chunk)
                    sum += simd::load(from + chunk * plan.sum_floats);
            }
            for (int i = 0; i < std::min(simd::kLanes, s.k - k); ++i)
                dw[static_cast<std::int64_t>(k + i) * taps(s) + d] = sum[i];
        }
}

void wgrad(const Call& call) {
    const ConvShape& s = call.shape;
    const Plan plan(s);
    const std::int64_t all_lines = static_cast<std::int64_t>(call.images) * s.p();
    const std::int64_t map_line = static_cast<std::int64_t>(s.q()) * s.k;
    float* sums = call.workspace;
    float* scratch = sums + plan.chunks * plan.sum_floats + simd::kLanes;
    Tasks tasks(plan.chunks);
#pragma omp parallel num_threads(threads())
    {
        float* lines = scratch + thread_index() * plan.thread_floats();
        float* buffer = lines + plan.line_floats;
        tasks.run([&](std::int64_t chunk) {
            std::int64_t line = part_begin(all_lines, plan.chunks, chunk);
            const std::int64_t end = part_begin(all_lines, plan.chunks, chunk + 1);
            Epilogue epilogue;
            while (line < end) {
                const int n = static_cast<int>(line / s.p()), p = static_cast<int>(line % s.p());
                // Those of the chunk and of one image, in even blocks.
                const int rest = static_cast<int>(std::min<std::int64_t>(end - line, s.p() - p));
                const int count = ceil_div(rest, ceil_div(rest, plan.block_lines));
                pad_lines(s, call.x, n, p, p + count, lines);
                const float* map = read_lines(call, n, p, count, buffer);
                // The last panel of the last pixels may end behind y.
                const std::int64_t behind = (all_lines - line - count) * map_line;
                if (map != buffer && behind < kPanel && plan.row_stride != plan.merged.columns) {
                    simd::copy(buffer, map, count * map_line);
                    map = buffer;
                }
                const std::int64_t next_lines =
                    call.pool ? 0 : std::min<std::int64_t>(plan.block_lines, end - line - count);
                add_lines(s, plan, lines, count, map, epilogue, sums + chunk * plan.sum_floats,
                          next_lines ? call.y + (line + count) * map_line : nullptr,
                          next_lines * map_line);
                epilogue.accumulate = true;
                line += count;
            }
        });
#pragma omp barrier
        add_sums(s, plan, sums, call.out);
    }
}

}  // namespace

double windows_wgrad_cost(const ConvShape& s) {
    return wgrad_applies(s) ? merge_pixels(s).cost : gathered_cost(s);
}

const Method in_place_fprop = by_lines<kLines>("windows in place", has_near_windows, pack);
const Method in_place_wgrad{"windows in place", Direction::kWgrad, Fusion::kLines, wgrad_applies,
                            wgrad_workspace,    nullptr,           wgrad,          nullptr};

}  // namespace zfcuda::conv
