// What a backend's Python module holds. What ops.h declares as a template is in submodules, one for
// each precision that the backend has: `fp32`, `tf32` and `bf16`.
//
// Arrays arrive as such or as addresses (binding.h). Everything about them (kind, dtype, shape,
// layout) has been checked by zfcuda/ops, the only caller; the shape structs check the geometry
// here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "binding.h"
#include "bindings.h"
#include "host_pool.h"
#include "ops.h"
#if defined(ZFCUDA_KERNELS)
#include "kernels/conv/tuned_plans_bindings.h"
#else
#include "cpu/conv/methods.h"
#include "cpu/resample.h"
#include "cpu/stored_images.h"
#endif
#if defined(ZFCUDA_EMULATOR)
#include "simt/debug_bindings.h"
#endif

namespace py = pybind11;
using namespace zfcuda;

namespace {

// Sizes as Python gives them, and as the shapes hold them.
template <std::size_t N>
using Sizes = std::array<std::int64_t, N>;
using Pair = Sizes<2>;

template <std::size_t N>
std::array<int, N> narrow(const char* name, const Sizes<N>& sizes) {
    std::array<int, N> narrowed;
    for (std::size_t i = 0; i < N; ++i) {
        narrowed[i] = static_cast<int>(sizes[i]);
        shapes::require(narrowed[i] == sizes[i], name, " is out of range: ", sizes[i]);
    }
    return narrowed;
}

// (top, bottom, left, right), from these or from (height, width).
std::array<int, 4> narrow_padding(const std::vector<std::int64_t>& padding) {
    if (padding.size() == 2)
        return narrow<4>("padding", {padding[0], padding[0], padding[1], padding[1]});
    shapes::require(padding.size() == 4, "padding must have 2 or 4 numbers");
    return narrow<4>("padding", {padding[0], padding[1], padding[2], padding[3]});
}

ConvShape make_conv_shape(Sizes<4> x_sizes, Sizes<4> w_sizes, Pair strides,
                          const std::vector<std::int64_t>& paddings, Pair dilations,
                          std::int64_t all_groups) {
    const auto x = narrow("x", x_sizes), w = narrow("w", w_sizes);
    const auto stride = narrow("stride", strides), dilation = narrow("dilation", dilations);
    const auto padding = narrow_padding(paddings);
    const int groups = narrow<1>("groups", {all_groups})[0];
    shapes::require_at_least("groups", groups, 1);
    shapes::require(x[3] == static_cast<std::int64_t>(w[3]) * groups, "w has ", w[3],
                    " input channels (its last axis)",
                    groups == 1 ? std::string() : " in " + std::to_string(groups) + " groups",
                    ", but x has ", x[3]);
    const ConvShape shape{x[0],       x[1],        x[2],        x[3],       w[0],       w[1],
                          w[2],       stride[0],   stride[1],   padding[0], padding[1], padding[2],
                          padding[3], dilation[0], dilation[1], groups};
    shape.check();
    return shape;
}

PoolShape make_pool_shape(Sizes<4> x_sizes, Pair windows, Pair strides,
                          const std::vector<std::int64_t>& paddings, bool ceil_mode) {
    const auto x = narrow("x", x_sizes);
    const auto window = narrow("window", windows), stride = narrow("stride", strides);
    auto padding = narrow_padding(paddings);
    for (int axis = 0; axis < 2 && ceil_mode; ++axis) {
        const int before = padding[2 * axis];
        int& after = padding[2 * axis + 1];
        after = narrow<1>("padding", {shapes::ceil_padding(x[1 + axis], window[axis], stride[axis],
                                                           before, after)})[0];
    }
    const PoolShape shape{x[0],      x[1],      x[2],       x[3],       window[0],  window[1],
                          stride[0], stride[1], padding[0], padding[1], padding[2], padding[3]};
    shape.check();
    return shape;
}

AvgPoolShape make_avg_pool_shape(Sizes<4> x_sizes, Pair windows, Pair strides, Sizes<4> paddings,
                                 bool ceil_mode, bool count_include_pad) {
    const auto x = narrow("x", x_sizes);
    const auto window = narrow("window", windows), stride = narrow("stride", strides);
    const auto padding = narrow("padding", paddings);
    const AvgPoolShape shape{
        x[0],      x[1],       x[2],       x[3],       window[0],  window[1], stride[0],
        stride[1], padding[0], padding[1], padding[2], padding[3], ceil_mode, count_include_pad};
    shape.check();
    return shape;
}

DepthwiseShape make_depthwise_shape(Sizes<4> x_sizes, Sizes<4> w_sizes, Pair strides,
                                    Sizes<4> paddings, Pair dilations) {
    const auto x = narrow("x", x_sizes), w = narrow("w", w_sizes);
    const auto stride = narrow("stride", strides), dilation = narrow("dilation", dilations);
    const auto padding = narrow("padding", paddings);
    shapes::require(w[3] == 1, "w must have 1 input channel (its last axis), got ", w[3]);
    const DepthwiseShape shape{x[0],       x[1],       x[2],       x[3],        w[0],
                               w[1],       w[2],       stride[0],  stride[1],   padding[0],
                               padding[1], padding[2], padding[3], dilation[0], dilation[1]};
    shape.check();
    return shape;
}

CropShape make_crop_shape(Sizes<4> images_sizes, Pair sizes) {
    const auto images = narrow("images", images_sizes);
    const auto size = narrow("size", sizes);
    const CropShape shape{images[0], images[1], images[2], images[3], size[0], size[1]};
    shape.check();
    return shape;
}

WindowShape make_window_shape(Sizes<4> x_sizes, std::int64_t windows, Pair sizes, int bytes) {
    const auto x = narrow("x", x_sizes);
    const auto size = narrow("size", sizes);
    const auto count = narrow("the number of windows", Sizes<1>{windows});
    const WindowShape shape{x[0], x[1], x[2], x[3], count[0], size[0], size[1], bytes};
    shape.check();
    return shape;
}

void bind_shapes(py::module_& m) {
    py::class_<ConvShape>(m, "ConvShape", py::module_local())
        .def(py::init(&make_conv_shape), py::arg("x"), py::arg("w"), py::arg("stride"),
             py::arg("padding"), py::arg("dilation") = Pair{1, 1}, py::arg("groups") = 1)
        .def_property_readonly(
            "output", [](const ConvShape& s) { return py::make_tuple(s.n, s.p(), s.q(), s.k); });
    py::class_<PoolShape>(m, "PoolShape", py::module_local())
        .def(py::init(&make_pool_shape), py::arg("x"), py::arg("window"), py::arg("stride"),
             py::arg("padding"), py::arg("ceil_mode") = false)
        .def_property_readonly(
            "output", [](const PoolShape& s) { return py::make_tuple(s.n, s.p(), s.q(), s.c); });
    py::class_<AvgPoolShape>(m, "AvgPoolShape", py::module_local())
        .def(py::init(&make_avg_pool_shape), py::arg("x"), py::arg("window"), py::arg("stride"),
             py::arg("padding"), py::arg("ceil_mode"), py::arg("count_include_pad"))
        .def_property_readonly(
            "output", [](const AvgPoolShape& s) { return py::make_tuple(s.n, s.p(), s.q(), s.c); });
    py::class_<DepthwiseShape>(m, "DepthwiseShape", py::module_local())
        .def(py::init(&make_depthwise_shape), py::arg("x"), py::arg("w"), py::arg("stride"),
             py::arg("padding"), py::arg("dilation"))
        .def_property_readonly("output", [](const DepthwiseShape& s) {
            return py::make_tuple(s.n, s.p(), s.q(), s.k);
        });
    py::class_<CropShape>(m, "CropShape", py::module_local())
        .def(py::init(&make_crop_shape), py::arg("images"), py::arg("size"))
        .def_property_readonly("output", [](const CropShape& s) {
            return py::make_tuple(s.n, s.out_h, s.out_w, s.c);
        });
    py::class_<WindowShape>(m, "WindowShape", py::module_local())
        .def(py::init(&make_window_shape), py::arg("x"), py::arg("windows"), py::arg("size"),
             py::arg("bytes"))
        .def_property_readonly("output", [](const WindowShape& s) {
            return py::make_tuple(s.n, s.out_h, s.out_w, s.c);
        });
}

// Smaller arrays come from NumPy: its own cache is as good.
constexpr double kPooledBytes = 64 * 1024;

py::array empty(const std::vector<py::ssize_t>& shape, const py::object& element) {
    const auto dtype = py::dtype::from_args(element);
    double size = static_cast<double>(dtype.itemsize());
    for (const py::ssize_t n : shape)
        size *= static_cast<double>(n);
    if (size < kPooledBytes) return py::array(dtype, shape);
    if (size >= 0x1p62) throw std::bad_alloc();
    auto block = std::make_unique<HostBlock>(static_cast<std::size_t>(size));
    void* data = block->data();
    const py::capsule owner(block.get(), [](void* dead) { delete static_cast<HostBlock*>(dead); });
    block.release();
    return py::array(dtype, shape, data, owner);
}

// The convolutions and blocks.
template <class Precision>
void bind_convolutions(py::module_& m) {
    bind(m, "conv2d", conv2d<Precision>);
    bind(m, "conv2d_workspace", conv2d_workspace<Precision>);
    bind(m, "conv_transpose2d", conv_transpose2d<Precision>);
    bind(m, "conv_transpose2d_workspace", conv_transpose2d_workspace<Precision>);
    bind(m, "conv2d_weight_grad", conv2d_weight_grad<Precision>);
    bind(m, "conv2d_weight_grad_workspace", conv2d_weight_grad_workspace<Precision>);
    bind(m, "conv2d_relu_pool", conv2d_relu_pool<Precision>);
    bind(m, "conv2d_relu_pool_workspace", conv2d_relu_pool_workspace<Precision>);
    bind(m, "unpool_conv_transpose2d", unpool_conv_transpose2d<Precision>);
    bind(m, "unpool_conv_transpose2d_workspace", unpool_conv_transpose2d_workspace<Precision>);
    bind(m, "unpool_conv2d_weight_grad", unpool_conv2d_weight_grad<Precision>);
    bind(m, "unpool_conv2d_weight_grad_workspace", unpool_conv2d_weight_grad_workspace<Precision>);
}

// The other operations that exist for several types of elements.
template <class T>
void bind_others(py::module_& m) {
    bind(m, "conv2d_bias_grad", conv2d_bias_grad<T>);
    bind(m, "depthwise_conv2d", depthwise_conv2d<T>);
    bind(m, "depthwise_conv2d_data_grad", depthwise_conv2d_data_grad<T>);
    bind(m, "depthwise_conv2d_weight_grad", depthwise_conv2d_weight_grad<T>);
    bind(m, "max_pool2d", max_pool2d<T>);
    bind(m, "max_unpool2d", max_unpool2d<T>);
    bind(m, "spatial_max", spatial_max<T>);
    bind(m, "avg_pool2d", avg_pool2d<T>);
    bind(m, "avg_pool2d_grad", avg_pool2d_grad<T>);
    bind(m, "add", add<T>);
    bind(m, "relu", relu<T>);
    bind(m, "relu_grad", relu_grad<T>);
    bind(m, "leaky_relu", leaky_relu<T>);
    bind(m, "leaky_relu_grad", leaky_relu_grad<T>);
    bind(m, "prelu_weight_grad", prelu_weight_grad<T>);
    bind(m, "clip", clip<T>);
    bind(m, "clip_grad", clip_grad<T>);
    bind(m, "dropout", dropout<T>);
    bind(m, "local_response_norm", local_response_norm<T>);
    bind(m, "local_response_norm_grad", local_response_norm_grad<T>);
    bind(m, "batch_norm", batch_norm<T>);
    bind(m, "batch_norm_statistics", batch_norm_statistics<T>);
    bind(m, "batch_norm_grad", batch_norm_grad<T>);
}

#if !defined(ZFCUDA_KERNELS)
// The names of the CPU's convolution methods, of all or for one shape.
void bind_conv_methods(py::module_& m) {
    using namespace conv;
    py::enum_<Direction>(m, "Direction", py::module_local())
        .value("fprop", Direction::kFprop)
        .value("dgrad", Direction::kDgrad)
        .value("wgrad", Direction::kWgrad);
    m.def("conv_methods", [] {
        std::vector<std::pair<Direction, std::string>> names;
        for (const Method* method : methods())
            names.emplace_back(method->direction, method->name);
        return names;
    });
    m.def("conv_method", [](const ConvShape& shape, Direction direction, bool in_block) {
        return choose(shape, direction, in_block).name;
    });
}
#endif

}  // namespace

