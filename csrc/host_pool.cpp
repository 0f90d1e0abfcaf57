#include "host_pool.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

namespace zfcuda {
namespace {

constexpr std::size_t kGranularity = 64 * 1024;

struct Pool {
    std::mutex mutex;
    std::multimap<std::size_t, void*> blocks;  // capacity -> memory
};

// Never destroyed: arrays may outlive every static object of this library.
Pool& pool() {
    static Pool* instance = new Pool;
    return *instance;
}

}  // namespace

HostBlock::HostBlock(std::size_t size)
    : data_(nullptr),
      size_(size),
      capacity_((size + kGranularity - 1) / kGranularity * kGranularity) {
    {
        std::lock_guard<std::mutex> lock(pool().mutex);
        const auto found = pool().blocks.lower_bound(capacity_);
        // A block more than a quarter too large would waste memory; a later, larger request wants
        // it.
        if (found != pool().blocks.end() && found->first <= capacity_ + capacity_ / 4) {
            capacity_ = found->first;
            data_ = found->second;
            pool().blocks.erase(found);
        }
    }
    if (!data_) data_ = std::aligned_alloc(64, capacity_);
    if (!data_) {
        release_cached();
        data_ = std::aligned_alloc(64, capacity_);
    }
    if (!data_) throw std::bad_alloc();
}

HostBlock::~HostBlock() {
    std::lock_guard<std::mutex> lock(pool().mutex);
    pool().blocks.emplace(capacity_, data_);
}

void HostBlock::release_cached() {
    std::lock_guard<std::mutex> lock(pool().mutex);
    for (const auto& block : pool().blocks)
        std::free(block.second);
    pool().blocks.clear();
}

}  // namespace zfcuda
