// The `debug` submodule of a Python module whose kernels are emulated: what tests set and ask.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "bank_conflicts.h"
#include "global_memory.h"
#include "options.h"
#include "registry.h"

namespace simt {

inline void bind_debug(pybind11::module_ debug) {
    namespace py = pybind11;
    debug.doc() = "Control of the SIMT emulator, for tests.";
    debug.def(
        "configure",
        [](std::optional<std::uint64_t> seed, std::optional<std::string> schedule,
           std::optional<int> threads, std::optional<int> multiprocessors,
           std::optional<std::size_t> shared_bytes) {
            Options changed = options();
            if (seed) changed.seed = *seed;
            if (schedule) changed.schedule = schedule_from_name(*schedule);
            if (threads) changed.threads = std::max(1, *threads);
            if (multiprocessors) changed.multiprocessors = std::max(1, *multiprocessors);
            if (shared_bytes) changed.shared_bytes = std::max<std::size_t>(48 << 10, *shared_bytes);
            set_options(changed);
        },
        py::kw_only(), py::arg("seed") = py::none(), py::arg("schedule") = py::none(),
        py::arg("threads") = py::none(), py::arg("multiprocessors") = py::none(),
        py::arg("shared_bytes") = py::none(),
        "Sets the seed, the schedule (depth_first, random or mixed), the number of host threads, "
        "and "
        "the device that plans go by: its multiprocessors, and the shared memory of each.");
    debug.def(
        "configuration",
        [] {
            const Options current = options();
            return py::dict(py::arg("seed") = current.seed,
                            py::arg("schedule") = schedule_name(current.schedule),
                            py::arg("threads") = current.threads,
                            py::arg("multiprocessors") = current.multiprocessors,
                            py::arg("shared_bytes") = current.shared_bytes);
        },
        "What `configure` sets.");
    debug.def(
        "variants",
        [] {
            std::map<std::string, std::uint64_t> launches;
            for (const Variant* variant : variants())
                launches[variant->name] = variant->launches.load();
            return launches;
        },
        "Every kernel variant that the module can launch, and how often each was.");
    debug.def("reset_launch_counts", &reset_launch_counts);
    debug.def(
        "traffic",
        [] {
            std::map<std::string, std::map<std::string, std::uint64_t>> traffic;
            for (const Variant* variant : variants())
                traffic[variant->name] = {{"shared accesses", variant->shared.accesses},
                                          {"shared bytes", variant->shared.bytes},
                                          {"global accesses", variant->global.accesses},
                                          {"global bytes", variant->global.bytes}};
            return traffic;
        },
        "What the threads of every variant have asked of memory so far; zeros unless accesses are "
        "examined.");
    debug.def("checks_accesses", &checks_accesses,
              "Whether this build examines every access: races, bounds, uninitialised reads.");
    debug.def(
        "register_array",
        [](std::uintptr_t address, std::size_t bytes, bool written, const std::string& name) {
            register_array(reinterpret_cast<const void*>(address), bytes, written, name);
        },
        py::arg("address"), py::arg("bytes"), py::arg("written"), py::arg("name"),
        "Lets kernels touch this memory; unless `written`, reading it before writing is an error. "
        "Once an array is registered, touching any other memory is an error.");
    debug.def("forget_arrays", &forget_arrays, "Ends what `register_array` began.");
    debug.def("count_bank_conflicts", &count_bank_conflicts, py::arg("on"),
              "Begins, from zero, or stops to count bank conflicts.");
    py::class_<BankUse>(debug, "BankUse", py::module_local(), "Of one line of a kernel.")
        .def_readonly("kernel", &BankUse::kernel)
        .def_readonly("where", &BankUse::where)
        .def_readonly("instructions", &BankUse::instructions)
        .def_readonly("conflicts", &BankUse::conflicts);
    debug.def("bank_use", &bank_use,
              "What was counted: instructions and wavefronts beyond the least.");
}

}  // namespace simt
