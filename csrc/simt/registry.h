// How a launch reaches the emulator, and the list of every kernel variant that the program can
// launch.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda_types.h"

namespace simt {

// What the threads of a kernel ask of one kind of memory, each for itself: how often, and how many
// bytes.
struct Traffic {
    std::uint64_t accesses = 0, bytes = 0;

    void add(std::size_t size) {
        ++accesses;
        bytes += size;
    }
};

// One instantiation of a kernel that some `launch` names. Registered when the program is loaded, so
// that a test can tell which variants it never reached.
struct Variant {
    std::string name;
    std::atomic<std::uint64_t> launches{0};
    Traffic shared, global;  // where accesses are examined, which one host thread does

    explicit Variant(std::string name);
    Variant(const Variant&) = delete;
    Variant& operator=(const Variant&) = delete;
};

// All variants, sorted by name.
std::vector<const Variant*> variants();
void reset_launch_counts();

namespace detail {

// "kernel<Tile<8> >" out of the compiler's name of a function with the template parameter Kernel.
std::string kernel_name(const char* pretty_function);

template <auto Kernel>
struct VariantOf {
    static Variant instance;
    static const char* pretty_function() { return __PRETTY_FUNCTION__; }
};
template <auto Kernel>
Variant VariantOf<Kernel>::instance{kernel_name(VariantOf<Kernel>::pretty_function())};

struct Launch {
    Variant* variant;
    dim3 grid;
    dim3 block;
    std::size_t shared_bytes;
    void (*run_thread)(const void* parameters);
    const void* parameters;
    std::size_t parameter_bytes;
};

void run(const Launch& launch);

template <auto Kernel, typename... Parameters, typename... Arguments>
void launch_kernel(dim3 grid, dim3 block, std::size_t shared_bytes, void (*)(Parameters...),
                   const Arguments&... arguments) {
    static_assert(sizeof...(Parameters) == sizeof...(Arguments),
                  "launch needs one argument for each parameter of the kernel");
    using Tuple = std::tuple<std::decay_t<Parameters>...>;
    const Tuple parameters(static_cast<std::decay_t<Parameters>>(arguments)...);
    const auto run_thread = [](const void* p) {
        std::apply([](const auto&... values) { Kernel(values...); }, *static_cast<const Tuple*>(p));
    };
    run({&VariantOf<Kernel>::instance, grid, block, shared_bytes, run_thread, &parameters,
         sizeof(parameters)});
}

}  // namespace detail
}  // namespace simt
