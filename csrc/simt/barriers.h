// The mbarriers and the named barriers of a running block, and the registers of its warpgroups.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "clocks.h"
#include "mbarrier.h"
#include "shadow.h"

namespace simt {

class Block;
struct Thread;

// What hardware keeps in the 8 bytes of an mbarrier.
struct MbarrierState {
    std::uintptr_t address;
    unsigned expected;       // arrivals in each phase
    unsigned pending;        // of them, in this phase
    std::int64_t bytes = 0;  // announced in this phase and not come yet
    std::uint32_t phase = 0;
    int copies = 0;           // begun in this phase and not landed
    bool waited = true;       // for the copies so far
    std::size_t agent = 0;    // what writes for it
    Clocks::Vector arrived;   // what those knew who have arrived so far
    Clocks::Vector complete;  // the same when the last phase was completed
    Access initialised;       // by which thread, when
    bool fenced = false;
    Access fence;
    std::vector<Thread*> waiting;
};

class Barriers {
  public:
    explicit Barriers(Block& block) : block_(block) {}

    void begin_block();

    // ---- mbarriers; each fails where the barrier is misused
    void init(Mbarrier& barrier, unsigned arrivals, Site site);
    void fence();
    void arrive(MbarrierState& state, Site site);
    void expect(MbarrierState& state, std::int64_t bytes, Site site);
    void come(MbarrierState& state, std::int64_t bytes, Site site);
    void wait(Mbarrier& barrier, unsigned parity, Site site);
    MbarrierState& find(const Mbarrier& barrier, Site site);
    // The same, for a copy that is to complete it.
    MbarrierState& find_for_copy(const Mbarrier& barrier, Site site);
    std::string describe_wait(const Thread& thread) const;
    // At the end of the block.
    void require_waited_for();

    void named(unsigned id, unsigned threads, bool wait, Site site);
    void set_registers(int registers, bool raise, Site site);

  private:
    struct Named {
        unsigned threads = 0;  // that it waits for; 0: nobody has come
        std::vector<Thread*> arrived;
        std::vector<Thread*> waiting;
        Clocks::Vector known;
        Site site{};
    };

    void complete_if_so(MbarrierState& state, Site site);
    void release(Named& barrier, Site site);
    std::string name_of(const MbarrierState& state) const;

    Block& block_;
    std::deque<MbarrierState> mbarriers_;
    std::vector<Named> named_;
    std::vector<int> registers_;  // of each warpgroup; 0: as the kernel was compiled
};

}  // namespace simt
