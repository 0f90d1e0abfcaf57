// The Python module of one backend: `_cpu_*`, `_cuda` or `_emulated`, by ZFCUDA_MODULE.
//
// Arrays arrive as addresses. Everything about them (kind, dtype, shape, layout) has been checked
// by zfcuda/ops.py, the only caller; the shape structs check the geometry here. The GIL is released
// in every call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "host_pool.h"
#include "ops.h"
#if defined(ZFCUDA_KERNELS)
#include "kernels/conv_ops.h"
#include "kernels/tuned_plans.h"
#include "ops_bf16.h"
#endif
#if defined(ZFCUDA_EMULATOR)
#include "simt/debug_bindings.h"
#endif

namespace py = pybind11;
using namespace zfcuda;

namespace {

using Address = std::uintptr_t;
using Pair = std::array<int, 2>;

template <typename T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

ConvShape make_conv_shape(std::array<int, 4> x, std::array<int, 4> w, Pair stride, Pair padding) {
    shapes::require(x[3] == w[3], "w has " + std::to_string(w[3]) +
                                      " input channels (its last axis), but x has " +
                                      std::to_string(x[3]));
    const ConvShape shape{x[0], x[1],      x[2],      x[3],       w[0],      w[1],
                          w[2], stride[0], stride[1], padding[0], padding[1]};
    shape.check();
    return shape;
}

PoolShape make_pool_shape(std::array<int, 4> x, Pair window, Pair stride, Pair padding) {
    const PoolShape shape{x[0],      x[1],      x[2],      x[3],       window[0],
                          window[1], stride[0], stride[1], padding[0], padding[1]};
    shape.check();
    return shape;
}

CropShape make_crop_shape(std::array<int, 4> images, Pair size) {
    const CropShape shape{images[0], images[1], images[2], images[3], size[0], size[1]};
    shape.check();
    return shape;
}

WindowShape make_window_shape(std::array<int, 4> x, int windows, Pair size, int bytes) {
    const WindowShape shape{x[0], x[1], x[2], x[3], windows, size[0], size[1], bytes};
    shape.check();
    return shape;
}

void bind_shapes(py::module_& m) {
    py::class_<ConvShape>(m, "ConvShape", py::module_local())
        .def(py::init(&make_conv_shape), py::arg("x"), py::arg("w"), py::arg("stride"),
             py::arg("padding"))
        .def_property_readonly("output", [](const ConvShape& s) {
            return std::array<int, 4>{s.n, s.p(), s.q(), s.k};
        });
    py::class_<PoolShape>(m, "PoolShape", py::module_local())
        .def(py::init(&make_pool_shape), py::arg("x"), py::arg("window"), py::arg("stride"),
             py::arg("padding"))
        .def_property_readonly("output", [](const PoolShape& s) {
            return std::array<int, 4>{s.n, s.p(), s.q(), s.c};
        });
    py::class_<CropShape>(m, "CropShape", py::module_local())
        .def(py::init(&make_crop_shape), py::arg("images"), py::arg("size"))
        .def_property_readonly("output", [](const CropShape& s) {
            return std::array<int, 4>{s.n, s.out_h, s.out_w, s.c};
        });
    py::class_<WindowShape>(m, "WindowShape", py::module_local())
        .def(py::init(&make_window_shape), py::arg("x"), py::arg("windows"), py::arg("size"),
             py::arg("bytes"))
        .def_property_readonly("output", [](const WindowShape& s) {
            return std::array<int, 4>{s.n, s.out_h, s.out_w, s.c};
        });
}

// The operations that exist for float and for Bf16, under names with this suffix.
template <typename T>
void bind_ops_on(py::module_& m, const std::string& suffix) {
    const auto def = [&](const char* name, auto function) {
        m.def((name + suffix).c_str(), function, py::call_guard<py::gil_scoped_release>());
    };
    const auto stream = [](Address address) { return pointer<void>(address); };

    def("conv2d_bias_grad",
        [=](std::int64_t rows, int channels, Address dy, Address db, Address workspace, Address s) {
            conv2d_bias_grad(rows, channels, pointer<T>(dy), pointer<float>(db),
                             pointer<void>(workspace), stream(s));
        });
    m.def(("conv2d_bias_grad" + suffix + "_workspace").c_str(), &conv2d_bias_grad_workspace);

    def("max_pool2d", [=](const PoolShape& shape, Address x, Address y, Address switches,
                          Address s) {
        max_pool2d(shape, pointer<T>(x), pointer<T>(y), pointer<std::uint8_t>(switches), stream(s));
    });
    def("max_unpool2d",
        [=](const PoolShape& shape, Address y, Address switches, Address x, Address s) {
            max_unpool2d(shape, pointer<T>(y), pointer<std::uint8_t>(switches), pointer<T>(x),
                         stream(s));
        });
    def("spatial_max",
        [=](int n, int h, int w, int c, Address x, Address values, Address positions, Address s) {
            spatial_max(n, h, w, c, pointer<T>(x), pointer<T>(values),
                        pointer<std::int32_t>(positions), stream(s));
        });

    def("relu", [=](std::int64_t size, Address x, Address y, Address s) {
        relu(size, pointer<T>(x), pointer<T>(y), stream(s));
    });
    def("relu_grad", [=](std::int64_t size, Address dy, Address y, Address dx, Address s) {
        relu_grad(size, pointer<T>(dy), pointer<T>(y), pointer<T>(dx), stream(s));
    });
    def("dropout", [=](std::int64_t size, Address x, float probability, std::uint64_t seed,
                       Address offset, Address y, Address s) {
        dropout(size, pointer<T>(x), probability, seed, pointer<std::uint64_t>(offset),
                pointer<T>(y), stream(s));
    });

    def("local_response_norm", [=](std::int64_t rows, int channels, int size, float alpha,
                                   float beta, float k, Address x, Address y, Address s) {
        local_response_norm(rows, channels, size, alpha, beta, k, pointer<T>(x), pointer<T>(y),
                            stream(s));
    });
    def("local_response_norm_grad",
        [=](std::int64_t rows, int channels, int size, float alpha, float beta, float k, Address dy,
            Address x, Address dx, Address s) {
            local_response_norm_grad(rows, channels, size, alpha, beta, k, pointer<T>(dy),
                                     pointer<T>(x), pointer<T>(dx), stream(s));
        });
}

#if defined(ZFCUDA_KERNELS)
// ---- Plans: see kernels/tuned_plans.h -----------------------------------------------------------

using Tuned = std::pair<std::string, int>;  // tile, splits

std::size_t index_of(const char* what, const std::vector<std::string>& names,
                     const std::string& name) {
    std::string all;
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (names[i] == name) return i;
        all += (i ? ", " : "") + names[i];
    }
    throw std::invalid_argument(std::string(what) + " must be one of " + all + ", got '" + name +
                                "'");
}

