// The optimiser: the choice of kernel.
#include "optimizer.cuh"

#include "dispatch.h"
#include "ops.h"

namespace zfcuda {

void sgd_step(std::int64_t size, float* w, const float* g, float* v, const float* lr,
              float momentum, float weight_decay, const float* guard, Stream stream) {
    with_constant(aligned_for_vectors(w, g, v), [&](auto aligned) {
        using Threads = Run<kVectorWidth<float>, aligned>;
        simt::launch<sgd_step_kernel<aligned>>(Threads::grid(size), Threads::block(), 0, stream,
                                               size, w, g, v, lr, momentum, weight_decay, guard);
    });
}

void renormalize_filters(int filters, int filter_size, float max_rms, float* w, const float* guard,
                         Stream stream) {
    simt::launch<renormalize_filters_kernel>(filters, kRenormalizeThreads, 0, stream, filter_size,
                                             max_rms, w, guard);
}

}  // namespace zfcuda
