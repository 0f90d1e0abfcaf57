#include "copy_engine.h"

#include <cstring>
#include <string>

#include "block.h"

namespace simt {
namespace {

constexpr std::uint32_t kPiece = 16;

std::uintptr_t swizzled(std::uintptr_t address, Swizzle swizzle) {
    const std::uintptr_t parts = detail::swizzle_bytes(swizzle) / kPiece;  // 0, 2, 4 or 8
    return parts ? address ^ ((address >> 7 & (parts - 1)) << 4) : address;
}

std::size_t size_of(const TensorMap& map) {
    return detail::size_of(map.type);
}

}  // namespace

void CopyEngine::begin_block() {
    under_way_.clear();
    stores_.clear();
}

// ---- Where a box lies ---------------------------------------------------------------------------

void CopyEngine::require_place(const TensorMap& map, const void* shared,
                               const detail::TensorPlace& place, bool im2col, Site site) {
    const auto at = reinterpret_cast<std::uintptr_t>(shared);
    if (map.magic != TensorMap::kMagic)
        block_.fail("this tensor map was made by neither tiled_map nor im2col_map", site);
    if (reinterpret_cast<std::uintptr_t>(&map) % alignof(TensorMap) != 0)
        block_.fail("misaligned address: a tensor map needs a multiple of 64 bytes", site);
    if (map.im2col != im2col)
        block_.fail(std::string("this copy needs a map that is ") + (im2col ? "im2col" : "tiled"),
                    site);
    if (map.rank != place.rank)
        block_.fail("the tensor map has " + std::to_string(map.rank) + " dimensions, the copy " +
                        std::to_string(place.rank),
                    site);
    if (!block_.shared().contains(at))
        block_.fail("a tensor copy needs an address in shared memory", site);
    if (at % 128 != 0)
        block_.fail("misaligned address: a tensor copy needs a multiple of 128 bytes", site);
    if (!im2col) return;
    for (int i = 0; i < 2; ++i) {
        const std::int64_t first = map.lower[i],
                           last = static_cast<std::int64_t>(map.last[i + 1]) + map.upper[i];
        if (place.x[i + 1] < first || place.x[i + 1] > last)
            block_.fail("the corner at coordinate " + std::to_string(place.x[i + 1]) +
                            " of dimension " + std::to_string(i + 1) + " lies outside [" +
                            std::to_string(first) + ", " + std::to_string(last) + "]",
                        site);
        if (place.offset[i] < 0 || place.offset[i] > 255)
            block_.fail(
                "an im2col offset must be from 0 to 255, got " + std::to_string(place.offset[i]),
                site);
    }
}

std::vector<CopyEngine::Piece> CopyEngine::pieces(const TensorMap& map, const void* shared,
                                                  const detail::TensorPlace& place, bool im2col,
                                                  Site site) {
    require_place(map, shared, place, im2col, site);
    const std::size_t size = size_of(map), row = map.box[0] * size;
    const auto elements = static_cast<std::int64_t>(kPiece / size);
    std::uintptr_t to = reinterpret_cast<std::uintptr_t>(shared);
    std::vector<Piece> all;
    // The row whose other coordinates are x[1], ...
    const auto add_row = [&](const std::int64_t* x) {
        bool inside = true;
        std::uint64_t address = map.address;
        for (int i = 1; i < map.rank; ++i) {
            inside &= x[i] >= 0 && x[i] <= map.last[i];
            address += static_cast<std::uint64_t>(x[i]) * map.strides[i - 1];
        }
        for (std::size_t part = 0; part < row / kPiece; ++part, to += kPiece) {
            const std::int64_t from = place.x[0] + static_cast<std::int64_t>(part) * elements;
            const std::int64_t first = std::max<std::int64_t>(from, 0),
                               last = std::min<std::int64_t>(from + elements - 1, map.last[0]);
            Piece piece{reinterpret_cast<unsigned char*>(swizzled(to, map.swizzle)), nullptr, 0, 0};
            if (inside && first <= last) {
                piece.global = reinterpret_cast<unsigned char*>(
                    address + static_cast<std::uint64_t>(first) * size);
                piece.skip =
                    static_cast<std::uint8_t>(static_cast<std::size_t>(first - from) * size);
                piece.bytes =
                    static_cast<std::uint8_t>(static_cast<std::size_t>(last - first + 1) * size);
            }
            all.push_back(piece);
        }
    };
    if (map.im2col) {
        std::int64_t w = place.x[1], h = place.x[2], n = place.x[3];
        for (int pixel = 0; pixel < map.box[1]; ++pixel) {
            const std::int64_t x[4] = {0, w + place.offset[0], h + place.offset[1], n};
            add_row(x);
            w += map.steps[0];
            if (w <= static_cast<std::int64_t>(map.last[1]) + map.upper[0]) continue;
            w = map.lower[0];
            h += map.steps[1];
            if (h <= static_cast<std::int64_t>(map.last[2]) + map.upper[1]) continue;
            h = map.lower[1];
            ++n;
        }
        return all;
    }
    int count[5] = {1, 1, 1, 1, 1};
    for (int i = 1; i < map.rank; ++i)
        count[i] = (map.box[i] + map.steps[i] - 1) / map.steps[i];
    for (int row_number = 0; row_number < count[1] * count[2] * count[3] * count[4]; ++row_number) {
        std::int64_t x[5] = {};
        int rest = row_number;
        for (int i = 1; i < map.rank; ++i) {
            x[i] = place.x[i] + static_cast<std::int64_t>(rest % count[i]) * map.steps[i];
            rest /= count[i];
        }
        add_row(x);
    }
    return all;
}

// ---- Begun by the running thread ----------------------------------------------------------------

CopyEngine::Copy CopyEngine::begin(Kind kind, Site site) const {
    Copy copy;
    copy.kind = kind;
    copy.thread = &block_.running();
    copy.site = site;
    return copy;
}

void CopyEngine::load(void* shared, const TensorMap& map, MbarrierState& barrier,
                      const detail::TensorPlace& place, bool im2col, Site site) {
    Copy copy = begin(Kind::kLoad, site);
    copy.pieces = pieces(map, shared, place, im2col, site);
    copy.to_tf32 = map.type == TensorType::kTf32;
    copy.barrier = &barrier;
    ++barrier.copies;
    barrier.waited = false;
    if (Checker* checker = block_.checker()) {
        const Location location = location_of(site);
        checker->clocks().fork(barrier.agent, copy.thread->number());
        std::size_t read = 0;
        for (const Piece& piece : copy.pieces) {
            if (piece.bytes)
                checker->access(reinterpret_cast<std::uintptr_t>(piece.global), piece.bytes,
                                Checker::kRead, location);
            checker->begin_agent(barrier.agent, reinterpret_cast<std::uintptr_t>(piece.shared),
                                 kPiece, Checker::kWrite, location);
            read += piece.bytes;
        }
        block_.variant().shared.add(copy.pieces.size() * kPiece);
        block_.variant().global.add(read);
    }
    under_way_.push_back(std::move(copy));
}

void CopyEngine::store(const TensorMap& map, const void* shared, const detail::TensorPlace& place,
                       Site site) {
    Copy copy = begin(Kind::kStore, site);
    copy.pieces = pieces(map, shared, place, false, site);
    Stores& mine = stores();
    copy.group = mine.committed;
    mine.begun = mine.committed + 1;
    if (Checker* checker = block_.checker()) {
        const Location location = location_of(site);
        checker->clocks().fork(mine.agent, copy.thread->number());
        std::size_t written = 0;
        for (const Piece& piece : copy.pieces) {
            if (!piece.bytes) continue;
            checker->begin_agent(mine.agent,
                                 reinterpret_cast<std::uintptr_t>(piece.shared) + piece.skip,
                                 piece.bytes, Checker::kRead, location);
            checker->access(reinterpret_cast<std::uintptr_t>(piece.global), piece.bytes,
                            Checker::kWrite, location);
            written += piece.bytes;
        }
        block_.variant().shared.add(copy.pieces.size() * kPiece);
        block_.variant().global.add(written);
    }
    under_way_.push_back(std::move(copy));
}

CopyEngine::Stores& CopyEngine::stores() {
    for (Stores& stores : stores_) {
        if (stores.thread == &block_.running()) return stores;
    }
    stores_.push_back({&block_.running()});
    if (Checker* checker = block_.checker()) stores_.back().agent = checker->clocks().add_agent();
    return stores_.back();
}

void CopyEngine::commit_stores() {
    Stores& mine = stores();
    mine.begun = ++mine.committed;
    if (Checker* checker = block_.checker()) checker->clocks().tick(mine.agent);
}

void CopyEngine::wait_for_stores(int pending) {
    Stores& mine = stores();
    const int done = std::max(mine.waited, mine.committed - pending);
    for (std::size_t i = 0; i < under_way_.size();) {
        const Copy& copy = under_way_[i];
        if (copy.kind == Kind::kStore && copy.thread == mine.thread && copy.group < done) {
            land(i);
        } else {
            ++i;
        }
    }
    mine.waited = done;
    if (Checker* checker = block_.checker()) {
        Clocks::Vector known(mine.agent + 1, 0);
        known[mine.agent] = static_cast<Clocks::Clock>(done);
        checker->clocks().acquire(mine.thread->number(), known);
    }
}

void CopyEngine::arrive_after_copies(MbarrierState& barrier, Site site) {
    Copy copy = begin(Kind::kArrival, site);
    copy.barrier = &barrier;
    copy.copies.swap(block_.running().copies);
    under_way_.push_back(std::move(copy));
}

// ---- Landing ------------------------------------------------------------------------------------

void CopyEngine::land_some() {
    if (block_.copies_land_late()) return;
    while (!under_way_.empty() && block_.random().below(4) == 0)
        land(block_.random().below(static_cast<unsigned>(under_way_.size())));
}

bool CopyEngine::land_one() {
    std::size_t candidates = 0, chosen = 0;
    for (std::size_t i = 0; i < under_way_.size(); ++i) {
        if (under_way_[i].kind == Kind::kStore) continue;
        if (block_.random().below(static_cast<unsigned>(++candidates)) == 0) chosen = i;
    }
    if (candidates == 0) return false;
    land(chosen);
    return true;
}

void CopyEngine::land(std::size_t position) {
    Copy copy = std::move(under_way_[position]);
    under_way_.erase(under_way_.begin() + static_cast<std::ptrdiff_t>(position));
    block_.blame(copy.thread);
    Checker* checker = block_.checker();
    move(copy);
    if (copy.kind == Kind::kLoad) {
        if (checker) {
            for (const Piece& piece : copy.pieces)
                checker->end_agent(reinterpret_cast<std::uintptr_t>(piece.shared), kPiece);
        }
        --copy.barrier->copies;
        block_.barriers().come(*copy.barrier,
                               static_cast<std::int64_t>(copy.pieces.size() * kPiece), copy.site);
    } else if (copy.kind == Kind::kArrival) {
        for (AsyncCopy& one : copy.copies) {
            block_.execute(one);
            if (checker) checker->hand_over(one, copy.barrier->agent);
        }
        block_.barriers().arrive(*copy.barrier, copy.site);
    }
    block_.blame(nullptr);
}

void CopyEngine::move(const Copy& copy) {
    for (const Piece& piece : copy.pieces) {
        if (copy.kind == Kind::kStore) {
            const unsigned char* shared = block_.seen_through_proxy(piece.shared);
            if (piece.bytes) std::memcpy(piece.global, shared + piece.skip, piece.bytes);
            continue;
        }
        std::memset(piece.shared, 0, kPiece);
        if (piece.bytes) std::memcpy(piece.shared + piece.skip, piece.global, piece.bytes);
        for (std::uint32_t i = 0; copy.to_tf32 && i < kPiece; i += 4) {
            float value;
            std::memcpy(&value, piece.shared + i, 4);
            const std::uint32_t rounded = to_tf32(value);
            std::memcpy(piece.shared + i, &rounded, 4);
        }
        block_.written_through_proxy(piece.shared, kPiece);
    }
}

void CopyEngine::require_waited_for(const Thread& thread) {
    for (const Stores& stores : stores_) {
        if (stores.thread != &thread || stores.begun <= stores.waited) continue;
        block_.fail(
            "a thread exits and has not waited for its tensor stores, which may still read "
            "shared memory");
    }
}

void CopyEngine::require_landed() {
    for (const Copy& copy : under_way_) {
        block_.blame(copy.thread);
        block_.fail("the block ends while a copy is under way", copy.site);
    }
    block_.barriers().require_waited_for();
}

// ---- What kernels call --------------------------------------------------------------------------

namespace detail {

void tensor_load(void* shared, const TensorMap& map, Mbarrier& barrier, const TensorPlace& place,
                 bool im2col, Site site) {
    Block& block = *Block::current();
    MbarrierState& state = block.barriers().find_for_copy(barrier, site);
    block.copies().load(shared, map, state, place, im2col, site);
}

void tensor_store(const TensorMap& map, const void* shared, const TensorPlace& place, Site site) {
    Block::current()->copies().store(map, shared, place, site);
}

void tensor_store_commit() {
    Block::current()->copies().commit_stores();
}

void tensor_store_wait(int pending) {
    Block::current()->copies().wait_for_stores(pending);
}

void copy_async_arrive(Mbarrier& barrier, Site site) {
    Block& block = *Block::current();
    block.copies().arrive_after_copies(block.barriers().find(barrier, site), site);
}

}  // namespace detail
}  // namespace simt
