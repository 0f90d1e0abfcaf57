// The gradient of a convolution's filters on the CPU, as a matrix product over the pixels:
//
//   dw[k][d] = sum over m of dy[m][k] * gather[m][d],    d = (r, s, c)
//
// The tiles of gemm.h run down K and across d, the depth is m. Work is cut into groups of panels of
// d and, where these are few (a first layer has 3 * 49 columns), into chunks of pixels too, which
// write partial results that are added in the order of the chunks: the cut depends on the shape
// alone, so the bits do not depend on the threads. A thread goes through its pixels in blocks of
// kWgradPixels: it packs dy for all K (read by every panel of the group), then panel by panel gathers x
// and multiplies. dw of the group stays in the second-level cache. Bounded by the multiply-adds.
#include <algorithm>

#include "../../ops.h"
#include "../gemm.h"
#include "../parallel.h"
#include "dense.h"
#include "first_layer.h"
#include "gather.h"
#include "steps.h"
#include "winograd/batch.h"

namespace zfcuda {
namespace {

using namespace gemm;

struct Plan {
    int tiles;           // of K
    int panels, groups;  // of d
    int chunks;          // of pixels

    Plan(const ConvShape& shape) {
        const std::int64_t pixels = static_cast<std::int64_t>(shape.n) * shape.p() * shape.q();
        tiles = ceil_div(shape.k, kTileRows);
        panels = ceil_div(shape.r * shape.s * shape.c, kPanel);
        groups = ceil_div(panels, kWgradPanels);
        if (groups > 2) groups = ceil_div(groups, 4) * 4;
        groups = std::min(groups, panels);
        chunks = groups >= kWgradTasks ? 1
                                       : std::clamp(ceil_div(pixels, 2 * kWgradPixels), 1,
                                                    ceil_div(kWgradTasks, groups));
    }

