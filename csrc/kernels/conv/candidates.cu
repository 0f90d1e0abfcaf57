// The plans among which a tuner may choose: for each tile that an operation's arrays allow, the
// splits that fill the GPU, and some more and fewer.
#include <algorithm>
#include <vector>

#include "block_fprop.cuh"
#include "block_grad.cuh"
#include "dgrad_patch.cuh"
#include "fprop_patch.cuh"
#include "plan.h"
#include "tiles.cuh"
#include "wgrad_patch.cuh"

namespace zfcuda::conv {

constexpr int kFewSplits = 4;

// Choices in the order in which they are found, each once.
class CandidateList {
  public:
    void add(const Choice& choice) {
        if (std::find(choices_.begin(), choices_.end(), choice) == choices_.end())
            choices_.push_back(choice);
    }

    // The heuristic's choice, then the others.
    template <class Lists>
    void add_product(Lists lists, const Product& product, bool vector_a, bool vector_b) {
        with_list(lists, vector_a, vector_b, [&](auto tiles) {
            add_cheapest(tiles, product);
            add_tiles(tiles, product);
        });
    }

    template <class List>
    void add_cheapest(List tiles, const Product& product) {
        const Plan plan = cheapest_plan(tiles, product);
        add(Choice{plan.kernel, plan.splits});
    }

    template <class List>
    void add_tiles(List tiles, const Product& product) {
        for_each_tile(tiles, [&](auto tile) {
            using Tile = decltype(tile);
            if (!serves<Tile>(product.problem) || (kIsWgmma<Tile> && !can_run_wgmma())) return;
            const Plan plan = plan_tile<Tile>(product);
            const int filling = plan.splits;
            for (const int splits : {filling, filling / 2, filling * 3 / 2, filling * 2, 1}) {
                // One block is no candidate for the work of a whole GPU.
                if (splits <= 1 && plan.whole == 0 && filling > kFewSplits) continue;
                add(Choice{kKernel<Tile>, plan_splits<Tile>(product, splits).splits});
            }
        });
    }

    std::vector<Choice> choices() const { return choices_; }

  private:
    std::vector<Choice> choices_;
};

template <class Math>
std::vector<Choice> candidates(const Problem& problem) {
    const ConvShape& shape = problem.conv;
    constexpr int kWidth = kVectorWidth<Element<Math>>;
    const bool vector_c = shape.group_c() % kWidth == 0, vector_k = shape.group_k() % kWidth == 0;
    CandidateList found;
    switch (problem.operation) {
        case Operation::kConv2d:
            if (const auto plan = cheapest_fprop_patch_plan<Math>(shape))
                found.add(Choice{plan->kernel});
            with_fprop_tiles<Math>(shape, [&](auto lists) {
                found.add_product(lists, fprop_product<Math>(shape), vector_c, vector_c);
            });
            for_each_image_tile<Math>(shape, pool_of_pixels(shape),
                                      [&](auto tile, const auto&, const auto&) {
                                          found.add(Choice{kKernel<decltype(tile)>});
                                      });
            break;
        case Operation::kConvTranspose2d:
            if (const auto plan = cheapest_patch_plan<Math>(shape))
                found.add(Choice{plan->kernel, plan->splits});
            with_dgrad_tiles<Math>(shape, [&](auto lists) {
                found.add_product(lists, dgrad_product<Math>(shape), vector_k, vector_c);
            });
            for_each_patch_tile<Math>(shape, [&](auto tile, const Product& product, int taps) {
                const Plan plan = plan_patch<decltype(tile)>(product, taps);
                for (const int splits : {plan.splits, 1})
                    found.add(Choice{plan.kernel, splits});
            });
            break;
        case Operation::kConv2dWeightGrad:
            if (const auto plan = cheapest_wgrad_patch_plan<Math>(shape))
                found.add(Choice{plan->kernel, plan->splits});
            found.add_product(typename Tiles<Math>::Wgrad{}, wgrad_product<Math>(shape), vector_k,
                              vector_c);
            for_each_wgrad_image_tile<Math>(
                shape, [&](auto tile, const Product& product, const auto&, const auto& patch) {
                    const Plan plan = plan_wgrad_patch<decltype(tile)>(product, patch);
                    for (const int splits : {plan.splits, 1})
                        found.add(Choice{plan.kernel, splits});
                });
            break;
        case Operation::kConv2dReluPool:
            if (const auto plan = cheapest_block_plan<Math>(shape, problem.pool, true))
                found.add(Choice{plan->kernel});
            found.add(Choice{});
            for_each_block_plan<Math>(shape, problem.pool, [&](const Plan& plan) {
                if (!is_tma(plan) || can_run_wgmma()) found.add(Choice{plan.kernel});
            });
            break;
        case Operation::kUnpoolConv2dWeightGrad:
            with_list(typename Tiles<Math>::UnpoolWgrad{}, vector_k, vector_c, [&](auto tiles) {
                const auto product = [&] {
                    return unpool_wgrad_product<Math>(shape, problem.pool);
                };
                if (should_read_through_switches<Math>(shape, problem.pool))
                    found.add_cheapest(tiles, product());
                found.add(Choice{});
                if (can_read_through_switches(shape, problem.pool))
                    found.add_tiles(tiles, product());
            });
            break;
    }
    return found.choices();
}

template std::vector<Choice> candidates<Fp32>(const Problem&);
template std::vector<Choice> candidates<Tf32>(const Problem&);
template std::vector<Choice> candidates<Bf16>(const Problem&);

}  // namespace zfcuda::conv
