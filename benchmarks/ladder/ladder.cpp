// The Python module of the ladder: its steps by name, which take addresses.
#include "ladder.h"

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>

#if defined(KERNELS_EMULATED)
#include "simt/debug_bindings.h"
#endif

#include <pybind11/stl.h>

namespace py = pybind11;

PYBIND11_MODULE(KERNEL_MODULE, m) {
    py::dict steps;
    for (const ladder::Step& step : ladder::steps()) {
        steps[step.name] = py::cpp_function(
            [step](const std::array<int, 11>& shape, std::uintptr_t x, std::uintptr_t w,
                   std::uintptr_t y, std::uintptr_t stream) {
                const auto [n, h, w_, c, k, r, s, stride_h, stride_w, pad_h, pad_w] = shape;
                const zfcuda::ConvShape conv{n,        h,     w_,    c,     k,     r, s, stride_h,
                                             stride_w, pad_h, pad_h, pad_w, pad_w, 1, 1, 1};
                conv.check();
                step.run(conv, reinterpret_cast<const float*>(x), reinterpret_cast<const float*>(w),
                         reinterpret_cast<float*>(y), reinterpret_cast<void*>(stream));
            },
            py::arg("shape"), py::arg("x"), py::arg("w"), py::arg("y"), py::arg("stream") = 0);
    }
    m.attr("steps") = steps;
#if defined(KERNELS_EMULATED)
    simt::bind_debug(m.def_submodule("debug"));
#endif
}
