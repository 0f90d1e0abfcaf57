// Host memory that is used again: the arrays that CPU operations return.
//
// A fresh large array costs one page fault per 4 KiB when it is first written, which for a
// memory-bound operation is several times the operation itself. Blocks that die go to a free list
// and serve the next array.
#pragma once

#include <cstddef>

namespace zfcuda {

// One block of at least `size` bytes, aligned to 64 bytes, contents undefined. Thread-safe.
class HostBlock {
  public:
    explicit HostBlock(std::size_t size);
    ~HostBlock();
    HostBlock(const HostBlock&) = delete;
    HostBlock& operator=(const HostBlock&) = delete;

    void* data() const { return data_; }
    std::size_t size() const { return size_; }

    // Frees every block that is not in use.
    static void release_cached();

  private:
    void* data_;
    std::size_t size_;
    std::size_t capacity_;
};

}  // namespace zfcuda
