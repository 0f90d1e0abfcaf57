// conv + bias + ReLU + max pool as one operation, and its way back, on the CPU.
//
// Where the convolution's method takes the pool too (lines.h), the map between is never stored.
// Otherwise the batch goes through in groups of images whose map fits the last-level cache, with
// filters packed once.
#include <algorithm>

#include "../../ops.h"
#include "../blocking.h"
#include "methods.h"

namespace zfcuda {
namespace {

using namespace conv;

std::int64_t map_floats(const ConvShape& conv, int images) {
    return static_cast<std::int64_t>(images) * conv.p() * conv.q() * conv.k;
}

// The groups of the batch, and the method for the largest of them.
struct Plan {
    int groups;
    ConvShape conv;  // of the largest group
    const Method& method;
    bool fused;                    // then there is one call for the batch, and no map
    std::int64_t workspace_begin;  // of the method's: a group's map comes before it

    Plan(const ConvShape& all, Direction direction)
        : groups(std::min(all.n, ceil_div(4 * map_floats(all, all.n), kGroupBytes))),
          conv(with_images(all, ceil_div(all.n, groups))),
          method(choose(conv, direction, true)),
          fused(method.fusion == Fusion::kLines),
          workspace_begin(fused ? 0 : odd_lines(map_floats(conv, conv.n))) {
        if (fused) conv.n = all.n;
    }

    static ConvShape with_images(ConvShape shape, int images) {
        shape.n = images;
        return shape;
    }
};

// One group: its pool, whose batch it is, and where its images begin.
struct Group {
    PoolShape pool;
    std::int64_t image_begin, pooled_begin;
};

// Packs, calls body(group) for every group, and finishes.
template <typename Body>
void for_groups(const Plan& plan, const Call& call, const PoolShape& pool, const Body& body) {
    const ConvShape& conv = plan.conv;
    if (plan.method.pack) plan.method.pack(call);
    for (int i = 0; i < plan.groups; ++i) {
        const std::int64_t first = part_begin(pool.n, plan.groups, i);
        Group group{pool, first * conv.h * conv.w * conv.c, first * pool.p() * pool.q() * pool.c};
        group.pool.n = static_cast<int>(part_begin(pool.n, plan.groups, i + 1) - first);
        body(group);
    }
    if (plan.method.finish) plan.method.finish(call);
}

std::size_t workspace_bytes(const ConvShape& conv, const PoolShape& pool, Direction direction) {
    check_block(conv, pool);
    const Plan plan(conv, direction);
    return sizeof(float) * (plan.workspace_begin + plan.method.workspace(plan.conv, &pool));
}

}  // namespace

template <class Precision>
std::size_t conv2d_relu_pool_workspace(const ConvShape& conv, const PoolShape& pool) {
    return workspace_bytes(conv, pool, Direction::kFprop);
}

template <class Precision>
void conv2d_relu_pool(const ConvShape& conv, const PoolShape& pool, const Element<Precision>* x,
                      const Element<Precision>* w, const float* b, Element<Precision>* y,
                      std::uint8_t* switches, void* workspace, Stream stream) {
    const Plan plan(conv, Direction::kFprop);
    float* map = static_cast<float*>(workspace);
    Call call{plan.conv, conv.n, x, w, nullptr, map, map + plan.workspace_begin, b};
    call.relu = true;
    if (plan.fused) {
        call.out = y;
        call.pool = &pool;
        call.out_switches = switches;
        return plan.method.compute(call);
    }
    for_groups(plan, call, pool, [&](const Group& group) {
        call.images = group.pool.n;
        call.x = x + group.image_begin;
        plan.method.run(call);
        max_pool2d(group.pool, map, y + group.pooled_begin, switches + group.pooled_begin, stream);
    });
}

template <class Precision>
std::size_t unpool_conv_transpose2d_workspace(const ConvShape& conv, const PoolShape& pool) {
    return workspace_bytes(conv, pool, Direction::kDgrad);
}

template <class Precision>
void unpool_conv_transpose2d(const ConvShape& conv, const PoolShape& pool,
                             const Element<Precision>* y, const std::uint8_t* switches,
                             const Element<Precision>* w, bool rectify, Element<Precision>* x,
                             void* workspace, Stream stream) {
    const Plan plan(conv, Direction::kDgrad);
    float* map = static_cast<float*>(workspace);
    Call call{plan.conv, conv.n, nullptr, w, map, x, map + plan.workspace_begin};
    if (plan.fused) {
        call.y = y;
        call.pool = &pool;
        call.switches = switches;
        call.rectify = rectify;
        return plan.method.compute(call);
    }
    for_groups(plan, call, pool, [&](const Group& group) {
        max_unpool2d(group.pool, y + group.pooled_begin, switches + group.pooled_begin, map,
                     stream);
        if (rectify) relu(map_floats(conv, group.pool.n), map, map, stream);
        call.images = group.pool.n;
        call.out = x + group.image_begin;
        plan.method.run(call);
    });
}

template <class Precision>
std::size_t unpool_conv2d_weight_grad_workspace(const ConvShape& conv, const PoolShape& pool) {
    return workspace_bytes(conv, pool, Direction::kWgrad);
}

template <class Precision>
void unpool_conv2d_weight_grad(const ConvShape& conv, const PoolShape& pool,
                               const Element<Precision>* x, const Element<Precision>* dy,
                               const std::uint8_t* switches, float* dw, void* workspace,
                               Stream stream) {
    const Plan plan(conv, Direction::kWgrad);
    float* map = static_cast<float*>(workspace);
    Call call{plan.conv, conv.n, x, nullptr, map, dw, map + plan.workspace_begin};
    if (plan.fused) {
        call.y = dy;
        call.pool = &pool;
        call.switches = switches;
        return plan.method.compute(call);
    }
    for_groups(plan, call, pool, [&](const Group& group) {
        max_unpool2d(group.pool, dy + group.pooled_begin, switches + group.pooled_begin, map,
                     stream);
        call.images = group.pool.n;
        call.x = x + group.image_begin;
        plan.method.run(call);
        call.accumulate = true;
    });
}

template decltype(conv2d_relu_pool_workspace<Fp32>) conv2d_relu_pool_workspace<Fp32>;
template decltype(conv2d_relu_pool<Fp32>) conv2d_relu_pool<Fp32>;
template decltype(unpool_conv_transpose2d_workspace<Fp32>) unpool_conv_transpose2d_workspace<Fp32>;
template decltype(unpool_conv_transpose2d<Fp32>) unpool_conv_transpose2d<Fp32>;
template decltype(unpool_conv2d_weight_grad_workspace<Fp32>)
    unpool_conv2d_weight_grad_workspace<Fp32>;
template decltype(unpool_conv2d_weight_grad<Fp32>) unpool_conv2d_weight_grad<Fp32>;

}  // namespace zfcuda
