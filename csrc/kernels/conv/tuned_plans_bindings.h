// Plans for Python: `plan_candidates`, `check_plan`, `set_plan` and `clear_plans`; and what they and
// the checks of kernels (zfcuda/kernel_checks.py) hold for.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "ops.h"
#include "tuned_plans.h"
#include "wgmma_use.h"

namespace zfcuda {

// The newest CUDA that the GPUs' driver supports: "13.0"; "" of the emulator. Defined in backend.cu.
std::string driver_version();

// Of the current device. Defined in backend.cu.
int multiprocessors();

namespace conv {

inline std::size_t index_of(const char* what, const std::vector<std::string>& names,
                            const std::string& name) {
    std::string all;
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (names[i] == name) return i;
        all += (i ? ", " : "") + names[i];
    }
    throw std::invalid_argument(std::string(what) + " must be one of " + all + ", got '" + name +
                                "'");
}

inline Problem make_problem(const std::string& operation, const std::string& precision,
                            const ConvShape& shape, const std::optional<PoolShape>& pool) {
    static const std::vector<std::string> operations{"conv2d", "conv_transpose2d",
                                                     "conv2d_weight_grad", "conv2d_relu_pool",
                                                     "unpool_conv2d_weight_grad"};
    static const std::vector<std::string> precisions{"fp32", "tf32", "bf16"};
    Problem problem{};
    problem.operation = static_cast<Operation>(index_of("operation", operations, operation));
    problem.precision = static_cast<Precision>(index_of("precision", precisions, precision));
    problem.conv = shape;
    const bool is_block = problem.operation >= Operation::kConv2dReluPool;
    shapes::require(pool.has_value() == is_block, operation,
                    (is_block ? " needs a pool" : " has no pool"));
    if (pool) {
        check_block(shape, *pool);
        problem.pool = *pool;
    }
    return problem;
}

inline std::vector<Choice> candidates_of(const Problem& problem) {
    switch (problem.precision) {
        case Precision::kFp32:
            return candidates<Fp32>(problem);
        case Precision::kTf32:
            return candidates<Tf32>(problem);
        default:
            return candidates<Bf16>(problem);
    }
}

inline Choice make_choice(const Problem& problem, const std::string& kernel, int splits) {
    const auto allowed = candidates_of(problem);
    std::vector<std::string> names;
    for (const auto& choice : allowed)
        names.push_back(kernel_name(choice));
    Choice choice = allowed[index_of("kernel", names, kernel)];
    const bool is_whole =
        !choice.kernel || problem.operation == Operation::kConv2dReluPool ||
        (problem.operation == Operation::kConv2d && choice.kernel->main_loop == MainLoop::kPatch);
    const int most = is_whole ? 1 : kMaxSplits;
    shapes::require(splits >= 1 && splits <= most, "splits of ", kernel, " must be from 1 to ",
                    most, ", got ", splits);
    choice.splits = splits;
    return choice;
}

inline void bind_plans(pybind11::module_& m) {
    m.def(
        "plan_candidates",
        [](const std::string& operation, const std::string& precision, const ConvShape& shape,
           const std::optional<PoolShape>& pool) {
            std::vector<std::pair<std::string, int>> found;
            for (const auto& choice :
                 candidates_of(make_problem(operation, precision, shape, pool)))
                found.emplace_back(kernel_name(choice), choice.splits);
            return found;
        },
        "The plans, as (kernel, splits), among which a tuner may choose; the first one holds "
        "without "
        "it.");
    m.def(
        "check_plan",
        [](const std::string& operation, const std::string& precision, const ConvShape& shape,
           const std::optional<PoolShape>& pool, const std::string& kernel, int splits) {
            make_choice(make_problem(operation, precision, shape, pool), kernel, splits);
        },
        "ValueError unless this problem can have this plan.");
    m.def(
        "set_plan",
        [](const std::string& operation, const std::string& precision, const ConvShape& shape,
           const std::optional<PoolShape>& pool, const std::string& kernel, int splits) {
            const Problem problem = make_problem(operation, precision, shape, pool);
            set_tuned_choice(problem, make_choice(problem, kernel, splits));
        },
        "From now on this plan holds for this problem.");
    m.def("clear_plans", &clear_tuned_choices,
          "From now on no plan holds that `set_plan` has set.");
    m.def("can_run_wgmma", &can_run_wgmma,
          "Whether the current device can run the kernels of compute capability 9.0 that are "
          "built.");
    m.def(
        "wgmma_use",
        [] {
            constexpr const char* kNames[]{"never", "if planned", "always"};
            return kNames[static_cast<int>(wgmma_use())];
        },
        "When kernels of compute capability 9.0 are used on the current device: \"never\", \"if "
        "planned\" or \"always\". ValueError or RuntimeError if ZFCUDA_KERNELS cannot be "
        "followed.");
    m.def("multiprocessors", &multiprocessors, "Of the current device: plans go by them.");
    m.def("gpu_names", &gpu_names, "Of every GPU that can be seen, in the order of their numbers.");
    m.def("driver_version", &driver_version,
          "The newest CUDA that the driver supports, as a text; of the emulator, an empty one.");
}

}  // namespace conv
}  // namespace zfcuda
