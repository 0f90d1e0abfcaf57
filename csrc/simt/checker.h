// Examines every access that the threads of one block make: races, bounds, reads of what nothing
// wrote.
//
// Two accesses to the same bytes race if one of them writes, not both are atomic, and nothing
// orders them: no barrier of the block between them, no chain of mbarriers, named barriers and
// __syncwarps from one thread to the other, and, in global memory, they do not belong to different
// launches. Shuffles, votes and mma order nothing, as on a GPU. What a tensor copy does is ordered
// by what waits for it alone, and what it reads, or writes over, needs a fence of the proxy.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "clocks.h"
#include "shadow.h"
#include "shared_memory.h"
#include "source_location.h"

namespace simt {

struct AsyncCopy;
class Block;
struct Thread;

class Checker {
  public:
    enum Kind { kRead, kWrite, kAtomic };

    Checker(Block& block, const SharedMemory& shared);

    // Null unless this build checks accesses.
    static std::unique_ptr<Checker> make(Block& block, const SharedMemory& shared);

    void begin_launch();
    void begin_block(std::size_t threads);

    void access(std::uintptr_t address, std::size_t bytes, Kind kind, Location location);
    void begin_copy(const AsyncCopy& copy);
    void end_copy(const AsyncCopy& copy);
    void block_barrier();
    void warp_barrier(int warp, unsigned mask) { clocks_.meet(warp, mask); }
    void fence() { fenced_ = true; }

    // What threads tell each other by mbarriers and named barriers.
    Clocks& clocks() { return clocks_; }
    // The running thread, now; and whether it knows of what another did.
    Access stamp(Location location) const;
    bool knows_of(const Access& earlier) const { return ordered(earlier, stamp(0), false); }

    // ---- Agents: what reads and writes in a thread's stead, later
    // The agent, forked from the running thread, begins an access through the asynchronous proxy;
    // a write may happen at any moment until `end_agent`.
    void begin_agent(std::size_t agent, std::uintptr_t address, std::size_t bytes, Kind kind,
                     Location location);
    void end_agent(std::uintptr_t address, std::size_t bytes);
    // The copy, until now waited for by its thread, completes an mbarrier.
    void hand_over(const AsyncCopy& copy, std::size_t agent);
    // fence.proxy.async of the running thread.
    void fence_proxy();
    // Fails unless what wrote the bytes was followed by a fence of the proxy that the running thread
    // knows of: it is about to have them read, or written over, through the asynchronous proxy.
    void require_proxy_fence(std::uintptr_t address, std::size_t bytes, Location location);

    // The report of an uninitialised read; empty if there was none. It waits until the next
    // barrier, since a write before that makes it a race, which says more.
    const std::string& postponed() const { return postponed_; }

  private:
    struct ProxyFence {
        std::uint16_t epoch;
        std::uint16_t clock;
    };
    // What a block published with a fence and an atomic, and what another learnt from it by an
    // atomic there.
    struct Release {
        std::uint32_t block;
        std::uint16_t epoch;
        std::uint16_t thread;
    };
    struct Acquired {
        Release release;
        std::uint16_t epoch;
        std::uint16_t thread;
    };

    bool ordered(const Access& earlier, const Access& now, bool global) const;
    void check_cell(Cell& cell, Access now, Kind kind, bool global, bool written,
                    std::uintptr_t address);
    void check_words(const Shadow& shadow, std::uintptr_t address, std::size_t bytes, Kind kind,
                     bool global, bool written, Access now);
    void access_global(std::uintptr_t address, std::size_t bytes, Kind kind, Location location);
    void synchronise(std::uintptr_t address);
    void require_no_product_reads(std::uintptr_t address, std::size_t bytes, Kind kind,
                                  const Access& now);
    std::vector<Access>& more_readers(const Cell& cell);
    void add_reader(Cell& cell, const Access& now, bool global);
    bool proxy_fenced(const Access& writer) const;
    void require_inside_shared(std::uintptr_t address, std::size_t bytes, Kind kind,
                               Location location);
    std::string name_of(std::uintptr_t address) const;
    std::string name_of_thread(const Access& access) const;
    [[noreturn]] void fail(const std::string& what, const Access& now);

    Block& block_;
    const SharedMemory& shared_;
    Shadow shared_shadow_;
    std::uint32_t first_block_ = 1;  // of this launch
    std::uint32_t block_number_ = 0;
    std::uint16_t epoch_ = 0;
    bool fenced_ = false;
    std::string postponed_;
    Clocks clocks_;
    // Of words of shared memory that more than two warps read, where not all meet at one barrier.
    std::vector<std::vector<Access>> more_readers_;
    std::vector<std::vector<ProxyFence>> proxy_fences_;  // of each thread, in order
    std::vector<Clocks::Vector> known_at_fence_;         // of each thread, at its last one
    std::unordered_map<std::uintptr_t, std::vector<Release>> released_;  // of this launch
    std::vector<Acquired> acquired_;                                     // by this block
};

}  // namespace simt
