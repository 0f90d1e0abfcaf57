// One running block: its threads as fibers, their schedule, barriers, warp collectives, shared
// memory and asynchronous copies. Each host thread of the emulator owns one and runs block after
// block on it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bank_conflicts.h"
#include "barriers.h"
#include "checker.h"
#include "copy_engine.h"
#include "emulator.h"
#include "fiber.h"
#include "options.h"
#include "random.h"
#include "shared_memory.h"
#include "warpgroup.h"

namespace simt {

// Device limits of compute capability 9.0.
constexpr unsigned kMaxThreadsPerBlock = 1024;
constexpr std::size_t kMaxStaticSharedBytes = 48 * 1024;

// One cp.async.
struct AsyncCopy {
    void* shared;
    const void* global;
    int bytes;
    bool valid;     // else it writes zeros
    bool executed;  // it may be, at any moment before the wait
    int group;
    Site site;
};

struct Thread {
    enum State : std::uint8_t {
        kReady,
        kAtBarrier,
        kAtCollective,
        kAtWarpgroup,
        kAtMbarrier,
        kAtNamedBarrier,
        kExited,
    };

    Context context;
    uint3 index{};
    int lane = 0;
    int warp = 0;
    State state = kReady;

    std::size_t number() const { return static_cast<std::size_t>(warp * 32 + lane); }

    // What it waits for.
    const MbarrierState* mbarrier = nullptr;
    detail::Collective kind{};
    unsigned mask = 0;
    int source = 0;
    std::uint64_t value = 0;  // what it brings; after the collective, what it gets
    detail::MatrixOperands operands{};
    Site site{};

    std::vector<AsyncCopy> copies;  // not waited for, oldest first
    int committed_groups = 0;
};

class Block {
  public:
    Block() = default;
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    void begin_launch();
    // Runs the block `index` of the launch; throws std::runtime_error with what a check found.
    void run(const detail::Launch& launch, uint3 index, const Options& options);

    // The block of the calling host thread, null outside kernels.
    static Block* current();

    // ---- Called by the running thread
    int barrier(detail::Reduction reduction, int value, Site site);
    std::uint64_t collective(detail::Collective kind, unsigned mask, std::uint64_t value,
                             int source, detail::MatrixOperands operands, Site site);
    void add_copy(const AsyncCopy& copy);
    void commit_copies();
    void wait_for_copies(int pending);
    SharedMemory& shared() { return shared_; }
    Thread& running() { return *running_; }
    void atomic(const void* address, int bytes, Site site);
    void read_matrix_row(const void* row, Site site);
    void fence();
    void meet_warpgroup(const WarpgroupCall& call);
    void fence_proxy();
    // Any access of the running thread, in builds that check them; `caller` is where in the code.
    void access(const void* address, std::size_t bytes, Checker::Kind kind, const void* caller);
    [[noreturn]] void fail(const std::string& what, const std::string& where = "");
    [[noreturn]] void fail(const std::string& what, Site site);

    // The report of a failure of the running thread.
    std::string message(const std::string& what, const std::string& where) const;
    std::string describe_thread(std::size_t number) const;

    // ---- Called by its warpgroups
    bool checks() const { return checker_ != nullptr; }
    // Whether a product is executed now, before it must be.
    bool executes_early();
    // A product reads these pieces of shared memory, 16 bytes each, from now on.
    void begin_product_reads(const std::vector<std::uint32_t>& pieces, Site site);
    void end_product_reads(const std::vector<std::uint32_t>& pieces);
    // Where a product was begun that reads this address of shared memory; null if none does.
    const Location* product_that_reads(std::uintptr_t address) const;
    // Shared memory as the asynchronous proxy sees it, in builds that do not check accesses.
    const unsigned char* proxy_view();
    // This address of shared memory, as the asynchronous proxy sees it; what it wrote, it sees.
    const unsigned char* seen_through_proxy(const unsigned char* shared);
    void written_through_proxy(const unsigned char* shared, std::size_t bytes);

    // ---- For what threads wait at besides
    Barriers& barriers() { return barriers_; }
    CopyEngine& copies() { return copies_; }
    Checker* checker() { return checker_.get(); }
    std::size_t threads() const { return threads_.size(); }
    std::size_t warps() const { return warps_.size(); }
    Random& random() { return random_; }
    bool copies_land_late() const { return copy_late_; }
    Variant& variant() { return *launch_->variant; }
    void make_ready(Thread& thread);
    // Lets others run until the running thread, which is waiting or ready, is picked again.
    void suspend();
    // A point where any thread may go on.
    void let_others_run();
    void execute(AsyncCopy& copy);
    // Whose doing what fails is, if not the running thread's.
    void blame(const Thread* thread) { blamed_ = thread; }

  private:
    struct Warp {
        unsigned ready = 0;  // lanes, when the schedule is depth-first
        unsigned lanes = 0;  // that the warp began with
        unsigned exited = 0;
        unsigned waiting = 0;  // at a collective
        int next_lane = 0;
    };

    void set_up(const detail::Launch& launch, uint3 index, const Options& options);
    void run_fibers();
    static void fiber_main();
    Thread* pick();
    void become(Thread& thread);
    void exit_thread();
    void release_barrier();
    void shuffle_warps();
    void complete(Warp& warp, Thread* lanes, unsigned mask);
    void exchange(detail::Collective kind, Thread* lanes, unsigned mask);
    void execute_some_copies();
    void access_registers(std::uintptr_t address, Checker::Kind kind, const void* caller);
    void count(std::uintptr_t address, std::size_t bytes, Location location);
    bool is_code_or_parameter(std::uintptr_t address) const;
    [[noreturn]] void fail_deadlock();
    std::string describe(const Thread& thread) const;
    std::string message(const std::string& what, const Thread* thread,
                        const std::string& where) const;

    const detail::Launch* launch_ = nullptr;
    Options options_{};
    Random random_;
    bool depth_first_ = true;
    bool copy_late_ = true;

    Context host_;
    StackPool stacks_;
    SharedMemory shared_;
    std::unique_ptr<Checker> checker_ = Checker::make(*this, shared_);
    std::unique_ptr<BankCounter> banks_;
    Barriers barriers_{*this};
    CopyEngine copies_{*this};
    std::vector<Thread> threads_;
    dim3 threads_shape_{0, 0, 0};
    Thread* running_ = nullptr;
    const Thread* blamed_ = nullptr;
    unsigned exited_ = 0;
    std::string failure_;

    std::vector<Warp> warps_;
    std::vector<int> warp_order_;  // depth-first: in which order warps run
    int warp_position_ = 0;        // of the running one in it
    std::vector<Thread*> ready_;   // random: threads that can run
    unsigned ready_count_ = 0;

    unsigned arrived_ = 0;
    Thread* first_arrived_ = nullptr;
    int barrier_value_ = 0;
    int barrier_result_ = 0;

    struct ProductReads {
        int count = 0;  // of products that read a piece
        Location location = 0;
    };
    std::vector<Warpgroup> warpgroups_;        // once one is called
    std::optional<bool> products_late_;        // drawn with the first product
    std::vector<ProductReads> product_reads_;  // of each 16 bytes of shared memory
    std::vector<unsigned char> proxy_view_;    // once it is asked for
    bool proxy_view_is_old_ = false;
};

}  // namespace simt
