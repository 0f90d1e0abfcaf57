// What only compute capability 9.0 has. Under nvcc these names are device code where the target is
// sm_90a, and trap elsewhere: kernels that use them are compiled for it alone and chosen at run
// time.
#pragma once

#include "hopper_products.h"
#include "mbarrier.h"
#include "proxy.h"
#include "tensor_copy.h"
