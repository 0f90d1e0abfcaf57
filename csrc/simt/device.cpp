// Launches: the limits of the device, the host threads that run blocks, the options and the list of
// variants.
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "block.h"
#include "global_memory.h"

namespace simt {
namespace {

// ---- Options ------------------------------------------------------------------------------------

std::string environment(const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value && *value ? value : otherwise;
}

Options& current_options() {
    static Options instance = [] {
        const int machine = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
        const std::string threads =
            environment("ZFCUDA_EMULATOR_THREADS", std::to_string(machine).c_str());
        return Options{std::strtoull(environment("ZFCUDA_EMULATOR_SEED", "0").c_str(), nullptr, 0),
                       schedule_from_name(environment("ZFCUDA_EMULATOR_SCHEDULE", "mixed")),
                       checks_accesses() ? 1 : std::max(1, std::atoi(threads.c_str()))};
    }();
    return instance;
}

// ---- Variants -----------------------------------------------------------------------------------

std::vector<Variant*>& registered() {
    static std::vector<Variant*> instance;
    return instance;
}

// ---- Running a grid -----------------------------------------------------------------------------

// The blocks of one launch, in random order: which is the next, and what failed.
struct Grid {
    const detail::Launch* launch;
    Options options;
    std::uint64_t blocks;
    std::uint64_t first;  // block `position` is (first + position * step) % blocks
    std::uint64_t step;
    std::atomic<std::uint64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::uint64_t failed_position = ~0ull;  // the lowest
    std::string failure;

    uint3 block_at(std::uint64_t position) const {
        const auto linear = static_cast<std::uint64_t>(
            (first + static_cast<unsigned __int128>(position) * step) % blocks);
        const std::uint64_t x = launch->grid.x, y = launch->grid.y;
        return {static_cast<unsigned>(linear % x), static_cast<unsigned>(linear / x % y),
                static_cast<unsigned>(linear / (x * y))};
    }

    // Every position below a failed one has been taken, and is run to its end: the reported failure
    // is the same, however many host threads there are.
    void run(Block& block) {
        block.begin_launch();
        while (!failed) {
            const std::uint64_t position = next++;
            if (position >= blocks) return;
            try {
                block.run(*launch, block_at(position), options);
            } catch (const std::exception& error) {
                std::lock_guard<std::mutex> lock(mutex);
                failed = true;
                if (position < failed_position) {
                    failed_position = position;
                    failure = error.what();
                }
            }
        }
    }
};

std::uint64_t greatest_common_divisor(std::uint64_t a, std::uint64_t b) {
    return b == 0 ? a : greatest_common_divisor(b, a % b);
}

// Host threads that wait for grids. Never destroyed: its threads end with the process. A forked
// process gets a new one, since it has inherited no threads.
class Device {
  public:
    static Device& instance() {
        static std::atomic<Device*> device = [] {
            pthread_atfork(nullptr, nullptr, [] { device = new Device; });
            return new Device;
        }();
        return *device;
    }

    void run(Grid& grid) {
        std::lock_guard<std::mutex> one_launch(launch_mutex_);
        const auto helpers = static_cast<std::size_t>(
            std::min<std::uint64_t>(static_cast<std::uint64_t>(grid.options.threads), grid.blocks) -
            1);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            while (helpers_ < helpers) {
                std::thread([this, number = helpers_] { help(number); }).detach();
                ++helpers_;
            }
            grid_ = &grid;
            wanted_ = busy_ = helpers;
            ++generation_;
        }
        if (helpers) wake_.notify_all();
        grid.run(block_);
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
    }

  private:
    void help(std::size_t number) {
        const auto block = std::make_unique<Block>();
        std::uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return generation_ != seen && number < wanted_; });
            seen = generation_;
            Grid* grid = grid_;
            lock.unlock();
            grid->run(*block);
            lock.lock();
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::mutex launch_mutex_;
    Block block_;  // of the thread that launches
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::size_t helpers_ = 0, wanted_ = 0, busy_ = 0;
    std::uint64_t generation_ = 0;
    Grid* grid_ = nullptr;
};