    std::int64_t dy_floats() const {
        return static_cast<std::int64_t>(tiles) * kTileRows * kWgradPixels;
    }
    std::int64_t thread_floats() const {
        return dy_floats() + kWgradPixels * kPanel + simd::kLanes;
    }
    std::int64_t partial_floats(const ConvShape& shape) const {
        return chunks > 1
                   ? static_cast<std::int64_t>(chunks) * shape.k * shape.r * shape.s * shape.c
                   : 0;
    }
};

// Tile by tile, pixel by pixel, kTileRows values of dy.
void pack_gradient(const float* dy, int k, int tiles, int count, float* out) {
    for (int m = 0; m < count; ++m, dy += k)
        for (int tile = 0; tile < tiles; ++tile) {
            const int k0 = part_begin(k, tiles, tile), k1 = part_begin(k, tiles, tile + 1);
            simd::copy(out + (tile * kWgradPixels + m) * kTileRows, dy + k0, k1 - k0);
        }
}

}  // namespace

namespace conv_steps {

std::size_t weight_grad_workspace(const ConvShape& shape) {
    if (winograd::pays(shape)) return winograd::conv2d_weight_grad_workspace(shape);
    const Plan plan(shape);
    return sizeof(float) * (plan.partial_floats(shape) + plan.thread_floats() * max_threads());
}

void add_weight_grad(const ConvShape& shape, int images, const float* x, const float* dy,
                     bool accumulate, float* dw, void* workspace) {
    if (winograd::pays(shape))
        return winograd::add_weight_grad(shape, images, x, dy, accumulate, workspace);
    const Plan plan(shape);
    const Gather gather{x,          images,  shape.h, shape.w,        shape.c,        shape.p(),
                        shape.q(),  shape.r, shape.s, shape.stride_h, shape.stride_w, shape.pad_h,
                        shape.pad_w};
    const int depth = gather.depth();
    const std::int64_t size = static_cast<std::int64_t>(shape.k) * depth;
    const std::int64_t pixels = gather.rows();
    float* partials = plan.chunks > 1 ? static_cast<float*>(workspace) : dw;
    float* scratch = static_cast<float*>(workspace) + plan.partial_floats(shape);

#pragma omp parallel num_threads(threads())
    {
        float* packed_dy = scratch + thread_index() * plan.thread_floats();
        float* packed_x = packed_dy + plan.dy_floats();
#pragma omp for collapse(2) schedule(dynamic)
        for (int chunk = 0; chunk < plan.chunks; ++chunk)
            for (int group = 0; group < plan.groups; ++group) {
                float* partial = partials + chunk * size;
                const std::int64_t end = part_begin(pixels, plan.chunks, chunk + 1);
                std::int64_t m = part_begin(pixels, plan.chunks, chunk);
                Epilogue epilogue;
                epilogue.accumulate = accumulate;
                // A chunk without pixels (fewer images than there is room for) adds a depth of
                // zero.
                do {
                    const int count =
                        static_cast<int>(std::min<std::int64_t>(kWgradPixels, end - m));
                    pack_gradient(dy + m * shape.k, shape.k, plan.tiles, count, packed_dy);
                    for (int panel = part_begin(plan.panels, plan.groups, group);
                         panel < part_begin(plan.panels, plan.groups, group + 1); ++panel) {
                        const int d0 = panel * kPanel, d1 = std::min(d0 + kPanel, depth);
                        gather.pack(m, count, d0, d1, packed_x, kPanel);
                        for (int tile = 0; tile < plan.tiles; ++tile) {
                            const int k0 = part_begin(shape.k, plan.tiles, tile);
                            const int k1 = part_begin(shape.k, plan.tiles, tile + 1);
                            float* rows[kTileRows];
                            for (int i = 0; i < k1 - k0; ++i)
                                rows[i] = partial + static_cast<std::int64_t>(k0 + i) * depth;
                            multiply_tile(k1 - k0,
                                          {packed_dy + tile * (kTileRows * kWgradPixels), 1,
                                           packed_x, count, kTileRows},
                                          rows, d0, d1 - d0, epilogue);
                        }
                    }
                    epilogue.accumulate = true;
                    m += count;
                } while (m < end);
            }
    }
}

void finish_weight_grad(const ConvShape& shape, float* dw, void* workspace) {
    if (winograd::pays(shape)) return winograd::finish_weight_grad(shape, dw, workspace);
    const Plan plan(shape);
    if (plan.chunks == 1) return;
    const std::int64_t size = static_cast<std::int64_t>(shape.k) * shape.r * shape.s * shape.c;
    const float* partials = static_cast<const float*>(workspace);
#pragma omp parallel for num_threads(threads())
    for (std::int64_t i = 0; i < size; ++i) {
        float sum = partials[i];
        for (int chunk = 1; chunk < plan.chunks; ++chunk)
            sum += partials[chunk * size + i];
        dw[i] = sum;
    }
}

}  // namespace conv_steps

template <class Precision>
std::size_t conv2d_weight_grad_workspace(const ConvShape& shape) {
    if (dense::applies(shape)) return dense::conv2d_weight_grad_workspace(shape);
    return first_layer::applies(shape) ? first_layer::conv2d_weight_grad_workspace(shape)
                                       : conv_steps::weight_grad_workspace(shape);
}

template <class Precision>
void conv2d_weight_grad(const ConvShape& shape, const Element<Precision>* x,
                        const Element<Precision>* dy, float* dw, void* workspace, Stream) {
    if (dense::applies(shape)) return dense::conv2d_weight_grad(shape, x, dy, dw, workspace);
    if (first_layer::applies(shape)) {
        const std::int64_t line = static_cast<std::int64_t>(shape.q()) * shape.k;
        return first_layer::conv2d_weight_grad(shape, x, {dy, shape.p(), line}, dw, workspace);
    }
    conv_steps::add_weight_grad(shape, shape.n, x, dy, false, dw, workspace);
    conv_steps::finish_weight_grad(shape, dw, workspace);
}

template decltype(conv2d_weight_grad_workspace<Fp32>) conv2d_weight_grad_workspace<Fp32>;
template decltype(conv2d_weight_grad<Fp32>) conv2d_weight_grad<Fp32>;

}  // namespace zfcuda
