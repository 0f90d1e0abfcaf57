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
    if (clocks_.wide()) {
        known_at_fence_.resize(proxy_fences_.size());
        clocks_.release(now.thread, known_at_fence_[now.thread]);
    } else {
        clocks_.tick(now.thread);
    }
}

bool Checker::proxy_fenced(const Access& writer) const {
    if (writer.block != block_number_ || writer.flags & Access::kProxy) return true;
    const Access now = stamp(0);
    if (writer.flags & Access::kAgent)  // a cp.async: the thread that waited for it has to fence
        return now.thread < known_at_fence_.size() &&
               writer.thread < known_at_fence_[now.thread].size() &&
               known_at_fence_[now.thread][writer.thread] >= writer.clock;
    const std::vector<ProxyFence>& fences = proxy_fences_[writer.thread];
    const auto after = std::lower_bound(
        fences.begin(), fences.end(), writer, [](const ProxyFence& fence, const Access& access) {
            return std::tie(fence.epoch, fence.clock) < std::tie(access.epoch, access.clock);
        });
    if (after == fences.end()) return false;
    return after->epoch != now.epoch || writer.thread == now.thread ||
           clocks_.knows(now.thread, writer.thread, after->clock);
}

void Checker::require_proxy_fence(std::uintptr_t address, std::size_t bytes, Location location) {
    for (std::uintptr_t word = address / 4 * 4; word < address + bytes; word += 4) {
        const Access& writer = shared_shadow_.cell(word).writer;
        const Access now = stamp(location);
        // An access that races is reported as a race.
        if (writer.flags & Access::kInFlight || !ordered(writer, now, false)) continue;
        if (!proxy_fenced(writer))
            fail("missing fence: the asynchronous proxy accesses " + name_of(word) + ", which " +
                     name_of_thread(writer) + " wrote at " + describe(writer.location) +
                     "; no fence_proxy_async of that thread is between them",
                 now);
    }
}

}  // namespace simt
