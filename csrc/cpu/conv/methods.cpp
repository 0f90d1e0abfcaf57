// The table of convolution methods, and the choice among them (methods.h).
#include "methods.h"

#include <algorithm>

namespace zfcuda::conv {

const std::vector<const Method*>& methods() {
    // The last of each direction applies to every shape.
    static const std::vector<const Method*> table = {
        // fprop
        &dense_fprop,
        &small_groups_fprop,
        &winograd_lines_fprop,
        &in_place_fprop,
        &winograd_fprop,
        &implicit_gemm_fprop,
        // dgrad
        &dense_dgrad,
        &small_groups_dgrad,
        &winograd_dgrad,
        &tap_columns_dgrad,
        &implicit_gemm_dgrad,
        // wgrad
        &dense_wgrad,
        &small_groups_wgrad,
        &winograd_wgrad,
        &in_place_wgrad,
        &implicit_gemm_wgrad,
    };
    return table;
}

const Method& choose(const ConvShape& shape, Direction direction, bool in_block) {
    return **std::find_if(methods().begin(), methods().end(), [&](const Method* method) {
        return method->direction == direction && !(in_block && method->fusion == Fusion::kNone) &&
               method->applies(shape);
    });
}

}  // namespace zfcuda::conv
