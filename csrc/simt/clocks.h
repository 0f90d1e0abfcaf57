// What each thread of a block knows of the others: vector clocks.
//
// A thread's own clock counts what it has published. Whoever learns of it, at a __syncwarp, a named
// barrier or an mbarrier, knows all that the thread did up to then. Barriers of the whole block
// need no clocks: the checker counts them as epochs. So most kernels exchange clocks inside a warp
// only, which costs little (a table of 32 x 32 for each warp); the first exchange between warps
// makes a row of all threads for each thread.
//
// Agents are what does something in a thread's stead, later: the copies that complete an mbarrier,
// the stores of a thread to global memory. They have clocks too, behind those of the threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace simt {

class Clocks {
  public:
    using Clock = std::uint16_t;
    // Of all threads and agents; what is beyond its end is 0.
    using Vector = std::vector<Clock>;

    void begin_block(std::size_t threads);

    Clock now(std::size_t who) const { return own_[who]; }
    // Whether `thread` knows what `other` did at `clock`.
    bool knows(std::size_t thread, std::size_t other, Clock clock) const {
        if (wide_) return other < rows_[thread].size() && rows_[thread][other] >= clock;
        return thread / 32 == other / 32 &&
               warps_[thread / 32].known[thread % 32][other % 32] >= clock;
    }

    // The lanes of `mask` learn all that any of them knows.
    void meet(int warp, unsigned mask);
    // Into `into` goes all that the thread knows and did.
    void release(std::size_t thread, Vector& into);
    void acquire(std::size_t thread, const Vector& from);
    // What the thread does from now on is later than what it did.
    void tick(std::size_t who);

    std::size_t add_agent();
    bool is_agent(std::size_t who) const { return who >= threads_; }
    // The agent begins something for the thread: it knows what the thread knows.
    void fork(std::size_t agent, std::size_t thread);
    // Only what the agent itself did.
    void release_agent(std::size_t agent, Vector& into);
    // All threads of the block meet: each learns what any of them knows of agents.
    void share_agents();

    // Whether threads of different warps have exchanged clocks in this block.
    bool wide() const { return wide_; }

  private:
    struct Warp {
        Clock known[32][32];  // [a][b]: what lane a knows of lane b's clock
    };

    void widen();
    static void join(Vector& into, const Vector& from);

    std::size_t threads_ = 0;
    bool wide_ = false;
    std::vector<Clock> own_;
    std::vector<Warp> warps_;   // unless wide
    std::vector<Vector> rows_;  // if wide
};

}  // namespace simt