conv::Problem make_problem(const std::string& operation, const std::string& precision,
                           const ConvShape& shape, const std::optional<PoolShape>& pool) {
    static const std::vector<std::string> operations{"conv2d", "conv_transpose2d",
                                                     "conv2d_weight_grad", "conv2d_relu_pool",
                                                     "unpool_conv2d_weight_grad"};
    static const std::vector<std::string> precisions{"fp32", "tf32", "bf16"};
    conv::Problem problem{};
    problem.operation = static_cast<conv::Operation>(index_of("operation", operations, operation));
    problem.precision = static_cast<conv::Precision>(index_of("precision", precisions, precision));
    problem.conv = shape;
    const bool is_block = problem.operation >= conv::Operation::kConv2dReluPool;
    shapes::require(pool.has_value() == is_block,
                    operation + (is_block ? " needs a pool" : " has no pool"));
    if (pool) {
        check_block(shape, *pool);
        problem.pool = *pool;
    }
    return problem;
}

std::vector<conv::Choice> candidates(const conv::Problem& problem) {
    switch (problem.precision) {
        case conv::Precision::kFp32:
            return ConvOps<conv::Fp32Math>::candidates(problem);
        case conv::Precision::kTf32:
            return ConvOps<conv::Tf32Math>::candidates(problem);
        default:
            return ConvOps<conv::Bf16Math>::candidates(problem);
    }
}

