#include "bank_conflicts.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>

#include "global_memory.h"
#include "source_location.h"

namespace simt {
namespace {

constexpr std::uint32_t kBanks = 32;
constexpr std::uint32_t kWidest = 16;  // bytes that an instruction moves for one lane

// Builds that check accesses run all blocks on one host thread.
bool counting = false;
std::map<std::pair<const Variant*, Location>, BankUse> totals;

// Wavefronts beyond the first of lanes that are served together.
std::uint32_t conflicts(std::uint32_t lanes, const std::uint32_t (&address)[32],
                        std::uint32_t bytes) {
    std::uint32_t words[2 * kBanks];
    std::uint32_t count = 0, in_bank[kBanks] = {};
    for (; lanes; lanes &= lanes - 1) {
        const std::uint32_t first = address[__builtin_ctz(lanes)];
        for (std::uint32_t word = first / 4; word <= (first + bytes - 1) / 4; ++word) {
            if (std::find(words, words + count, word) != words + count) continue;
            words[count++] = word;
            ++in_bank[word % kBanks];
        }
    }
    return count == 0 ? 0 : *std::max_element(in_bank, in_bank + kBanks) - 1;
}

}  // namespace

void count_bank_conflicts(bool on) {
    if (on && !checks_accesses())
        throw std::runtime_error("bank conflicts are counted where every access is checked");
    counting = on;
    totals.clear();
}

std::vector<BankUse> bank_use() {
    std::vector<Location> locations;
    for (const auto& [key, use] : totals)
        locations.push_back(key.second);
    const std::vector<std::string> where = describe(locations);
    // Unrolled loops have the same line at many places.
    std::map<std::pair<std::string, std::string>, BankUse> by_line;
    std::size_t i = 0;
    for (const auto& [key, use] : totals) {
        const std::string& kernel = key.first->name;
        BankUse& sum = by_line[{kernel, where[i]}];
        sum.kernel = kernel;
        sum.where = where[i++];
        sum.instructions += use.instructions;
        sum.conflicts += use.conflicts;
    }
    std::vector<BankUse> result;
    for (auto& [key, use] : by_line)
        result.push_back(std::move(use));
    return result;
}

std::unique_ptr<BankCounter> BankCounter::make(const Variant& kernel, std::size_t warps) {
    return counting ? std::make_unique<BankCounter>(kernel, warps) : nullptr;
}

void BankCounter::access(int warp, int lane, std::uintptr_t address, std::size_t bytes,
                         Location location) {
    Place& place = warps_[static_cast<std::size_t>(warp)][location];
    for (; bytes > 0; bytes -= std::min<std::size_t>(bytes, kWidest), address += kWidest) {
        const std::size_t time = place.times[lane]++;
        if (time == place.instructions.size()) place.instructions.emplace_back();
        Instruction& instruction = place.instructions[time];
        instruction.lanes |= 1u << lane;
        instruction.bytes = static_cast<std::uint32_t>(std::min<std::size_t>(bytes, kWidest));
        instruction.address[lane] = static_cast<std::uint32_t>(address);
    }
}

void BankCounter::meet(int warp) {
    auto& places = warps_[static_cast<std::size_t>(warp)];
    for (const auto& [location, place] : places) {
        BankUse& use = totals[{&kernel_, location}];
        use.instructions += place.instructions.size();
        for (const Instruction& one : place.instructions) {
            const std::uint32_t together = kBanks * 4 / std::max(one.bytes, 4u);
            for (std::uint32_t first = 0; first < 32; first += together) {
                const std::uint32_t group = together == 32 ? ~0u : (1u << together) - 1;
                use.conflicts += conflicts(one.lanes & group << first, one.address, one.bytes);
            }
        }
    }
    places.clear();
}

void BankCounter::meet_all() {
    for (int warp = 0; warp < static_cast<int>(warps_.size()); ++warp)
        meet(warp);
}

}  // namespace simt
