// Makes a Python function of an operation, from the operation's own signature.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

#if defined(ZFCUDA_KERNELS)
#include "kernels/conv/tuned_plans.h"
#endif

namespace zfcuda {

// Where an array lies, or a stream: from Python an integer, None, which is null, or a NumPy array
// (but not for a GPU, which does not see its memory).
struct Address {
    std::uintptr_t value;
};

}  // namespace zfcuda

template <>
struct pybind11::detail::type_caster<zfcuda::Address> {
    PYBIND11_TYPE_CASTER(zfcuda::Address, const_name("numpy.ndarray | int | None"));

    bool load(handle source, bool) {
#if !defined(ZFCUDA_KERNELS) || defined(ZFCUDA_EMULATOR)
        if (isinstance<array>(source)) {
            value.value =
                reinterpret_cast<std::uintptr_t>(reinterpret_borrow<array>(source).data());
            return true;
        }
#endif
        make_caster<std::uintptr_t> number;
        if (!source.is_none() && !number.load(source, false)) return false;
        value.value = source.is_none() ? 0 : cast_op<std::uintptr_t>(number);
        return true;
    }
};

namespace zfcuda {

// What Python passes for an argument.
template <class Argument>
struct Passed {
    using Type = Argument;
    static Argument unwrap(Argument value) { return value; }
};
template <class T>
struct Passed<T*> {
    using Type = Address;
    static T* unwrap(Address address) { return reinterpret_cast<T*>(address.value); }
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
