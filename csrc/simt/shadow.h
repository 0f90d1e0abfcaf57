// Shadow memory: who last wrote and read each word, between which barriers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace simt {

// Where in the source an access stands: a code address of the instrumented module, or an interned
// Site.
using Location = std::uint32_t;

// One access, by a thread of a block, to some bytes of a word.
struct Access {
    enum Flags : std::uint8_t {
        kNone = 0,
        kAtomic = 1,
        kInFlight = 2,  // not waited for: any access to it is a race
        kAgent = 4,     // by an agent, not by a thread: barriers alone order nothing
        kProxy = 8,     // through the asynchronous proxy
    };

    std::uint32_t block = 0;   // runs of blocks are numbered from 1; 0: there was no access
    std::uint16_t thread = 0;  // or agent
    std::uint16_t epoch = 0;   // barriers of the block before it
    std::uint16_t clock = 0;   // of the thread
    std::uint8_t mask = 0;     // bytes of the word
    std::uint8_t flags = kNone;
    Location location = 0;
};
static_assert(sizeof(Access) == 16);

// Of one 4-byte word. Two readers, of different warps if there are such: whoever writes between the
// same barriers is then neither of them, or conflicts with one. Accesses to different bytes of a
// word do not conflict, but a later one hides an earlier.
struct alignas(64) Cell {
    Access writer;
    Access readers[2];
    std::uint32_t written_block = 0;  // shared memory: the block for which `written` holds
    std::uint8_t written = 0;         // bytes
};

// Zeroed cells for a range of memory; pages that are never touched cost nothing.
class Shadow {
  public:
    Shadow(std::uintptr_t begin, std::size_t bytes);
    ~Shadow();
    Shadow(const Shadow&) = delete;
    Shadow& operator=(const Shadow&) = delete;

    std::uintptr_t begin() const { return begin_; }
    std::uintptr_t end() const { return begin_ + bytes_; }
    // Of the word that holds `address`; words count from the multiple of 4 below `begin`.
    Cell& cell(std::uintptr_t address) const { return cells_[address / 4 - begin_ / 4]; }
    std::size_t index(const Cell& cell) const { return static_cast<std::size_t>(&cell - cells_); }

  private:
    std::uintptr_t begin_;
    std::size_t bytes_;
    std::size_t mapped_;
    Cell* cells_;
};

// A registered array.
struct GlobalArray {
    Shadow shadow;
    bool written;
    std::string name;

    GlobalArray(std::uintptr_t begin, std::size_t bytes, bool written_, std::string name_)
        : shadow(begin, bytes), written(written_), name(std::move(name_)) {}
};

// The registered arrays, sorted by address.
std::vector<std::unique_ptr<GlobalArray>>& global_arrays();

}  // namespace simt
