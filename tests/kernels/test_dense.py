"""Convolutions whose filter covers the whole image, fully connected layers, and those of 1 x 1 filters with few pixels:
on the CPU csrc/cpu/conv/dense.cpp."""

import numpy as np
import pytest

from tests.accuracy import WEIGHT_GRAD, assert_close
from zfcuda import ops

# (n, d, k): fewer and more than a tile of rows, than a vector, than a block of the depth, and odd everything.
SIZES = [
    (1, 1, 1),
    (1, 1000, 7),
    (3, 17, 5),
    (7, 129, 33),
    (13, 512, 100),
    (32, 700, 401),
    (29, 3, 800),
    (45, 260, 64),
    (2, 5000, 70),
]


def numbers(rng, *shape):
    return rng.standard_normal(shape, np.float32)


@pytest.fixture(params=SIZES, ids=str)
def problem(request, device):
    n, d, k = request.param
    if device.name == "emulated" and n * d * k > 300_000:
        pytest.skip("takes the emulator too long")
    rng = np.random.default_rng(n + d + k)
    return numbers(rng, n, d), numbers(rng, k, d) / np.float32(np.sqrt(d)), numbers(rng, k), numbers(rng, n, k)


def as_image(array):
    return array.reshape(array.shape[0], 1, 1, -1)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_forward(device, problem, relu, with_bias):
    x, w, b, _ = problem
    expected = x.astype(np.float64) @ w.T.astype(np.float64) + (b if with_bias else 0)
    expected = np.maximum(expected, 0) if relu else expected
    bias = device.array(b) if with_bias else None
    y = ops.conv2d(device.array(as_image(x)), device.array(as_image(w)), bias, relu=relu)
    assert_close(y.reshape(expected.shape), expected)


def test_data_gradient(device, problem):
    _, w, _, dy = problem
    expected = dy.astype(np.float64) @ w.astype(np.float64)
    dx = ops.conv_transpose2d(device.array(as_image(dy)), device.array(as_image(w)), output_size=1)
    assert_close(dx.reshape(expected.shape), expected)


def test_weight_gradient(device, problem):
    x, _, _, dy = problem
    expected = dy.T.astype(np.float64) @ x.astype(np.float64)
    dw = ops.conv2d_weight_grad(device.array(as_image(x)), device.array(as_image(dy)), kernel_size=1)
    assert_close(dw.reshape(expected.shape), expected, WEIGHT_GRAD)


def test_filter_as_large_as_the_image(device):
    """The same product where the depth has more than one pixel, and a stride that has nothing to step over."""
    rng = np.random.default_rng(5)
    x, w, dy = numbers(rng, 3, 4, 5, 6), numbers(rng, 9, 4, 5, 6), numbers(rng, 3, 1, 1, 9)
    flat = x.reshape(3, -1).astype(np.float64), w.reshape(9, -1).astype(np.float64), dy.reshape(3, 9).astype(np.float64)
    arrays = [device.array(array) for array in (x, w, dy)]
    y = ops.conv2d(arrays[0], arrays[1], stride=3)
    assert_close(y.reshape(3, 9), flat[0] @ flat[1].T)
    dx = ops.conv_transpose2d(arrays[2], arrays[1], stride=3, output_size=(4, 5))
    assert_close(dx.reshape(3, -1), flat[2] @ flat[1])
    dw = ops.conv2d_weight_grad(arrays[0], arrays[2], kernel_size=(4, 5), stride=3)
    assert_close(dw.reshape(9, -1), flat[2].T @ flat[0], WEIGHT_GRAD)


@pytest.mark.parametrize(("n", "h", "w"), [(1, 7, 7), (2, 4, 8), (1, 1, 5), (5, 3, 5)])  # up to 64 pixels, and more
def test_pixels_of_one_by_one_filters(device, n, h, w):
    rng = np.random.default_rng(7)
    x, filters, b, dy = numbers(rng, n, h, w, 133), numbers(rng, 70, 133), numbers(rng, 70), numbers(rng, n, h, w, 70)
    expected = x.astype(np.float64) @ filters.T.astype(np.float64) + b
    arrays = [device.array(array) for array in (x, as_image(filters), b, dy)]
    assert_close(ops.conv2d(*arrays[:3]), expected)
    assert_close(ops.conv2d(*arrays[:3], relu=True), np.maximum(expected, 0))
    dx = ops.conv_transpose2d(arrays[3], arrays[1], output_size=(h, w))
    assert_close(dx, dy.astype(np.float64) @ filters.astype(np.float64))


def test_nan_and_infinity_pass(device):
    x, w = np.zeros((2, 40), np.float32), np.ones((3, 40), np.float32)
    x[0, 17] = np.nan
    x[1, 39] = np.inf
    y = device.numpy(ops.conv2d(device.array(as_image(x)), device.array(as_image(w)), relu=True)).reshape(2, 3)
    assert np.isnan(y[0]).all()
    assert np.isposinf(y[1]).all()


def test_large_weight_gradient_goes_past_the_caches(device):
    if device.name == "emulated":
        pytest.skip("takes the emulator too long")
    rng = np.random.default_rng(6)
    x, dy = numbers(rng, 5, 2064), numbers(rng, 5, 2090)  # more than 16 MB of weights, rows not of whole runs
    dw = ops.conv2d_weight_grad(device.array(as_image(x)), device.array(as_image(dy)), kernel_size=1)
    expected = dy.T.astype(np.float64) @ x.astype(np.float64)
    assert_close(dw.reshape(expected.shape), expected, WEIGHT_GRAD)
