// Host memory that is used again: the arrays that CPU operations return.
//
// A fresh large array costs a page fault for every page when it is first written, which for a
// memory-bound operation is several times the operation itself. Blocks that die are kept and serve
// later arrays of about their size. What is kept is bounded: blocks in use and blocks kept never
// hold much more than what was once in use at the same time.
#pragma once

#include <cstddef>

namespace zfcuda {

// A kept or used piece of memory; `data` is where its user begins.
struct HostMemory {
    void* allocation = nullptr;
    char* data = nullptr;
    std::size_t capacity = 0;  // of the allocation
};

// One block of at least `size` bytes, aligned to 64 bytes, contents undefined. Thread-safe.
class HostBlock {
  public:
    explicit HostBlock(std::size_t size);
    ~HostBlock();
    HostBlock(const HostBlock&) = delete;
    HostBlock& operator=(const HostBlock&) = delete;

    void* data() const { return memory_.data; }
    std::size_t size() const { return size_; }

    // Frees every block that is not in use.
    static void release_cached();

    struct Usage {
        std::size_t in_use, kept;  // bytes
    };
    static Usage usage();

  private:
    HostMemory memory_;
    std::size_t size_;
};

}  // namespace zfcuda
