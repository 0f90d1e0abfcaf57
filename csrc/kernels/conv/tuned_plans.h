// Plans that a tuner has chosen (zfcuda/tuning.py) for problems it has timed; plan.h's own
// choice serves all others.
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

// A tile by its size and, where depths are split, the number of splits. 0 x 0: no kernel of its
// own, but two operations one after the other.
struct Choice {
    int rows, cols, splits;
};
constexpr int kMaxSplits = 65535;  // the greatest height of a grid

// The plans among which a tuner may choose if the arrays are aligned, that of the heuristic in
// front; `Math` is problem.precision as ops.h has it. Defined in candidates.cuh.
template <class Math>
std::vector<Choice> candidates(const Problem& problem);

std::optional<Choice> tuned_choice(const Problem& problem);
void set_tuned_choice(const Problem& problem, const Choice& choice);
void clear_tuned_choices();
void follow_tuned_plans();

}  // namespace conv
}  // namespace zfcuda
