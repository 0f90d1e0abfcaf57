// What a block reports when a check of it fails.
#include "block.h"
#include "collectives.h"
#include "source_location.h"

namespace simt {
namespace {

std::string triple(uint3 v) {
    return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) +
           ")";
}

}  // namespace

void Block::fail(const std::string& what, const std::string& where) {
    // Whatever an uninitialised read led to, the read was the cause.
    const bool postponed = checker_ && !checker_->postponed().empty();
    failure_ = postponed ? checker_->postponed() : message(what, where);
    leave_context(running_->context, host_);
}

std::string Block::message(const std::string& what, const std::string& where) const {
    return message(what, blamed_ ? blamed_ : running_, where);
}

void Block::fail(const std::string& what, Site site) {
    fail(what, simt::describe(site));
}

void Block::fail_deadlock() {
    const auto wait = [this](const Thread& thread) {
        std::string at;
        switch (thread.state) {
            case Thread::kAtBarrier:
                at = "__syncthreads";
                break;
            case Thread::kAtWarpgroup:
                at = "a call of its warpgroup";
                break;
            case Thread::kAtMbarrier:
                at = barriers_.describe_wait(thread);
                break;
            case Thread::kAtNamedBarrier:
                at = "named barrier " + std::to_string(thread.mask);
                break;
            default:
                at = std::string(name_of(thread.kind)) + " with mask " + hexadecimal(thread.mask);
        }
        return describe(thread) + " waits in " + at + " at " + simt::describe(thread.site);
    };
    const Thread* first = nullptr;
    for (const Thread& thread : threads_) {
        if (thread.state == Thread::kReady || thread.state == Thread::kExited) continue;
        if (!first) first = &thread;
        if (thread.state == first->state && same(thread.site, first->site) &&
            thread.mask == first->mask)
            continue;
        fail("divergence: no thread can go on; " + wait(*first) + ", while " + wait(thread),
             first->site);
    }
    fail("divergence: no thread can go on; " + wait(*first) + ", and others never come there",
         first->site);
}

std::string Block::describe_thread(std::size_t number) const {
    return describe(threads_[number]);
}

std::string Block::describe(const Thread& thread) const {
    return "thread " + triple(thread.index);
}

std::string Block::message(const std::string& what, const Thread* thread,
                           const std::string& where) const {
    std::string text =
        what + "\n  kernel " + launch_->variant->name + ", block " + triple(blockIdx);
    if (thread) text += ", " + describe(*thread);
    if (!where.empty()) text += ", at " + where;
    return text + "\n  to see it again: ZFCUDA_EMULATOR_SEED=" + std::to_string(options_.seed) +
           " ZFCUDA_EMULATOR_SCHEDULE=" + schedule_name(options_.schedule);
}

}  // namespace simt
