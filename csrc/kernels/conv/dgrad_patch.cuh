// Transposed convolution to few channels, the images': all phases as one product.
//
//   x[n, stride_h*i + a - shift_h, stride_w*j + b - shift_w, c] =
//       sum over r, s, k of y[n, i + first_h + r, j + first_w + s, k] * filters[a, b, c; r, s, k]
//
// A cell is stride_h x stride_w pixels of x, one of each phase (conv_phases.h). All of its phases
// see the same window of y, if a filter is taken as zero where a phase has no tap. So they are
// columns (a, b, c) of one product: its rows are the cells, its depth the taps x K (padded_sums.cuh).
//
// Cut. A band is eight rows of an image's cells. All bands of the batch follow each other in one
// strip, each with the columns of y that its windows need; a block computes 64 columns of the strip,
// those without a cell in vain: what is lost is the window's width less one a band. Shared memory:
// where the patch of y that these cells see lies in memory; two stages, each with some channels of
// the patch, every pixel copied once, and of the filters of all taps. A first kernel brings the
// filters into the order in which they are copied.
//
// Bound: cells x columns x taps x K FMAs (patch_tiles.cuh); y is read (8 + taps - 1) / 8 times from
// L2, from memory once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "patch_tiles.cuh"
#include "product.h"
#include "tiles.cuh"

namespace zfcuda::conv {

constexpr int kMaxPatchChannels = 4;
constexpr int kMaxPatchColumns = 64;  // beyond, most of the filters are zeros

// ---- Cells --------------------------------------------------------------------------------------

// One axis: how many cells, where the first begins before x, and how many positions of y each sees,
// from `first` on.
struct PatchAxis {
    int shift, cells, first, taps;

    PatchAxis(int size, int window, int stride, int pad) : PatchAxis(size, window, stride, pad, 0) {
        // Cells that begin in the padding may see less of y.
        const PatchAxis other(size, window, stride, pad, pad % stride);
        if (std::int64_t{other.cells} * other.taps < std::int64_t{cells} * taps) *this = other;
    }

  private:
    PatchAxis(int size, int window, int stride, int pad, int shift_)
        : shift(shift_), cells((size - 1 + shift_) / stride + 1) {
        const int most = pad - shift - (window - 1);
        first = most > 0 ? divide_up(most, stride) : most / stride;
        taps = (pad - shift + stride - 1) / stride - first + 1;
    }
};

// How a convolution is cut, with divisors that only the launcher knows.
template <class Tile>
struct PatchGrid {
    PatchAxis h, w;
    int tap_rows;  // with those that only fill up
    int columns;
    FastDivisor tiles_n, band, bands;  // tiles of columns; columns of a band; bands of an image
    FastDivisor run, channels;         // of columns: those of one row of a cell, of one pixel

    explicit PatchGrid(const ConvShape& s)
        : h(s.h, s.r, s.stride_h, s.pad_top),
          w(s.w, s.s, s.stride_w, s.pad_left),
          tap_rows(divide_up(h.taps, Tile::kTapRows) * Tile::kTapRows),
          columns(s.stride_h * s.stride_w * s.c),
          tiles_n(divide_up(columns, Tile::kCols)),
          band(w.cells + w.taps - 1),
          bands(divide_up(h.cells, Tile::kCellRows)),
          run(s.stride_w * s.c),
          channels(s.c) {}

    __host__ __device__ int taps() const { return tap_rows * w.taps; }
    __host__ __device__ int patch_pixels() const {
        return (Tile::kCellRows + tap_rows - 1) * Tile::kPatchCols;
    }
    // Elements: the second of two planes begins on the other half of the banks.
    __host__ __device__ int plane() const { return (patch_pixels() + 4) * Tile::kVector; }
    __host__ __device__ int stage() const { return 2 * plane() + taps() * Tile::kFilters; }

