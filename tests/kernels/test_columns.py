"""Sums over all rows: csrc/kernels/columns.cuh and csrc/cpu/columns.h."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import WEIGHT_GRAD, assert_close
from zfcuda import backends, ops


def arrays(rows, channels):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, rows, channels), np.float32) + 1
    return x, dy, *rng.uniform(1, 2, (3, channels)).astype(np.float32)


def average(x, *_):
    return ops.avg_pool2d(x[None, :, None], window=(len(x), 1), stride=1).ravel()


def image(x):
    """Most of the rows, as pixels."""
    width = min(50, len(x))
    return x[: len(x) // width * width].reshape(1, -1, width, x.shape[1])


def slope_grads(x, dy):
    return np.where(x > 0, 0, dy.astype(np.float64) * x).sum(0)


# Of x, dy, mean, variance and weight: our call, and the oracle.
CALLS = {
    "conv2d_bias_grad": (lambda x, *_: ops.conv2d_bias_grad(x), lambda x, *_: x.astype(np.float64).sum(0)),
    "avg_pool2d": (average, lambda x, *_: x.astype(np.float64).mean(0)),
    "batch_norm_statistics": (
        lambda x, *_: ops.batch_norm_statistics(x),
        lambda x, *_: oracles.batch_norm_statistics(x),
    ),
    "batch_norm_grad": (
        lambda x, dy, *of_channels: ops.batch_norm_grad(dy, x, *of_channels)[1:],
        lambda x, dy, *of_channels: oracles.batch_norm_grad(dy, x, *of_channels)[1:],
    ),
    "depthwise_conv2d_weight_grad": (
        lambda x, *_: ops.depthwise_conv2d_weight_grad(image(x), -image(x)[:, ::-1], kernel_size=3, padding=1),
        lambda x, *_: oracles.depthwise_conv2d_weight_grad(
            image(x), -image(x)[:, ::-1], kernel_size=(3, 3), padding=(1, 1, 1, 1)
        ),
    ),
    "prelu_weight_grad": (
        lambda x, dy, *_: ops.prelu_weight_grad(dy, x, channels=x.shape[1]),
        lambda x, dy, *_: slope_grads(x, dy),
    ),
    "prelu_weight_grad of one slope": (
        lambda x, dy, *_: ops.prelu_weight_grad(dy, x, channels=1),
        lambda x, dy, *_: slope_grads(x, dy).sum(keepdims=True),
    ),
}


# Rows that fit the registers, those that do not, and those that are longer than a page.
@pytest.mark.parametrize("shape", [(20_011, 33), (3_001, 300), (1_003, 1_100)], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_bits_do_not_depend_on_threads(name, shape, set_threads):
    call, oracle = CALLS[name]
    operands = arrays(*shape)
    with backends.use("cpu"):
        results = []
        for threads in (1, 2, 5):
            set_threads(threads)
            results.append(np.array(call(*operands)))
    assert_close(results[0], np.array(oracle(*operands)), WEIGHT_GRAD)
    assert all(np.array_equal(results[0], other) for other in results[1:])
