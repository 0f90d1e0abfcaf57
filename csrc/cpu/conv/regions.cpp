// The regions of regions.h.
#include "regions.h"

#include <algorithm>
#include <array>

#include "../blocking.h"

namespace zfcuda::conv {
namespace {

// One axis of a grid: tap t of window i lies at i * step + t * tap_step - pad, of `size` pixels.
struct Axis {
    int windows, taps, step, tap_step, pad, size;

    // The taps that some of the windows of a range see.
    Range seen(Range range) const {
        const std::int64_t first = pad - std::int64_t{range.end - 1} * step;
        const std::int64_t end = size + pad - std::int64_t{range.begin} * step;
        return between(first, end, tap_step, taps);
    }

    // The windows that see some of the taps of a range.
    Range that_see(Range range) const {
        const std::int64_t first = pad - std::int64_t{range.end - 1} * tap_step;
        const std::int64_t end = size + pad - std::int64_t{range.begin} * tap_step;
        return between(first, end, step, windows);
    }

    // The windows before the first that sees tap 0, those to the last that sees the last tap, and
    // the others; between the edges of small images, those that see neither.
    std::vector<Range> bands() const {
        const Range first = that_see({0, 1}), last = that_see({taps - 1, taps});
        const int low = first.size() > 0 ? first.begin : windows;
        const int high = last.size() > 0 ? last.end : 0;
        const std::array<int, 4> cuts{0, std::min(low, high), std::max(low, high), windows};
        std::vector<Range> bands;
        for (std::size_t i = 0; i + 1 < cuts.size(); ++i)
            if (cuts[i] < cuts[i + 1]) bands.push_back({cuts[i], cuts[i + 1]});
        return bands;
    }

  private:
    // Of 0, 1, ..., count - 1 those whose multiple of `unit` is in [first, end).
    static Range between(std::int64_t first, std::int64_t end, int unit, int count) {
        const auto above = [&](std::int64_t floats) {
            return floats <= 0 ? 0 : std::min(count, ceil_div(floats, unit));
        };
        const int begin = above(first);
        return {begin, std::max(begin, above(end))};
    }
};

Axis rows_of(const Gather& g) {
    return {g.grid_h, g.taps_h, g.step_h, g.tap_step_h, g.pad_top, g.h};
}

Axis cols_of(const Gather& g) {
    return {g.grid_w, g.taps_w, g.step_w, g.tap_step_w, g.pad_left, g.w};
}

// Steps of the depth that the windows take: each region has tiles that are not full, and each run of
// taps is added up by itself.
double cost(const Gather& g, const std::vector<Range>& rows, const std::vector<Range>& cols) {
    constexpr double kRegion = 14, kRun = 4;
    double sum = 0;
    for (const Range& i : rows)
        for (const Range& j : cols) {
            const int taps_h = rows_of(g).seen(i).size(), taps_w = cols_of(g).seen(j).size();
            const int runs = taps_w == g.taps_w ? 1 : taps_h;
            sum += (static_cast<double>(g.n) * Region{i, j}.size() + kRegion) *
                   (static_cast<double>(taps_h) * taps_w * g.c + kRun * runs);
        }
    return sum;
}

// The ranges of a grid's axes whose pairs are its regions, and their cost in that of the whole.
struct Cut {
    std::vector<Range> rows, cols;
    double part = 1;

    explicit Cut(const Gather& gather) : rows{{0, gather.grid_h}}, cols{{0, gather.grid_w}} {
        constexpr double kLess = 0.96;
        if (gather.depth() == 0) return;
        const std::array<std::vector<Range>, 2> row_cuts{rows, rows_of(gather).bands()};
        const std::array<std::vector<Range>, 2> col_cuts{cols, cols_of(gather).bands()};
        const double whole = cost(gather, rows, cols);
        for (const std::vector<Range>& i : row_cuts)
            for (const std::vector<Range>& j : col_cuts)
                if (const double other = cost(gather, i, j) / whole;
                    other < std::min(kLess, part)) {
                    part = other;
                    rows = i;
                    cols = j;
                }
    }
};

}  // namespace

Range seen_rows(const Gather& gather) {
    return rows_of(gather).seen({0, gather.grid_h});
}

Range seen_cols(const Gather& gather) {
    return cols_of(gather).seen({0, gather.grid_w});
}

Gather part_of(const Gather& gather, const Region& region) {
    Gather part = gather;
    part.grid_h = region.i.size();
    part.grid_w = region.j.size();
    part.pad_top -= region.i.begin * gather.step_h;
    part.pad_left -= region.j.begin * gather.step_w;
    return part;
}

std::vector<Region> cut_into_regions(const Gather& gather) {
    const Cut cut(gather);
    std::vector<Region> regions;
    for (const Range& i : cut.rows)
        for (const Range& j : cut.cols)
            regions.push_back({i, j});
    return regions;
}

double needed_part(const Gather& gather) {
    return Cut(gather).part;
}

Region windows_that_see(const Gather& gather, int tap0, int tap1) {
    const Range rows{tap0 / gather.taps_w, (tap1 - 1) / gather.taps_w + 1};
    const Range cols = rows.size() == 1
                           ? Range{tap0 % gather.taps_w, (tap1 - 1) % gather.taps_w + 1}
                           : Range{0, gather.taps_w};
    return {rows_of(gather).that_see(rows), cols_of(gather).that_see(cols)};
}

}  // namespace zfcuda::conv
