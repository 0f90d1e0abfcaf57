"""Sums over all rows: csrc/kernels/columns.cuh and csrc/cpu/columns.h."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import WEIGHT_GRAD, assert_close
from zfcuda import backends, ops

RNG = np.random.default_rng(0)
X, DY = RNG.standard_normal((2, 20_011, 33), np.float32) + 1
MEAN, VARIANCE, WEIGHT = RNG.uniform(1, 2, (3, 33)).astype(np.float32)
WHOLE = {"window": (20_011, 1), "stride": 1}

CALLS = {
    "conv2d_bias_grad": (lambda: ops.conv2d_bias_grad(X), X.astype(np.float64).sum(0)),
    "avg_pool2d": (lambda: ops.avg_pool2d(X[None, :, None], **WHOLE), X.astype(np.float64).mean(0)[None, None, None]),
    "batch_norm_statistics": (lambda: np.array(ops.batch_norm_statistics(X)), oracles.batch_norm_statistics(X)),
    "batch_norm_grad": (
        lambda: np.array(ops.batch_norm_grad(DY, X, MEAN, VARIANCE, WEIGHT)[1:]),
        oracles.batch_norm_grad(DY, X, MEAN, VARIANCE, WEIGHT)[1:],
    ),
    "prelu_weight_grad": (
        lambda: ops.prelu_weight_grad(DY, X, channels=33),
        np.where(X > 0, 0, DY.astype(np.float64) * X).sum(0),
    ),
    "prelu_weight_grad of one slope": (
        lambda: ops.prelu_weight_grad(DY, X, channels=1),
        np.where(X > 0, 0, DY.astype(np.float64) * X).sum(keepdims=True)[0],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_bits_do_not_depend_on_threads(name, set_threads):
    call, expected = CALLS[name]
    with backends.use("cpu"):
        results = []
        for threads in (1, 2, 5):
            set_threads(threads)
            results.append(call())
    assert_close(results[0], np.array(expected), WEIGHT_GRAD)
    assert all(np.array_equal(results[0], other) for other in results[1:])
