// What the kernels call: each name of emulator.h, on the block that runs.
#include "emulator.h"

#include <cstring>
#include <string>

#include "block.h"

namespace simt::detail {
namespace {

void require_aligned(const void* address, std::size_t bytes, const char* what, Site site) {
    if (reinterpret_cast<std::uintptr_t>(address) % bytes == 0) return;
    Block::current()->fail("misaligned address: " + std::string(what) + " needs a multiple of " +
                               std::to_string(bytes) + " bytes",
                           site);
}

}  // namespace

int lane() {
    return Block::current()->running().lane;
}

int block_barrier(Reduction reduction, int value, Site site) {
    return Block::current()->barrier(reduction, value, site);
}

std::uint64_t warp_collective(Collective kind, unsigned mask, std::uint64_t value, int source,
                              Site site) {
    return Block::current()->collective(kind, mask, value, source, {}, site);
}

void warp_matrix(Collective kind, MatrixOperands operands, Site site) {
    Block& block = *Block::current();
    if (kind <= Collective::kLoadMatrixTrans) {
        if (!block.shared().contains(reinterpret_cast<std::uintptr_t>(operands.a)))
            block.fail("ldmatrix reads a row that is not in shared memory", site);
        require_aligned(operands.a, 16, "ldmatrix", site);
        block.read_matrix_row(operands.a, site);
    }
    block.collective(kind, 0xffffffffu, 0, 0, operands, site);
}

int shuffle_source(int lane, int width, Site site) {
    if (width < 1 || width > 32 || (width & (width - 1)) != 0)
        Block::current()->fail(
            "the width of a shuffle must be a power of two up to 32, got " + std::to_string(width),
            site);
    return lane & ~(width - 1);
}

void* shared_array(const SharedArray* array) {
    Block& block = *Block::current();
    if (void* found = block.shared().find(array)) return found;
    const std::size_t bytes = block.shared().static_bytes() + array->bytes;
    if (bytes > kMaxStaticSharedBytes)
        block.fail(std::to_string(bytes) + " bytes of static shared memory with `" + array->name +
                       "`; at most " + std::to_string(kMaxStaticSharedBytes) + " are allowed",
                   array->site);
    if (bytes + block.shared().dynamic_bytes() > max_shared_bytes())
        block.fail(std::to_string(bytes + block.shared().dynamic_bytes()) +
                       " bytes of static and dynamic shared memory with `" + array->name +
                       "`; at most " + std::to_string(max_shared_bytes()) + " are allowed",
                   array->site);
    return block.shared().add(array);
}

void* dynamic_shared_bytes() {
    Block& block = *Block::current();
    if (block.shared().dynamic_bytes() == 0)
        block.fail("the kernel uses dynamic shared memory, but its launch gave it none");
    return block.shared().dynamic();
}

void copy_async(void* shared, const void* global, int bytes, bool valid, Site site) {
    Block& block = *Block::current();
    if (!block.shared().contains(reinterpret_cast<std::uintptr_t>(shared)))
        block.fail("cp.async writes to an address that is not in shared memory", site);
    if (block.shared().contains(reinterpret_cast<std::uintptr_t>(global)))
        block.fail("cp.async reads from shared memory", site);
    require_aligned(shared, static_cast<std::size_t>(bytes), "the target of cp.async", site);
    require_aligned(global, static_cast<std::size_t>(bytes), "the source of cp.async", site);
    block.add_copy({shared, global, bytes, valid, false, 0, site});
}

void copy_async_commit() {
    Block::current()->commit_copies();
}

void copy_async_wait(int pending, Site) {
    Block::current()->wait_for_copies(pending);
}

void before_atomic(const void* address, int bytes, Site site) {
    require_aligned(address, static_cast<std::size_t>(bytes), "an atomic", site);
    Block::current()->atomic(address, bytes, site);
}

bool compare_exchange(std::uint16_t* address, std::uint16_t& expected, std::uint16_t desired) {
    return __atomic_compare_exchange_n(address, &expected, desired, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

bool compare_exchange(std::uint32_t* address, std::uint32_t& expected, std::uint32_t desired) {
    return __atomic_compare_exchange_n(address, &expected, desired, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

bool compare_exchange(std::uint64_t* address, std::uint64_t& expected, std::uint64_t desired) {
    return __atomic_compare_exchange_n(address, &expected, desired, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

void thread_fence() {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    Block::current()->fence();
}

void trap(const char* what, Site site) {
    Block::current()->fail(what, site);
}

}  // namespace simt::detail
