// The implicit matrix product of implicit_gemm.h, and fprop and dgrad by it.
//
// Dgrad is a product for each phase of x (phases.h), a convolution of y with stride 1.
#include "implicit_gemm.h"

#include <algorithm>

#include "../lanes.h"
#include "../parallel.h"
#include "../streams.h"
#include "methods.h"
#include "phases.h"
#include "regions.h"

namespace zfcuda::conv {
namespace {

// Whether all panels stay in the first-level cache, so that a tile of rows meets one after the other:
// few multiply-adds for each float that is read or written.
bool has_few_panels(const Gather& gather, int columns) {
    return gather.is_matrix() && gemm::panels_size(gather.depth(), columns) <= kFewPanelsFloats;
}

// Whether x and the result of a product of its pixels do not stay in the last-level cache, so that
// pixels are fetched before their turn. (The processor foresees little of what a tile reads, row by
// row: 32 channels to 64 filters took 1.3 times as long, Zen 5.)
bool is_far(const Gather& gather, int columns) {
    return gather.rows() * (gather.pitch + columns) * 4 > kFarBytes;
}

bool is_large(const Gather& gather, int columns, const RowPlacement& placement) {
    return placement.pixel_stride == columns && leaves_caches(gather.rows() * columns);
}

// Whether the lines of a large result are fetched before they are written, and not written past the
// caches: where a store is a whole line. (Of half a line, as with AVX2, up to 1.2 times as long for
// 16 channels to 96 filters, Zen 3.)
bool fetches_result(const Gather& gather, int columns, const RowPlacement& placement) {
    return kStreamsWholeLines && is_large(gather, columns, placement) &&
           has_few_panels(gather, columns) && columns <= kFetchedColumns;
}

}  // namespace

void multiply_block(const Gather& gather, std::int64_t m0, std::int64_t m1, const float* panels,
                    int columns, int panel0, int panel1, const gemm::Epilogue& whole,
                    const RowPlacement& placement, float* scratch) {
    using namespace gemm;
    const int count = static_cast<int>(m1 - m0);
    // Those of the next tile, too, which are fetched.
    const int read =
        static_cast<int>(std::min<std::int64_t>(count + kNarrowTileRows, gather.rows() - m0));
    float* rows[kBlockRows + kNarrowTileRows];
    const bool dense = placement.line_stride == gather.grid_w * placement.pixel_stride &&
                       placement.image_stride == gather.grid_h * placement.line_stride;
    if (dense) {
        for (int row = 0; row < read; ++row)
            rows[row] = placement.out + (m0 + row) * placement.pixel_stride;
    } else {
        gather.for_rows(m0, count, [&](int row, std::int64_t n, int i, int j) {
            rows[row] = placement.out + n * placement.image_stride + i * placement.line_stride +
                        j * placement.pixel_stride;
        });
    }
    const int depth = gather.depth();
    // The taps that are seen: whole filter rows are one run, parts of them a run each.
    const Range seen_r = seen_rows(gather), seen_s = seen_cols(gather);
    const bool whole_rows = seen_s.size() == gather.taps_w;
    const int runs = whole_rows ? 1 : std::max(1, seen_r.size());
    const int run_taps = whole_rows ? seen_r.size() * gather.taps_w : seen_s.size();
    const int run_depth = seen_r.size() > 0 ? run_taps * gather.c : 0;
    // Where none is seen, or a phase has none (stride > filter), one empty block writes the zeros.
    const int run_blocks = std::max(1, ceil_div(run_depth, kMaxDepth));
    const int depth_blocks = runs * run_blocks;
    const bool far = is_far(gather, columns);
    for (int block = 0; block < depth_blocks; ++block) {
        const int first_tap = (seen_r.begin + block / run_blocks) * gather.taps_w + seen_s.begin;
        const int run = first_tap * gather.c;
        const int d0 = run + part_begin(run_depth, run_blocks, block % run_blocks);
        const int d1 = run + part_begin(run_depth, run_blocks, block % run_blocks + 1);
        const float* a = scratch;
        int row_stride = kRowStride;
        const bool last = block == depth_blocks - 1;
        bool fetches = false;
        FetchRows next;
        if (gather.is_matrix()) {
            a = gather.x + m0 * gather.pitch + d0;
            row_stride = gather.pitch;
            fetches = depth_blocks == 1 && gather.pitch == depth && far;
            if (depth_blocks > 1 && far) {
                // The next block of the depth, or the first of the next rows.
                const std::int64_t m = last ? m1 : m0;
                const int begin = last ? 0 : d1;
                const int end =
                    static_cast<int>(part_begin(depth, depth_blocks, last ? 1 : block + 2));
                next.add(gather.x + m * gather.pitch + begin,
                         static_cast<int>(std::min<std::int64_t>(count, gather.rows() - m)),
                         gather.pitch, end - begin);
                next.spread(std::int64_t{ceil_div(count, kTileRows)} * (panel1 - panel0) *
                            (d1 - d0));
            }
        } else {
            gather.pack(m0, count, d0, d1, scratch, kRowStride);
        }
        Epilogue epilogue = last ? whole : Epilogue{};
        epilogue.accumulate = block > 0;
        epilogue.stream = whole.stream && depth_blocks == 1;
        if (fetches_result(gather, columns, placement))
            epilogue.fetched_rows = dense ? read : count;
        Operands operands{a, row_stride, nullptr, d1 - d0};
        operands.panel_distance = std::int64_t{depth} * kPanel;
        operands.fetch = &next;
        const bool together = count <= kTileRows || has_few_panels(gather, columns);
        const int step = together && d1 > d0 ? panel1 - panel0 : 1;
        for (int panel = panel0; panel < panel1; panel += step) {
            const int column = panel * kPanel;
            operands.b = panels + operands.panel_distance * panel + d0 * kPanel;
            operands.fetched_rows = fetches && panel == panel0 ? read : 0;
            multiply(count, operands, rows, column,
                     std::min(columns, (panel + step) * kPanel) - column, epilogue.from(column));
        }
    }
}

double made_part(const Gather& gather, int columns) {
    constexpr double kSlower = 1.25;
    return reads_lines(gather, columns) ? 1 : std::min(1.0, kSlower * needed_part(gather));
}

void pack_filters(const float* w, int filters, int depth, int team, float* panels) {
    using namespace gemm;
    using simd::kLanes;
    const int panel_count = ceil_div(filters, kPanel);
#pragma omp parallel for collapse(2) num_threads(team)
    for (int panel = 0; panel < panel_count; ++panel)
        for (int d = 0; d < depth; d += kLanes) {
            const int count = std::min(kLanes, depth - d);
            float* out = panels + (static_cast<std::int64_t>(panel) * depth + d) * kPanel;
            for (int j = 0; j < kPanel; j += kLanes) {
                simd::Vec rows[kLanes];
                for (int i = 0; i < kLanes; ++i) {
                    const int k = panel * kPanel + j + i;
                    const float* filter = w + static_cast<std::int64_t>(k) * depth + d;
                    rows[i] = k < filters ? simd::load_up_to(filter, count) : simd::Vec{};
                }
                simd::transpose(rows);
                for (int i = 0; i < count; ++i)
                    simd::store(out + i * kPanel + j, rows[i]);
            }
        }
}

void pack_rows(const float* matrix, int depth, int columns, float* panels) {
    using namespace gemm;
#pragma omp parallel for num_threads(threads())
    for (int column = 0; column < columns; column += kPanel)
        pack_panel(matrix + column, columns, depth, columns - column,
                   panels + static_cast<std::int64_t>(column) * depth);
}

namespace {

using namespace gemm;

// Images [first, first + images) of one group, and the threads that it has for itself.
struct GroupPart {
    int group, first, images, team;
};

// Calls body(part, scratch of its threads) for parts of the batch, whose images have so many floats: of
// few groups for one after the other, by all threads; of many by one thread each, which need not wake
// the others, and for each large image, which it finds in its caches for the next group. `scratch` has
// kBlockScratch floats for each of max_threads(), or is null.
template <typename Body>
void for_groups(int groups, int images, std::int64_t image_floats, float* scratch,
                const Body& body) {
    const int team = threads();
    if (groups < 2 * team) {
        for (int group = 0; group < groups; ++group)
            body(GroupPart{group, 0, images, team}, scratch);
        return;
    }
    const int parts = image_floats * 4 > kSecondCacheBytes ? images : 1;
    Tasks tasks(std::int64_t{parts} * groups);
#pragma omp parallel num_threads(team)
    {
        float* mine = scratch ? scratch + thread_index() * kBlockScratch : nullptr;
        tasks.run([&](std::int64_t task) {
            const int group = static_cast<int>(task % groups),
                      first = static_cast<int>(task / groups);
            body(GroupPart{group, first, images / parts, 1}, mine);
        });
    }
}

// The whole result, by `team` threads, each with kBlockScratch floats of `scratch`.
void multiply_all(const Gather& gather, const float* panels, int columns, Epilogue epilogue,
                  const RowPlacement& placement, int team, float* scratch) {
    const int panel_count = ceil_div(columns, kPanel);
    epilogue.stream = placement.pixel_stride == columns &&
                      !fetches_result(gather, columns, placement) &&
                      streams(gather.rows() * columns, columns, placement.out);

    if (reads_lines(gather, columns))
        return multiply_lines(gather, panels, columns, epilogue, placement, team, scratch);

    // As many blocks of rows as a multiple of the threads, but none without a full tile; where the
    // rows are too few, or blocks of regions not even, the panels are shared out too. Of more filters
    // than rows each thread reads its own: what it packed, and half as much.
    struct Part {
        Gather gather;
        RowPlacement placement;
        int blocks;
        std::int64_t end;  // of its tasks
    };
    const std::vector<Region> regions = cut_into_regions(gather);
    const bool cut = regions.size() > 1, by_columns = !cut && columns > gather.rows();
    const int unit = cut || by_columns ? 1 : team;
    std::vector<Part> parts;
    std::int64_t blocks = 0;
    for (const Region& region : regions) {
        Part part{part_of(gather, region), placement, 0, 0};
        part.placement.out +=
            region.i.begin * placement.line_stride + region.j.begin * placement.pixel_stride;
        const std::int64_t rows = part.gather.rows();
        part.blocks = ceil_div(ceil_div(rows, kBlockRows), unit) * unit;
        part.blocks = std::max(1, std::min(part.blocks, ceil_div(rows, kTileRows)));
        part.end = blocks += part.blocks;
        parts.push_back(part);
    }
    const int groups = static_cast<int>(std::min<std::int64_t>(
        panel_count, by_columns ? team : ceil_div(cut ? 4 * team : team, blocks)));

    Tasks tasks(blocks * groups);
#pragma omp parallel num_threads(team)
    {
        float* mine = scratch + thread_index() * kBlockScratch;
        tasks.run([&](std::int64_t task) {
            const int group = static_cast<int>(task / blocks);
            const Part& part = *std::find_if(parts.begin(), parts.end(), [&](const Part& part) {
                return task % blocks < part.end;
            });
            const int block = static_cast<int>(task % blocks - (part.end - part.blocks));
            const std::int64_t rows = part.gather.rows();
            multiply_block(part.gather, part_begin(rows, part.blocks, block),
                           part_begin(rows, part.blocks, block + 1), panels, columns,
                           part_begin(panel_count, groups, group),
                           part_begin(panel_count, groups, group + 1), epilogue, part.placement,
                           mine);
        });
        if (epilogue.stream) simd::stream_fence();
    }
}

bool applies(const ConvShape&) {
    return true;
}

std::int64_t scratch_floats() {
    return kBlockScratch * max_threads();
}

// ---- Fprop --------------------------------------------------------------------------------------

// Of one group.
int fprop_depth(const ConvShape& s) {
    return s.r * s.s * s.group_c();
}

// The larger of x and y.
std::int64_t image_floats(const ConvShape& s) {
    return std::max(std::int64_t{s.h} * s.w * s.c, std::int64_t{s.p()} * s.q() * s.k);
}

std::int64_t filter_floats(const ConvShape& s) {
    return panels_size(fprop_depth(s), s.group_k());
}

std::int64_t fprop_workspace(const ConvShape& s, const PoolShape*) {
    return s.groups * filter_floats(s) + scratch_floats();
}

void pack_fprop(const Call& call) {
    const ConvShape& s = call.shape;
    for_groups(s.groups, 1, 0, nullptr, [&](const GroupPart& part, float*) {
        pack_filters(call.w + std::int64_t{part.group} * s.group_k() * fprop_depth(s), s.group_k(),
                     fprop_depth(s), part.team, call.workspace + part.group * filter_floats(s));
    });
}

void fprop(const Call& call) {
    const ConvShape& s = call.shape;
    const std::int64_t line = static_cast<std::int64_t>(s.q()) * call.out_pitch;
    float* scratch = call.workspace + s.groups * filter_floats(s);
    const Epilogue epilogue{false, call.scale, call.bias, call.relu, false, call.add, call.out};
    for_groups(
        s.groups, call.images, image_floats(s), scratch,
        [&](const GroupPart& part, float* scratch) {
            const int column = part.group * s.group_k();
            multiply_all(
                windows(s, part.images, call.x + std::int64_t{part.first} * s.h * s.w * s.c,
                        part.group),
                call.workspace + part.group * filter_floats(s), s.group_k(), epilogue.from(column),
                {call.out + part.first * s.p() * line + column, s.p() * line, line, call.out_pitch},
                part.team, scratch);
        });
}

// ---- Dgrad --------------------------------------------------------------------------------------

// Panels as a phase of dgrad needs them: depth (taps, k), columns c. `w`: the filters of a group.
void pack_phase(const ConvShape& s, const float* w, const Phase& phase, int team, float* panels) {
    const int filters = s.group_k(), channels = s.group_c();
    const int panel_count = ceil_div(channels, kPanel);
    const int rows = phase.h.taps, cols = phase.w.taps, depth = rows * cols * filters;
#pragma omp parallel for collapse(2) num_threads(team)
    for (int panel = 0; panel < panel_count; ++panel)
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < cols; ++j) {
                const int r = phase.h.tap0 - i * phase.h.tap_step;
                const int q = phase.w.tap0 - j * phase.w.tap_step;
                pack_panel(
                    w + (r * s.s + q) * channels + panel * kPanel,
                    static_cast<std::int64_t>(s.r) * s.s * channels, filters,
                    channels - panel * kPanel,
                    panels + (static_cast<std::int64_t>(panel) * depth + (i * cols + j) * filters) *
                                 kPanel);
            }
}

// Floats of the panels of a group.
std::int64_t phase_panels(const ConvShape& s, const Phase& phase) {
    return panels_size(phase.taps() * s.group_k(), s.group_c());
}

template <typename Body>
std::int64_t for_phases(const ConvShape& s, const Body& body) {
    return conv::for_phases(
        s, [&](const Phase& phase) { return s.groups * phase_panels(s, phase); }, body);
}

std::int64_t all_panels(const ConvShape& s) {
    return for_phases(s, [](const Phase&) {});
}

std::int64_t dgrad_workspace(const ConvShape& s, const PoolShape*) {
    return all_panels(s) + scratch_floats();
}

void pack_dgrad(const Call& call) {
    const ConvShape& s = call.shape;
    const std::int64_t filters = static_cast<std::int64_t>(s.group_k()) * fprop_depth(s);
    for_phases(s, [&](const Phase& phase) {
        for_groups(s.groups, 1, 0, nullptr, [&](const GroupPart& part, float*) {
            pack_phase(s, call.w + part.group * filters, phase, part.team,
                       call.workspace + phase.before + part.group * phase_panels(s, phase));
        });
    });
}

void dgrad(const Call& call) {
    const ConvShape& s = call.shape;
    float* scratch = call.workspace + all_panels(s);
    const std::int64_t dy_image = std::int64_t{s.p()} * s.q() * s.k,
                       dx_image = std::int64_t{s.h} * s.w * s.c;
    for_phases(s, [&](const Phase& phase) {
        for_groups(
            s.groups, call.images, image_floats(s), scratch,
            [&](const GroupPart& part, float* scratch) {
                multiply_all(
                    phase.windows(s, part.images, call.y + part.first * dy_image,
                                  part.group * s.group_k(), s.group_k()),
                    call.workspace + phase.before + part.group * phase_panels(s, phase),
                    s.group_c(), {},
                    phase.pixels(s, call.out + part.first * dx_image, part.group * s.group_c()),
                    part.team, scratch);
            });
    });
}

}  // namespace

const Method implicit_gemm_fprop{"implicit gemm", Direction::kFprop, Fusion::kImages, applies,
                                 fprop_workspace, pack_fprop,        fprop,           nullptr};
const Method implicit_gemm_dgrad{"implicit gemm", Direction::kDgrad, Fusion::kImages, applies,
                                 dgrad_workspace, pack_dgrad,        dgrad,           nullptr};

}  // namespace zfcuda::conv
