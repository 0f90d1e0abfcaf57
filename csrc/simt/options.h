// What tests set and ask: the seed and schedule of the emulator. No CUDA names are needed for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace simt {

// In which order the threads of a block run between the points where they wait for each other.
enum class Schedule {
    kDepthFirst,  // each warp as far as it can, warps in random order
    kRandom,      // any thread that can run, uniformly
    kMixed,       // for each block one of the two, at random
};

struct Options {
    std::uint64_t seed;  // of everything random: the same seed, the same run
    Schedule schedule;
    int threads;  // host threads that run blocks
    int multiprocessors = 132;
    std::size_t shared_bytes = 228 * 1024;  // of a multiprocessor
};

// From ZFCUDA_EMULATOR_SEED (0), ZFCUDA_EMULATOR_SCHEDULE (depth_first, random or mixed; mixed) and
// ZFCUDA_EMULATOR_THREADS (those of the machine) when first asked.
Options options();
void set_options(const Options& options);

std::string schedule_name(Schedule schedule);
Schedule schedule_from_name(const std::string& name);  // std::invalid_argument

}  // namespace simt
