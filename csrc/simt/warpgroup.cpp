// A product is checked when it begins, and reads its operands when it is executed.
#include "warpgroup.h"

#include <algorithm>
#include <cstring>

#include "block.h"
#include "collectives.h"
#include "operand_layout.h"
#include "source_location.h"

namespace simt {
namespace {

constexpr std::uint32_t kPoison = 0xffffffffu;

bool same_product(const detail::WarpgroupProduct& x, const detail::WarpgroupProduct& y) {
    return x.tf32 == y.tf32 && x.columns == y.columns && x.major_a == y.major_a &&
           x.major_b == y.major_b && x.a_in_registers == y.a_in_registers && x.a == y.a &&
           x.b == y.b && x.accumulate == y.accumulate;
}

template <class T>
bool is_poison(const T* registers, std::size_t count) {
    return std::all_of(registers, registers + count,
                       [](T value) { return bit_cast<std::uint32_t>(value) == kPoison; });
}

}  // namespace

const char* name_of(WarpgroupCall::Kind kind) {
    switch (kind) {
        case WarpgroupCall::kArrive:
            return "warpgroup_arrive";
        case WarpgroupCall::kMultiply:
            return "wgmma";
        case WarpgroupCall::kCommit:
            return "warpgroup_commit";
        default:
            return "warpgroup_wait";
    }
}

// ---- Calls --------------------------------------------------------------------------------------

bool Warpgroup::arrive(Block& block, std::size_t thread, const WarpgroupCall& call) {
    if (arrived_ == 0) first_ = thread;
    const WarpgroupCall& first = arrived_ == 0 ? call : *calls_[first_];
    if (call.kind != first.kind || !same(call.site, first.site))
        block.fail(std::string("warpgroup divergence: this thread calls ") + name_of(call.kind) +
                       ", while another of its warpgroup calls " + name_of(first.kind) + " at " +
                       describe(first.site),
                   call.site);
    if (call.pending != first.pending || !same_product(call.product, first.product))
        block.fail(std::string(name_of(call.kind)) +
                       " with other operands than another thread of the warpgroup names",
                   call.site);
    calls_[thread] = &call;
    if (++arrived_ < kThreads) return false;
    arrived_ = 0;
    return true;
}

void Warpgroup::perform(Block& block) {
    switch (calls_[0]->kind) {
        case WarpgroupCall::kArrive:
            ready_ = true;
            break;
        case WarpgroupCall::kMultiply:
            begin(block);
            break;
        case WarpgroupCall::kCommit:
            ++committed_;
            execute_some(block);
            break;
        case WarpgroupCall::kWait:
            execute_some(block);
            finish(block, calls_[0]->pending);
            ready_ = false;
            break;
    }
}

const Site* Warpgroup::holds(std::size_t thread, std::uintptr_t address) const {
    const auto inside = [address](const void* begin, std::size_t bytes) {
        return begin && address - reinterpret_cast<std::uintptr_t>(begin) < bytes;
    };
    for (const Product& product : products_) {
        if (inside(product.to->registers[thread], 4 * product.to->count) ||
            inside(product.a_registers[thread], 16))
            return &product.site;
    }
    return nullptr;
}

// ---- Begin --------------------------------------------------------------------------------------

void Warpgroup::begin(Block& block) {
    Product product;
    product.what = calls_[0]->product;
    product.site = calls_[0]->site;
    product.group = committed_;
    if (!ready_)
        block.fail(
            "missing warpgroup_arrive: a product begins, and nothing says that its registers "
            "are ready, at first and after each warpgroup_wait",
            product.site);
    take_accumulators(block, product);
    if (product.what.a_in_registers) take_a_registers(product);
    take_operands(block, product);
    products_.push_back(std::move(product));
}

// Those of an earlier product that has not been waited for, or the registers as they are.
void Warpgroup::take_accumulators(Block& block, Product& product) {
    const auto count = static_cast<std::size_t>(product.what.columns / 2);
    for (const Product& earlier : products_) {
        for (std::size_t t = 0; t < kThreads; ++t) {
            float* const mine = calls_[t]->d;
            float* const other = earlier.to->registers[t];
            if (mine >= other + earlier.to->count || mine + count <= other) continue;
            if (mine != other || count != earlier.to->count)
                block.fail("a product of another shape has these accumulators, begun at " +
                               describe(earlier.site) + " and not waited for",
                           product.site);
            if (!is_poison(mine, count))
                block.fail("accumulators were written to while the product begun at " +
                               describe(earlier.site) + " had not been waited for",
                           product.site);
            product.to = earlier.to;
        }
    }
    if (!product.to) {
        product.to = std::make_shared<Accumulators>();
        product.to->count = count;
        product.to->values.resize(kThreads * count);
        for (std::size_t t = 0; t < kThreads; ++t) {
            float* const d = product.to->registers[t] = calls_[t]->d;
            std::copy(d, d + count, &product.to->values[t * count]);
            std::fill(d, d + count, bit_cast<float>(kPoison));
        }
    }
    ++product.to->products;
    product.to->site = product.site;
}

void Warpgroup::take_a_registers(Product& product) {
    product.a_words.resize(4 * kThreads);
    for (std::size_t t = 0; t < kThreads; ++t) {
        std::uint32_t* const a = product.a_registers[t] = calls_[t]->a;
        // Of a product that has not been waited for, too.
        for (Product& earlier : products_) {
            if (earlier.a_registers[t] == a)
                std::copy(&earlier.a_words[4 * t], &earlier.a_words[4 * t] + 4, a);
        }
        std::copy(a, a + 4, &product.a_words[4 * t]);
        std::fill(a, a + 4, kPoison);
    }
}

// What the product reads is examined now, and read when it is executed, unless it was not fenced.
void Warpgroup::take_operands(Block& block, Product& product) {
    const auto& what = product.what;
    const OperandLayout a(what.a, what.major_a, what.tf32), b(what.b, what.major_b, what.tf32);
    if ((what.a >> 49 & 7) != 0 || (what.b >> 49 & 7) != 0)
        block.fail("a matrix descriptor with a base offset is not modelled", product.site);
    if (block.checks()) {
        const auto note = [&](std::uint32_t offset, int, int) { product.reads.push_back(offset); };
        if (!what.a_in_registers) a.for_each_piece(kRowsOfA, note);
        b.for_each_piece(what.columns, note);
        block.begin_product_reads(product.reads, product.site);
        return;
    }
    const auto* memory = static_cast<const unsigned char*>(block.shared().memory());
    const unsigned char* view = block.proxy_view();
    const auto is_stale = [&](const OperandLayout& layout, int rows) {
        bool differs = false;
        layout.for_each_piece(rows, [&](std::uint32_t offset, int, int) {
            differs |= std::memcmp(memory + offset, view + offset, kPiece) != 0;
        });
        return differs;
    };
    product.stale = is_stale(b, what.columns) || (!what.a_in_registers && is_stale(a, kRowsOfA));
    if (!product.stale) return;
    if (!what.a_in_registers) product.a = read_rows(a, kRowsOfA, view);
    product.b = read_rows(b, what.columns, view);
}

// ---- Execution ----------------------------------------------------------------------------------

void Warpgroup::execute(Block& block, Product& product) {
    if (product.executed) return;
    product.executed = true;
    const auto& what = product.what;
    if (!product.stale) {
        const auto* memory = static_cast<const unsigned char*>(block.shared().memory());
        if (!what.a_in_registers)
            product.a = read_rows(OperandLayout(what.a, what.major_a, what.tf32), kRowsOfA, memory);
        product.b = read_rows(OperandLayout(what.b, what.major_b, what.tf32), what.columns, memory);
    }
    if (what.a_in_registers) product.a = read_registers(product.a_words, what.tf32);
    multiply(what, product.a, product.b, product.to->values);
}

// A random number of the oldest.
void Warpgroup::execute_some(Block& block) {
    for (Product& product : products_) {
        if (product.executed) continue;
        if (!block.executes_early()) return;
        execute(block, product);
    }
}

void Warpgroup::finish(Block& block, int pending) {
    finished_reads_.clear();
    std::size_t done = 0;
    while (done < products_.size() && products_[done].group < committed_ - pending) {
        execute(block, products_[done]);
        release(block, products_[done]);
        ++done;
    }
    products_.erase(products_.begin(), products_.begin() + static_cast<std::ptrdiff_t>(done));
}

void Warpgroup::release(Block& block, Product& product) {
    if (block.checks()) {
        block.end_product_reads(product.reads);
        finished_reads_.insert(finished_reads_.end(), product.reads.begin(), product.reads.end());
    }
    if (product.what.a_in_registers) {
        const auto is_later = [&](const Product& other) {
            return &other > &product && other.a_registers == product.a_registers;
        };
        const bool last = std::none_of(products_.begin(), products_.end(), is_later);
        for (std::size_t t = 0; last && t < kThreads; ++t) {
            std::uint32_t* const a = product.a_registers[t];
            if (!is_poison(a, 4))
                block.fail("registers were written to while the product begun at " +
                               describe(product.site) + " that reads them had not been waited for",
                           calls_[0]->site);
            std::copy(&product.a_words[4 * t], &product.a_words[4 * t] + 4, a);
        }
    }
    Accumulators& to = *product.to;
    if (--to.products > 0) return;
    for (std::size_t t = 0; t < kThreads; ++t) {
        if (!is_poison(to.registers[t], to.count))
            block.fail("accumulators were written to while the product begun at " +
                           describe(to.site) + " had not been waited for",
                       calls_[0]->site);
        std::copy(&to.values[t * to.count], &to.values[t * to.count] + to.count, to.registers[t]);
    }
}

// ---- The block's part ---------------------------------------------------------------------------

void Block::meet_warpgroup(const WarpgroupCall& call) {
    Thread& me = *running_;
    const std::size_t number = static_cast<std::size_t>(me.warp) / 4;
    if ((number + 1) * Warpgroup::kThreads > threads_.size())
        fail(std::string(name_of(call.kind)) + " needs the four warps of a warpgroup, from warp " +
                 std::to_string(4 * number) + " on; the block has " +
                 std::to_string(threads_.size()) + " threads",
             call.site);
    if (warpgroups_.size() <= number) warpgroups_.resize(threads_.size() / Warpgroup::kThreads);
    Warpgroup& group = warpgroups_[number];
    Thread* const threads = &threads_[number * Warpgroup::kThreads];
    me.site = call.site;
    if (group.arrive(*this, static_cast<std::size_t>(&me - threads), call)) {
        group.perform(*this);
        for (std::size_t i = 0; i < Warpgroup::kThreads; ++i) {
            if (banks_ && i % 32 == 0) banks_->meet(threads[i].warp);
            if (&threads[i] != &me) make_ready(threads[i]);
        }
        if (!depth_first_) {
            make_ready(me);
            suspend();
        }
    } else {
        me.state = Thread::kAtWarpgroup;
        suspend();
    }
    // The operands were read until now: whoever overwrites them needs a barrier with the warps. With
    // one of the block, two of them stand for all.
    if (call.kind == WarpgroupCall::kWait && checker_ && me.lane == 0 &&
        (me.warp % 4 < 2 || checker_->clocks().wide())) {
        for (const std::uint32_t offset : group.finished_reads())
            checker_->access(shared_.address() + offset, kPiece, Checker::kRead,
                             location_of(call.site));
    }
}

bool Block::executes_early() {
    if (!products_late_) products_late_ = random_.below(2) != 0;
    return !*products_late_ && random_.below(2) != 0;
}

void Block::begin_product_reads(const std::vector<std::uint32_t>& pieces, Site site) {
    if (product_reads_.empty()) product_reads_.resize(SharedMemory::kArenaBytes / kPiece);
    const Location location = location_of(site);
    for (const std::uint32_t offset : pieces) {
        const std::uintptr_t address = shared_.address() + offset;
        checker_->access(address, kPiece, Checker::kRead, location);
        checker_->require_proxy_fence(address, kPiece, location);
        ProductReads& reads = product_reads_[offset / kPiece];
        ++reads.count;
        reads.location = location;
    }
}

void Block::end_product_reads(const std::vector<std::uint32_t>& pieces) {
    for (const std::uint32_t offset : pieces)
        --product_reads_[offset / kPiece].count;
}

const Location* Block::product_that_reads(std::uintptr_t address) const {
    if (product_reads_.empty()) return nullptr;
    const ProductReads& reads = product_reads_[(address - shared_.address()) / kPiece];
    return reads.count ? &reads.location : nullptr;
}

// ---- The asynchronous proxy ---------------------------------------------------------------------

void Block::fence_proxy() {
    if (checker_) return checker_->fence_proxy();
    proxy_view_is_old_ = true;
}

// A fence makes visible what has been stored, by this thread and by others: which, only builds that
// check accesses know.
const unsigned char* Block::proxy_view() {
    if (proxy_view_.empty()) proxy_view_.assign(SharedMemory::kArenaBytes, 0xff);
    if (proxy_view_is_old_) {
        const auto* memory = static_cast<const unsigned char*>(shared_.memory());
        for (const SharedMemory::Array& array : shared_.arrays())  // no red zone may be read
            std::memcpy(&proxy_view_[array.offset], memory + array.offset, array.bytes);
        proxy_view_is_old_ = false;
    }
    return proxy_view_.data();
}

const unsigned char* Block::seen_through_proxy(const unsigned char* shared) {
    if (checker_) return shared;
    return proxy_view() + (reinterpret_cast<std::uintptr_t>(shared) - shared_.address());
}

void Block::written_through_proxy(const unsigned char* shared, std::size_t bytes) {
    if (checker_) return;
    proxy_view();
    std::memcpy(&proxy_view_[reinterpret_cast<std::uintptr_t>(shared) - shared_.address()], shared,
                bytes);
}

// ---- The names of hopper_products.h -------------------------------------------------------------

namespace detail {

std::uint32_t shared_offset(const void* shared, Site site) {
    Block& block = *Block::current();
    const auto at = reinterpret_cast<std::uintptr_t>(shared);
    if (!block.shared().contains(at))
        block.fail("a matrix descriptor of an address that is not in shared memory", site);
    if (at % kPiece != 0)
        block.fail("misaligned address: a matrix descriptor needs a multiple of 16 bytes", site);
    return static_cast<std::uint32_t>(at - block.shared().address());
}

void fence_proxy_async() {
    Block::current()->fence_proxy();
}

void warpgroup_arrive(Site site) {
    Block::current()->meet_warpgroup({WarpgroupCall::kArrive, site});
}

void warpgroup_multiply(const WarpgroupProduct& product, float* d, std::uint32_t* a, Site site) {
    Block::current()->meet_warpgroup({WarpgroupCall::kMultiply, site, product, d, a});
}

void warpgroup_commit(Site site) {
    Block::current()->meet_warpgroup({WarpgroupCall::kCommit, site});
}

void warpgroup_wait(int pending, Site site) {
    Block::current()->meet_warpgroup({WarpgroupCall::kWait, site, {}, nullptr, nullptr, pending});
}

}  // namespace detail
}  // namespace simt
