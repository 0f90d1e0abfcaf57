// What reads and writes in a thread's stead, later, and through the asynchronous proxy.
#include "block.h"
#include "checker.h"

namespace simt {

void Checker::begin_agent(std::size_t agent, std::uintptr_t address, std::size_t bytes, Kind kind,
                          Location location) {
    require_inside_shared(address, bytes, kind, location);
    require_proxy_fence(address, bytes, location);
    Access now = stamp(location);
    now.thread = static_cast<std::uint16_t>(agent);
    now.clock = clocks_.now(agent);
    now.flags = Access::kAgent | Access::kProxy;
    if (kind == kWrite) now.flags |= Access::kInFlight;
    check_words(shared_shadow_, address, bytes, kind, false, false, now);
}

void Checker::end_agent(std::uintptr_t address, std::size_t bytes) {
    for (std::uintptr_t word = address / 4 * 4; word < address + bytes; word += 4) {
        Access& writer = shared_shadow_.cell(word).writer;
        if (writer.block == block_number_ && writer.flags & Access::kAgent)
            writer.flags &= static_cast<std::uint8_t>(~Access::kInFlight);
    }
}

void Checker::hand_over(const AsyncCopy& copy, std::size_t agent) {
    for (int i = 0; i < copy.bytes; i += 4) {
        Access& writer =
            shared_shadow_.cell(reinterpret_cast<std::uintptr_t>(copy.shared) + i).writer;
        writer.thread = static_cast<std::uint16_t>(agent);
        writer.clock = clocks_.now(agent);
        writer.flags = Access::kAgent;
    }
}

}  // namespace simt