std::string tile_name(const conv::Choice& choice) {
    return choice.rows ? std::to_string(choice.rows) + "x" + std::to_string(choice.cols)
                       : "composed";
}

conv::Choice make_choice(const conv::Problem& problem, const std::string& tile, int splits) {
    const auto allowed = candidates(problem);
    std::vector<std::string> names;
    for (const auto& choice : allowed)
        names.push_back(tile_name(choice));
    conv::Choice choice = allowed[index_of("tile", names, tile)];
    const bool is_whole = choice.rows == 0 || problem.operation == conv::Operation::kConv2dReluPool;
    const int most = is_whole ? 1 : conv::kMaxSplits;
    shapes::require(splits >= 1 && splits <= most, "splits of " + tile + " must be from 1 to " +
                                                       std::to_string(most) + ", got " +
                                                       std::to_string(splits));
    choice.splits = splits;
    return choice;
}

void bind_plans(py::module_& m) {
    m.def(
        "plan_candidates",
        [](const std::string& operation, const std::string& precision, const ConvShape& shape,
           const std::optional<PoolShape>& pool) {
            std::vector<Tuned> found;
            for (const auto& choice : candidates(make_problem(operation, precision, shape, pool)))
                found.emplace_back(tile_name(choice), choice.splits);
            return found;
        },
        "The plans, as (tile, splits), among which a tuner may choose; the first one holds without "
        "it.");
    m.def(
        "check_plan",
        [](const std::string& operation, const std::string& precision, const ConvShape& shape,
           const std::optional<PoolShape>& pool, const std::string& tile, int splits) {
            make_choice(make_problem(operation, precision, shape, pool), tile, splits);
        },
        "ValueError unless this problem can have this plan.");
    m.def(
        "set_plan",
        [](const std::string& operation, const std::string& precision, const ConvShape& shape,
           const std::optional<PoolShape>& pool, const std::string& tile, int splits) {
            const conv::Problem problem = make_problem(operation, precision, shape, pool);
            conv::set_tuned_choice(problem, make_choice(problem, tile, splits));
        },
        "From now on this plan holds for this problem.");
    m.def("clear_plans", &conv::clear_tuned_choices,
          "From now on no plan holds that `set_plan` has set.");
    m.def("gpu_names", &gpu_names, "Of every GPU that can be seen, in the order of their numbers.");
}

void bind_conversions(py::module_& m) {
    const auto def = [&m](const char* name, auto function) {
        m.def(name, function, py::call_guard<py::gil_scoped_release>());
    };
    def("narrow_bf16", [](std::int64_t size, Address x, Address y, Address s) {
        narrow(size, pointer<float>(x), pointer<Bf16>(y), pointer<void>(s));
    });
    def("widen_bf16", [](std::int64_t size, Address x, Address y, Address s) {
        widen(size, pointer<Bf16>(x), pointer<float>(y), pointer<void>(s));
    });
}
#endif

// A `..._workspace` function, which also fixes the plans that this thread goes by until its next.
template <class... Shapes>
auto workspace_query(std::size_t (*query)(const Shapes&...)) {
    return [query](const Shapes&... shapes) {
#if defined(ZFCUDA_KERNELS)
        conv::follow_tuned_plans();
#endif
        return query(shapes...);
    };
}

