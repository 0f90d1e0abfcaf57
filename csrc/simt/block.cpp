#include "block.h"

#include <cstring>
#include <stdexcept>

#include "collectives.h"
#include "source_location.h"

#define SIMT_THREAD_STATE __thread __attribute__((tls_model("initial-exec")))
SIMT_THREAD_STATE uint3 threadIdx;
SIMT_THREAD_STATE uint3 blockIdx;
SIMT_THREAD_STATE uint3 blockDim;
SIMT_THREAD_STATE uint3 gridDim;

namespace simt {
namespace {

SIMT_THREAD_STATE Block* running_block = nullptr;

}  // namespace

Block* Block::current() {
    return running_block;
}

// ---- Running a block ----------------------------------------------------------------------------

void Block::set_up(const detail::Launch& launch, uint3 index, const Options& options) {
    launch_ = &launch;
    options_ = options;
    const std::uint64_t linear =
        index.x + static_cast<std::uint64_t>(launch.grid.x) *
                      (index.y + static_cast<std::uint64_t>(launch.grid.y) * index.z);
    std::uint64_t name_hash = 0;
    for (const char c : launch.variant->name)
        name_hash = name_hash * 1099511628211ull + static_cast<unsigned char>(c);
    random_ = Random(Random(options.seed).next() ^ Random(linear).next() ^ name_hash);
    const bool coin = random_.below(2) != 0;
    depth_first_ =
        options.schedule == Schedule::kMixed ? coin : options.schedule == Schedule::kDepthFirst;
    copy_late_ = random_.below(2) != 0;

    const dim3 shape = launch.block;
    const int count = static_cast<int>(shape.x * shape.y * shape.z);
    if (shape.x != threads_shape_.x || shape.y != threads_shape_.y || shape.z != threads_shape_.z) {
        threads_shape_ = shape;
        threads_.resize(static_cast<std::size_t>(count));
        for (int i = 0; i < count; ++i) {
            Thread& thread = threads_[static_cast<std::size_t>(i)];
            const unsigned u = static_cast<unsigned>(i);
            thread.index = {u % shape.x, u / shape.x % shape.y, u / (shape.x * shape.y)};
            thread.lane = i % 32;
            thread.warp = i / 32;
        }
        warps_.resize(static_cast<std::size_t>((count + 31) / 32));
        warp_order_.resize(warps_.size());
        for (std::size_t i = 0; i < warps_.size(); ++i)
            warp_order_[i] = static_cast<int>(i);
    }
    for (std::size_t i = 0; i < warps_.size(); ++i) {
        const int lanes = count - static_cast<int>(i) * 32;
        const unsigned all = lanes >= 32 ? 0xffffffffu : bit(lanes) - 1;
        warps_[i] = {0, all, 0, 0, static_cast<int>(random_.below(32))};
    }
    ready_.clear();
    ready_count_ = 0;
    for (Thread& thread : threads_) {
        thread.context.state = nullptr;
        thread.copies.clear();
        thread.committed_groups = 0;
        make_ready(thread);
    }
    shuffle_warps();
    barriers_.begin_block();
    copies_.begin_block();
    blamed_ = nullptr;
    exited_ = 0;
    arrived_ = 0;
    warpgroups_.clear();
    products_late_.reset();
    product_reads_.clear();
    proxy_view_.clear();
    proxy_view_is_old_ = false;
    failure_.clear();
    shared_.begin_block(launch.shared_bytes);
    if (checker_) checker_->begin_block(threads_.size());
    banks_ = BankCounter::make(*launch.variant, warps_.size());

    blockIdx = index;
    blockDim = {shape.x, shape.y, shape.z};
    gridDim = {launch.grid.x, launch.grid.y, launch.grid.z};
}

void Block::begin_launch() {
    if (checker_) checker_->begin_launch();
}

void Block::run(const detail::Launch& launch, uint3 index, const Options& options) {
    set_up(launch, index, options);
    running_block = this;
    run_fibers();
    running_block = nullptr;
    if (banks_) banks_->meet_all();
    if (!failure_.empty()) stacks_.take_all_back();  // of the fibers that never ended
    if (failure_.empty() && checker_) failure_ = checker_->postponed();
    if (failure_.empty()) {
        const std::string damage = shared_.damage();
        if (!damage.empty()) failure_ = message(damage, nullptr, "");
    }
    if (!failure_.empty()) throw std::runtime_error(failure_);
}

void Block::run_fibers() {
    Thread& first = *pick();
    become(first);
    prepare(first.context, stacks_.take(), fiber_main);
    switch_context(host_, first.context);
}

void Block::fiber_main() {
    entered_context();
    Block& block = *running_block;
    for (;;) {
        std::string thrown;
        try {
            block.launch_->run_thread(block.launch_->parameters);
        } catch (const std::exception& error) {
            thrown = std::string("the kernel threw an exception: ") + error.what();
        } catch (...) {
            thrown = "the kernel threw an exception";
        }
        if (!thrown.empty()) block.fail(thrown);
        block.exit_thread();
    }
}

void Block::become(Thread& thread) {
    running_ = &thread;
    thread.state = Thread::kReady;
    threadIdx = thread.index;
}

// ---- Schedule -----------------------------------------------------------------------------------

void Block::make_ready(Thread& thread) {
    thread.state = Thread::kReady;
    ++ready_count_;
    if (depth_first_) {
        warps_[static_cast<std::size_t>(thread.warp)].ready |= bit(thread.lane);
    } else {
        ready_.push_back(&thread);
    }
}

void Block::shuffle_warps() {
    for (std::size_t i = warp_order_.size(); i > 1; --i)
        std::swap(warp_order_[i - 1], warp_order_[random_.below(static_cast<unsigned>(i))]);
    warp_position_ = 0;
}

// Takes the thread that runs next out of those that can; null if there is none.
Thread* Block::pick() {
    if (copies_.under_way()) copies_.land_some();
    while (ready_count_ == 0) {
        if (!copies_.land_one()) return nullptr;
    }
    --ready_count_;
    if (!depth_first_) {
        const std::size_t i = random_.below(static_cast<unsigned>(ready_.size()));
        Thread* thread = ready_[i];
        ready_[i] = ready_.back();
        ready_.pop_back();
        return thread;
    }
    const int count = static_cast<int>(warps_.size());
    while (!warps_[static_cast<std::size_t>(warp_order_[static_cast<std::size_t>(warp_position_)])]
                .ready)
        warp_position_ = warp_position_ + 1 == count ? 0 : warp_position_ + 1;
    const int number = warp_order_[static_cast<std::size_t>(warp_position_)];
    Warp& warp = warps_[static_cast<std::size_t>(number)];
    const unsigned from = static_cast<unsigned>(warp.next_lane);
    const unsigned rotated = warp.ready >> from | warp.ready << ((32 - from) & 31);
    const int lane = (__builtin_ctz(rotated) + warp.next_lane) & 31;
    warp.ready &= ~bit(lane);
    warp.next_lane = (lane + 1) & 31;
    return &threads_[static_cast<std::size_t>(number * 32 + lane)];
}

void Block::let_others_run() {
    if (depth_first_) return;
    make_ready(*running_);
    suspend();
}

void Block::suspend() {
    Thread& from = *running_;
    Thread* next = pick();
    if (!next) fail_deadlock();
    become(*next);
    if (next == &from) return;
    if (!next->context.state) prepare(next->context, stacks_.take(), fiber_main);
    switch_context(from.context, next->context);
}

// Returns if another thread is to start on this stack; else leaves it.
void Block::exit_thread() {
    Thread& from = *running_;
    copies_.require_waited_for(from);
    from.state = Thread::kExited;
    ++exited_;
    Warp& warp = warps_[static_cast<std::size_t>(from.warp)];
    warp.exited |= bit(from.lane);
    for (unsigned rest = warp.waiting; rest; rest &= rest - 1) {
        const Thread& other =
            threads_[static_cast<std::size_t>(from.warp * 32 + __builtin_ctz(rest))];
        if (other.mask & bit(from.lane))
            fail(std::string(name_of(other.kind)) + " of " + describe(other) + " at " +
                 simt::describe(other.site) + " names lane " + std::to_string(from.lane) +
                 ", which has exited without it");
    }
    if (!warpgroups_.empty() && warpgroups_[static_cast<std::size_t>(from.warp) / 4].is_busy())
        fail("this thread exits, and a product of its warpgroup has not been waited for",
             warpgroups_[static_cast<std::size_t>(from.warp) / 4].first_site());
    if (arrived_ != 0 && arrived_ + exited_ == threads_.size()) release_barrier();
    if (exited_ == threads_.size()) copies_.require_landed();
    Thread* next = pick();
    if (!next) {
        if (exited_ != threads_.size()) fail_deadlock();
        stacks_.give_back(from.context.stack);
        leave_context(from.context, host_);
    }
    become(*next);
    if (!next->context.state) {
        next->context.stack = from.context.stack;
        next->context.state = &next->context;  // it has begun
        return;
    }
    stacks_.give_back(from.context.stack);
    leave_context(from.context, next->context);
}

// ---- Barriers -----------------------------------------------------------------------------------

int Block::barrier(detail::Reduction reduction, int value, Site site) {
    using detail::Reduction;
    Thread& me = *running_;
    me.site = site;
    if (arrived_ == 0) {
        first_arrived_ = &me;
        barrier_value_ = reduction == Reduction::kAnd ? 1 : 0;
    } else if (!same(first_arrived_->site, site)) {
        fail("barrier divergence: this thread waits at the barrier at " + simt::describe(site) +
                 ", while " + describe(*first_arrived_) + " waits at the one at " +
                 simt::describe(first_arrived_->site),
             site);
    }
    if (reduction == Reduction::kCount) barrier_value_ += value != 0;
    if (reduction == Reduction::kAnd) barrier_value_ &= value != 0;
    if (reduction == Reduction::kOr) barrier_value_ |= value != 0;
    me.state = Thread::kAtBarrier;
    ++arrived_;
    if (arrived_ + exited_ == threads_.size()) release_barrier();
    suspend();
    return barrier_result_;
}

void Block::release_barrier() {
    arrived_ = 0;
    barrier_result_ = barrier_value_;
    if (banks_) banks_->meet_all();
    if (checker_) {
        if (!checker_->postponed().empty()) fail("");
        checker_->block_barrier();
    }
    for (Thread& thread : threads_) {
        if (thread.state != Thread::kAtBarrier) continue;
        make_ready(thread);
    }
    shuffle_warps();
}

// ---- Asynchronous copies: executed as late as their wait allows, or at a random moment before ---

void Block::add_copy(const AsyncCopy& copy) {
    Thread& me = *running_;
    me.copies.push_back(copy);
    me.copies.back().group = me.committed_groups;
    if (!checker_) return;
    checker_->begin_copy(copy);
    const Location location = location_of(copy.site);
    const auto bytes = static_cast<std::size_t>(copy.bytes);
    count(reinterpret_cast<std::uintptr_t>(copy.shared), bytes, location);
    if (copy.valid) count(reinterpret_cast<std::uintptr_t>(copy.global), bytes, location);
}

void Block::commit_copies() {
    ++running_->committed_groups;
    if (!copy_late_) execute_some_copies();
}

void Block::wait_for_copies(int pending) {
    Thread& me = *running_;
    if (!copy_late_) execute_some_copies();
    std::size_t done = 0;
    while (done < me.copies.size() && me.copies[done].group < me.committed_groups - pending) {
        execute(me.copies[done]);
        if (checker_) checker_->end_copy(me.copies[done]);
        ++done;
    }
    me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

void Block::execute_some_copies() {
    for (AsyncCopy& copy : running_->copies) {
        if (random_.below(4) == 0) execute(copy);
    }
}

void Block::execute(AsyncCopy& copy) {
    if (copy.executed) return;
    copy.executed = true;
    if (copy.valid) {
        std::memcpy(copy.shared, copy.global, static_cast<std::size_t>(copy.bytes));
    } else {
        std::memset(copy.shared, 0, static_cast<std::size_t>(copy.bytes));
    }
}

// ---- Accesses -----------------------------------------------------------------------------------

void Block::access(const void* address, std::size_t bytes, Checker::Kind kind, const void* caller) {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    if (!checker_) return;
    if (stacks_.contains(at)) return access_registers(at, kind, caller);
    if (is_code_or_parameter(at)) return;
    checker_->access(at, bytes, kind, location_of(caller));
    count(at, bytes, location_of(caller));
}

// Local variables are registers: those of a product are its own until it has been waited for.
void Block::access_registers(std::uintptr_t address, Checker::Kind kind, const void* caller) {
    const std::size_t number = static_cast<std::size_t>(running_->warp) / 4;
    if (number >= warpgroups_.size() || !warpgroups_[number].is_busy()) return;
    const auto thread = static_cast<std::size_t>(running_ - threads_.data());
    if (const Site* begun = warpgroups_[number].holds(thread % Warpgroup::kThreads, address))
        fail(std::string("this thread ") + (kind == Checker::kRead ? "reads" : "writes to") +
                 " a register of the product begun at " + simt::describe(*begun) +
                 ", which has not been waited for",
             simt::describe(location_of(caller)));
}

void Block::count(std::uintptr_t address, std::size_t bytes, Location location) {
    const bool shared = shared_.contains(address);
    Variant& variant = *launch_->variant;
    (shared ? variant.shared : variant.global).add(bytes);
    if (shared && banks_) banks_->access(running_->warp, running_->lane, address, bytes, location);
}

// What a kernel reads besides its stack, shared memory and arrays: constants, its indices and
// parameters.
bool Block::is_code_or_parameter(std::uintptr_t address) const {
    const auto near = [address](const void* begin, std::size_t bytes) {
        return address - reinterpret_cast<std::uintptr_t>(begin) < bytes;
    };
    return near(&threadIdx, sizeof(threadIdx)) || near(&blockIdx, sizeof(blockIdx)) ||
           near(&blockDim, sizeof(blockDim)) || near(&gridDim, sizeof(gridDim)) ||
           near(launch_->parameters, launch_->parameter_bytes) || in_this_module(address);
}

void Block::atomic(const void* address, int bytes, Site site) {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    if (!checker_ || stacks_.contains(at)) return;
    checker_->access(at, static_cast<std::size_t>(bytes), Checker::kAtomic, location_of(site));
    count(at, static_cast<std::size_t>(bytes), location_of(site));
}

void Block::read_matrix_row(const void* row, Site site) {
    if (!checker_) return;
    const auto at = reinterpret_cast<std::uintptr_t>(row);
    checker_->access(at, 16, Checker::kRead, location_of(site));
    count(at, 16, location_of(site));
}

void Block::fence() {
    if (checker_) checker_->fence();
}

}  // namespace simt
