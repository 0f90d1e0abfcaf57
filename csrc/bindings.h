// What a backend's Python module holds, whatever its name: it is compiled once for several of them.
#pragma once

#include <pybind11/pybind11.h>

namespace zfcuda {

void bind_backend(pybind11::module_& m);

}  // namespace zfcuda
