#include "clocks.h"

namespace simt {

void Clocks::begin_block(std::size_t threads) {
    threads_ = threads;
    wide_ = false;
    own_.assign(threads, 1);
    warps_.assign((threads + 31) / 32, {});
    for (Warp& warp : warps_) {
        for (int lane = 0; lane < 32; ++lane)
            warp.known[lane][lane] = 1;
    }
}

void Clocks::widen() {
    if (wide_) return;
    wide_ = true;
    rows_.resize(std::max(rows_.size(), threads_));
    for (std::size_t thread = 0; thread < threads_; ++thread) {
        rows_[thread].assign(threads_, 0);
        const std::size_t first = thread / 32 * 32;
        const std::size_t lanes = std::min<std::size_t>(32, threads_ - first);
        const Clock* known = warps_[thread / 32].known[thread % 32];
        std::copy(known, known + lanes, rows_[thread].begin() + static_cast<std::ptrdiff_t>(first));
    }
}

void Clocks::join(Vector& into, const Vector& from) {
    if (into.size() < from.size()) into.resize(from.size(), 0);
    const std::size_t size = from.size(), whole = size / 32 * 32;
    Clock* a = into.data();
    const Clock* b = from.data();
    for (std::size_t i = 0; i < whole; i += 32) {  // vectors, at -O2
        for (std::size_t j = 0; j < 32; ++j)
            a[i + j] = a[i + j] < b[i + j] ? b[i + j] : a[i + j];
    }
    for (std::size_t i = whole; i < size; ++i)
        a[i] = std::max(a[i], b[i]);
}

void Clocks::tick(std::size_t who) {
    const Clock now = ++own_[who];
    if (wide_) {
        Vector& row = rows_[who];
        if (row.size() <= who) row.resize(who + 1, 0);
        row[who] = now;
    } else {
        warps_[who / 32].known[who % 32][who % 32] = now;
    }
}

void Clocks::meet(int warp, unsigned mask) {
    const std::size_t first = static_cast<std::size_t>(warp) * 32;
    if (wide_) {
        Vector joined;
        for (unsigned rest = mask; rest; rest &= rest - 1)
            join(joined, rows_[first + static_cast<std::size_t>(__builtin_ctz(rest))]);
        for (unsigned rest = mask; rest; rest &= rest - 1)
            rows_[first + static_cast<std::size_t>(__builtin_ctz(rest))] = joined;
    } else {
        Warp& clocks = warps_[static_cast<std::size_t>(warp)];
        Clock joined[32] = {};
        for (unsigned rest = mask; rest; rest &= rest - 1) {
            const auto& known = clocks.known[__builtin_ctz(rest)];
            for (int i = 0; i < 32; ++i)
                joined[i] = std::max(joined[i], known[i]);
        }
        for (unsigned rest = mask; rest; rest &= rest - 1)
            std::copy(joined, joined + 32, clocks.known[__builtin_ctz(rest)]);
    }
    for (unsigned rest = mask; rest; rest &= rest - 1)
        tick(first + static_cast<std::size_t>(__builtin_ctz(rest)));
}

void Clocks::release(std::size_t thread, Vector& into) {
    widen();
    join(into, rows_[thread]);
    tick(thread);
}

void Clocks::acquire(std::size_t thread, const Vector& from) {
    widen();
    join(rows_[thread], from);
}

std::size_t Clocks::add_agent() {
    widen();
    const std::size_t agent = own_.size();
    own_.push_back(1);
    if (rows_.size() <= agent) rows_.resize(agent + 1);
    rows_[agent].assign(agent + 1, 0);
    rows_[agent][agent] = 1;
    return agent;
}

void Clocks::fork(std::size_t agent, std::size_t thread) {
    rows_[agent] = rows_[thread];
}

void Clocks::release_agent(std::size_t agent, Vector& into) {
    if (into.size() <= agent) into.resize(agent + 1, 0);
    into[agent] = std::max(into[agent], own_[agent]);
    tick(agent);
}

void Clocks::share_agents() {
    const std::size_t agents = own_.size() - threads_;
    if (agents == 0) return;
    Vector known(agents, 0);
    for (std::size_t thread = 0; thread < threads_; ++thread) {
        const Vector& row = rows_[thread];
        for (std::size_t i = threads_; i < row.size(); ++i)
            known[i - threads_] = std::max(known[i - threads_], row[i]);
    }
    for (std::size_t thread = 0; thread < threads_; ++thread) {
        rows_[thread].resize(own_.size(), 0);
        std::copy(known.begin(), known.end(),
                  rows_[thread].begin() + static_cast<std::ptrdiff_t>(threads_));
    }
}

}  // namespace simt
