// conv + bias + ReLU + max pool as one operation, and its way back, on the CPU: the map between is
// never stored.
//
// Images with few channels (first_layer.h): a task is some rows of one pooled image. It keeps
// the lines of the map that a window needs, and a few more, in a ring of lines in the second-level
// cache, and pools as soon as the window's last line is there. On the way back lines of the map are
// unpooled where they are read.
//
// Otherwise the batch goes through in groups of images whose map fits the last-level cache, with
// filters packed once.
#include <algorithm>

#include "../../ops.h"
#include "../gemm.h"
#include "../parallel.h"
#include "../pool.h"
#include "first_layer.h"
#include "implicit_gemm.h"
#include "steps.h"

namespace zfcuda {
namespace {

using namespace gemm;

std::int64_t map_floats(const ConvShape& conv, int images) {
    return static_cast<std::int64_t>(images) * conv.p() * conv.q() * conv.k;
}

// ---- Groups of images ---------------------------------------------------------------------------

struct Groups {
    int count;
    ConvShape largest;  // the convolution of the largest group
    std::int64_t map_floats;

    explicit Groups(const ConvShape& conv) : largest(conv) {
        const std::int64_t bytes = sizeof(float) * zfcuda::map_floats(conv, conv.n);
        count = std::min<std::int64_t>(conv.n, (bytes + kGroupBytes - 1) / kGroupBytes);
        largest.n = ceil_div(conv.n, count);
        map_floats = odd_lines(zfcuda::map_floats(conv, largest.n));
    }
};

// One group of the batch: the shapes of its convolution and pool, and where its images begin.
struct Group {
    ConvShape conv;
    PoolShape pool;
    std::int64_t image_offset, pooled_offset;

    Group(const ConvShape& all_conv, const PoolShape& all_pool, int groups, int i)
        : conv(all_conv), pool(all_pool) {
        const int first = part_begin(all_conv.n, groups, i);
        conv.n = pool.n = static_cast<int>(part_begin(all_conv.n, groups, i + 1)) - first;
        image_offset = static_cast<std::int64_t>(first) * conv.h * conv.w * conv.c;
        pooled_offset = static_cast<std::int64_t>(first) * pool.p() * pool.q() * pool.c;
    }
};

std::size_t group_workspace(const ConvShape& conv, std::size_t (*steps)(const ConvShape&)) {
    const Groups groups(conv);
    return sizeof(float) * groups.map_floats + steps(groups.largest);
}

// ---- Rings of lines, for images with few channels -----------------------------------------------

struct Ring {
    int step, lines;  // lines of the map made at once, and kept
    int strips;       // tasks per image
    std::int64_t line_floats, ring_floats, scratch_floats, packed_floats;

    Ring(const ConvShape& conv, const PoolShape& pool) {
        step = round_up(std::max(kRingLines, pool.stride_h), first_layer::line_step(conv));
        step = std::min(step, conv.p());
        lines = (ceil_div(pool.window_h, step) + 1) * step;
        strips = std::clamp(ceil_div(kStripTasks, conv.n), 1, ceil_div(pool.p(), kMinPooledLines));
        line_floats = static_cast<std::int64_t>(conv.q()) * conv.k;
        ring_floats = odd_lines(lines * line_floats);
        scratch_floats = first_layer::scratch_floats(conv, step);
        packed_floats = first_layer::packed_floats(conv);
    }