    // Tiles of the strip; the columns after its last cell need none.
    std::int64_t tiles_m(int n) const {
        const std::int64_t columns = std::int64_t{n} * bands.divisor * band.divisor - (w.taps - 1);
        return (columns - 1) / Tile::kCellCols + 1;
    }
    std::size_t shared_bytes() const {
        return sizeof(std::uint32_t) * patch_pixels() +
               sizeof(typename Tile::Element) * 2 * stage();
    }
    // Of all filters in the order of their copies.
    std::int64_t filter_values(int k) const {
        return std::int64_t{tiles_n.divisor} * divide_up(k, Tile::kDepth) * taps() * Tile::kFilters;
    }
    // Their bytes, rounded up so that what follows is aligned.
    std::size_t filter_bytes(int k) const {
        return (sizeof(typename Tile::Element) * filter_values(k) + 255) / 256 * 256;
    }
};

// ---- Plans --------------------------------------------------------------------------------------

// Calls use(tile, product, taps) for each tile that the shape allows. The product's depth is that of
// a tap.
template <class Math, class Use>
void for_each_patch_tile(const ConvShape& s, Use use) {
    if (!s.is_dense() || s.c > kMaxPatchChannels || s.k % kVectorWidth<Element<Math>> != 0) return;
    if (std::int64_t{s.stride_h} * s.stride_w * s.c > kMaxPatchColumns) return;
    const PatchAxis h(s.h, s.r, s.stride_h, s.pad_top), w(s.w, s.s, s.stride_w, s.pad_left);
    with_patch_tiles<Math>(h.taps, [&](auto tiles) {
        for_each_tile(tiles, [&](auto tile) {
            using Tile = decltype(tile);
            // Larger windows than any patch could hold.
            if (w.taps > Tile::kMaxTapsAcross || h.taps > 1024) return;
            const PatchGrid<Tile> grid(s);
            const std::int64_t rows = grid.tiles_m(s.n) * Tile::kRows;
            if (std::max(rows, grid.filter_values(s.k)) > shapes::kMaxElements ||
                grid.shared_bytes() > simt::max_shared_bytes())
                return;
            Product product = dgrad_product<Math>(s);
            product.batches = 1;
            product.rows = static_cast<int>(rows);
            product.cols = grid.columns;
            product.depth = s.k;
            use(tile, product, grid.taps());
        });
    });
}

// The plan with a tile and this many splits; with none given, as many as fill the GPU.
template <class Tile>
Plan plan_patch(const Product& product, int taps, std::optional<int> splits = std::nullopt) {
    const int on_sm = blocks_on_sm<Tile>(PatchGrid<Tile>(product.problem.conv).shared_bytes());
    const int slots = simt::multiprocessors() * on_sm;
    const int tiles = count_tiles<Tile>(product);
    const int filling = tiles * 2 <= slots ? slots / tiles : 1;
    Plan plan = plan_parts<Tile>(product, 0, splits.value_or(filling), on_sm);
    plan.cost += (taps - 1) * tile_cost<Tile>(1.0 * tiles * plan.splits, plan.k_tiles_per_split);
    return plan;
}

// The cheapest plan of this kernel; none where that of phase after phase (dgrad.cu) is cheaper.
template <class Math>
std::optional<Plan> cheapest_patch_plan(const ConvShape& shape) {
    std::optional<Plan> best;
    for_each_patch_tile<Math>(shape, [&](auto tile, const Product& product, int taps) {
        const Plan plan = plan_patch<decltype(tile)>(product, taps);
        if (!best || plan.cost < best->cost) best = plan;
    });
    if (!best) return std::nullopt;
    with_list(typename Tiles<Math>::Dgrad{}, true, false, [&](auto tiles) {
        if (cheapest_plan(tiles, dgrad_product<Math>(shape)).cost < best->cost) best.reset();
    });
    return best;
}

// The plan that holds: a tuner's, else the cheapest; none where it is one of dgrad.cu.
template <class Math>
std::optional<Plan> patch_plan(const ConvShape& shape) {
    const auto choice = tuned_choice(dgrad_product<Math>(shape).problem);
    if (!choice) return cheapest_patch_plan<Math>(shape);
    std::optional<Plan> plan;
    for_each_patch_tile<Math>(shape, [&](auto tile, const Product& product, int taps) {
        using Tile = decltype(tile);
        if (kKernel<Tile> == choice->kernel) plan = plan_patch<Tile>(product, taps, choice->splits);
    });
    return plan;
}

// ---- Launch -------------------------------------------------------------------------------------

// Bytes for the filters and the partial sums. Defined in dgrad_patch.cu, as is what follows.
template <class Math>
std::size_t dgrad_patch_workspace(const ConvShape& shape, const Plan& plan);

// x = conv_transpose2d(y, w). `y` must be aligned for 16 bytes.
template <class Math>
void dgrad_patch(const ConvShape& shape, const Plan& plan, const Element<Math>* y,
                 const Element<Math>* w, Element<Math>* x, void* workspace, Stream stream);

}  // namespace zfcuda::conv
