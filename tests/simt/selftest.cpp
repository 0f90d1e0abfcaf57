// The Python module of the emulator's own tests.
#include "selftest.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "simt/debug_bindings.h"

namespace py = pybind11;

PYBIND11_MODULE(SELFTEST_MODULE, m) {
    simt::bind_debug(m.def_submodule("debug"));
    const auto bind = [&m](const char* list,
                           std::initializer_list<std::vector<selftest::Case>> families) {
        py::dict functions;
        for (const std::vector<selftest::Case>& cases : families) {
            for (const selftest::Case& one : cases)
                functions[one.name] = py::cpp_function(one.run);
        }
        m.attr(list) = functions;
    };
    bind("correct", {selftest::correct_cases(), selftest::correct_barrier_cases(),
                     selftest::correct_tensor_cases(), selftest::tensor_map_cases(),
                     selftest::correct_warpgroup_cases()});
    bind("products", {selftest::product_cases()});
    bind("broken", {selftest::broken_cases(), selftest::broken_barrier_cases(),
                    selftest::broken_tensor_cases(), selftest::broken_warpgroup_cases()});
}
