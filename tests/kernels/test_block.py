"""conv + bias + ReLU + max pool as one operation, and its way back ({kernels,cpu}/conv/block*)."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close, bf16_error
from tests.kernels.test_conv import normal
from tests.shapes import BF16, random_block
from zfcuda import ops


def options_of(conv, pool):
    own = {
        **conv.options,
        "window": pool.window,
        "pool_stride": pool.stride,
        "pool_padding": pool.padding,
        "pool_ceil_mode": pool.ceil_mode,
    }
    return own, conv.options, pool.options


def value_at_switch(maps, switches, pool):
    """maps[n, h, w, c] at the cell that each switch names; NaN where it names none."""
    n, p, q, c = np.indices(switches.shape)
    r, s = np.divmod(switches.astype(int), pool.window[1])
    top, _, left, _ = oracles.sides(pool.padding)
    h, w = p * pool.stride[0] - top + r, q * pool.stride[1] - left + s
    valid = (r < pool.window[0]) & (h >= 0) & (h < maps.shape[1]) & (w >= 0) & (w < maps.shape[2])
    return np.where(valid, maps[n, np.where(valid, h, 0), np.where(valid, w, 0), c], np.nan)


def test_conv2d_relu_pool(case, arithmetic):
    rng = case.rng
    conv, pool = random_block(rng, case.device.max_work)
    own, conv_options, pool_options = options_of(conv, pool)
    x, w = arithmetic.normal(rng, conv.x), arithmetic.normal(rng, conv.w)
    b = normal(rng, conv.w[0]) if rng.random() < 0.7 else None
    to = case.device.array
    y, switches = ops.conv2d_relu_pool(to(x), to(w), None if b is None else to(b), **own, **arithmetic.options)
    maps = oracles.conv2d(x, w, b, **conv_options, relu=True)
    expected, _ = oracles.max_pool2d(maps, **pool_options)
    assert_close(y, expected, arithmetic.tolerance, (conv, pool))
    y, switches = case.device.numpy(y), case.device.numpy(switches)
    # Rounding may move a switch between cells that are as good as equal, but never to a smaller one.
    chosen = value_at_switch(maps, switches, pool)
    if y.dtype == BF16:
        assert bf16_error(chosen, expected, roundings=2) < 1, (conv, pool)  # of both cells
    else:
        assert np.abs(chosen - expected).max() < arithmetic.tolerance * (np.abs(maps).max() or 1.0), (conv, pool)
    # Where ReLU left nothing, every cell is an exact zero and the first one wins.
    zero = np.zeros_like(maps)
    _, first = oracles.max_pool2d(zero, **pool_options)
    dead = (y == 0) & (expected == 0)
    np.testing.assert_array_equal(switches[dead], first[dead])


def test_unpool_conv_transpose2d(case, arithmetic):
    rng = case.rng
    conv, pool = random_block(rng, case.device.max_work)
    own, conv_options, pool_options = options_of(conv, pool)
    rectify = bool(rng.random() < 0.5)
    _, switches = oracles.max_pool2d(arithmetic.normal(rng, pool.x), **pool_options)
    y, w = arithmetic.coarse(rng, pool.output), arithmetic.normal(rng, conv.w)
    to = case.device.array
    x = ops.unpool_conv_transpose2d(
        to(y), to(switches), to(w), **own, **arithmetic.options, output_size=conv.x[1:3], rectify=rectify
    )
    maps = oracles.max_unpool2d(y, switches, **pool_options, output_size=pool.x[1:3])
    if rectify:
        maps = np.maximum(maps, 0)
    expected = oracles.conv_transpose2d(maps, w, **conv_options, output_size=conv.x[1:3])
    assert_close(x, expected, arithmetic.tolerance, (conv, pool, rectify))


def test_unpool_conv2d_weight_grad(case, arithmetic):
    rng = case.rng
    conv, pool = random_block(rng, case.device.max_work)
    own, conv_options, pool_options = options_of(conv, pool)
    _, switches = oracles.max_pool2d(arithmetic.normal(rng, pool.x), **pool_options)
    x, dy = arithmetic.normal(rng, conv.x), arithmetic.coarse(rng, pool.output)
    to = case.device.array
    dw = ops.unpool_conv2d_weight_grad(
        to(x), to(dy), to(switches), **own, **arithmetic.options, kernel_size=conv.w[1:3]
    )
    maps = oracles.max_unpool2d(dy, switches, **pool_options, output_size=pool.x[1:3])
    expected = oracles.conv2d_weight_grad(x, maps, kernel_size=conv.w[1:3], **conv_options)
    assert_close(dw, expected, arithmetic.weight_grad_tolerance, (conv, pool))


def test_first_block_of_zfnet_at_a_quarter(device):
    """The block that matters most: 7x7 stride 2 over 3 channels, pool 3x3 stride 2 padding 1."""
    rng = np.random.default_rng(4)
    x, w, b = normal(rng, (1, 56, 56, 3)), normal(rng, (24, 7, 7, 3)), normal(rng, 24)
    y, switches = ops.conv2d_relu_pool(
        *map(device.array, (x, w, b)), stride=2, padding=1, window=3, pool_stride=2, pool_padding=1
    )
    maps = oracles.conv2d(x, w, b, stride=(2, 2), padding=(1, 1), relu=True)
    expected, _ = oracles.max_pool2d(maps, window=(3, 3), stride=(2, 2), padding=(1, 1))
    assert_close(y, expected, what="values")
    assert switches.shape == y.shape


X, W, B = np.zeros((1, 8, 8, 3), np.float32), np.zeros((4, 3, 3, 3), np.float32), np.zeros(4, np.float32)
Y, S = np.zeros((1, 3, 3, 4), np.float32), np.zeros((1, 3, 3, 4), np.uint8)
BLOCK = {"stride": 1, "padding": 0, "window": 2, "pool_stride": 2}


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "x must have 4", lambda: ops.conv2d_relu_pool(X[0], W, B, **BLOCK)),
        (ValueError, "window height 9 is larger", lambda: ops.conv2d_relu_pool(X, W, B, **BLOCK | {"window": 9})),
        (ValueError, "pool stride height", lambda: ops.conv2d_relu_pool(X, W, B, **BLOCK | {"pool_stride": 0})),
        (TypeError, "pool_stride must be", lambda: ops.conv2d_relu_pool(X, W, B, **BLOCK | {"pool_stride": True})),
        (TypeError, "pool_padding must be", lambda: ops.conv2d_relu_pool(X, W, B, **BLOCK, pool_padding=0.5)),
        (ValueError, r"b must have shape \(4,\)", lambda: ops.conv2d_relu_pool(X, W, B[:3], **BLOCK)),
        (ValueError, "y must have shape", lambda: ops.unpool_conv_transpose2d(Y, S, W, **BLOCK, output_size=20)),
        (TypeError, "switches must be uint8", lambda: ops.unpool_conv_transpose2d(Y, Y, W, **BLOCK, output_size=8)),
        (ValueError, "dy must have shape", lambda: ops.unpool_conv2d_weight_grad(X, Y, S, **BLOCK, kernel_size=7)),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
