// Convolutions of groups of as many filters as channels, of which a vector holds several.
//
//   y[k] += x[c] * w[k][tap][j],    c = the j-th channel of the group of k
//
// A lane is a filter. The pixel's channels are loaded once and permuted for each j, so that every
// lane meets its own group's: no multiply-add is wasted on the others, and groups never touch each
// other. Bounded by permutations and multiply-adds, one of each. Dgrad is the same for each phase of
// x (phases.h), with channels as lanes. Wgrad takes groups of whole vectors, too: each of their
// channels is broadcast from memory.
#include <algorithm>
#include <array>
#include <utility>

#include "../gemm.h"
#include "../lanes.h"
#include "../parallel.h"
#include "gather.h"
#include "implicit_gemm.h"
#include "methods.h"
#include "phases.h"

namespace zfcuda::conv {
namespace {

using gemm::Epilogue;
using simd::IntVec;
using simd::kLanes;
using simd::Vec;

// Where the lanes of a result find the channels of their groups, of `size` each, in a pixel.
struct Lanes {
    int size, channels;
    IntVec from[kLanes];  // of the j-th channel of each group, of groups narrower than a vector

    Lanes(int size, int channels) : size(size), channels(channels) {
        for (int j = 0; j < size && size < kLanes; ++j)
            for (int lane = 0; lane < kLanes; ++lane)
                from[j][lane] = lane / size * size + j;
    }

