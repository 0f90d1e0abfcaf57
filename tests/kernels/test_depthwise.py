"""Depthwise convolution: csrc/kernels/depthwise.cuh and csrc/cpu/depthwise/."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import WEIGHT_GRAD, assert_close, assert_same
from tests.shapes import BF16, ELEMENTS, Depthwise, random_depthwise
from zfcuda import ops


def normal(rng, shape, dtype):
    return rng.standard_normal(shape, dtype=np.float32).astype(dtype)


def check_forward(device, rng, problem, dtype):
    x, w = normal(rng, problem.x, dtype), normal(rng, problem.w, dtype)
    b = None if rng.random() < 0.3 else normal(rng, problem.w[0], np.float32)
    options = problem.options | {"relu": bool(rng.random() < 0.5)}
    y = ops.depthwise_conv2d(device.array(x), device.array(w), None if b is None else device.array(b), **options)
    assert_close(device.numpy(y), oracles.depthwise_conv2d(x, w, b, **options), what=problem)


def check_data_grad(device, rng, problem, dtype):
    y, w = normal(rng, problem.output, dtype), normal(rng, problem.w, dtype)
    options = problem.options | {"output_size": problem.x[1:3], "channels": problem.x[3]}
    x = ops.depthwise_conv2d_data_grad(device.array(y), device.array(w), **options)
    assert_close(device.numpy(x), oracles.depthwise_conv2d_data_grad(y, w, **options), what=problem)


def check_weight_grad(device, rng, problem, dtype):
    x, dy = normal(rng, problem.x, dtype), normal(rng, problem.output, dtype)
    options = problem.options | {"kernel_size": problem.w[1:3]}
    dw = device.numpy(ops.depthwise_conv2d_weight_grad(device.array(x), device.array(dy), **options))
    assert dw.dtype == np.float32
    assert_close(dw, oracles.depthwise_conv2d_weight_grad(x, dy, **options), WEIGHT_GRAD, what=problem)


CHECKS = (check_forward, check_data_grad, check_weight_grad)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_depthwise_conv2d(case, dtype):
    check_forward(case.device, case.rng, random_depthwise(case.rng, case.device.max_size * 4), dtype)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_depthwise_conv2d_data_grad(case, dtype):
    check_data_grad(case.device, case.rng, random_depthwise(case.rng, case.device.max_size * 4), dtype)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_depthwise_conv2d_weight_grad(case, dtype):
    check_weight_grad(case.device, case.rng, random_depthwise(case.rng, case.device.max_size * 4), dtype)


SHAPES = {
    "strips": ((2, 9, 11, 24), 3, 1, 1, 1),
    "strips at stride 2": ((1, 9, 10, 80), 3, 2, 1, 1),
    "rows of five": ((2, 4, 5, 40), 3, 1, 1, 1),
    "two blocks of channels": ((1, 7, 6, 150), 3, 1, 1, 1),
    "two blocks of channels at stride 2": ((2, 7, 6, 150), 3, 2, 0, 1),
    "a row and a column of padding alone": ((1, 6, 7, 20), 3, 2, 2, 1),
    "one pixel": ((1, 1, 1, 16), 3, 1, 1, 1),
    "all in the padding but one": ((1, 1, 1, 3), 3, 4, 5, 1),
    "stride beyond the filter": ((2, 13, 11, 8), 2, 5, 0, 1),
    "dilated": ((1, 11, 10, 8), 3, 1, 3, 3),
    "large filters": ((1, 12, 9, 8), 7, 1, 3, 1),
    "five wide": ((2, 6, 17, 20), 5, 1, 2, 1),
    "five wide at stride 2": ((1, 9, 18, 150), 5, 2, 2, 1),
    "five wide, one pixel": ((2, 1, 1, 17), 5, 1, 2, 1),
    "five wide at stride 2, one pixel": ((1, 1, 1, 16), 5, 2, 2, 1),
    "five wide at stride 3": ((1, 8, 9, 24), 5, 3, 2, 1),
    "five wide, dilated": ((1, 11, 10, 24), 5, 1, 4, 2),
    "five wide, more padding than taps": ((1, 3, 4, 8), 5, 2, 7, 1),
    "five wide without padding": ((1, 6, 33, 16), 5, 1, 0, 1),
    "seven wide": ((1, 7, 7, 150), 7, 1, 3, 1),
    "seven wide, two groups": ((1, 4, 15, 33), 7, 1, 3, 1),
    "seven wide at stride 2": ((2, 10, 15, 40), 7, 2, 3, 1),
    "seven wide at stride 2 from within": ((1, 9, 23, 24), 7, 2, 2, 1),
    "seven wide at stride 3": ((1, 11, 13, 8), 7, 3, 3, 1),
    "seven wide, dilated": ((1, 14, 13, 8), 7, 1, 6, 2),
    "a large map": ((1, 48, 33, 8), 3, 1, 1, 1),  # whose windows a weight gradient sums in several ranges
}


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(device, name, multiplier, dtype):
    x, kernel, stride, padding, dilation = SHAPES[name]
    w = (x[3] * multiplier, kernel, kernel, 1)
    problem = Depthwise(x, w, (stride,) * 2, (padding,) * 4, (dilation,) * 2)
    for check in CHECKS:
        check(device, np.random.default_rng(0), problem, dtype)


@pytest.mark.parametrize(("channels", "multiplier"), [(3, 5), (7, 3), (1, 17), (12, 4), (5, 33)])
def test_several_filters_of_a_channel(device, channels, multiplier):
    """Vectors of results whose channels repeat, some of them cut; nothing is read behind the last pixel."""
    rng = np.random.default_rng(0)
    for size, stride in ((3, 1), (3, 2), (5, 1)):
        w = (channels * multiplier, size, size, 1)
        problem = Depthwise((2, 5, 7, channels), w, (stride,) * 2, (1,) * 4, (1, 1))
        for check in CHECKS:
            check(device, rng, problem, np.float32)


@pytest.mark.parametrize("width", [5, 7])
def test_filters_five_or_seven_wide_of_any_height(device, width):
    rng = np.random.default_rng(0)
    for height, stride, dilation, padding in (
        (1, (1, 1), (1, 1), (0, 0, 3, 1)),
        (3, (2, 1), (2, 1), (1, 2, 0, 4)),
        (2, (3, 2), (2, 1), (2, 0, 1, 2)),
        (4, (1, 2), (3, 1), (5, 6, 4, 3)),
        (width, (2, 2), (1, 1), (9, 9, 0, 9)),
    ):
        problem = Depthwise((2, 8, 19, 21), (21, height, width, 1), stride, padding, dilation)
        for check in CHECKS:
            check(device, rng, problem, np.float32)


def test_results_that_go_past_the_caches(device):
    """On the CPU: more than 16 MB; and arguments that the last-level cache does not keep, more than 20 MB."""
    if device.name == "emulated":
        pytest.skip("a large map")
    rng = np.random.default_rng(0)
    for stride in (1, 2):
        problem = Depthwise((1, 132, 130, 320), (320, 1, 5, 1), (stride,) * 2, (0, 0, 2, 2), (1, 1))
        check_forward(device, rng, problem, np.float32)
        check_data_grad(device, rng, problem, np.float32)
        problem = Depthwise((1, 132, 130, 320), (320, 3, 3, 1), (stride,) * 2, (1,) * 4, (1, 1))
        check_forward(device, rng, problem, np.float32)
        check_data_grad(device, rng, problem, np.float32)
        check_weight_grad(device, rng, problem, np.float32)
        pages = Depthwise((1, 132, 128, 320), (320, 3, 3, 1), (stride,) * 2, (1,) * 4, (1, 1))  # from row to row
        check_forward(device, rng, pages, np.float32)
        check_data_grad(device, rng, pages, np.float32)
        uneven = Depthwise((3, 91, 94, 201), (201, 3, 3, 1), (stride,) * 2, (1,) * 4, (1, 1))
        check_weight_grad(device, rng, uneven, np.float32)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_filters_never_meet_what_is_outside(device, size):
    """Not even as zeros, which would make a NaN of an infinite tap."""
    w = device.array(np.full((8, size, size, 1), np.inf, np.float32))
    x = device.array(np.ones((1, 4, 5, 8), np.float32))
    for stride in (1, 2):
        options = {"stride": stride, "padding": size // 2}
        y = ops.depthwise_conv2d(x, w, **options)
        assert np.isposinf(device.numpy(y)).all()
        y = device.array(np.ones(y.shape, np.float32))
        back = ops.depthwise_conv2d_data_grad(y, w, output_size=(4, 5), **options)
        assert np.isposinf(device.numpy(back)).all()


@pytest.mark.parametrize("size", [3, 5, 7])
def test_what_is_not_finite_reaches_its_windows_alone(device, size):
    x = np.ones((1, 12, 20, 8), np.float32)
    x[0, 6, 9, 3] = np.inf
    w = device.array(np.ones((8, size, size, 1), np.float32))
    for stride in (1, 2):
        options = {"stride": stride, "padding": size // 2}
        y = device.numpy(ops.depthwise_conv2d(device.array(x), w, **options))
        rows, columns = (abs(stride * np.arange(n) - at) <= size // 2 for n, at in ((y.shape[1], 6), (y.shape[2], 9)))
        np.testing.assert_array_equal(np.isposinf(y[0, :, :, 3]), np.outer(rows, columns))
        assert np.isfinite(np.delete(y, 3, axis=3)).all()
        dy = np.ones_like(y)
        dy[0, 3, 4, 3] = np.inf
        back = device.numpy(ops.depthwise_conv2d_data_grad(device.array(dy), w, output_size=(12, 20), **options))
        rows, columns = (abs(np.arange(n) - stride * at) <= size // 2 for n, at in ((12, 3), (20, 4)))
        np.testing.assert_array_equal(np.isposinf(back[0, :, :, 3]), np.outer(rows, columns))
        assert np.isfinite(np.delete(back, 3, axis=3)).all()


def test_what_is_not_finite_meets_no_taps_outside(device):
    """Of a weight gradient: the corner of dy has no product with the taps that lie outside x, and the last column of x
    none with a window that does not exist."""
    x, dy = np.ones((2, 5, 5, 8), np.float32), np.ones((2, 5, 5, 8), np.float32)
    dy[1, 0, 0, 3] = np.inf
    dw = device.numpy(ops.depthwise_conv2d_weight_grad(device.array(x), device.array(dy), kernel_size=3, padding=1))
    assert np.isposinf(dw[3, 1:, 1:]).all()
    assert np.isfinite(np.delete(dw, 3, axis=0)).all()
    assert np.isfinite(dw[3, 0]).all()
    assert np.isfinite(dw[3, :, 0]).all()
    x[1, 4, 4, 3], dy[:] = np.inf, 1
    dw = device.numpy(ops.depthwise_conv2d_weight_grad(device.array(x), device.array(dy), kernel_size=3, padding=1))
    assert np.isposinf(dw[3, 1:, 1:]).all()
    assert np.isfinite(dw[3, 0]).all()


def test_nan_passes_the_relu(device):
    x = np.ones((1, 4, 4, 8), np.float32)
    x[0, 1, 1, 3] = np.nan
    y = device.numpy(ops.depthwise_conv2d(device.array(x), device.array(-np.ones((8, 1, 1, 1), np.float32)), relu=True))
    assert np.isnan(y[0, 1, 1, 3])
    assert np.nansum(y) == 0


def test_out(device):
    x, w = np.ones((1, 4, 4, 3), np.float32), np.ones((3, 1, 1, 1), np.float32)
    out, back = (device.array(np.full(x.shape, np.nan, np.float32)) for _ in range(2))
    assert ops.depthwise_conv2d(device.array(x), device.array(w), out=out) is out
    assert ops.depthwise_conv2d_data_grad(out, device.array(w), output_size=4, out=back) is back
    dw = device.array(np.full(w.shape, np.nan, np.float32))
    assert ops.depthwise_conv2d_weight_grad(out, back, kernel_size=1, out=dw) is dw
    assert_same(device.numpy(back), x)
    assert_same(device.numpy(dw), 16 * w)


X, W = np.zeros((1, 5, 5, 2), np.float32), np.zeros((4, 3, 3, 1), np.float32)


def conv(x=X, w=W, b=None, **options):
    return ops.depthwise_conv2d(x, w, b, **options)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "x must have 4 dimensions", lambda: conv(X[0])),
        (TypeError, "x must be float32 or bfloat16, got float64", lambda: conv(X.astype(float))),
        (TypeError, "w must be float32, got bfloat16", lambda: conv(w=W.astype(BF16))),
        (ValueError, "x is empty", lambda: conv(X[:0])),
        (ValueError, r"w must have 1 input channel \(its last axis\), got 2", lambda: conv(w=W.reshape(2, 3, 3, 2))),
        (ValueError, "output channels must be a multiple of the 2 input channels, got 3", lambda: conv(w=W[:3])),
        (ValueError, r"b must have shape \(4,\), got \(2,\)", lambda: conv(b=X[0, 0, 0])),
        (ValueError, "stride height must be at least 1, got 0", lambda: conv(stride=0)),
        (ValueError, "dilation width must be at least 1, got 0", lambda: conv(dilation=(1, 0))),
        (ValueError, "padding at the left must be at least 0, got -1", lambda: conv(padding=(0, 0, -1, 0))),
        (
            ValueError,
            r"kernel width 3 at dilation 4 is larger than the padded input, 1 \+ 5 \+ 2",
            lambda: conv(dilation=(1, 4), padding=(0, 0, 1, 2)),
        ),
        (ValueError, "dilation height must be at most 16777216", lambda: conv(dilation=(2**31 - 1, 1))),
        (ValueError, "padding at the top must be at most 16777216", lambda: conv(padding=(2**30, 0, 0, 0))),
        (ValueError, "y has 1 x 33554435 x 33554435 x 4 elements", lambda: conv(padding=2**24)),
        (ValueError, "share memory", lambda: conv(w=W[:2, :1, :1], out=X)),
        (
            ValueError,
            r"y must have shape \(1, 6, 6, 2\), got \(1, 5, 5, 2\)",
            lambda: ops.depthwise_conv2d_data_grad(X, W[:2], output_size=8),
        ),
        (
            ValueError,
            "output channels must be a multiple of the 3 input channels, got 4",
            lambda: ops.depthwise_conv2d_data_grad(X, W, output_size=7, channels=3),
        ),
        (
            ValueError,
            "input channels must be at least 1, got 0",
            lambda: ops.depthwise_conv2d_data_grad(X, W, output_size=7, channels=0),
        ),
        (
            ValueError,
            r"dy must have shape \(1, 3, 3, 2\), got \(1, 5, 5, 2\)",
            lambda: ops.depthwise_conv2d_weight_grad(X, X, kernel_size=3),
        ),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
