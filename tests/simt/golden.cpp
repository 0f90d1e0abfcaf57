// The Python module of the golden tests: each case as a function from bytes to bytes.
#include "golden.h"

#include <pybind11/pybind11.h>

#include <cstring>
#include <stdexcept>

namespace py = pybind11;

namespace {

py::bytes run(const golden::Case& one, const std::string& input) {
    golden::Words words(static_cast<std::size_t>(one.input_words));
    if (input.size() != words.size() * 4)
        throw std::invalid_argument(std::string(one.name) + " takes " +
                                    std::to_string(words.size() * 4) + " bytes, got " +
                                    std::to_string(input.size()));
    std::memcpy(words.data(), input.data(), input.size());
    words = one.run(words);
    return py::bytes(reinterpret_cast<const char*>(words.data()), words.size() * 4);
}

}  // namespace

PYBIND11_MODULE(KERNEL_MODULE, m) {
    m.def("unavailable_reason", &golden::unavailable_reason);
    py::dict functions, sizes;
    for (const golden::Case& one : golden::cases()) {
        functions[one.name] =
            py::cpp_function([one](const std::string& input) { return run(one, input); });
        sizes[one.name] = py::make_tuple(one.input_words, one.output_words);
    }
    m.attr("cases") = functions;
    m.attr("words") = sizes;
}
