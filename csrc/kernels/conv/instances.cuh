// Instantiates the convolutions and blocks of ops.h in one precision, each in a file of its own,
// since they take long to compile.
#pragma once

#include "block_fprop.cuh"
#include "block_grad.cuh"
#include "candidates.cuh"
#include "dgrad.cuh"
#include "fprop.cuh"
#include "ops.h"
#include "wgrad.cuh"

#define ZFCUDA_INSTANTIATE_CONVOLUTIONS(Precision)                                                \
    namespace zfcuda {                                                                            \
    template decltype(conv2d<Precision>) conv2d<Precision>;                                       \
    template decltype(conv2d_workspace<Precision>) conv2d_workspace<Precision>;                   \
    template decltype(conv_transpose2d<Precision>) conv_transpose2d<Precision>;                   \
    template decltype(conv_transpose2d_workspace<Precision>)                                      \
        conv_transpose2d_workspace<Precision>;                                                    \
    template decltype(conv2d_weight_grad<Precision>) conv2d_weight_grad<Precision>;               \
    template decltype(conv2d_weight_grad_workspace<Precision>)                                    \
        conv2d_weight_grad_workspace<Precision>;                                                  \
    template decltype(conv2d_relu_pool<Precision>) conv2d_relu_pool<Precision>;                   \
    template decltype(conv2d_relu_pool_workspace<Precision>)                                      \
        conv2d_relu_pool_workspace<Precision>;                                                    \
    template decltype(unpool_conv_transpose2d<Precision>) unpool_conv_transpose2d<Precision>;     \
    template decltype(unpool_conv_transpose2d_workspace<Precision>)                               \
        unpool_conv_transpose2d_workspace<Precision>;                                             \
    template decltype(unpool_conv2d_weight_grad<Precision>) unpool_conv2d_weight_grad<Precision>; \
    template decltype(unpool_conv2d_weight_grad_workspace<Precision>)                             \
        unpool_conv2d_weight_grad_workspace<Precision>;                                           \
    template decltype(conv::candidates<Precision>) conv::candidates<Precision>;                   \
    }
