#include "barriers.h"

#include <algorithm>

#include "block.h"
#include "collectives.h"

namespace simt {
namespace {

constexpr std::uint64_t kLive = 0x6d62617272696572ull;  // in the bytes of an mbarrier that is one
constexpr unsigned kMostArrivals = (1u << 20) - 1;
constexpr std::int64_t kMostBytes = (1 << 20) - 1;
constexpr unsigned kNamedBarriers = 16;
constexpr int kRegistersOfBlock = 64 * 1024;

}  // namespace

void Barriers::begin_block() {
    mbarriers_.clear();
    named_.assign(kNamedBarriers, {});
    registers_.clear();
}

// ---- mbarriers ----------------------------------------------------------------------------------

std::string Barriers::name_of(const MbarrierState& state) const {
    return "the mbarrier at " + block_.shared().name_of(state.address) + " (phase " +
           std::to_string(state.phase) + ", " + std::to_string(state.pending) + " of " +
           std::to_string(state.expected) + " arrivals and " + std::to_string(state.bytes) +
           " bytes pending)";
}

void Barriers::init(Mbarrier& barrier, unsigned arrivals, Site site) {
    const auto address = reinterpret_cast<std::uintptr_t>(&barrier);
    if (!block_.shared().contains(address))
        block_.fail("an mbarrier has to lie in shared memory", site);
    if (address % sizeof(Mbarrier) != 0)
        block_.fail("misaligned address: an mbarrier needs a multiple of 8 bytes", site);
    if (arrivals < 1 || arrivals > kMostArrivals)
        block_.fail("an mbarrier expects from 1 to " + std::to_string(kMostArrivals) +
                        " arrivals, got " + std::to_string(arrivals),
                    site);
    for (const MbarrierState& other : mbarriers_) {
        if (other.address == address)
            block_.fail(name_of(other) + " is initialised a second time", site);
    }
    MbarrierState state{};
    state.address = address;
    state.expected = state.pending = arrivals;
    if (Checker* checker = block_.checker()) {
        checker->access(address, sizeof(Mbarrier), Checker::kWrite, location_of(site));
        state.agent = checker->clocks().add_agent();
        state.initialised = checker->stamp(location_of(site));
    }
    mbarriers_.push_back(std::move(state));
    barrier.state = kLive;
}

void Barriers::fence() {
    Checker* checker = block_.checker();
    for (MbarrierState& state : mbarriers_) {
        if (state.fenced) continue;
        if (checker) {
            state.fence = checker->stamp(0);
            if (state.fence.thread != state.initialised.thread) continue;
        }
        state.fenced = true;
    }
}

MbarrierState& Barriers::find(const Mbarrier& barrier, Site site) {
    const auto address = reinterpret_cast<std::uintptr_t>(&barrier);
    const auto found = std::find_if(mbarriers_.begin(), mbarriers_.end(),
                                    [=](const auto& state) { return state.address == address; });
    if (found == mbarriers_.end()) block_.fail("an mbarrier that is not initialised is used", site);
    if (barrier.state != kLive)
        block_.fail(name_of(*found) + " has been overwritten by an ordinary store", site);
    if (Checker* checker = block_.checker())
        checker->access(address, sizeof(Mbarrier), Checker::kRead, location_of(site));
    return *found;
}

MbarrierState& Barriers::find_for_copy(const Mbarrier& barrier, Site site) {
    MbarrierState& state = find(barrier, site);
    Checker* checker = block_.checker();
    if (!state.fenced || (checker && !checker->knows_of(state.fence)))
        block_.fail("missing fence: " + name_of(state) +
                        " is to be completed by a copy, and no mbarrier_init_fence of the thread "
                        "that initialised it comes before",
                    site);
    return state;
}

void Barriers::arrive(MbarrierState& state, Site site) {
    if (state.pending == 0) block_.fail("too many arrivals at " + name_of(state), site);
    --state.pending;
    complete_if_so(state, site);
}

void Barriers::expect(MbarrierState& state, std::int64_t bytes, Site site) {
    state.bytes += bytes;
    if (state.bytes > kMostBytes)
        block_.fail(
            "more than " + std::to_string(kMostBytes) + " bytes pending at " + name_of(state),
            site);
}

void Barriers::come(MbarrierState& state, std::int64_t bytes, Site site) {
    state.bytes -= bytes;
    if (state.bytes < -kMostBytes)
        block_.fail(
            "more than " + std::to_string(kMostBytes) + " bytes unexpected at " + name_of(state),
            site);
    complete_if_so(state, site);
}

void Barriers::complete_if_so(MbarrierState& state, Site site) {
    if (state.pending != 0 || state.bytes != 0) return;
    if (state.copies != 0)
        block_.fail("too few bytes expected: " + name_of(state) +
                        " completes its phase while a copy that was begun in it is under way",
                    site);
    ++state.phase;
    state.pending = state.expected;
    if (Checker* checker = block_.checker()) {
        checker->clocks().release_agent(state.agent, state.arrived);
        state.complete = state.arrived;
    }
    for (Thread* thread : state.waiting)
        block_.make_ready(*thread);
    state.waiting.clear();
}

void Barriers::wait(Mbarrier& barrier, unsigned parity, Site site) {
    if (parity > 1)
        block_.fail("the parity of a phase is 0 or 1, got " + std::to_string(parity), site);
    Thread& me = block_.running();
    for (bool first = true;; first = false) {
        MbarrierState& state = find(barrier, site);
        if ((state.phase & 1) != parity) {
            if (state.copies == 0) state.waited = true;
            if (Checker* checker = block_.checker())
                checker->clocks().acquire(me.number(), state.complete);
            if (first) block_.let_others_run();
            return;
        }
        me.site = site;
        me.mbarrier = &state;
        me.value = parity;
        me.mask = 0;
        me.state = Thread::kAtMbarrier;
        state.waiting.push_back(&me);
        block_.suspend();
    }
}

void Barriers::require_waited_for() {
    for (const MbarrierState& state : mbarriers_) {
        if (!state.waited)
            block_.fail("the block ends, and nobody has waited for the copies to " +
                        name_of(state));
    }
}

std::string Barriers::describe_wait(const Thread& thread) const {
    return "mbarrier_wait with parity " + std::to_string(thread.value) + " for " +
           name_of(*thread.mbarrier);
}

// ---- Named barriers -----------------------------------------------------------------------------

void Barriers::named(unsigned id, unsigned threads, bool wait, Site site) {
    if (id < 1 || id >= kNamedBarriers)
        block_.fail(
            "named barriers are 1 to 15 (0 is that of __syncthreads), got " + std::to_string(id),
            site);
    if (threads < 32 || threads % 32 != 0 || threads > block_.threads())
        block_.fail("a named barrier takes whole warps of the block, got " +
                        std::to_string(threads) + " threads",
                    site);
    Thread& me = block_.running();
    Named& barrier = named_[id];
    const auto& arrived = barrier.arrived;
    if (barrier.threads == 0) {
        barrier.threads = threads;
        barrier.site = site;
    } else if (barrier.threads != threads) {
        block_.fail("named barrier " + std::to_string(id) + " is of " + std::to_string(threads) +
                        " threads here and of " + std::to_string(barrier.threads) + " at " +
                        describe(barrier.site),
                    site);
    }
    if (std::find(arrived.begin(), arrived.end(), &me) != arrived.end())
        block_.fail("this thread comes to named barrier " + std::to_string(id) +
                        " a second time, before the others have come",
                    site);
    barrier.arrived.push_back(&me);
    if (Checker* checker = block_.checker()) checker->clocks().release(me.number(), barrier.known);
    if (wait) {
        me.site = site;
        me.mask = id;
        me.state = Thread::kAtNamedBarrier;
        barrier.waiting.push_back(&me);
    }
    if (barrier.arrived.size() == threads) release(barrier, site);
    if (wait) block_.suspend();
}

void Barriers::release(Named& barrier, Site site) {
    std::vector<int> lanes(block_.warps());
    for (const Thread* thread : barrier.arrived)
        ++lanes[static_cast<std::size_t>(thread->warp)];
    for (const int count : lanes) {
        if (count % 32 != 0)
            block_.fail("divergence: a warp comes to a named barrier with " +
                            std::to_string(count) + " of its lanes",
                        site);
    }
    for (Thread* thread : barrier.waiting) {
        if (Checker* checker = block_.checker())
            checker->clocks().acquire(thread->number(), barrier.known);
        block_.make_ready(*thread);
    }
    barrier = {};
}

// ---- Registers ----------------------------------------------------------------------------------

void Barriers::set_registers(int registers, bool raise, Site site) {
    const Thread& me = block_.running();
    if (block_.threads() % 128 != 0)
        block_.fail("setmaxnreg needs a block of whole warpgroups, of 128 threads each", site);
    registers_.resize(block_.threads() / 128);
    int& mine = registers_[me.number() / 128];
    if (mine != 0 && mine != registers && (mine < registers) != raise)
        block_.fail("setmaxnreg: " + std::string(raise ? "raise" : "lower") + "_registers from " +
                        std::to_string(mine) + " to " + std::to_string(registers),
                    site);
    mine = registers;
    int all = 0;
    for (const int count : registers_)
        all += 128 * count;
    if (all > kRegistersOfBlock)
        block_.fail("setmaxnreg: the warpgroups ask for " + std::to_string(all) +
                        " registers together; a multiprocessor has " +
                        std::to_string(kRegistersOfBlock),
                    site);
}

// ---- What kernels call --------------------------------------------------------------------------

namespace detail {

void mbarrier_init(Mbarrier& barrier, unsigned arrivals, Site site) {
    Block::current()->barriers().init(barrier, arrivals, site);
}

void mbarrier_init_fence() {
    Block::current()->barriers().fence();
}

void mbarrier_arrive(Mbarrier& barrier, unsigned bytes, Site site) {
    Block& block = *Block::current();
    MbarrierState& state = block.barriers().find(barrier, site);
    if (Checker* checker = block.checker())
        checker->clocks().release(block.running().number(), state.arrived);
    if (bytes != 0) block.barriers().expect(state, bytes, site);
    block.barriers().arrive(state, site);
}

void mbarrier_wait(Mbarrier& barrier, unsigned parity, Site site) {
    Block::current()->barriers().wait(barrier, parity, site);
}

void named_barrier(unsigned id, unsigned threads, bool wait, Site site) {
    Block::current()->barriers().named(id, threads, wait, site);
}

void set_registers(int registers, bool raise, Site site) {
    warp_collective(Collective::kBallot, 0xffffffffu, 1, 0, site);
    Block::current()->barriers().set_registers(registers, raise, site);
}

}  // namespace detail
}  // namespace simt
