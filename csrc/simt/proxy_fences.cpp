// Whether what the asynchronous proxy reads has been fenced by the threads that wrote it.
#include <algorithm>
#include <tuple>

#include "block.h"
#include "checker.h"

namespace simt {

// A write that the thread makes from now on has a later clock.
void Checker::fence_proxy() {
    const Access now = stamp(0);
    proxy_fences_[now.thread].push_back({now.epoch, now.clock});
    ++clocks_[now.thread / 32].known[now.thread % 32][now.thread % 32];
}

bool Checker::proxy_fenced(const Access& writer, const Access& now) const {
    if (writer.block != block_number_) return true;
    const std::vector<ProxyFence>& fences = proxy_fences_[writer.thread];
    const auto after = std::lower_bound(
        fences.begin(), fences.end(), writer, [](const ProxyFence& fence, const Access& access) {
            return std::tie(fence.epoch, fence.clock) < std::tie(access.epoch, access.clock);
        });
    if (after == fences.end()) return false;
    Access fence = writer;
    fence.epoch = after->epoch;
    fence.clock = after->clock;
    return ordered(fence, now, false);
}

void Checker::require_proxy_fence(std::uintptr_t address, std::size_t bytes, Location location) {
    const Access now = stamp(location);
    for (std::uintptr_t word = address / 4 * 4; word < address + bytes; word += 4) {
        const Access& writer = shared_shadow_.cell(word).writer;
        if (!proxy_fenced(writer, now))
            fail("missing fence: the asynchronous proxy accesses " + name_of(word) + ", which " +
                     name_of_thread(writer) + " wrote at " + describe(writer.location) +
                     "; no fence_proxy_async of that thread is between them",
                 now);
    }
}

}  // namespace simt
