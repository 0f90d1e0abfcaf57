// ldmatrix and mma.sync for the 32 lanes of a warp at once.
#pragma once

#include "emulator.h"

namespace simt {

// operands[lane]: ldmatrix reads the row at `a` into `d`; mma adds the product of `a` and `b` to
// `d`.
void load_matrix(bool transpose, const detail::MatrixOperands (&operands)[32]);
void multiply_matrices(detail::Collective kind, const detail::MatrixOperands (&operands)[32]);

}  // namespace simt