// The convolutions and blocks of `Ops`, whose arrays have elements of Ops::T; `suffix` ends their
// names.
template <class Ops>
void bind_conv_ops(py::module_& m, const std::string& suffix) {
    using T = typename Ops::T;
    const auto def = [&](const std::string& name, const char* ending, auto function) {
        m.def((name + suffix + ending).c_str(), function, py::call_guard<py::gil_scoped_release>());
    };
    const auto stream = [](Address address) { return pointer<void>(address); };

    def("conv2d", "",
        [=](const ConvShape& shape, Address x, Address w, Address b, bool relu, Address y,
            Address workspace, Address s) {
            Ops::conv2d(shape, pointer<T>(x), pointer<T>(w), pointer<float>(b), relu, pointer<T>(y),
                        pointer<void>(workspace), stream(s));
        });
    def("conv2d", "_workspace", workspace_query(Ops::conv2d_workspace));
    def("conv_transpose2d", "",
        [=](const ConvShape& shape, Address y, Address w, Address x, Address workspace, Address s) {
            Ops::conv_transpose2d(shape, pointer<T>(y), pointer<T>(w), pointer<T>(x),
                                  pointer<void>(workspace), stream(s));
        });
    def("conv_transpose2d", "_workspace", workspace_query(Ops::conv_transpose2d_workspace));
    def("conv2d_weight_grad", "",
        [=](const ConvShape& shape, Address x, Address dy, Address dw, Address workspace,
            Address s) {
            Ops::conv2d_weight_grad(shape, pointer<T>(x), pointer<T>(dy), pointer<float>(dw),
                                    pointer<void>(workspace), stream(s));
        });
    def("conv2d_weight_grad", "_workspace", workspace_query(Ops::conv2d_weight_grad_workspace));
    def("conv2d_relu_pool", "",
        [=](const ConvShape& conv, const PoolShape& pool, Address x, Address w, Address b,
            Address y, Address switches, Address workspace, Address s) {
            Ops::conv2d_relu_pool(conv, pool, pointer<T>(x), pointer<T>(w), pointer<float>(b),
                                  pointer<T>(y), pointer<std::uint8_t>(switches),
                                  pointer<void>(workspace), stream(s));
        });
    def("conv2d_relu_pool", "_workspace", workspace_query(Ops::conv2d_relu_pool_workspace));
    def("unpool_conv_transpose2d", "",
        [=](const ConvShape& conv, const PoolShape& pool, Address y, Address switches, Address w,
            bool rectify, Address x, Address workspace, Address s) {
            Ops::unpool_conv_transpose2d(conv, pool, pointer<T>(y), pointer<std::uint8_t>(switches),
                                         pointer<T>(w), rectify, pointer<T>(x),
                                         pointer<void>(workspace), stream(s));
        });
    def("unpool_conv_transpose2d", "_workspace",
        workspace_query(Ops::unpool_conv_transpose2d_workspace));
    def("unpool_conv2d_weight_grad", "",
        [=](const ConvShape& conv, const PoolShape& pool, Address x, Address dy, Address switches,
            Address dw, Address workspace, Address s) {
            Ops::unpool_conv2d_weight_grad(conv, pool, pointer<T>(x), pointer<T>(dy),
                                           pointer<std::uint8_t>(switches), pointer<float>(dw),
                                           pointer<void>(workspace), stream(s));
        });
    def("unpool_conv2d_weight_grad", "_workspace",
        workspace_query(Ops::unpool_conv2d_weight_grad_workspace));
}

// The convolutions of ops.h, which every backend has.
struct ExactConvOps {
    using T = float;
#define ZFCUDA_EXACT(name)                      \
    static constexpr auto name = &zfcuda::name; \
    static constexpr auto name##_workspace = &zfcuda::name##_workspace;
    ZFCUDA_EXACT(conv2d)
    ZFCUDA_EXACT(conv_transpose2d)
    ZFCUDA_EXACT(conv2d_weight_grad)
    ZFCUDA_EXACT(conv2d_relu_pool)
    ZFCUDA_EXACT(unpool_conv_transpose2d)
    ZFCUDA_EXACT(unpool_conv2d_weight_grad)
#undef ZFCUDA_EXACT
};

