#include "checker.h"

#include <algorithm>

#include "block.h"
#include "global_memory.h"

namespace simt {
namespace {

const char* verb(Checker::Kind kind) {
    switch (kind) {
        case Checker::kRead:
            return "reads";
        case Checker::kWrite:
            return "writes";
        default:
            return "updates";
    }
}

}  // namespace

Checker::Checker(Block& block, const SharedMemory& shared)
    : block_(block), shared_(shared), shared_shadow_(shared.address(), SharedMemory::kArenaBytes) {}

std::unique_ptr<Checker> Checker::make(Block& block, const SharedMemory& shared) {
    return checks_accesses() ? std::make_unique<Checker>(block, shared) : nullptr;
}

void Checker::begin_launch() {
    first_block_ = block_number_ + 1;
    released_.clear();
}

void Checker::begin_block(std::size_t threads) {
    ++block_number_;
    epoch_ = 0;
    fenced_ = false;
    postponed_.clear();
    acquired_.clear();
    clocks_.begin_block(threads);
    proxy_fences_.assign(threads, {});
    known_at_fence_.clear();
}

void Checker::block_barrier() {
    ++epoch_;
    if (clocks_.wide()) clocks_.share_agents();
}

Access Checker::stamp(Location location) const {
    const Thread& thread = block_.running();
    Access access;
    access.block = block_number_;
    access.thread = static_cast<std::uint16_t>(thread.warp * 32 + thread.lane);
    access.epoch = epoch_;
    access.clock = clocks_.now(access.thread);
    access.location = location;
    return access;
}

// ---- Races --------------------------------------------------------------------------------------

bool Checker::ordered(const Access& earlier, const Access& now, bool global) const {
    if (earlier.block != now.block) {
        if (!global || earlier.block < first_block_) return true;
        return std::any_of(acquired_.begin(), acquired_.end(), [&](const Acquired& a) {
            return a.release.block == earlier.block &&
                   (earlier.epoch < a.release.epoch || earlier.thread == a.release.thread) &&
                   (now.thread == a.thread || now.epoch > a.epoch);
        });
    }
    if (earlier.thread == now.thread && !(earlier.flags & Access::kAgent)) return true;
    if (earlier.epoch != now.epoch && !(earlier.flags & Access::kAgent)) return true;
    return clocks_.knows(now.thread, earlier.thread, earlier.clock);
}

void Checker::check_cell(Cell& cell, Access now, Kind kind, bool global, bool written,
                         std::uintptr_t address) {
    const auto overlaps = [&now](const Access& a) { return a.block != 0 && (a.mask & now.mask); };
    if (overlaps(cell.writer) && (cell.writer.flags & Access::kInFlight) &&
        (global || cell.writer.block == block_number_))
        fail("race: this thread " + std::string(verb(kind)) + " " + name_of(address) +
                 " while an asynchronous copy of " + name_of_thread(cell.writer) +
                 " to it, begun at " + describe(cell.writer.location) + ", has not been waited for",
             now);

    const bool written_here = written || (global ? (cell.written & now.mask) == now.mask
                                                 : cell.written_block == block_number_ &&
                                                       (cell.written & now.mask) == now.mask);
    if (kind != kWrite && !written_here && postponed_.empty())
        postponed_ = block_.message("uninitialised read: this thread reads " + name_of(address) +
                                        ", which nothing has written",
                                    describe(now.location));

    const auto conflicts = [&](const Access& earlier) {
        return overlaps(earlier) && !((earlier.flags & Access::kAtomic) && kind == kAtomic) &&
               !ordered(earlier, now, global);
    };
    const auto race = [&](const Access& earlier, const char* did) {
        const bool same_block = earlier.block == now.block;
        postponed_.clear();
        if (earlier.flags & Access::kAgent)
            fail("race: this thread " + std::string(verb(kind)) + " " + name_of(address) +
                     ", which the asynchronous copy begun at " + describe(earlier.location) + " " +
                     did + ", and it has not waited for that",
                 now);
        fail("race: this thread " + std::string(verb(kind)) + " " + name_of(address) + ", and " +
                 name_of_thread(earlier) + " " + did + " it at " + describe(earlier.location) +
                 (same_block ? "; no barrier is between them" : "; nothing orders the two blocks"),
             now);
    };
    if (conflicts(cell.writer)) race(cell.writer, "wrote");
    if (kind != kRead) {
        for (const Access& reader : cell.readers) {
            if (conflicts(reader)) race(reader, "read");
        }
        if (clocks_.wide() && !global) {
            std::vector<Access>& others = more_readers(cell);
            for (const Access& reader : others) {
                if (reader.block == block_number_ && conflicts(reader)) race(reader, "read");
            }
            others.clear();
        }
    }

    if (kind == kRead) return add_reader(cell, now, global);
    cell.writer = now;
    if (kind == kAtomic) cell.writer.flags = Access::kAtomic;
    if (!global && cell.written_block != block_number_) {
        cell.written_block = block_number_;
        cell.written = 0;
    }
    cell.written |= now.mask;
}

std::vector<Access>& Checker::more_readers(const Cell& cell) {
    if (more_readers_.empty()) more_readers_.resize(SharedMemory::kArenaBytes / 4 + 1);
    return more_readers_[shared_shadow_.index(cell)];
}

void Checker::add_reader(Cell& cell, const Access& now, bool global) {
    const auto replaceable = [&](const Access& reader) {
        return reader.block != now.block || ordered(reader, now, global);
    };
    const auto keep_other_blocks = [&](const Access& reader) {
        return global && reader.block >= first_block_ && reader.block != now.block;
    };
    Access& first = cell.readers[0];
    Access& second = cell.readers[1];
    if (first.block == 0 || (replaceable(first) && !keep_other_blocks(first))) {
        first = now;
    } else if (replaceable(second) || second.thread / 32 == first.thread / 32) {
        second = now;
    } else if (clocks_.wide() && !global && second.thread / 32 != now.thread / 32) {
        std::vector<Access>& others = more_readers(cell);
        for (Access& other : others) {
            if (other.thread / 32 == now.thread / 32 || replaceable(other)) {
                other = now;
                return;
            }
        }
        others.push_back(now);
    }
}

void Checker::check_words(const Shadow& shadow, std::uintptr_t address, std::size_t bytes,
                          Kind kind, bool global, bool written, Access now) {
    if (!global && kind != kRead) require_no_product_reads(address, bytes, kind, now);
    const std::uintptr_t end = address + bytes;
    for (std::uintptr_t word = address / 4 * 4; word < end; word += 4) {
        const std::uintptr_t from = std::max(word, address), to = std::min(word + 4, end);
        now.mask = static_cast<std::uint8_t>(((1u << (to - from)) - 1) << (from - word));
        check_cell(shadow.cell(word), now, kind, global, written, from);
    }
}

// ---- Shared memory ------------------------------------------------------------------------------

void Checker::access(std::uintptr_t address, std::size_t bytes, Kind kind, Location location) {
    if (!shared_.contains(address)) return access_global(address, bytes, kind, location);
    require_inside_shared(address, bytes, kind, location);
    check_words(shared_shadow_, address, bytes, kind, false, false, stamp(location));
}

void Checker::require_no_product_reads(std::uintptr_t address, std::size_t bytes, Kind kind,
                                       const Access& now) {
    for (std::uintptr_t at = address / 16 * 16; at < address + bytes; at += 16) {
        if (const Location* begun = block_.product_that_reads(at))
            fail("race: this thread " + std::string(verb(kind)) + " " +
                     name_of(std::max(at, address)) + ", which the product begun at " +
                     describe(*begun) + " reads, and that has not been waited for",
                 now);
    }
}

void Checker::require_inside_shared(std::uintptr_t address, std::size_t bytes, Kind kind,
                                    Location location) {
    const std::size_t offset = address - shared_.address();
    const SharedMemory::Array* nearest = nullptr;
    for (const SharedMemory::Array& array : shared_.arrays()) {
        if (offset >= array.offset && offset + bytes <= array.offset + array.bytes) return;
        if (array.bytes && (!nearest || offset + SharedMemory::kRedZone / 2 >= array.offset))
            nearest = &array;
    }
    if (!nearest) fail("out of bounds: this launch has no shared memory", stamp(location));
    const auto position =
        static_cast<std::ptrdiff_t>(offset) - static_cast<std::ptrdiff_t>(nearest->offset);
    fail("out of bounds: this thread " + std::string(verb(kind)) + " " + std::to_string(bytes) +
             " bytes at byte " + std::to_string(position) + " of shared array `" + nearest->name() +
             "`, which has " + std::to_string(nearest->bytes),
         stamp(location));
}

void Checker::begin_copy(const AsyncCopy& copy) {
    const auto bytes = static_cast<std::size_t>(copy.bytes);
    const Location location = location_of(copy.site);
    if (copy.valid)
        access_global(reinterpret_cast<std::uintptr_t>(copy.global), bytes, kRead, location);
    const auto target = reinterpret_cast<std::uintptr_t>(copy.shared);
    access(target, bytes, kWrite, location);
    for (std::size_t i = 0; i < bytes; i += 4)
        shared_shadow_.cell(target + i).writer.flags = Access::kInFlight;
}

// Now the thread that waited has written it.
void Checker::end_copy(const AsyncCopy& copy) {
    Access now = stamp(location_of(copy.site));
    now.mask = 15;
    for (int i = 0; i < copy.bytes; i += 4)
        shared_shadow_.cell(reinterpret_cast<std::uintptr_t>(copy.shared) + i).writer = now;
}

// ---- Global memory ------------------------------------------------------------------------------

void Checker::access_global(std::uintptr_t address, std::size_t bytes, Kind kind,
                            Location location) {
    const auto& arrays = global_arrays();
    if (arrays.empty()) return;
    const auto after = std::upper_bound(
        arrays.begin(), arrays.end(), address,
        [](std::uintptr_t a, const auto& array) { return a < array->shadow.begin(); });
    const GlobalArray* below = after == arrays.begin() ? nullptr : (after - 1)->get();
    if (below && address + bytes <= below->shadow.end()) {
        check_words(below->shadow, address, bytes, kind, true, below->written, stamp(location));
        if (kind == kAtomic) synchronise(address);
        return;
    }
    const GlobalArray* above = after == arrays.end() ? nullptr : after->get();
    const auto distance = [&](const GlobalArray* array, bool is_below) {
        if (!array) return ~std::uintptr_t{0};
        return is_below ? address - array->shadow.end() : array->shadow.begin() - address;
    };
    const GlobalArray* nearest = distance(below, true) <= distance(above, false) ? below : above;
    const auto position = static_cast<std::ptrdiff_t>(address - nearest->shadow.begin());
    fail("out of bounds: this thread " + std::string(verb(kind)) + " " + std::to_string(bytes) +
             " bytes at byte " + std::to_string(position) + " of " + nearest->name +
             ", which has " + std::to_string(nearest->shadow.end() - nearest->shadow.begin()),
         stamp(location));
}

// An atomic after a fence publishes what its block did; one on the same address learns what others
// published.
void Checker::synchronise(std::uintptr_t address) {
    const Access now = stamp(0);
    std::vector<Release>& releases = released_[address];
    for (const Release& release : releases) {
        if (release.block != block_number_) acquired_.push_back({release, now.epoch, now.thread});
    }
    if (fenced_) releases.push_back({block_number_, now.epoch, now.thread});
}

// ---- Reports ------------------------------------------------------------------------------------

std::string Checker::name_of(std::uintptr_t address) const {
    const std::string shared = shared_.name_of(address);
    if (!shared.empty()) return shared;
    for (const auto& array : global_arrays()) {
        if (address >= array->shadow.begin() && address < array->shadow.end())
            return "byte " + std::to_string(address - array->shadow.begin()) + " of " + array->name;
    }
    return "memory";
}

std::string Checker::name_of_thread(const Access& access) const {
    if (access.flags & Access::kAgent) return "a copy";
    const std::string name = block_.describe_thread(access.thread);
    return access.block == block_number_ ? name : name + " of another block";
}

void Checker::fail(const std::string& what, const Access& now) {
    block_.fail(what, describe(now.location));
}

}  // namespace simt
