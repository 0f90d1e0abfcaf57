// fprop by Winograd's algorithm line by line, for images with few channels and large filters with a
// stride, such as 7 x 7 at 2 or 11 x 11 at 4.
//
// The phases of a stride turn few channels into enough depth for a matrix product: 7 x 7 x 3 at
// stride 2 are 4 x 4 taps of 12 phases and channels, 3 x 3 outputs of which take 36 * 12
// multiplications instead of 9 * 147.
//
// A thread makes M lines of the map at a time (M x M outputs a tile). The pixels that they read are
// put side by side, phases and channels of one place in a few vectors. Then some tiles, as many as
// the matrix product has rows, are transformed, multiplied frequency by frequency with one panel
// of filters, and transformed back, while their products are in the cache (64 KB); the filters of
// all frequencies (166 KB) stay in its second level. Bounded by multiply-adds: of the products two
// thirds, of the transforms one.
#include "../lines.h"
#include "../../streams.h"

#include "tiles.h"

namespace zfcuda::conv {

using namespace winograd;

namespace {

// Sizes, in floats but for counts.
struct Plan {
    int depth, padded_depth;  // phases x channels of a place
    int size;                 // outputs of a tile's axis
    int across, places;       // tiles of a line, and the places that they read
    int panels;
    int per_row, row_groups;  // frequencies side by side in a row of the product, and such rows
    std::int64_t line_stride, group_stride, product_stride;
    std::int64_t data_at[kFrequencies];  // a tile's place in its row, at each frequency

    explicit Plan(const ConvShape& s)
        : depth(s.stride_h * s.stride_w * s.c),
          padded_depth(round_up(depth, kLanes)),
          size(tile_size(phase_taps(s))),
          across(ceil_div(s.q(), size)),
          places((across - 1) * size + kPoints),
          panels(ceil_div(s.k, kPanel)),
          per_row(kRowStride / padded_depth),
          row_groups(ceil_div(kFrequencies, std::max(1, per_row))),
          line_stride(odd_lines(static_cast<std::int64_t>(places) * padded_depth)),
          group_stride(kTileRows * kRowStride),
          product_stride(odd_lines(kTileRows * kPanel)) {
        for (int i = 0; i < kFrequencies; ++i)
            data_at[i] = per_row == 0 ? 0 : i / per_row * group_stride + i % per_row * padded_depth;
    }

    std::int64_t pixel_floats() const { return odd_lines(kPoints * line_stride + kLanes); }
    std::int64_t data_floats() const { return row_groups * group_stride; }
    std::int64_t product_floats() const { return kFrequencies * product_stride; }