void bind_ops(py::module_& m) {
    const auto def = [&m](const char* name, auto function) {
        m.def(name, function, py::call_guard<py::gil_scoped_release>());
    };
    const auto stream = [](Address address) { return pointer<void>(address); };

    def("softmax", [=](int n, int classes, Address logits, Address probabilities, Address s) {
        softmax(n, classes, pointer<float>(logits), pointer<float>(probabilities), stream(s));
    });
    def("softmax_cross_entropy",
        [=](int n, int classes, Address logits, Address labels, Address loss, Address probabilities,
            Address workspace, Address s) {
            softmax_cross_entropy(n, classes, pointer<float>(logits), pointer<std::int32_t>(labels),
                                  pointer<float>(loss), pointer<float>(probabilities),
                                  pointer<void>(workspace), stream(s));
        });
    def("softmax_cross_entropy_workspace", &softmax_cross_entropy_workspace);
    def("softmax_cross_entropy_grad",
        [=](int n, int classes, Address probabilities, Address labels, Address dlogits, Address s) {
            softmax_cross_entropy_grad(n, classes, pointer<float>(probabilities),
                                       pointer<std::int32_t>(labels), pointer<float>(dlogits),
                                       stream(s));
        });

    def("sgd_step", [=](std::int64_t size, Address w, Address g, Address v, Address lr,
                        float momentum, float weight_decay, Address guard, Address s) {
        sgd_step(size, pointer<float>(w), pointer<float>(g), pointer<float>(v), pointer<float>(lr),
                 momentum, weight_decay, pointer<float>(guard), stream(s));
    });
    def("renormalize_filters",
        [=](int filters, int filter_size, float max_rms, Address w, Address guard, Address s) {
            renormalize_filters(filters, filter_size, max_rms, pointer<float>(w),
                                pointer<float>(guard), stream(s));
        });

    def("crop_images", [=](const CropShape& shape, Address images, Address mean, Address corners,
                           Address flips, Address y, Address s) {
        crop_images(shape, pointer<std::uint8_t>(images), pointer<float>(mean),
                    pointer<std::int32_t>(corners), pointer<std::uint8_t>(flips), pointer<float>(y),
                    stream(s));
    });
    def("cut_windows", [=](const WindowShape& shape, Address x, Address corners, Address images,
                           Address y, Address s) {
        cut_windows(shape, pointer<void>(x), pointer<std::int32_t>(corners),
                    pointer<std::int32_t>(images), pointer<void>(y), stream(s));
    });
}

}  // namespace

PYBIND11_MODULE(ZFCUDA_MODULE, m) {
    m.def("unavailable_reason", &unavailable_reason);
    m.def("description", &description);
    bind_shapes(m);
    bind_ops(m);
    bind_conv_ops<ExactConvOps>(m, "");
    bind_ops_on<float>(m, "");
#if defined(ZFCUDA_KERNELS)
    bind_ops_on<Bf16>(m, "_bf16");
    bind_conversions(m);
    bind_plans(m);
    bind_conv_ops<ConvOps<conv::Tf32Math>>(m, "_tf32");
    bind_conv_ops<ConvOps<conv::Bf16Math>>(m, "_bf16");
#endif
    m.def(
        "address", [](const py::array& array) { return reinterpret_cast<Address>(array.data()); },
        "Where a NumPy array's first element lies; several times faster than array.ctypes.data.");
    py::class_<HostBlock>(m, "HostBlock", py::module_local(), py::buffer_protocol())
        .def(py::init<std::size_t>())
        .def_buffer([](HostBlock& block) {
            return py::buffer_info(static_cast<std::uint8_t*>(block.data()),
                                   static_cast<py::ssize_t>(block.size()));
        });
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
