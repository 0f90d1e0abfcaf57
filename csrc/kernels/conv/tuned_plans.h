// Plans that a tuner has chosen (zfcuda/tuning.py) for problems it has timed; plan.h's own choice
// serves all others.
//
// One table for the process, from problem to choice. A thread goes by the table as it was when the
// thread last called `follow_tuned_plans`: bindings.cpp does where the workspace of an operation is
// asked for, so that the launch has the same plan, whatever other threads set meanwhile.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "shapes.h"

namespace zfcuda {

// Whose plans these are: the names of the GPUs here, or of the emulator. Defined in backend.cu.
std::vector<std::string> gpu_names();

namespace conv {

// The operations that have a choice. The others are made of these.
enum class Operation : int {
    kConv2d,
    kConvTranspose2d,
    kConv2dWeightGrad,
    kConv2dReluPool,
    kUnpoolConv2dWeightGrad,
};

enum class Precision : int { kFp32, kTf32, kBf16 };

struct Problem {
    Operation operation;
    Precision precision;
    ConvShape conv;
    PoolShape pool;  // of the last two operations; all zero in the others
};

// What multiplies in a kernel's main loop, and how its operands come: kPatch: mma.sync, windows of a
// patch (image_patch.cuh); kWgmma: gathered by all threads (wgmma.cuh); kTma: wgmma too, fed by the
// tensor memory accelerator (tma.cuh).
enum class MainLoop : int { kFfma, kMma, kWgmma, kPatch, kTma };

// A kernel of an operation: its main loop and the size of its tile.
struct Kernel {
    MainLoop main_loop;
    int rows, cols;
};
inline bool operator==(const Kernel& a, const Kernel& b) {
    return a.main_loop == b.main_loop && a.rows == b.rows && a.cols == b.cols;
}

// A kernel and how many splits it cuts the depth of tiles beyond full waves into (plan.h); or no
// kernel of its own, but two operations one after the other.
struct Choice {
    std::optional<Kernel> kernel;
    int splits = 1;
};
inline bool operator==(const Choice& a, const Choice& b) {
    return a.kernel == b.kernel && a.splits == b.splits;
}
constexpr int kMaxSplits = 65535;  // the greatest height of a grid

// The kernel's name for people: "mma 128x64"; "composed" if there is none.
std::string kernel_name(const Choice& choice);

// The plans among which a tuner may choose if the arrays are aligned, that of the heuristic in
// front; `Math` is problem.precision as ops.h has it. Defined in candidates.cu.
template <class Math>
std::vector<Choice> candidates(const Problem& problem);

std::optional<Choice> tuned_choice(const Problem& problem);
void set_tuned_choice(const Problem& problem, const Choice& choice);
void clear_tuned_choices();
void follow_tuned_plans();

}  // namespace conv
}  // namespace zfcuda
