"""Each tile of csrc/kernels/conv_plan.h, with and without vector loads and stores, on one small problem.

Left to itself, a small problem gets a small tile; the large ones are what real networks run on.
"""

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import CONV_TILES
from zfcuda import ops

# In and out: neither, one or both a multiple of 4; 72 filters leave a ragged second tile of 64 columns.
CHANNELS = [(3, 5), (4, 6), (6, 8), (8, 72)]


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("tile", CONV_TILES[1:])
def test_tile(device, tile, channels, monkeypatch):
    monkeypatch.setenv("ZFCUDA_CONV_TILE", tile)
    rng = np.random.default_rng(0)
    c, k = channels
    x = rng.standard_normal((2, 11, 9, c), dtype=np.float32)
    w = rng.standard_normal((k, 3, 3, c), dtype=np.float32)
    dy = rng.standard_normal((2, 6, 5, k), dtype=np.float32)
    options = {"stride": (2, 2), "padding": (1, 1)}
    to = device.array
    for actual, expected in (
        (ops.conv2d(to(x), to(w), **options), oracles.conv2d(x, w, **options)),
        (
            ops.conv_transpose2d(to(dy), to(w), output_size=(11, 9), **options),
            oracles.conv_transpose2d(dy, w, output_size=(11, 9), **options),
        ),
        (
            ops.conv2d_weight_grad(to(x), to(dy), kernel_size=(3, 3), **options),
            oracles.conv2d_weight_grad(x, dy, kernel_size=(3, 3), **options),
        ),
    ):
        assert oracles.relative_error(device.numpy(actual), expected) < 1e-5