    bool whole() const { return size >= kLanes; }  // groups of whole vectors
    int blocks() const { return ceil_div(channels, kLanes); }
    int count(int block) const { return std::min(kLanes, channels - block * kLanes); }
    int tap_floats() const { return size * kLanes; }  // of the filters of a block
};

bool applies(const ConvShape& s) {
    const int size = s.group_c();
    return s.groups > 1 && size == s.group_k() && size < kLanes && kLanes % size == 0;
}

// Whether of groups of a vector, too, and of a few where windows would be gathered.
bool applies_to_wgrad(const ConvShape& s) {
    const int size = s.group_c();
    if (s.groups == 1 || size != s.group_k() || size % kLanes != 0) return applies(s);
    return size == kLanes || (size <= kGroupWgradChannels && s.r * s.s > 1);
}

// packed[block][tap][j][lane] = filter(lane's channel, j); `filter` gives the element of one tap.
template <typename Filter>
void pack_taps(const Lanes& lanes, int taps, float* packed, const Filter& filter) {
#pragma omp parallel for num_threads(threads())
    for (int block = 0; block < lanes.blocks(); ++block)
        for (int tap = 0; tap < taps; ++tap) {
            float* to = packed + (std::int64_t{block} * taps + tap) * lanes.tap_floats();
            for (int j = 0; j < lanes.size; ++j, to += kLanes)
                for (int lane = 0; lane < kLanes; ++lane)
                    to[lane] =
                        lane < lanes.count(block) ? filter(block * kLanes + lane, tap, j) : 0;
        }
}

std::int64_t packed_floats(const Lanes& lanes, std::int64_t taps) {
    return taps * lanes.blocks() * lanes.tap_floats();
}

// ---- Fprop and dgrad ----------------------------------------------------------------------------

// Neighbours of a tile, the most: sums and pixels take 28 of 32 registers, or 12 of 16.
#if defined(__AVX512F__)
constexpr std::array kWidths = {4, 7, 10, 14};
#else
constexpr std::array kWidths = {2, 4, 6};
#endif
constexpr int kColumns = kWidths.back();

// A block of lanes of the result.
struct Block {
    const Lanes& lanes;
    int index;
    const float* filters;
};

// `kCount` neighbours of a line of the result, whose windows begin at (top, left) of `image`.
// `kClipped`: whether they reach over the ends of a line of x, or past those of the result.
template <int kCount, bool kClipped>
void multiply(const Gather& in, const float* image, int top, int left, const Block& block,
              Vec* results) {
    const Lanes& lanes = block.lanes;
    const float* w = block.filters;
    const float* channels = image + block.index * kLanes;
    const std::int64_t distance = std::int64_t{in.step_w} * in.pitch;
    Vec sum[kCount] = {};
    for (int r = 0; r < in.taps_h; ++r) {
        const int h = top + r * in.tap_step_h;
        if (h < 0 || h >= in.h) {
            w += in.taps_w * lanes.tap_floats();
            continue;
        }
        for (int s = 0; s < in.taps_w; ++s) {
            const int column = left + s * in.tap_step_w;
            const float* pixel = channels + (std::int64_t{h} * in.w + column) * in.pitch;
            Vec x[kCount];
#pragma GCC unroll 16
            for (int i = 0; i < kCount; ++i) {
                const int at = column + i * in.step_w;
                x[i] = kClipped && (at < 0 || at >= in.w)
                           ? Vec{}
                           : simd::load_up_to(pixel + i * distance, lanes.count(block.index));
            }
            for (int j = 0; j < lanes.size; ++j, w += kLanes) {
                const IntVec from = lanes.from[j];
                const Vec filter = simd::load(w);
#pragma GCC unroll 16
                for (int i = 0; i < kCount; ++i)
                    sum[i] += simd::permute_halves(x[i], from) * filter;
            }
        }
    }
    for (int i = 0; i < kCount; ++i)
        results[i] = sum[i];
}

using Multiply = void (*)(const Gather&, const float*, int, int, const Block&, Vec*);

template <bool kClipped, std::size_t... I>
constexpr std::array<Multiply, sizeof...(I)> functions(std::index_sequence<I...>) {
    return {multiply<kWidths[I], kClipped>...};
}

constexpr auto kInside = functions<false>(std::make_index_sequence<kWidths.size()>());
constexpr auto kClipped = functions<true>(std::make_index_sequence<kWidths.size()>());

// Lines [i0, i1) of image n of the result, of one block of lanes.
void convolve_lines(const Gather& in, std::int64_t n, int i0, int i1, const Block& block,
                    const Epilogue& whole, const RowPlacement& placement) {
    const int first = block.index * kLanes, count = block.lanes.count(block.index);
    const float* image = in.x + n * in.h * in.w * in.pitch;
    const Epilogue epilogue = whole.from(first);
    const Vec scale = whole.scale ? simd::load_up_to(epilogue.scale, count) : simd::broadcast(1);
    const Vec bias = whole.bias ? simd::load_up_to(epilogue.bias, count) : simd::broadcast(-0.0f);
    // Of the same width, the last of them over some of the one before, or past the line's end.
    const int needed = ceil_div(in.grid_w, ceil_div(in.grid_w, kColumns));
    const auto form = std::lower_bound(kWidths.begin(), kWidths.end(), needed) - kWidths.begin();
    const int width = kWidths[form];
    for (int i = i0; i < i1; ++i)
        for (int j = 0; j < in.grid_w; j += width) {
            const int j0 = std::max(0, std::min(j, in.grid_w - width));
            const int left = j0 * in.step_w - in.pad_left;
            const int last = left + (width - 1) * in.step_w + (in.taps_w - 1) * in.tap_step_w;
            const auto& functions = left >= 0 && last < in.w ? kInside : kClipped;
            Vec results[kColumns];
            functions[form](in, image, i * in.step_h - in.pad_top, left, block, results);
            float* to = placement.out + n * placement.image_stride + i * placement.line_stride +
                        j * placement.pixel_stride + first;
            const int end = std::min(j + width, in.grid_w);
            for (int k = j; k < end; ++k, to += placement.pixel_stride) {
                Vec v = results[k - j0] * scale + bias;
                if (epilogue.add) v += simd::load_up_to(epilogue.added(to), count);
                simd::store_up_to(to, epilogue.relu ? simd::relu(v) : v, count);
            }
        }
}

// The whole result, by all threads: strips of lines whose pixels stay in the second-level cache while
// the blocks of lanes pass, and where these are few, parts of the blocks.
void convolve(const Gather& in, const Lanes& lanes, const float* packed, const Epilogue& epilogue,
              const RowPlacement& placement) {
    const std::int64_t line = std::int64_t{in.step_h} * in.w * in.pitch;
    const int lines =
        static_cast<int>(std::clamp<std::int64_t>(kGroupStripFloats / line, 1, in.grid_h));
    const int strips = ceil_div(in.grid_h, lines);
    const std::int64_t all_strips = std::int64_t{in.n} * strips;
    const int parts =
        static_cast<int>(std::clamp<std::int64_t>(kGroupTasks / all_strips, 1, lanes.blocks()));
    const std::int64_t block_floats = packed_floats(lanes, in.taps_h * in.taps_w) / lanes.blocks();
    Tasks tasks(all_strips * parts);
#pragma omp parallel num_threads(threads())
    tasks.run([&](std::int64_t task) {
        const std::int64_t strip = task / parts;
        const int part = static_cast<int>(task % parts), at = static_cast<int>(strip % strips);
        const int end = static_cast<int>(part_begin(lanes.blocks(), parts, part + 1));
        for (int block = part_begin(lanes.blocks(), parts, part); block < end; ++block)
            convolve_lines(in, strip / strips, part_begin(in.grid_h, strips, at),
                           part_begin(in.grid_h, strips, at + 1),
                           {lanes, block, packed + block * block_floats}, epilogue, placement);
    });
}

std::int64_t fprop_workspace(const ConvShape& s, const PoolShape*) {
    return packed_floats({s.group_c(), s.k}, s.r * s.s);
}

void pack_fprop(const Call& call) {
    const ConvShape& s = call.shape;
    const int taps = s.r * s.s, size = s.group_c();
    pack_taps({size, s.k}, taps, call.workspace, [&](int k, int tap, int j) {
        return call.w[(std::int64_t{k} * taps + tap) * size + j];
    });
}

// The windows of all groups.
Gather all_windows(const ConvShape& s, int images, const float* x) {
    Gather in = windows(s, images, x, 0);
    in.c = s.c;
    return in;
}

void fprop(const Call& call) {
    const ConvShape& s = call.shape;
    const std::int64_t line = std::int64_t{s.q()} * call.out_pitch;
    convolve(all_windows(s, call.images, call.x), {s.group_c(), s.k}, call.workspace,
             {false, call.scale, call.bias, call.relu, false, call.add, call.out},
             {call.out, s.p() * line, line, call.out_pitch});
}

template <typename Body>
std::int64_t for_phases(const ConvShape& s, const Body& body) {
    return conv::for_phases(
        s, [&](const Phase& phase) { return packed_floats({s.group_c(), s.c}, phase.taps()); },
        body);
}

std::int64_t dgrad_workspace(const ConvShape& s, const PoolShape*) {
    return for_phases(s, [](const Phase&) {});
}

void pack_dgrad(const Call& call) {
    const ConvShape& s = call.shape;
    const int size = s.group_c();
    for_phases(s, [&](const Phase& phase) {
        const PhaseAxis &h = phase.h, &w = phase.w;
        pack_taps({size, s.c}, h.taps * w.taps, call.workspace + phase.before,
                  [&](int c, int tap, int j) {
                      const int r = h.tap0 - tap / w.taps * h.tap_step;
                      const int q = w.tap0 - tap % w.taps * w.tap_step;
                      const std::int64_t k = c / size * size + j;
                      return call.w[((k * s.r + r) * s.s + q) * size + c % size];
                  });
    });
}

void dgrad(const Call& call) {
    const ConvShape& s = call.shape;
    for_phases(s, [&](const Phase& phase) {
        convolve(phase.windows(s, call.images, call.y, 0, s.k), {s.group_c(), s.c},
                 call.workspace + phase.before, {}, phase.pixels(s, call.out, 0));
    });
}

// ---- Wgrad --------------------------------------------------------------------------------------

// Parts of the lines of dy, each with sums of its own; by the shape alone.
int wgrad_parts(const ConvShape& s) {
    const std::int64_t most = kWgradSumFloats / packed_floats({s.group_c(), s.k}, s.r * s.s);
    return static_cast<int>(std::clamp<std::int64_t>(
        std::min<std::int64_t>(most, std::int64_t{s.n} * s.p()), 1, kGroupTasks));
}

// sums[s][j] += dy * x along a line of dy, for kTaps taps of a filter row from tap `s` on and kSteps
// channels of each group from the j-th on. `x`: the vector in the line's first pixel, or the channels of
// a group of whole vectors, `kWhole`.
template <int kTaps, int kSteps, bool kWhole>
void add_products(const ConvShape& shape, const Lanes& lanes, const float* x, const float* dy,
                  int s, int first, int count, float* sums) {
    const auto place = [&](int tap, int j) {
        return sums + (std::int64_t{s + tap} * lanes.size + first + j) * kLanes;
    };
    Vec sum[kTaps][kSteps];
    for (int tap = 0; tap < kTaps; ++tap)
        for (int j = 0; j < kSteps; ++j)
            sum[tap][j] = simd::load(place(tap, j));
    IntVec from[kSteps];
    for (int j = 0; j < kSteps && !kWhole; ++j)
        from[j] = lanes.from[first + j];
    const int left = s * shape.dilation_w - shape.pad_left;
    const auto add = [&](int q, auto clipped) __attribute__((always_inline)) {
        const Vec gradient = simd::load_up_to(dy + std::int64_t{q} * shape.k, count);
#pragma GCC unroll 4
        for (int tap = 0; tap < kTaps; ++tap) {
            const int column = left + q * shape.stride_w + tap * shape.dilation_w;
            if (clipped && (column < 0 || column >= shape.w)) continue;
            const float* pixel = x + std::int64_t{column} * shape.c;
            const Vec v = kWhole ? Vec{} : simd::load_up_to(pixel, count);
#pragma GCC unroll 8
            for (int j = 0; j < kSteps; ++j)
                sum[tap][j] += (kWhole ? simd::broadcast(pixel[first + j])
                                       : simd::permute_halves(v, from[j])) *
                               gradient;
        }
    };
    // Windows that lie inside the line.
    const int last = left + (kTaps - 1) * shape.dilation_w;
    const int begin = std::min(shape.q(), left < 0 ? ceil_div(-left, shape.stride_w) : 0);
    const int end = std::max(
        begin, last < shape.w ? std::min(shape.q(), (shape.w - 1 - last) / shape.stride_w + 1) : 0);
    for (int q = 0; q < begin; ++q)
        add(q, std::true_type());
    for (int q = begin; q < end; ++q)
        add(q, std::false_type());
    for (int q = end; q < shape.q(); ++q)
        add(q, std::true_type());
    for (int tap = 0; tap < kTaps; ++tap)
        for (int j = 0; j < kSteps; ++j)
            simd::store(place(tap, j), sum[tap][j]);
}

// Channels of each group at a time, which with three taps leave room in the registers.
constexpr int kMostSteps = kLanes == 16 ? 8 : 4;

// The same for a whole filter row.
template <int kSteps, bool kWhole = false>
void add_line(const ConvShape& shape, const Lanes& lanes, const float* x, const float* dy,
              int count, float* sums) {
    for (int j = 0; j < lanes.size; j += kSteps) {
        int s = 0;
        for (; s + 3 <= shape.s; s += 3)
            add_products<3, kSteps, kWhole>(shape, lanes, x, dy, s, j, count, sums);
        for (; s < shape.s; ++s)
            add_products<1, kSteps, kWhole>(shape, lanes, x, dy, s, j, count, sums);
    }
}

std::int64_t wgrad_workspace(const ConvShape& s, const PoolShape*) {
    return wgrad_parts(s) * packed_floats({s.group_c(), s.k}, s.r * s.s);
}

// Of lines [m0, m1) of dy, of all images, and one block of lanes.
void add_lines(const Call& call, const Lanes& lanes, int block, std::int64_t m0, std::int64_t m1,
               float* sums) {
    const ConvShape& s = call.shape;
    const int count = lanes.count(block), group = block * kLanes / lanes.size;
    const int channel = lanes.whole() ? group * lanes.size : block * kLanes;
    for (std::int64_t m = m0; m < m1; ++m) {
        const std::int64_t n = m / s.p();
        const int top = static_cast<int>(m % s.p()) * s.stride_h - s.pad_top;
        const float* dy = call.y + m * s.q() * s.k + block * kLanes;
        for (int r = 0; r < s.r; ++r) {
            const int h = top + r * s.dilation_h;
            if (h < 0 || h >= s.h) continue;
            const float* x = call.x + (n * s.h + h) * s.w * s.c + channel;
            float* row = sums + std::int64_t{r} * s.s * lanes.tap_floats();
            if (lanes.whole()) {
                add_line<kMostSteps, true>(s, lanes, x, dy, count, row);
                continue;
            }
            switch (lanes.size) {
                case 1:
                    add_line<1>(s, lanes, x, dy, count, row);
                    break;
                case 2:
                    add_line<2>(s, lanes, x, dy, count, row);
                    break;
                case 4:
                    add_line<4>(s, lanes, x, dy, count, row);
                    break;
                default:
                    add_line<kMostSteps>(s, lanes, x, dy, count, row);
            }
        }
    }
}

// Adds up the parts of a block of lanes, `distance` floats apart, each of `elements` vectors, and gives
// every lane's filter its elements.
void add_parts(const float* sums, int parts, std::int64_t distance, int elements, int filters,
               bool accumulate, float* dw) {
    for (int first = 0; first < elements; first += kLanes) {
        const int count = std::min(kLanes, elements - first);
        Vec rows[kLanes] = {};
        for (int i = 0; i < count; ++i) {
            const float* from = sums + std::int64_t{first + i} * kLanes;
            rows[i] = simd::load(from);
            for (int part = 1; part < parts; ++part)
                rows[i] += simd::load(from + part * distance);
        }
        simd::transpose(rows);
        for (int k = 0; k < filters; ++k) {
            float* const to = dw + std::int64_t{k} * elements + first;
            if (accumulate) rows[k] += simd::load_up_to(to, count);
            simd::store_up_to(to, rows[k], count);
        }
    }
}

void wgrad(const Call& call) {
    const ConvShape& s = call.shape;
    const Lanes lanes(s.group_c(), s.k);
    const int parts = wgrad_parts(s), taps = s.r * s.s, blocks = lanes.blocks();
    const int elements = taps * lanes.size;  // of a filter
    const std::int64_t lines = std::int64_t{call.images} * s.p();
    const std::int64_t part_floats = packed_floats(lanes, taps),
                       block_floats = part_floats / blocks;
    float* const sums = call.workspace;
    Tasks tasks(std::int64_t{parts} * blocks);
#pragma omp parallel num_threads(threads())
    {
        tasks.run([&](std::int64_t task) {
            const int part = static_cast<int>(task / blocks);
            const int block = static_cast<int>(task % blocks);
            float* mine = sums + part * part_floats + block * block_floats;
            simd::clear(mine, block_floats);
            add_lines(call, lanes, block, part_begin(lines, parts, part),
                      part_begin(lines, parts, part + 1), mine);
        });
#pragma omp barrier
#pragma omp for
        for (int block = 0; block < blocks; ++block)
            add_parts(sums + block * block_floats, parts, part_floats, elements, lanes.count(block),
                      call.accumulate, call.out + std::int64_t{block} * kLanes * elements);
    }
}

}  // namespace

const Method small_groups_fprop{"small groups",  Direction::kFprop, Fusion::kImages, applies,
                                fprop_workspace, pack_fprop,        fprop,           nullptr};
const Method small_groups_dgrad{"small groups",  Direction::kDgrad, Fusion::kImages, applies,
                                dgrad_workspace, pack_dgrad,        dgrad,           nullptr};
const Method small_groups_wgrad{
    "small groups",  Direction::kWgrad, Fusion::kImages, applies_to_wgrad,
    wgrad_workspace, nullptr,           wgrad,           nullptr};

}  // namespace zfcuda::conv
