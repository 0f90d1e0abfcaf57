// The shared memory of a block: dynamic shared memory and static arrays in one arena, with red
// zones between them, everything poisoned (bytes 0xff: NaN, or -1) when the block begins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "emulator.h"

namespace simt {

class SharedMemory {
  public:
    struct Array {
        const SharedArray* key;  // null: the dynamic shared memory
        std::size_t offset;
        std::size_t bytes;
        const char* name() const { return key ? key->name : "dynamic shared memory"; }
    };

    SharedMemory();
    ~SharedMemory();
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    void begin_block(std::size_t dynamic_bytes);
    // The first red zone that was written to, in words; empty if none was.
    std::string damage() const;

    void* dynamic() const { return memory_ + arrays_[0].offset; }
    void* find(const SharedArray* key) const;
    void* add(const SharedArray* key);
    std::size_t dynamic_bytes() const { return arrays_[0].bytes; }
    std::size_t static_bytes() const { return static_bytes_; }

    const void* memory() const { return memory_; }
    std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(memory_); }
    bool contains(std::uintptr_t address) const { return address - this->address() < kArenaBytes; }
    const std::vector<Array>& arrays() const { return arrays_; }
    // "byte 8 of shared array `tile`"; empty if the address is in none.
    std::string name_of(std::uintptr_t address) const;

    static constexpr std::size_t kAlignment = 128;
    static constexpr std::size_t kDynamicAlignment = 1024;
    static constexpr std::size_t kRedZone = 256;
    static constexpr std::size_t kArenaBytes = 512 * 1024;

  private:
    void place(const SharedArray* key, std::size_t bytes);

    unsigned char* memory_;
    std::size_t top_ = 0;
    std::size_t static_bytes_ = 0;
    std::vector<Array> arrays_;  // [0] is the dynamic shared memory
};

}  // namespace simt
