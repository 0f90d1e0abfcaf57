"""csrc/kernels/conv/ and csrc/cpu/conv/ against float64."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.shapes import BF16, random_conv
from zfcuda import backends, ops


def normal(rng, shape):
    return rng.standard_normal(shape, dtype=np.float32)


def conv2d_to_channels(to, x, w, b, shape, before, after, **options):
    """ops.conv2d of this shape as channels of an array that has these more, which must stay as they are. to: makes
    arrays of a device."""
    wide = to(np.full((*shape[:3], before + shape[3] + after), np.nan, x.dtype))
    out = wide[..., before : before + shape[3]]
    assert ops.conv2d(to(x), to(w), None if b is None else to(b), out=out, **options) is out
    others = np.delete(backends.to_host(wide), np.s_[before : before + shape[3]], -1)
    assert np.isnan(others.astype(np.float32)).all(), "an operation wrote to other channels than its own"
    return out


def test_conv2d(case, arithmetic):
    rng = case.rng
    conv = random_conv(rng, case.device.max_work)
    x, w = arithmetic.normal(rng, conv.x), arithmetic.normal(rng, conv.w)
    b = normal(rng, conv.w[0]) if rng.random() < 0.7 else None
    scale = normal(rng, conv.w[0]) if rng.random() < 0.5 else None
    add = arithmetic.normal(rng, conv.output) if rng.random() < 0.5 else None
    options = {**conv.options, "relu": bool(rng.random() < 0.5)}
    operands = {"b": b, "scale": scale, "add": add}
    device = {name: None if array is None else case.device.array(array) for name, array in operands.items()}
    y = ops.conv2d(case.device.array(x), case.device.array(w), **device, **options, **arithmetic.options)
    exact = oracles.conv2d(x, w, **operands, **options)
    assert_close(y, exact, arithmetic.tolerance, (conv, options, scale is None, add is None))


def test_conv2d_to_channels_of_a_wider_array(case, arithmetic):
    rng = case.rng
    conv = random_conv(rng, case.device.max_work)
    x, w = arithmetic.normal(rng, conv.x), arithmetic.normal(rng, conv.w)
    b = normal(rng, conv.w[0]) if rng.random() < 0.7 else None
    scale = normal(rng, conv.w[0])  # without, a depthwise convolution is another operation
    before, after = (int(n) for n in rng.choice([0, 1, 3, 8, 16], 2))
    options = {**conv.options, "relu": bool(rng.random() < 0.5)}
    asked = {**options, **arithmetic.options, "scale": case.device.array(scale)}
    y = conv2d_to_channels(case.device.array, x, w, b, conv.output, before, after, **asked)
    expected = oracles.conv2d(x, w, b, scale=scale, **options)
    assert_close(y, expected, arithmetic.tolerance, (conv, options, before, after))


def test_conv_transpose2d(case, arithmetic):
    rng = case.rng
    conv = random_conv(rng, case.device.max_work)
    y, w = arithmetic.normal(rng, conv.output), arithmetic.normal(rng, conv.w)
    options = {**conv.options, "output_size": conv.x[1:3]}
    x = ops.conv_transpose2d(case.device.array(y), case.device.array(w), **options, **arithmetic.options)
    assert_close(x, oracles.conv_transpose2d(y, w, **options), arithmetic.tolerance, conv)


def test_conv2d_weight_grad(case, arithmetic):
    rng = case.rng
    conv = random_conv(rng, case.device.max_work)
    x, dy = arithmetic.normal(rng, conv.x), arithmetic.normal(rng, conv.output)
    options = {**conv.options, "kernel_size": conv.w[1:3]}
    dw = ops.conv2d_weight_grad(case.device.array(x), case.device.array(dy), **options, **arithmetic.options)
    assert_close(dw, oracles.conv2d_weight_grad(x, dy, **options), arithmetic.weight_grad_tolerance, conv)


def test_conv2d_bias_grad(case):
    rng = case.rng
    shape = random_conv(rng, case.device.max_work).output
    dy = normal(rng, shape) + 0.5
    db = ops.conv2d_bias_grad(case.device.array(dy))
    assert_close(db, dy.astype(np.float64).sum((0, 1, 2)), what=shape)


def test_bias_grad_of_a_matrix(device):
    dy = normal(np.random.default_rng(0), (37, 10))
    db = ops.conv2d_bias_grad(device.array(dy))
    assert_close(db, dy.astype(np.float64).sum(0), what=dy.shape)


def test_arguments_that_are_not_contiguous(device):
    rng = np.random.default_rng(2)
    x, w = normal(rng, (2, 4, 9, 8)), normal(rng, (3, 4, 3, 3))
    expected = oracles.conv2d(x.transpose(0, 2, 3, 1), w.transpose(0, 2, 3, 1)[..., ::-1])
    y = ops.conv2d(device.array(x).transpose(0, 2, 3, 1), device.array(w).transpose(0, 2, 3, 1)[..., ::-1])
    assert_close(y, expected, what="transposed views")


def test_out(device):
    rng = np.random.default_rng(3)
    x, w = normal(rng, (2, 5, 5, 3)), normal(rng, (4, 3, 3, 3))
    x_, w_ = device.array(x), device.array(w)
    out = device.array(np.full((2, 3, 3, 4), np.nan, np.float32))
    assert ops.conv2d(x_, w_, out=out) is out
    assert_close(out, oracles.conv2d(x, w), what="out=")
    out = device.array(np.full((2, 5, 5, 3), np.nan, np.float32))
    y = normal(rng, (2, 3, 3, 4))
    assert ops.conv_transpose2d(device.array(y), w_, output_size=5, out=out) is out
    assert_close(out, oracles.conv_transpose2d(y, w, output_size=(5, 5)), what="out=")


X, W = np.zeros((2, 6, 5, 3), np.float32), np.zeros((4, 3, 3, 3), np.float32)
Y = np.zeros((2, 4, 3, 4), np.float32)
WIDE, WIDE_ROWS = np.zeros((2, 4, 3, 8), np.float32), np.zeros((2, 4, 5, 4), np.float32)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "x must have 4 dimensions", lambda: ops.conv2d(X[0], W)),
        (ValueError, "w must have 4 dimensions", lambda: ops.conv2d(X, W[0])),
        (TypeError, "x must be float32 or bfloat16, got float64", lambda: ops.conv2d(X.astype(float), W)),
        (TypeError, "w must be float32, got int32", lambda: ops.conv2d(X, W.astype(np.int32))),
        (TypeError, "x must be a NumPy or CuPy array", lambda: ops.conv2d(X.tolist(), W)),
        (ValueError, "w has 2 input channels", lambda: ops.conv2d(X, W[..., :2])),
        (ValueError, "x is empty", lambda: ops.conv2d(X[:0], W)),
        (ValueError, "stride height must be at least 1, got 0", lambda: ops.conv2d(X, W, stride=0)),
        (ValueError, "stride width must be at least 1, got -2", lambda: ops.conv2d(X, W, stride=(1, -2))),
        (ValueError, "padding height must be at least 0, got -1", lambda: ops.conv2d(X, W, padding=-1)),
        (ValueError, "padding bottom must be at least 0, got -1", lambda: ops.conv2d(X, W, padding=(1, -1, 0, 0))),
        (ValueError, "kernel width 3 is larger than the padded input", lambda: ops.conv2d(X[:, :, :2], W)),
        (ValueError, "padding height must be at most 16777216", lambda: ops.conv2d(X, W, padding=(2**31 - 1, 0))),
        (ValueError, "stride width must be at most 16777216", lambda: ops.conv2d(X, W, stride=(1, 2**31 - 1))),
        (ValueError, "an image with its padding has .* elements", lambda: ops.conv2d(X, W, padding=2**24)),
        (ValueError, "output_size is out of range", lambda: ops.conv_transpose2d(Y, W, output_size=2**31)),
        (ValueError, "at most", lambda: ops.conv2d(np.broadcast_to(X[:1, :1, :1], (2**20, 2**20, 1, 3)), W)),
        (ValueError, "dilation height must be at least 1, got 0", lambda: ops.conv2d(X, W, dilation=0)),
        (ValueError, "dilation width must be at most", lambda: ops.conv2d(X, W, dilation=(1, 2**31 - 1))),
        (ValueError, "kernel height, dilated, 7 is larger than the padded", lambda: ops.conv2d(X, W, dilation=3)),
        (TypeError, "dilation must be an int or", lambda: ops.conv2d(X, W, dilation=None)),
        (ValueError, "w has 3 input channels .* in 2 groups, but x has 3", lambda: ops.conv2d(X, W, groups=2)),
        (ValueError, "groups must divide .* 3, .* 4; got 3", lambda: ops.conv2d(X, W[..., :1], groups=3)),
        (ValueError, "groups must be at least 1", lambda: ops.conv2d(X, W, groups=0)),
        (TypeError, "groups must be an int, got True", lambda: ops.conv2d(X, W, groups=True)),
        (TypeError, "groups must be an int, got 3.0", lambda: ops.conv2d(X, W[:3, ..., :1], groups=3.0)),
        (
            ValueError,
            "groups must divide the channels of x, 3, got 2",
            lambda: ops.conv2d_weight_grad(X, Y, kernel_size=3, groups=2),
        ),
        (TypeError, "stride must be an int or", lambda: ops.conv2d(X, W, stride=1.5)),
        (TypeError, "stride must be an int or", lambda: ops.conv2d(X, W, stride=True)),
        (
            TypeError,
            r"padding must be an int, \(height, width\) or",
            lambda: ops.conv2d(X, W, padding=(1, 2, 3)),
        ),
        (ValueError, "stride is out of range", lambda: ops.conv2d(X, W, stride=2**40)),
        (ValueError, r"b must have shape \(4,\)", lambda: ops.conv2d(X, W, W[0, 0, 0])),
        (ValueError, "b must have 1 dim", lambda: ops.conv2d(X, W, W)),
        (ValueError, r"scale must have shape \(4,\)", lambda: ops.conv2d(X, W, scale=W[0, 0, 0])),
        (TypeError, "scale must be float32, got float64", lambda: ops.conv2d(X, W, scale=np.ones(4))),
        (
            ValueError,
            r"add must have shape \(2, 4, 3, 4\), got \(2, 4, 3, 3\)",
            lambda: ops.conv2d(X, W, add=Y[..., :3]),
        ),
        (ValueError, r"add must have shape \(2, 4, 3, 4\)", lambda: ops.conv2d(X, W, add=Y[:1])),
        (ValueError, "add must have 4 dimensions", lambda: ops.conv2d(X, W, add=Y[0])),
        (TypeError, "add must be float32, got float64", lambda: ops.conv2d(X, W, add=Y.astype(float))),
        (TypeError, "add must be float32, got bfloat16", lambda: ops.conv2d(X, W, add=Y.astype(BF16))),
        (TypeError, "add must be a NumPy or CuPy array", lambda: ops.conv2d(X, W, add=1.0)),
        (ValueError, "out must not share memory", lambda: ops.conv2d(X, W, add=Y, out=Y)),
        (ValueError, "out must have shape", lambda: ops.conv2d(X, W, out=X.copy())),
        (TypeError, "out must be float32", lambda: ops.conv2d(X, W, out=Y.astype(np.float64))),
        (
            ValueError,
            "out must be C-contiguous",
            lambda: ops.conv2d(X, W, out=np.zeros((2, 3, 4, 4), np.float32).transpose(0, 2, 1, 3)),
        ),
        (ValueError, "out must be C-contiguous or channels of a wider", lambda: ops.conv2d(X, W, out=WIDE[..., ::2])),
        (ValueError, "out must be C-contiguous or channels of", lambda: ops.conv2d(X, W, out=WIDE[..., 3::-1])),
        (ValueError, "out must be C-contiguous or channels of", lambda: ops.conv2d(X, W, out=WIDE_ROWS[:, :, :3])),
        (ValueError, "out must have shape", lambda: ops.conv2d(X, W, out=WIDE[..., :5])),
        (TypeError, "out must be float32, got float64", lambda: ops.conv2d(X, W, out=WIDE.astype(float)[..., 2:6])),
        (ValueError, "out is read-only", lambda: ops.conv2d(X, W, out=np.broadcast_to(WIDE, WIDE.shape)[..., 2:6])),
        (ValueError, "out must not share", lambda: ops.conv2d(X, W, WIDE.ravel()[8:12], out=WIDE[..., 2:6])),
        (ValueError, "out must be C-contiguous where", lambda: ops.conv2d(X, W, add=Y, out=WIDE[..., :4])),
        (
            ValueError,
            "out must be C-contiguous, since",
            lambda: ops.conv2d(X, W[:3, ..., :1], groups=3, out=WIDE[..., :3]),
        ),
        (ValueError, "y must have shape", lambda: ops.conv_transpose2d(Y, W, output_size=9)),
        (ValueError, "kernel height", lambda: ops.conv_transpose2d(Y, W, output_size=2)),
        (ValueError, "dy must have shape", lambda: ops.conv2d_weight_grad(X, Y, kernel_size=2)),
        (ValueError, "kernel height must be at least 1", lambda: ops.conv2d_weight_grad(X, Y, kernel_size=0)),
        (ValueError, "dy must have 2 dimensions or more", lambda: ops.conv2d_bias_grad(Y[0, 0, 0])),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()


OPTIONS = {"stride": 1, "padding": 0}
BLOCK = OPTIONS | {"window": 2, "pool_stride": 2}
SWITCHES = np.zeros((2, 2, 1, 4), np.uint8)
WITH_PRECISION = {
    "conv2d": lambda a, **o: ops.conv2d(a(X), a(W), **OPTIONS, **o),
    "conv_transpose2d": lambda a, **o: ops.conv_transpose2d(a(Y), a(W), output_size=(6, 5), **OPTIONS, **o),
    "conv2d_weight_grad": lambda a, **o: ops.conv2d_weight_grad(a(X), a(Y), kernel_size=3, **OPTIONS, **o),
    "conv2d_relu_pool": lambda a, **o: ops.conv2d_relu_pool(a(X), a(W), None, **BLOCK, **o),
    "unpool_conv_transpose2d": lambda a, **o: ops.unpool_conv_transpose2d(
        a(Y[:, :2, :1]), SWITCHES, a(W), output_size=(6, 5), **BLOCK, **o
    ),
    "unpool_conv2d_weight_grad": lambda a, **o: ops.unpool_conv2d_weight_grad(
        a(X), a(Y[:, :2, :1]), SWITCHES, kernel_size=3, **BLOCK, **o
    ),
}


@pytest.mark.parametrize("name", WITH_PRECISION)
def test_wrong_precision(name):
    call = WITH_PRECISION[name]
    call(np.asarray, precision="tf32")
    with pytest.raises(ValueError, match="precision must be fp32 or tf32, got 'bf16'"):
        call(np.asarray, precision="bf16")
    with pytest.raises(ValueError, match=r"precision tf32 is for float32 arrays, but [xy] is bfloat16"):
        call(lambda array: array.astype(BF16), precision="tf32")


def test_out_must_not_be_an_input():
    x = np.zeros((1, 3, 3, 2), np.float32)
    w = np.zeros((2, 1, 1, 2), np.float32)
    with pytest.raises(ValueError, match="share memory"):
        ops.conv2d(x, w, out=x)


def test_read_only_out():
    out = np.zeros((2, 4, 3, 4), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        ops.conv2d(X, W, out=out)


def test_arrays_too_large_to_index():
    module = backends.get("cpu").module
    with pytest.raises(ValueError, match="at most 2147418112"):
        module.ConvShape((3, 30000, 30000, 1), (1, 1, 1, 1), (1, 1), (0, 0))
