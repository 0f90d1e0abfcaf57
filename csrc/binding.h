// Makes a Python function of an operation, from the operation's own signature.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

#if defined(ZFCUDA_KERNELS)
#include "kernels/conv/tuned_plans.h"
#endif

namespace zfcuda {

using Address = std::uintptr_t;

// What Python passes for an argument: for a pointer (a stream is one) an integer.
template <class Argument>
struct Passed {
    using Type = Argument;
    static Argument unwrap(Argument value) { return value; }
};
template <class T>
struct Passed<T*> {
    using Type = Address;
    static T* unwrap(Address address) { return reinterpret_cast<T*>(address); }
};

// An operation. The GIL is released while it runs.
template <class... Arguments>
void bind(pybind11::module_& m, const char* name, void (*operation)(Arguments...)) {
    m.def(
        name,
        [operation](typename Passed<Arguments>::Type... arguments) {
            operation(Passed<Arguments>::unwrap(arguments)...);
        },
        pybind11::call_guard<pybind11::gil_scoped_release>());
}

// How many bytes of workspace an operation needs. This also fixes the plans that the thread goes by
// until it asks again.
template <class... Arguments>
void bind(pybind11::module_& m, const char* name, std::size_t (*workspace)(Arguments...)) {
    m.def(name, [workspace](Arguments... arguments) {
#if defined(ZFCUDA_KERNELS)
        conv::follow_tuned_plans();
#endif
        return workspace(arguments...);
    });
}

}  // namespace zfcuda
