"""Orders of channels that are where the arrays are: zfcuda/ops/channels.py."""

import numpy as np

from zfcuda import ops


def test_an_order_that_the_host_does_not_look_at_reads_zero_outside(gpu):
    x = gpu.asarray(np.ones((3, 4), np.float32))
    y = ops.permute_channels(x, gpu.asarray(np.array([3, 4, -1, 0], np.int32)))
    np.testing.assert_array_equal(y.get(), [[1, 0, 0, 1]] * 3)