    // All frequencies of a panel side by side.
    Filters filters(float* first) const {
        const std::int64_t stride = static_cast<std::int64_t>(depth) * kPanel;
        return {first, depth, kFrequencies * stride, stride};
    }
};

// The pixels that tiles from line p0 on read: `out` (6, places, padded_depth) with (phase of the
// height, phase of the width, channel) in the depth, of which the padding stays undefined.
void gather_phases(const ConvShape& s, const Plan& plan, const float* x, int n, int p0,
                   float* out) {
    const int run = s.stride_w * s.c, width = s.w * s.c;
    for (int i = 0; i < kPoints; ++i, out += plan.line_stride)
        for (int place = 0; place < plan.places; ++place)
            for (int phase = 0; phase < s.stride_h; ++phase) {
                // What a run spills is written over by the next one.
                float* to =
                    out + static_cast<std::int64_t>(place) * plan.padded_depth + phase * run;
                const int h = (p0 + i) * s.stride_h + phase - s.pad_top;
                const int first = place * run - s.pad_left * s.c;
                if (h < 0 || h >= s.h) {
                    simd::clear_spilling(to, run);
                    continue;
                }
                const float* line = x + (static_cast<std::int64_t>(n) * s.h + h) * width;
                if (first >= 0 && first + run <= width) {
                    simd::copy_spilling(to, line + first, run);
                } else {
                    for (int e = 0; e < run; ++e)
                        to[e] = first + e >= 0 && first + e < width ? line[first + e] : 0.0f;
                }
            }
}

void transform_tile(const Plan& plan, const float* pixels, int tile, int row, float* data) {
    for (int d = 0; d < plan.padded_depth; d += kLanes) {
        Vec x[kPoints][kPoints], v[kPoints][kPoints];
#pragma GCC unroll 6
        for (int i = 0; i < kPoints; ++i)
#pragma GCC unroll 6
            for (int j = 0; j < kPoints; ++j)
                x[i][j] = simd::load(pixels + i * plan.line_stride +
                                     (tile * plan.size + j) * plan.padded_depth + d);
        transform_2d<kPoints, kPoints, transform_data>(x, v);
#pragma GCC unroll 6
        for (int i = 0; i < kPoints; ++i)
#pragma GCC unroll 6
            for (int j = 0; j < kPoints; ++j)
                simd::store(data + plan.data_at[i * kPoints + j] + row * kRowStride + d, v[i][j]);
    }
}

// The outputs of tile `tile` from its products. Where a line of the result is several vectors, it is
// written at once (streams.h).
template <int M>
void write_tile(const ConvShape& s, const float* products, std::int64_t stride, int columns,
                int tile, int lines, float* y, int y_pitch, const Epilogue& epilogue) {
    constexpr int kTogether = kStreamsWholeLines ? 1 : kPanelVectors;
    for (int first = 0; first < columns; first += kTogether * kLanes) {
        const int vectors = std::min(kTogether, ceil_div(columns - first, kLanes));
        Vec out[kTogether][M][M];
        MapTerms terms[kTogether];
        for (int v = 0; v < vectors; ++v) {
            const int k = first + v * kLanes;
            transform_products<M>(products + k, stride, columns - k, out[v]);
            terms[v] = {epilogue, k, columns - k};
        }
        for (int i = 0; i < std::min(M, lines); ++i)
            for (int j = 0; j < std::min(M, s.q() - tile * M); ++j) {
                float* to = y + (static_cast<std::int64_t>(i) * s.q() + tile * M + j) * y_pitch;
                for (int v = 0; v < vectors; ++v) {
                    const int k = first + v * kLanes;
                    write_result(out[v][i][j], terms[v], epilogue, columns - k, to + k);
                }
            }
    }
}

// Up to M lines: `lines`.
template <int M>
void make_tiles(const Call& call, const Plan& plan, const float* pixels, int lines, bool stream,
                float* out, float* data, float* products) {
    const ConvShape& s = call.shape;
    const Filters filters = plan.filters(call.workspace);
    const int groups = ceil_div(plan.across, kTileRows);
    float* rows[kTileRows];
    for (int i = 0; i < kTileRows; ++i)
        rows[i] = products + i * kPanel;
    for (int group = 0; group < groups; ++group) {
        const int first = part_begin(plan.across, groups, group);
        const int count = part_begin(plan.across, groups, group + 1) - first;
        for (int i = 0; i < count; ++i)
            transform_tile(plan, pixels, first + i, i, data);
        for (int column = 0; column < s.k; column += kPanel) {
            const int columns = std::min(kPanel, s.k - column);
            const float* panel = filters.first + column / kPanel * filters.panel_stride;
            for (int group = 0; group < plan.row_groups; ++group) {
                const int frequency = group * plan.per_row;
                Operands operands{data + group * plan.group_stride, kRowStride,
                                  panel + frequency * filters.frequency_stride, plan.depth};
                operands.products = std::min(plan.per_row, kFrequencies - frequency);
                operands.panel_distance = filters.frequency_stride;
                operands.a_distance = plan.padded_depth;
                operands.c_distance = plan.product_stride;
                gemm::multiply(count, operands, rows, frequency * plan.product_stride, columns, {});
            }
            const Epilogue epilogue{false,  call.scale, call.bias, call.relu,
                                    stream, call.add,   call.out};
            for (int i = 0; i < count; ++i)
                write_tile<M>(s, rows[i], plan.product_stride, columns, first + i, lines,
                              out + column, call.out_pitch, epilogue.from(column));
        }
    }
}

// What a multiply-add of a frequency's product, whose depth is small, takes of those of the direct
// product.
#if defined(__AVX512F__)
constexpr double kProduct = 1.6;
#else
constexpr double kProduct = 1.15;
#endif

// Whether tiles take less than the direct product, in its multiply-adds for a vector of columns: of
// the products, of each run that is gathered, of the transforms and of each output. (Fitted to 80
// first layers, Zen 5, AVX-512 and AVX2: 3 x 3 to 11 x 11, 32 to 224 pixels, 16 to 96 filters.)
bool lines_apply(const ConvShape& s) {
    if (!has_near_windows(s) || !has_transforms(s)) return false;
    const Plan plan(s);
    if (plan.per_row < 1) return false;
    constexpr double kTile = 200, kTransform = 380, kRun = 8, kOutput = 15;
    const double vectors = ceil_div(s.k, kLanes);
    const double runs = static_cast<double>(kPoints * s.stride_h) * plan.places / plan.across;
    const double tile = kProduct * kFrequencies * plan.depth + kTile +
                        (kTransform * (plan.padded_depth / kLanes) + kRun * runs) / vectors +
                        kOutput * plan.size * plan.size;
    const double tiles = static_cast<double>(ceil_div(s.p(), plan.size)) * plan.across;
    return static_cast<double>(s.p()) * s.q() * s.r * s.s * s.c > tiles * tile;
}

void pack(const Call& call) {
    const Plan plan(call.shape);
    transform_filters(call.shape, call.w, call.shape.c, plan.filters(call.workspace),
                      [](int phase) { return phase; });
}

std::int64_t packed_floats(const ConvShape& s) {
    const Plan plan(s);
    return plan.panels * plan.filters(nullptr).panel_stride;
}

std::int64_t scratch_floats(const ConvShape& s, int) {
    const Plan plan(s);
    return plan.pixel_floats() + plan.data_floats() + plan.product_floats();
}

void make_lines(const Call& call, int n, int p0, int p1, bool stream, float* out, float* scratch) {
    const ConvShape& s = call.shape;
    const Plan plan(s);
    float* data = scratch + plan.pixel_floats();
    float* products = data + plan.data_floats();
    const std::int64_t out_line = static_cast<std::int64_t>(s.q()) * call.out_pitch;
    for (int p = p0; p < p1; p += plan.size) {
        gather_phases(s, plan, call.x, n, p, scratch);
        with_taps(s, [&](auto taps) {
            make_tiles<tile_size(taps)>(call, plan, scratch, p1 - p, stream,
                                        out + (p - p0) * out_line, data, products);
        });
    }
}

constexpr LineMaker kLines{[](const ConvShape& s) { return tile_size(phase_taps(s)); },
                           packed_floats, scratch_floats, make_lines};

}  // namespace
const Method winograd_lines_fprop = by_lines<kLines>("winograd by lines", lines_apply, pack);

}  // namespace zfcuda::conv
