#include "host_pool.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace zfcuda {
namespace {

constexpr std::size_t kHugePage = 2 << 20;

// So much may be kept in any case: operations of a small network ask for scratch memory one after
// the other, each for another size. Without, every training step of `zfnet_small` (28 pixels, batch
// 32) had 3,300 page faults, a third of its time; now it has none.
constexpr std::size_t kRoom = 32 << 20;

// Blocks begin at addresses that differ in the bits which choose a cache set: where all begin at
// that of a page, an operation that walks through three arrays at once can wait for its own lines.
constexpr std::size_t kStagger = 17 * 64;
constexpr std::size_t kStaggers = 16;

// What a block of `size` bytes takes.
std::size_t capacity_for(std::size_t size) {
    constexpr std::size_t kUnit = 64 << 10;
    return (size + kStagger * kStaggers + kUnit - 1) / kUnit * kUnit;
}

// Large memory comes from the system, on huge pages where it has them: a hundredth of the page
// faults at its first use, and fewer address translations at every use. What does not fill its last
// huge page lies on small ones, and so is not resident. (The C library's allocator keeps much of
// what is freed, and in pieces: with its thresholds raised, a training step held 72 MB more.)
#if defined(__linux__)
void* map_pages(std::size_t size) {
    void* mapped =
        mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    char* begin = static_cast<char*>(mapped);
    const std::size_t before = -reinterpret_cast<std::uintptr_t>(begin) % kHugePage;
    if (before > 0) munmap(begin, before);
    munmap(begin + before + size, kHugePage - before);
    madvise(begin + before, size, MADV_HUGEPAGE);
    return begin + before;
}

void unmap_pages(void* begin, std::size_t size) {
    munmap(begin, size);
}
#else
void* map_pages(std::size_t size) {
    return std::aligned_alloc(64, size);
}

void unmap_pages(void* begin, std::size_t) {
    std::free(begin);
}
#endif

HostMemory allocate(std::size_t capacity) {
    static std::size_t count = 0;  // under the pool's lock
    void* memory = capacity >= kHugePage ? map_pages(capacity) : std::aligned_alloc(64, capacity);
    if (!memory) return {};
    return {memory, static_cast<char*>(memory) + count++ % kStaggers * kStagger, capacity};
}

void release(const HostMemory& block) {
    if (block.capacity >= kHugePage)
        unmap_pages(block.allocation, block.capacity);
    else
        std::free(block.allocation);
}

class Pool {
  public:
    HostMemory take(std::size_t size) {
        std::lock_guard<std::mutex> lock(mutex_);
        const std::size_t capacity = capacity_for(size);
        HostMemory block = take_kept(capacity, capacity + capacity / 3);
        // Rather than that kept blocks have to go for a new one, which the system would have to
        // clear: sizes that come again and again are then served by the same blocks.
        if (!block.data && excess(capacity) > 0) block = take_kept(capacity, 4 * capacity);
        if (!block.data) {
            make_room(capacity);
            block = allocate(capacity);
        }
        if (!block.data) {
            free_all();
            block = allocate(capacity);
        }
        if (!block.data) throw std::bad_alloc();
        in_use_ += block.capacity;
        most_in_use_ = std::max(most_in_use_, in_use_);
        return block;
    }

    void give_back(HostMemory block) {
        std::lock_guard<std::mutex> lock(mutex_);
        in_use_ -= block.capacity;
        kept_ += block.capacity;
        blocks_.push_back(block);
    }

    void clear() {
        std::lock_guard<std::mutex> lock(mutex_);
        free_all();
        most_in_use_ = in_use_;
    }

    HostBlock::Usage usage() {
        std::lock_guard<std::mutex> lock(mutex_);
        return {in_use_, kept_};
    }

  private:
    // The smallest kept block that is large enough and no larger than `largest`; among equals the one
    // given back last, which may still be in the cache.
    HostMemory take_kept(std::size_t capacity, std::size_t largest) {
        auto best = blocks_.end();
        for (auto it = blocks_.begin(); it != blocks_.end(); ++it)
            if (it->capacity >= capacity && it->capacity <= largest &&
                (best == blocks_.end() || it->capacity <= best->capacity))
                best = it;
        if (best == blocks_.end()) return {};
        const HostMemory block = *best;
        blocks_.erase(best);
        kept_ -= block.capacity;
        return block;
    }

    // By how much another `more` bytes would exceed the bound.
    std::size_t excess(std::size_t more) const {
        const std::size_t most = std::max(most_in_use_, in_use_ + more);
        const std::size_t bound = most + std::max(most / 16, kRoom), all = in_use_ + kept_ + more;
        return all > bound ? all - bound : 0;
    }

    // Frees kept blocks until `more` bytes stay within the bound: the smallest one that suffices,
    // or those that have waited longest.
    void make_room(std::size_t more) {
        while (const std::size_t too_many = blocks_.empty() ? 0 : excess(more)) {
            auto victim = blocks_.end();
            for (auto it = blocks_.begin(); it != blocks_.end(); ++it)
                if (it->capacity >= too_many &&
                    (victim == blocks_.end() || it->capacity < victim->capacity))
                    victim = it;
            if (victim == blocks_.end()) victim = blocks_.begin();
            kept_ -= victim->capacity;
            release(*victim);
            blocks_.erase(victim);
        }
    }

    void free_all() {
        for (const HostMemory& block : blocks_)
            release(block);
        blocks_.clear();
        kept_ = 0;
    }

    std::mutex mutex_;
    std::vector<HostMemory> blocks_;  // kept, oldest first
    std::size_t in_use_ = 0, kept_ = 0, most_in_use_ = 0;
};

// Never destroyed: arrays may outlive every static object of this library.
Pool& pool() {
    static Pool* instance = new Pool;
    return *instance;
}

}  // namespace

HostBlock::HostBlock(std::size_t size) : memory_(pool().take(size)), size_(size) {}

HostBlock::~HostBlock() {
    pool().give_back(memory_);
}

void HostBlock::release_cached() {
    pool().clear();
}

HostBlock::Usage HostBlock::usage() {
    return pool().usage();
}

}  // namespace zfcuda