void zfcuda::bind_backend(py::module_& m) {
    m.def("unavailable_reason", &unavailable_reason);
    m.def("description", &description);
    bind_shapes(m);
    bind(m, "conv2d_bias_grad_workspace", conv2d_bias_grad_workspace);
    bind(m, "depthwise_conv2d_workspace", depthwise_conv2d_workspace);
    bind(m, "depthwise_conv2d_data_grad_workspace", depthwise_conv2d_data_grad_workspace);
    bind(m, "depthwise_conv2d_weight_grad_workspace", depthwise_conv2d_weight_grad_workspace);
    bind(m, "avg_pool2d_workspace", avg_pool2d_workspace);
    bind(m, "batch_norm_statistics_workspace", batch_norm_statistics_workspace);
    bind(m, "batch_norm_grad_workspace", batch_norm_grad_workspace);
    bind(m, "prelu_weight_grad_workspace", prelu_weight_grad_workspace);
    bind(m, "softmax", softmax);
    bind(m, "softmax_cross_entropy", softmax_cross_entropy);
    bind(m, "softmax_cross_entropy_workspace", softmax_cross_entropy_workspace);
    bind(m, "softmax_cross_entropy_grad", softmax_cross_entropy_grad);
    bind(m, "sgd_step", sgd_step);
    bind(m, "renormalize_filters", renormalize_filters);
    bind(m, "crop_images", crop_images);
    bind(m, "cut_windows", cut_windows);
    bind(m, "copy_channels", copy_channels);
    bind(m, "permute_channels", permute_channels);

    py::module_ fp32 = m.def_submodule("fp32", "float32 arrays.");
    bind_convolutions<Fp32>(fp32);
    bind_others<float>(fp32);
#if defined(ZFCUDA_KERNELS)
    py::module_ tf32 =
        m.def_submodule("tf32", "float32 arrays, rounded where they are multiplied.");
    bind_convolutions<Tf32>(tf32);
    py::module_ bf16 = m.def_submodule("bf16", "bfloat16 arrays.");
    bind_convolutions<Bf16>(bf16);
    bind_others<BFloat16>(bf16);
    bind(bf16, "cast_from_fp32", cast<float, BFloat16>);
    bind(bf16, "cast_to_fp32", cast<BFloat16, float>);
    conv::bind_plans(m);
#else
    bind_conv_methods(m);
    bind(m, "crop_stored_images", crop_stored_images);
    bind(m, "scale_columns", scale_columns);
    bind(m, "scale_rows", scale_rows);
#endif

    m.def(
        "address", [](Address array) { return array.value; },
        "Where a NumPy array's first element lies; several times faster than array.ctypes.data.");
    m.def("empty", &empty, py::arg("shape"), py::arg("dtype"),
          "An array with undefined contents, whose memory is used again when it dies.");
    m.def(
        "host_memory",
        [] {
            const HostBlock::Usage usage = HostBlock::usage();
            return std::array<std::size_t, 2>{usage.in_use, usage.kept};
        },
        "Bytes of the blocks that arrays use, and of those kept for later ones.");
    m.def("release_host_memory", &HostBlock::release_cached,
          "Gives the blocks that no array uses back to the operating system.");
#if defined(ZFCUDA_EMULATOR)
    simt::bind_debug(m.def_submodule("debug"));
#endif
}
