"""An image changes no other of its batch, whatever method computes them: by no NaN or infinity, nor by its size."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.conftest import Device
from tests.kernels.test_conv_cpu import DIRECT, FIRST_LAYER, FULLY_CONNECTED, REGIONS, WINOGRAD, method, pair
from zfcuda import _cpu, backends, ops

# (N, H, W, C), (K, R, S), stride, padding, and optionally dilation, groups
GROUPS = [
    ((3, 9, 15, 24), (24, 3, 3), 1, 1, 1, 12),
    ((3, 8, 9, 40), (40, 3, 2), 2, (1, 0), 1, 10),
    ((3, 7, 9, 96), (96, 3, 3), 1, 1, 1, 3),
]
LAYERS = [
    ((max(x[0], 3), *x[1:]), *rest)
    for x, *rest in [*WINOGRAD[1::2], *FIRST_LAYER[:3], *DIRECT, *REGIONS[:4], *GROUPS, FULLY_CONNECTED]
]
SMALL = [  # for the emulator: images share the rows of a tile
    ((3, 5, 4, 8), (16, 3, 3), 1, 1),
    ((4, 7, 7, 3), (5, 5, 4), 2, (2, 0)),
    ((4, 7, 7, 3), (8, 5, 4), 2, (2, 0)),
    ((3, 1, 1, 40), (33, 1, 1), 1, 0),
]
POOL = {"window": (3, 3), "stride": (2, 2), "padding": (1, 1)}


def spoil(rng, array, value):
    """The first image with `value` everywhere, or along its edges, or at a few pixels."""
    spoilt = array.copy()
    where = rng.integers(3)
    if where == 0:
        spoilt[0] = value
    elif where == 1:
        spoilt[0, -1] = spoilt[0, :, -1] = value
    else:
        spoilt[0].reshape(-1)[rng.integers(0, spoilt[0].size, 3)] = value
    return spoilt


def check(device, run, batch, rng, what):
    """`run`'s results for a batch, and for one whose first image is spoilt."""
    expected = device.numpy(run(batch))
    for value in (np.nan, np.inf, -np.inf):
        actual = device.numpy(run(spoil(rng, batch, value)))
        assert np.isfinite(actual[1:]).all(), (what, value)
        assert_close(actual[1:], expected[1:], what=(what, value))
    for scale in (1e4, 1e37):  # with which sums overflow
        with np.errstate(over="ignore"):
            actual = device.numpy(run(scaled(batch, 0, scale)))
        assert_close(actual[1:], expected[1:], what=(what, scale))


def scaled(batch, image, scale):
    result = batch.copy()
    result[image] *= np.float32(scale)
    return result


def check_small(device, run, batch, what):
    """`run` is linear: an image of small values has results as exact as others, one of zeros has zeros."""
    expected = device.numpy(run(batch))
    small = device.numpy(run(scaled(batch, 1, 2.0**-40)))
    assert_close(small[1] * np.float32(2.0**40), expected[1], what=what)
    assert_close(small[0], expected[0], what=what)
    assert not device.numpy(run(scaled(batch, 1, 0.0)))[1].any(), what


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_every_method_of_the_cpu(layer):
    with backends.use("cpu"):
        check_other_images(Device("cpu"), layer)


@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_other_images_stay_as_they_are(device, layer):
    check_other_images(device, layer)


def check_other_images(device, layer):
    x_shape, filters, stride, padding, dilation, groups = (*layer, 1, 1)[:6]
    rng = np.random.default_rng(sum(x_shape))
    conv = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation)}
    x = rng.standard_normal(x_shape, dtype=np.float32)
    w = device.array(rng.standard_normal((*filters, x_shape[3] // groups), dtype=np.float32))
    size = oracles.output_size(x_shape[1:3], filters[1:], *conv.values())
    conv["groups"] = groups
    y = rng.standard_normal((x_shape[0], *size, filters[0]), dtype=np.float32)
    check(device, lambda x: ops.conv2d(device.array(x), w, **conv), x, rng, "conv2d")
    check_small(device, lambda x: ops.conv2d(device.array(x), w, **conv), x, "conv2d")
    added = device.array(y)
    check(device, lambda x: ops.conv2d(device.array(x), w, add=added, **conv), x, rng, "conv2d, x")
    x_ = device.array(x)
    check(device, lambda y: ops.conv2d(x_, w, add=device.array(y), relu=True, **conv), y, rng, "conv2d, add")
    back = {**conv, "output_size": x_shape[1:3]}
    check(device, lambda y: ops.conv_transpose2d(device.array(y), w, **back), y, rng, "conv_transpose2d")
    check_small(device, lambda y: ops.conv_transpose2d(device.array(y), w, **back), y, "conv_transpose2d")

    block = {**conv, "window": 3, "pool_stride": 2, "pool_padding": 1}
    if min(size) < 2:
        return
    check(device, lambda x: ops.conv2d_relu_pool(device.array(x), w, None, **block)[0], x, rng, "conv2d_relu_pool")
    pooled, switches = oracles.max_pool2d(y, **POOL)
    block = {**block, "output_size": x_shape[1:3], "rectify": True}
    switches = device.array(switches)
    check(
        device,
        lambda y: ops.unpool_conv_transpose2d(device.array(y), switches, w, **block),
        pooled,
        rng,
        "unpool_conv_transpose2d",
    )


def test_every_method_is_met():
    for direction, name in _cpu.load().conv_methods():
        if direction.name != "wgrad":  # a sum over the batch
            assert name in {method(layer, direction.name) for layer in LAYERS}
