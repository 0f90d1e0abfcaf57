// Products of a warpgroup as they run: begun by all its threads together, executed at a random
// moment or as late as a wait allows, their registers poisoned until then.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "emulator.h"
#include "hopper.h"
#include "shadow.h"

namespace simt {

class Block;

// What each thread of a warpgroup calls.
struct WarpgroupCall {
    enum Kind : std::uint8_t { kArrive, kMultiply, kCommit, kWait };

    Kind kind;
    Site site;
    detail::WarpgroupProduct product{};
    float* d = nullptr;
    std::uint32_t* a = nullptr;  // if A is in registers
    int pending = 0;
};

const char* name_of(WarpgroupCall::Kind kind);

class Warpgroup {
  public:
    static constexpr std::size_t kThreads = 128;
    template <typename T>
    using OfThreads = std::array<T, kThreads>;

    // The thread number `thread` of the warpgroup calls; true when all have. Fails unless all call
    // the same.
    bool arrive(Block& block, std::size_t thread, const WarpgroupCall& call);
    // What all have called.
    void perform(Block& block);

    bool is_busy() const { return !products_.empty(); }
    // Where a product was begun whose registers hold this address; null if none.
    const Site* holds(std::size_t thread, std::uintptr_t address) const;
    // The 16-byte pieces of shared memory that the products read which the last wait covered.
    const std::vector<std::uint32_t>& finished_reads() const { return finished_reads_; }
    Site first_site() const { return products_.front().site; }

  private:
    // Registers of all threads that products add to, until a wait covers the last of these.
    struct Accumulators {
        OfThreads<float*> registers{};
        std::size_t count = 0;  // of a thread
        std::vector<float> values;
        int products = 0;
        Site site{};
    };
    struct Product {
        detail::WarpgroupProduct what{};
        Site site{};
        int group = 0;
        bool executed = false;
        std::shared_ptr<Accumulators> to;
        OfThreads<std::uint32_t*> a_registers{};
        std::vector<std::uint32_t> a_words;  // four of each thread
        bool stale = false;                  // operands were not fenced: as they were before
        std::vector<float> a, b;             // rows x depth, of these
        std::vector<std::uint32_t> reads;    // 16-byte pieces, in builds that check accesses
    };

    void begin(Block& block);
    void take_accumulators(Block& block, Product& product);
    void take_a_registers(Product& product);
    void take_operands(Block& block, Product& product);
    void execute(Block& block, Product& product);
    void execute_some(Block& block);
    void finish(Block& block, int pending);
    void release(Block& block, Product& product);

    OfThreads<const WarpgroupCall*> calls_{};
    std::size_t arrived_ = 0;
    std::size_t first_ = 0;  // to arrive
    bool ready_ = false;     // registers: an arrive since the last wait
    int committed_ = 0;
    std::vector<Product> products_;  // not waited for, oldest first
    std::vector<std::uint32_t> finished_reads_;
};

}  // namespace simt
