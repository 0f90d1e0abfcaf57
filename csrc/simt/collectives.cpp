// Shuffles, votes, reductions, ldmatrix and mma: the last lane to come does the work of all.
#include "collectives.h"

#include <cstdio>

#include "matrix.h"

namespace simt {

std::string hexadecimal(unsigned value) {
    char text[16];
    std::snprintf(text, sizeof(text), "0x%08x", value);
    return text;
}

const char* name_of(detail::Collective kind) {
    using detail::Collective;
    switch (kind) {
        case Collective::kSyncWarp:
            return "__syncwarp";
        case Collective::kShuffle:
            return "a shuffle";
        case Collective::kBallot:
            return "a vote";
        case Collective::kMatch:
            return "__match_any_sync";
        case Collective::kLoadMatrix:
        case Collective::kLoadMatrixTrans:
            return "ldmatrix";
        case Collective::kMmaTf32:
        case Collective::kMmaBf16:
        case Collective::kMmaFp16:
            return "mma";
        default:
            return "a warp reduction";
    }
}

std::uint64_t Block::collective(detail::Collective kind, unsigned mask, std::uint64_t value,
                                int source, detail::MatrixOperands operands, Site site) {
    Thread& me = *running_;
    Warp& warp = warps_[static_cast<std::size_t>(me.warp)];
    if (!(mask & bit(me.lane)))
        fail(std::string(name_of(kind)) + " with mask " + hexadecimal(mask) +
                 " does not name the lane that calls it, " + std::to_string(me.lane),
             site);
    if (mask & (warp.exited | ~warp.lanes)) {
        const int lane = __builtin_ctz(mask & (warp.exited | ~warp.lanes));
        fail(std::string(name_of(kind)) + " with mask " + hexadecimal(mask) + " names lane " +
                 std::to_string(lane) +
                 (warp.exited & bit(lane) ? ", which has exited" : ", which does not exist"),
             site);
    }
    me.kind = kind;
    me.mask = mask;
    me.value = value;
    me.source = source;
    me.operands = operands;
    me.site = site;
    warp.waiting |= bit(me.lane);
    if ((warp.waiting & mask) == mask) {
        Thread* lanes = &threads_[static_cast<std::size_t>(me.warp * 32)];
        bool complete_now = true;
        for (unsigned rest = mask; rest; rest &= rest - 1) {
            const Thread& other = lanes[__builtin_ctz(rest)];
            complete_now &= other.kind == kind && other.mask == mask &&
                            (kind == detail::Collective::kSyncWarp || same(other.site, site));
        }
        if (complete_now) {
            complete(warp, lanes, mask);
            // Go on at once, unless anybody may.
            if (depth_first_ || mask == bit(me.lane)) return me.value;
            make_ready(me);
            suspend();
            return me.value;
        }
    }
    me.state = Thread::kAtCollective;
    suspend();
    return me.value;
}

void Block::complete(Warp& warp, Thread* lanes, unsigned mask) {
    exchange(running_->kind, lanes, mask);
    if (banks_) banks_->meet(lanes->warp);
    warp.waiting &= ~mask;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        Thread& thread = lanes[__builtin_ctz(rest)];
        if (&thread != running_) make_ready(thread);
    }
}

// What each lane gets: value, or what its operands point to.
void Block::exchange(detail::Collective kind, Thread* lanes, unsigned mask) {
    using detail::Collective;
    if (kind == Collective::kSyncWarp) {
        if (checker_) checker_->warp_barrier(lanes->warp, mask);
        return;
    }
    if (kind >= Collective::kLoadMatrix) {
        detail::MatrixOperands operands[32];
        for (int lane = 0; lane < 32; ++lane)
            operands[lane] = lanes[lane].operands;
        if (kind <= Collective::kLoadMatrixTrans) {
            load_matrix(kind == Collective::kLoadMatrixTrans, operands);
        } else {
            multiply_matrices(kind, operands);
        }
        return;
    }
    std::uint64_t brought[32] = {};
    std::uint64_t all = kind == Collective::kReduceAnd ? ~0ull : 0;
    bool first = true;
    for (unsigned rest = mask; rest; rest &= rest - 1, first = false) {
        const int lane = __builtin_ctz(rest);
        const std::uint64_t value = brought[lane] = lanes[lane].value;
        const auto pick_if = [&](bool better) { all = first || better ? value : all; };
        const auto as_int = [](std::uint64_t bits) { return static_cast<std::int32_t>(bits); };
        switch (kind) {
            case Collective::kBallot:
                all |= value << lane;
                break;
            case Collective::kReduceAdd:
                all += value;
                break;
            case Collective::kReduceMin:
                pick_if(as_int(value) < as_int(all));
                break;
            case Collective::kReduceMax:
                pick_if(as_int(value) > as_int(all));
                break;
            case Collective::kReduceUMin:
                pick_if(value < all);
                break;
            case Collective::kReduceUMax:
                pick_if(value > all);
                break;
            case Collective::kReduceAnd:
                all &= value;
                break;
            case Collective::kReduceOr:
                all |= value;
                break;
            case Collective::kReduceXor:
                all ^= value;
                break;
            default:
                break;
        }
    }
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        Thread& thread = lanes[__builtin_ctz(rest)];
        if (kind == Collective::kShuffle) {
            // A lane that takes no part has no value: the result is poison.
            thread.value = mask & bit(thread.source & 31) ? brought[thread.source & 31] : ~0ull;
        } else if (kind == Collective::kMatch) {
            std::uint64_t equal = 0;
            for (unsigned others = mask; others; others &= others - 1) {
                const int other = __builtin_ctz(others);
                if (brought[other] == brought[thread.lane]) equal |= bit(other);
            }
            thread.value = equal;
        } else {
            thread.value = all;
        }
    }
}

}  // namespace simt
