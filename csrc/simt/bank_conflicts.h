// Bank conflicts in shared memory, counted by kernel and line, in builds that check every access.
//
// Shared memory has 32 banks, each of which serves one 4-byte word at a time. The lanes of a warp
// access it together, 32 of them if each wants up to 4 bytes, 16 for 8 bytes, 8 for 16 bytes (the
// rows of ldmatrix and the targets of cp.async too). Such a group takes as many wavefronts as the
// most words that it wants from one bank; a word that several lanes want is one.
//
// The threads of a warp are fibers and run one after another. So what they did together is put
// together when they meet, at a barrier or a collective: the n-th access of each at one place in
// the code since they met before is one instruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "registry.h"
#include "shadow.h"

namespace simt {

// Of all accesses of a kernel on one line.
struct BankUse {
    std::string kernel, where;
    std::uint64_t instructions = 0;  // of a warp
    std::uint64_t conflicts = 0;     // wavefronts beyond one for each group of lanes
};

// Begins or stops to count, from zero. Throws std::runtime_error if this build checks no accesses.
void count_bank_conflicts(bool on);
std::vector<BankUse> bank_use();

// What the warps of one block do until their lanes meet.
class BankCounter {
  public:
    BankCounter(const Variant& kernel, std::size_t warps) : kernel_(kernel), warps_(warps) {}

    // Null unless conflicts are counted.
    static std::unique_ptr<BankCounter> make(const Variant& kernel, std::size_t warps);

    void access(int warp, int lane, std::uintptr_t address, std::size_t bytes, Location location);
    void meet(int warp);
    void meet_all();

  private:
    struct Instruction {
        std::uint32_t lanes = 0;
        std::uint32_t bytes = 0;
        std::uint32_t address[32];
    };
    struct Place {
        std::uint16_t times[32] = {};  // that each lane has been here
        std::vector<Instruction> instructions;
    };

    const Variant& kernel_;
    std::vector<std::unordered_map<Location, Place>> warps_;
};

}  // namespace simt
