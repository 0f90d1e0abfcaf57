"""Groups, dilation, padding of four sides and ceil_mode against PyTorch in float64, on random geometries."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")

from tests.accuracy import WEIGHT_GRAD, assert_close  # noqa: E402
from zfcuda import backends, ops  # noqa: E402

functional = torch.nn.functional


def nchw(array):
    return torch.tensor(np.asarray(array, np.float64)).permute(0, 3, 1, 2)


def nhwc(tensor):
    return tensor.detach().permute(0, 2, 3, 1).numpy()


def pair(rng, low, high):
    return tuple(int(v) for v in rng.integers(low, high, 2))


@pytest.fixture(params=["cpu", "emulated"])
def backend(request):
    with backends.use(request.param):
        yield request.param


@pytest.mark.parametrize("seed", range(40))
def test_convolutions(seed, backend):
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2, 3, 4]))
    channels, maps = (groups * int(rng.integers(1, 5)) for _ in range(2))
    if rng.random() < 0.3:
        groups, maps = channels, channels * int(rng.integers(1, 3))
    kernel, stride, dilation = pair(rng, 1, 4), pair(rng, 1, 4), pair(rng, 1, 4)
    sides = tuple(int(v) for v in rng.integers(0, 4, 4))
    padding = sides if rng.random() < 0.6 else sides[:2]
    around = sides if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])
    size = tuple((k - 1) * d + 1 + int(rng.integers(0, 9)) for k, d in zip(kernel, dilation, strict=True))
    x = rng.standard_normal((int(rng.integers(1, 4)), *size, channels), np.float32)
    w = rng.standard_normal((maps, *kernel, channels // groups), np.float32)
    b = rng.standard_normal(maps, np.float32)
    geometry = {"stride": stride, "padding": padding, "groups": groups, "dilation": dilation}
    theirs, filters = nchw(x).requires_grad_(), nchw(w).requires_grad_()
    fit = functional.pad(theirs, (around[2], around[3], around[0], around[1]))
    expected = functional.conv2d(fit, filters, torch.tensor(b).double(), stride, 0, dilation, groups)
    y = ops.conv2d(x, w, b, **geometry)
    assert_close(y, nhwc(expected), what=geometry)
    out = np.full_like(y, np.nan)
    assert ops.conv2d(x, w, b, relu=True, out=out, **geometry) is out
    assert_close(out, np.maximum(nhwc(expected), 0), what=geometry)
    dy = rng.standard_normal(y.shape, np.float32)
    expected.backward(nchw(dy))
    out = np.full_like(x, np.nan)
    assert ops.conv_transpose2d(dy, w, output_size=size, out=out, **geometry) is out
    assert_close(out, nhwc(theirs.grad), what=geometry)
    out = np.full_like(w, np.nan)
    assert ops.conv2d_weight_grad(x, dy, kernel_size=kernel, out=out, **geometry) is out
    assert_close(out, nhwc(filters.grad), WEIGHT_GRAD, what=geometry)


@pytest.mark.parametrize("seed", range(40))
def test_pools(seed, backend):
    rng = np.random.default_rng(seed)
    window, stride = pair(rng, 1, 6), pair(rng, 1, 6)
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in window)
    geometry = {"window": window, "stride": stride, "padding": padding, "ceil_mode": True}
    x = rng.standard_normal((2, *pair(rng, 5, 13), 3), np.float32)
    theirs = nchw(x).requires_grad_()
    expected = functional.max_pool2d(theirs, window, stride, padding, ceil_mode=True)
    y, switches = ops.max_pool2d(x, **geometry)
    np.testing.assert_array_equal(y, nhwc(expected).astype(np.float32))
    dy = rng.standard_normal(y.shape, np.float32)
    expected.backward(nchw(dy))
    out = np.full_like(x, np.nan)
    assert ops.max_unpool2d(dy, switches, output_size=x.shape[1:3], out=out, **geometry) is out
    assert_close(out, nhwc(theirs.grad), what=geometry)


def test_a_pool_padded_on_four_sides():
    x = -1 - np.arange(20, dtype=np.float32).reshape(1, 4, 5, 1)
    y, switches = ops.max_pool2d(x, window=2, stride=2, padding=(0, 1, 1, 0))
    np.testing.assert_array_equal(y[0, :, :, 0], [[-1, -2, -4], [-11, -12, -14]])
    np.testing.assert_array_equal(switches[0, 0, :, 0], [1, 0, 0])
    back = ops.max_unpool2d(y, switches, window=2, stride=2, padding=(0, 1, 1, 0), output_size=(4, 5))
    np.testing.assert_array_equal(back[0, 0, :, 0], [-1, -2, 0, -4, 0])


def test_bfloat16():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, np.float32) for shape in ((2, 9, 8, 6), (4, 3, 3, 3)))
    x, w = ops.cast(x, backends.BFLOAT16), ops.cast(w, backends.BFLOAT16)
    geometry = {"padding": (1, 0, 2, 1), "groups": 2, "dilation": 2}
    y = ops.conv2d(x, w, **geometry)
    assert y.dtype == backends.BFLOAT16
    wide = ops.conv2d(ops.cast(x, np.float32), ops.cast(w, np.float32), **geometry)
    np.testing.assert_allclose(ops.cast(y, np.float32), wide, rtol=2**-8, atol=1e-2)
    pooled, _ = ops.max_pool2d(x, window=2, stride=2, ceil_mode=True)
    assert pooled.dtype == backends.BFLOAT16
    assert pooled.shape == (2, 5, 4, 6)


@pytest.mark.parametrize(
    ("error", "message", "geometry"),
    [
        (ValueError, "w has 3 input channels .* in 3 groups, but x has 6", {"groups": 3}),
        (ValueError, "groups must be at least 1", {"groups": 0}),
        (TypeError, "groups must be an int, got True", {"groups": True}),
        (ValueError, "dilation height must be at least 1, got 0", {"groups": 2, "dilation": 0}),
        (TypeError, "dilation must be an int", {"groups": 2, "dilation": 1.5}),
        (ValueError, "padding left must be at least 0, got -1", {"groups": 2, "padding": (0, 0, -1, 0)}),
        (
            TypeError,
            r"padding must be an int, \(height, width\) or \(top, bottom, left, right\)",
            {"padding": (1, 2, 3)},
        ),
        (ValueError, "larger than the padded input", {"groups": 2, "dilation": 9}),
    ],
)
def test_what_is_no_convolution(error, message, geometry):
    x, w = np.zeros((1, 8, 8, 6), np.float32), np.zeros((4, 3, 3, 3), np.float32)
    with pytest.raises(error, match=message):
        ops.conv2d(x, w, **({"groups": 2} | geometry))


def test_filters_that_groups_do_not_divide():
    x, w = np.zeros((1, 8, 8, 6), np.float32), np.zeros((5, 3, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"groups must divide .* the output channels, 5; got 2"):
        ops.conv2d(x, w, groups=2)
    with pytest.raises(ValueError, match=r"y must have shape \(1, 8, 8, 4\)"):
        ops.conv_transpose2d(x, w[:4], groups=2, output_size=10)


def test_what_is_no_pool():
    x = np.zeros((1, 8, 8, 6), np.float32)
    for message, geometry in (
        ("must be smaller than the window", {"padding": (0, 3, 0, 0)}),
        ("window height must be at least 1, got 0", {"window": 0, "ceil_mode": True}),
        ("larger than the padded input", {"window": 9}),
    ):
        with pytest.raises(ValueError, match=message):
            ops.max_pool2d(x, **({"window": 3, "stride": 2} | geometry))
