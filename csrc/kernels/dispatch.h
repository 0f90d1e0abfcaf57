// Run-time properties of a call as template arguments of the kernel that serves it.
#pragma once

#include <type_traits>

namespace zfcuda {

// Calls `use(std::true_type())` or `use(std::false_type())`.
template <typename Use>
void with_constant(bool value, Use use) {
    if (value) {
        use(std::true_type());
    } else {
        use(std::false_type());
    }
}

template <typename Use>
void with_constants(bool first, bool second, Use use) {
    with_constant(first, [&](auto constant_first) {
        with_constant(second, [&](auto constant_second) { use(constant_first, constant_second); });
    });
}

}  // namespace zfcuda
