// The plans among which a tuner may choose: for each tile that an operation's arrays allow, the
// splits that fill the GPU, and some more and fewer.
#pragma once

#include <array>
#include <vector>

#include "block_fprop.cuh"
#include "block_grad.cuh"
#include "dgrad.cuh"
#include "fprop.cuh"
#include "wgrad.cuh"

namespace zfcuda::conv {

constexpr Choice kComposed{0, 0, 1};

// Choices in the order in which they are found, each once, but the first one put in front.
class CandidateList {
  public:
    explicit CandidateList(const Choice& first) : choices_{first} {}

    void add(const Choice& choice) {
        for (const Choice& other : choices_)
            if (other.rows == choice.rows && other.cols == choice.cols &&
                other.splits == choice.splits)
                return;
        choices_.push_back(choice);
    }

    template <class List>
    void add_products(List tiles, const ProductSize& size) {
        for_each_tile(tiles, [&](auto tile, int index) {
            using Tile = decltype(tile);
            const int filling = plan_tile<Tile>(index, size).splits;
            const std::array<int, 5> counts{filling, filling / 2, filling * 3 / 2, filling * 2, 1};
            for (const int splits : counts) {
                // One block is no candidate for the work of a whole GPU.
                if (splits <= 1 && filling > kFewSplits) continue;
                const Plan plan = plan_splits<Tile>(index, size, splits);
                add(Choice{Tile::kRows, Tile::kCols, plan.splits});
            }
        });
    }

    std::vector<Choice> choices() const { return choices_; }

  private:
    static constexpr int kFewSplits = 4;
    std::vector<Choice> choices_;
};

// The heuristic's choice.
template <class List>
Choice cheapest_choice(List tiles, const ProductSize& size) {
    const Plan plan = cheapest_plan(tiles, size);
    Choice choice{};
    with_tile(tiles, plan, [&](auto tile) {
        choice = {decltype(tile)::kRows, decltype(tile)::kCols, plan.splits};
    });
    return choice;
}

template <class List>
std::vector<Choice> product_candidates(List tiles, const ProductSize& size) {
    CandidateList list(cheapest_choice(tiles, size));
    list.add_products(tiles, size);
    return list.choices();
}

template <class Math>
std::vector<Choice> block_candidates(const ConvShape& conv, const PoolShape& pool) {
    const Plan cheapest = cheapest_block_plan<Math>(conv, pool);
    Choice first = kComposed;
    with_tile(typename Tiles<Math>::Block{}, cheapest,
              [&](auto tile) { first = {decltype(tile)::kRows, decltype(tile)::kCols, 1}; });
    CandidateList list(first);
    list.add(kComposed);
    for_each_block_plan<Math>(conv, pool, [&](auto tile, const Plan&) {
        list.add({decltype(tile)::kRows, decltype(tile)::kCols, 1});
    });
    return list.choices();
}

template <class Math>
std::vector<Choice> unpool_wgrad_candidates(const ConvShape& conv, const PoolShape& pool,
                                            bool wide_dy, bool wide_x) {
    const ProductSize size = wgrad_size(conv);
    std::vector<Choice> choices;
    with_wgrad_tiles<Math>(wide_dy, wide_x, [&](auto tiles, auto, auto) {
        const bool gathers = should_read_through_switches<Math>(conv, pool);
        CandidateList list(gathers ? cheapest_choice(tiles, size) : kComposed);
        list.add(kComposed);
        if (has_small_cover(pool)) list.add_products(tiles, size);
        choices = list.choices();
    });
    return choices;
}

template <class Math>
std::vector<Choice> candidates(const Problem& problem) {
    using T = Element<Math>;
    const ConvShape& shape = problem.conv;
    constexpr int kWidth = kVectorWidth<T>;
    const bool wide_c = shape.c % kWidth == 0, wide_k = shape.k % kWidth == 0;
    std::vector<Choice> choices;
    switch (problem.operation) {
        case Operation::kConv2d:
            with_fprop_tiles<Math>(wide_c, [&](auto tiles, auto) {
                choices = product_candidates(tiles, fprop_size(shape));
            });
            break;
        case Operation::kConvTranspose2d:
            with_dgrad_tiles<Math>(wide_k, wide_c, [&](auto tiles, auto, auto) {
                choices = product_candidates(tiles, dgrad_size(shape));
            });
            break;
        case Operation::kConv2dWeightGrad:
            with_wgrad_tiles<Math>(wide_k, wide_c, [&](auto tiles, auto, auto) {
                choices = product_candidates(tiles, wgrad_size(shape));
            });
            break;
        case Operation::kConv2dReluPool:
            choices = block_candidates<Math>(shape, problem.pool);
            break;
        case Operation::kUnpoolConv2dWeightGrad:
            choices = unpool_wgrad_candidates<Math>(shape, problem.pool, wide_k, wide_c);
            break;
    }
    return choices;
}

}  // namespace zfcuda::conv