    std::int64_t thread_floats() const { return ring_floats + scratch_floats; }
};

// Rows [p0, p1) of one pooled image.
void pool_lines(const ConvShape& conv, const PoolShape& pool, const Ring& ring, const float* x,
                const float* packed, const float* b, int n, int p0, int p1, float* y,
                std::uint8_t* switches, float* lines) {
    float* scratch = lines + ring.ring_floats;
    const std::int64_t row_floats = static_cast<std::int64_t>(pool.q()) * pool.c;
    // Lines are made `step` at a time, at multiples of it, which never wrap around the ring.
    int next = std::max(0, p0 * pool.stride_h - pool.pad_h) / ring.step * ring.step;
    for (int p = p0; p < p1; ++p) {
        const int corner = p * pool.stride_h - pool.pad_h;
        const int first = std::max(0, -corner), end = std::min(pool.window_h, pool.h - corner);
        for (; next < corner + end; next += ring.step)
            first_layer::conv2d_lines(conv, x, n, next, std::min(next + ring.step, conv.p()),
                                      packed, b, true, false,
                                      lines + next % ring.lines * ring.line_floats, scratch);
        const float* rows[256];
        for (int r = first; r < end; ++r)
            rows[r] = lines + (corner + r) % ring.lines * ring.line_floats;
        const std::int64_t at = (static_cast<std::int64_t>(n) * pool.p() + p) * row_floats;
        max_pool_row(pool, rows, first, end, y + at, switches + at, false);
    }
}

void first_layer_pool(const ConvShape& conv, const PoolShape& pool, const float* x, const float* w,
                      const float* b, float* y, std::uint8_t* switches, void* workspace) {
    const Ring ring(conv, pool);
    float* packed = static_cast<float*>(workspace);
    first_layer::pack(conv, w, packed);
#pragma omp parallel num_threads(threads())
    {
        float* lines = packed + ring.packed_floats + thread_index() * ring.thread_floats();
#pragma omp for collapse(2) schedule(dynamic)
        for (int n = 0; n < conv.n; ++n)
            for (int strip = 0; strip < ring.strips; ++strip)
                pool_lines(conv, pool, ring, x, packed, b, n,
                           part_begin(pool.p(), ring.strips, strip),
                           part_begin(pool.p(), ring.strips, strip + 1), y, switches, lines);
    }
}

MapLines unpooled_lines(const ConvShape& conv, const PoolShape& pool, const float* y,
                        const std::uint8_t* switches, bool rectify) {
    return {y, conv.p(), static_cast<std::int64_t>(conv.q()) * conv.k, &pool, switches, rectify};
}

}  // namespace

template <class Precision>
std::size_t conv2d_relu_pool_workspace(const ConvShape& conv, const PoolShape& pool) {
    check_block(conv, pool);
    if (!first_layer::applies(conv)) return group_workspace(conv, conv_steps::forward_workspace);
    const Ring ring(conv, pool);
    return sizeof(float) * (ring.packed_floats + ring.thread_floats() * max_threads());
}

template <class Precision>
void conv2d_relu_pool(const ConvShape& conv, const PoolShape& pool, const Element<Precision>* x,
                      const Element<Precision>* w, const float* b, Element<Precision>* y,
                      std::uint8_t* switches, void* workspace, Stream stream) {
    if (first_layer::applies(conv))
        return first_layer_pool(conv, pool, x, w, b, y, switches, workspace);
    const Groups groups(conv);
    float* map = static_cast<float*>(workspace);
    void* scratch = map + groups.map_floats;
    conv_steps::pack_forward(groups.largest, w, scratch);
    for (int i = 0; i < groups.count; ++i) {
        const Group group(conv, pool, groups.count, i);
        conv_steps::forward(groups.largest, group.conv.n, x + group.image_offset, b, true, map,
                            scratch);
        max_pool2d(group.pool, map, y + group.pooled_offset, switches + group.pooled_offset,
                   stream);
    }
}

template <class Precision>
std::size_t unpool_conv_transpose2d_workspace(const ConvShape& conv, const PoolShape& pool) {
    check_block(conv, pool);
    return first_layer::transpose_applies(conv)
               ? first_layer::conv_transpose2d_workspace(conv)
               : group_workspace(conv, conv_steps::transpose_workspace);
}

template <class Precision>
void unpool_conv_transpose2d(const ConvShape& conv, const PoolShape& pool,
                             const Element<Precision>* y, const std::uint8_t* switches,
                             const Element<Precision>* w, bool rectify, Element<Precision>* x,
                             void* workspace, Stream stream) {
    if (first_layer::transpose_applies(conv))
        return first_layer::conv_transpose2d(conv, unpooled_lines(conv, pool, y, switches, rectify),
                                             w, x, workspace);
    const Groups groups(conv);
    float* map = static_cast<float*>(workspace);
    void* scratch = map + groups.map_floats;
    conv_steps::pack_transpose(groups.largest, w, scratch);
    for (int i = 0; i < groups.count; ++i) {
        const Group group(conv, pool, groups.count, i);
        max_unpool2d(group.pool, y + group.pooled_offset, switches + group.pooled_offset, map,
                     stream);
        if (rectify) relu(map_floats(conv, group.conv.n), map, map, stream);
        conv_steps::transpose(groups.largest, group.conv.n, map, x + group.image_offset, scratch);
    }
}

template <class Precision>
std::size_t unpool_conv2d_weight_grad_workspace(const ConvShape& conv, const PoolShape& pool) {
    check_block(conv, pool);
    return first_layer::applies(conv) ? first_layer::conv2d_weight_grad_workspace(conv)
                                      : group_workspace(conv, conv_steps::weight_grad_workspace);
}

template <class Precision>
void unpool_conv2d_weight_grad(const ConvShape& conv, const PoolShape& pool,
                               const Element<Precision>* x, const Element<Precision>* dy,
                               const std::uint8_t* switches, float* dw, void* workspace,
                               Stream stream) {
    if (first_layer::applies(conv))
        return first_layer::conv2d_weight_grad(
            conv, x, unpooled_lines(conv, pool, dy, switches, false), dw, workspace);
    const Groups groups(conv);
    float* map = static_cast<float*>(workspace);
    void* scratch = map + groups.map_floats;
    for (int i = 0; i < groups.count; ++i) {
        const Group group(conv, pool, groups.count, i);
        max_unpool2d(group.pool, dy + group.pooled_offset, switches + group.pooled_offset, map,
                     stream);
        conv_steps::add_weight_grad(groups.largest, group.conv.n, x + group.image_offset, map,
                                    i > 0, dw, scratch);
    }
    conv_steps::finish_weight_grad(groups.largest, dw, scratch);
}

template decltype(conv2d_relu_pool_workspace<Fp32>) conv2d_relu_pool_workspace<Fp32>;
template decltype(conv2d_relu_pool<Fp32>) conv2d_relu_pool<Fp32>;
template decltype(unpool_conv_transpose2d_workspace<Fp32>) unpool_conv_transpose2d_workspace<Fp32>;
template decltype(unpool_conv_transpose2d<Fp32>) unpool_conv_transpose2d<Fp32>;
template decltype(unpool_conv2d_weight_grad_workspace<Fp32>)
    unpool_conv2d_weight_grad_workspace<Fp32>;
template decltype(unpool_conv2d_weight_grad<Fp32>) unpool_conv2d_weight_grad<Fp32>;

}  // namespace zfcuda