void check_limits(const detail::Launch& launch) {
    const auto refuse = [&launch](const std::string& what) {
        throw std::runtime_error("launch of " + launch.variant->name + ": " + what);
    };
    const auto check = [&refuse](const char* name, unsigned value, unsigned most) {
        if (value < 1 || value > most)
            refuse(std::string(name) + " must be from 1 to " + std::to_string(most) + ", got " +
                   std::to_string(value));
    };
    check("grid.x", launch.grid.x, 2147483647u);
    check("grid.y", launch.grid.y, 65535u);
    check("grid.z", launch.grid.z, 65535u);
    check("block.x", launch.block.x, 1024u);
    check("block.y", launch.block.y, 1024u);
    check("block.z", launch.block.z, 64u);
    check("threads per block", launch.block.x * launch.block.y * launch.block.z,
          kMaxThreadsPerBlock);
    if (launch.shared_bytes > max_shared_bytes())
        refuse("at most " + std::to_string(max_shared_bytes()) +
               " bytes of shared memory are allowed, got " + std::to_string(launch.shared_bytes));
    if (launch.parameter_bytes > 4096)
        refuse("parameters of at most 4096 bytes are allowed, got " +
               std::to_string(launch.parameter_bytes));
    if (Block::current()) refuse("a kernel cannot launch a kernel");
}

}  // namespace

// ---- Options ------------------------------------------------------------------------------------

Options options() {
    return current_options();
}

void set_options(const Options& options) {
    current_options() = options;
    // One thread examines all accesses, so that what it finds does not depend on timing.
    if (checks_accesses()) current_options().threads = 1;
}

std::size_t shared_bytes_of_sm() {
    return current_options().shared_bytes;
}
std::size_t max_shared_bytes() {
    return current_options().shared_bytes - kReservedBytes;
}
int multiprocessors() {
    return current_options().multiprocessors;
}

std::string schedule_name(Schedule schedule) {
    switch (schedule) {
        case Schedule::kDepthFirst:
            return "depth_first";
        case Schedule::kRandom:
            return "random";
        default:
            return "mixed";
    }
}

Schedule schedule_from_name(const std::string& name) {
    for (const Schedule schedule : {Schedule::kDepthFirst, Schedule::kRandom, Schedule::kMixed}) {
        if (schedule_name(schedule) == name) return schedule;
    }
    throw std::invalid_argument("schedule must be depth_first, random or mixed, got " + name);
}

// ---- Variants -----------------------------------------------------------------------------------

Variant::Variant(std::string variant_name) : name(std::move(variant_name)) {
    registered().push_back(this);
}

std::vector<const Variant*> variants() {
    std::vector<const Variant*> sorted(registered().begin(), registered().end());
    std::sort(sorted.begin(), sorted.end(),
              [](const Variant* a, const Variant* b) { return a->name < b->name; });
    return sorted;
}

void reset_launch_counts() {
    for (Variant* variant : registered())
        variant->launches = 0;
}

namespace detail {

std::string kernel_name(const char* pretty_function) {
    const std::string text = pretty_function;
    const std::string key = "Kernel = ";
    const std::size_t begin = text.find(key) + key.size();
    const std::size_t end = text.rfind(']');
    return text.substr(begin, end - begin);
}

void run(const Launch& launch) {
    check_limits(launch);
    ++launch.variant->launches;
    Grid grid;
    grid.launch = &launch;
    grid.options = options();
    grid.blocks = static_cast<std::uint64_t>(launch.grid.x) * launch.grid.y * launch.grid.z;
    Random random(grid.options.seed ^ grid.blocks);
    grid.first = random.next() % grid.blocks;
    grid.step = random.next() % grid.blocks;
    while (greatest_common_divisor(grid.step, grid.blocks) != 1)
        ++grid.step;
    Device::instance().run(grid);
    if (grid.failed) throw std::runtime_error(grid.failure);
}

}  // namespace detail
}  // namespace simt
