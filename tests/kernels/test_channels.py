"""Copies of channels, and channels in another order: csrc/kernels/channels.cuh and csrc/cpu/channels.cpp."""

import numpy as np
import pytest

from tests.shapes import BF16, CHANNELS, ELEMENTS
from zfcuda import ops


def numbers(rng, shape, dtype):
    x = rng.standard_normal(shape, np.float32).astype(dtype)
    x[rng.random(shape) < 0.1] = np.nan  # moved like any other bits
    return x


def random_rows(rng):
    return tuple(int(v) for v in rng.integers(1, 8, int(rng.integers(0, 4))))


def assert_same_bits(result, expected):
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_copy_channels(case, dtype):
    rng, to = case.rng, case.device.array
    rows = random_rows(rng)
    if rng.random() < 0.3:  # in whole vectors
        channels, source, target, after_x, after_out = (8 * int(v) for v in rng.integers((1, 0, 0, 0, 0), 4))
    else:
        channels = int(rng.choice(CHANNELS))
        source, target, after_x, after_out = (int(v) for v in rng.integers(0, 9, 4))
    x = numbers(rng, (*rows, source + channels + after_x), dtype)
    before = numbers(rng, (*rows, target + channels + after_out), dtype)
    out = to(before.copy())
    count = {} if after_x == 0 else {"channels": channels}
    assert ops.copy_channels(to(x), out, source=source, target=target, **count) is out
    expected = before.copy()
    expected[..., target : target + channels] = x[..., source : source + channels]
    assert_same_bits(case.device.numpy(out), expected)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_permute_channels(case, dtype):
    rng, to = case.rng, case.device.array
    x = numbers(rng, (*random_rows(rng), int(rng.choice(CHANNELS))), dtype)
    order = rng.permutation(x.shape[-1])
    y = ops.permute_channels(to(x), to(order.astype(np.int32)) if rng.random() < 0.5 else order.tolist())
    assert_same_bits(case.device.numpy(y), np.take(x, order, -1))


def test_concatenation_of_a_large_batch_and_back(device):
    """So large that it goes past the caches."""
    shape = (2, 9, 9) if device.name == "emulated" else (8, 128, 128)
    parts = [np.random.default_rng(i).standard_normal((*shape, 16 * (i + 1)), np.float32) for i in range(2)]
    out = device.array(np.full((*shape, 48), np.nan, np.float32))
    ops.copy_channels(device.array(parts[0]), out)
    ops.copy_channels(device.array(parts[1]), out, target=16)
    assert_same_bits(device.numpy(out), np.concatenate(parts, -1))
    back = ops.copy_channels(out, device.array(np.empty_like(parts[1])), source=16)
    assert_same_bits(device.numpy(back), parts[1])


X, OUT = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3, 6), np.float32)
LARGE = np.broadcast_to(np.float32(0), (2**16, 2**15))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "x must be float32 or bfloat16, got float64", lambda: ops.copy_channels(X.astype(float), OUT)),
        (TypeError, "out must be float32, got bfloat16", lambda: ops.copy_channels(X, OUT.astype(BF16))),
        (
            ValueError,
            r"out must have shape \(2, 3, 6\), got \(3, 2, 6\)",
            lambda: ops.copy_channels(X, OUT.reshape(3, 2, 6)),
        ),
        (ValueError, "out must have shape", lambda: ops.copy_channels(X, OUT[0, 0])),
        (
            ValueError,
            "out must be C-contiguous",
            lambda: ops.copy_channels(X, np.zeros((2, 3, 12), np.float32)[..., ::2]),
        ),
        (ValueError, "share memory", lambda: ops.copy_channels(X, X)),
        (ValueError, "x must have 1 dimension or more", lambda: ops.copy_channels(X[0, 0, 0, ...], OUT)),
        (
            ValueError,
            "source 2 and channels 3 must name channels of x, which has 4",
            lambda: ops.copy_channels(X, OUT, source=2, channels=3),
        ),
        (ValueError, "source 4 and channels 0 must name channels of x", lambda: ops.copy_channels(X, OUT, source=4)),
        (ValueError, "source -1 and channels 5", lambda: ops.copy_channels(X, OUT, source=-1)),
        (
            ValueError,
            "target 3 and channels 4 must name channels of out, which has 6",
            lambda: ops.copy_channels(X, OUT, target=3),
        ),
        (TypeError, "source must be an int, got 1.0", lambda: ops.copy_channels(X, OUT, source=1.0)),
        (ValueError, "x has 2147483648 elements; at most 2147483647", lambda: ops.copy_channels(LARGE, OUT)),
        (ValueError, "out has 2147483648 elements; at most 2147483647", lambda: ops.copy_channels(X, LARGE)),
        (ValueError, "x has 2147483648 elements; at most 2147483647", lambda: ops.permute_channels(LARGE, [0])),
        (
            ValueError,
            r"order must be a permutation of 0 .. 3, got \[0, 1, 1, 3\]",
            lambda: ops.permute_channels(X, [0, 1, 1, 3]),
        ),
        (ValueError, "order must be a permutation", lambda: ops.permute_channels(X, np.arange(1, 5, dtype=np.int32))),
        (ValueError, "order must be a permutation", lambda: ops.permute_channels(X, [0, 1, 2])),
        (ValueError, r"order must have shape \(4,\)", lambda: ops.permute_channels(X, np.arange(5, dtype=np.int32))),
        (TypeError, "order must be int32, got int64", lambda: ops.permute_channels(X, np.arange(4))),
        (TypeError, "order must be an int, got 2.0", lambda: ops.permute_channels(X, [0, 1, 2.0, 3])),
        (ValueError, "share memory", lambda: ops.permute_channels(X, [0, 1, 2, 3], out=X)),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
