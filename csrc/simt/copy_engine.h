// What copies in a thread's stead: tensor loads and stores, and the arrivals that cp.async bring to
// an mbarrier. Each lands at the last moment that somebody can go on without it, or at a random
// moment before, in random order.
#pragma once

#include <cstdint>
#include <vector>

#include "emulator.h"
#include "tensor_copy.h"

namespace simt {

class Block;
struct AsyncCopy;
struct MbarrierState;
struct Thread;

class CopyEngine {
  public:
    explicit CopyEngine(Block& block) : block_(block) {}

    void begin_block();
    void load(void* shared, const TensorMap& map, MbarrierState& barrier,
              const detail::TensorPlace& place, bool im2col, Site site);
    void store(const TensorMap& map, const void* shared, const detail::TensorPlace& place,
               Site site);
    void commit_stores();
    void wait_for_stores(int pending);
    void arrive_after_copies(MbarrierState& barrier, Site site);

    bool under_way() const { return !under_way_.empty(); }
    // At random, none or some, unless this block's copies land late.
    void land_some();
    // When nobody can go on: one for which somebody may wait. Whether there was one.
    bool land_one();
    // Of a thread that exits: its stores may still read shared memory.
    void require_waited_for(const Thread& thread);
    // At the end of the block.
    void require_landed();

  private:
    // 16 bytes in shared memory, of which `bytes` from `skip` on lie in the array.
    struct Piece {
        unsigned char* shared;
        unsigned char* global;
        std::uint8_t skip, bytes;
    };
    enum class Kind { kLoad, kStore, kArrival };
    struct Copy {
        Kind kind{};
        const Thread* thread = nullptr;
        Site site{};
        std::vector<Piece> pieces;
        bool to_tf32 = false;
        MbarrierState* barrier = nullptr;
        std::vector<AsyncCopy> copies;  // kArrival
        int group = 0;                  // kStore
    };
    // The stores of a thread.
    struct Stores {
        const Thread* thread;
        std::size_t agent = 0;  // whose clock counts the groups, from 1
        int begun = 0;          // groups, the last one perhaps without a commit
        int committed = 0;
        int waited = 0;
    };

    std::vector<Piece> pieces(const TensorMap& map, const void* shared,
                              const detail::TensorPlace& place, bool im2col, Site site);
    void require_place(const TensorMap& map, const void* shared, const detail::TensorPlace& place,
                       bool im2col, Site site);
    Copy begin(Kind kind, Site site) const;
    Stores& stores();
    void land(std::size_t position);
    void move(const Copy& copy);

    Block& block_;
    std::vector<Copy> under_way_;
    std::vector<Stores> stores_;
};

}  // namespace simt
