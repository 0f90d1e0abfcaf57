"""bfloat16 at the border: which arrays are taken for it, and what an operation makes of them on any backend."""

import ml_dtypes
import numpy as np
import pytest

from tests import oracles
from tests.accuracy import WEIGHT_GRAD, assert_close
from zfcuda import backends, ops

BF16 = ml_dtypes.bfloat16
CONV = {"stride": 2, "padding": 1}
POOL = {"window": 3, "pool_stride": 2, "pool_padding": 1}


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32).astype(BF16)


def wide(array):
    return array.astype(np.float32)


X, W, B = normal(2, 9, 8, 5), normal(4, 3, 3, 5), wide(normal(4))
DEPTHWISE = normal(5, 3, 3, 1)
OF_CHANNELS = np.abs(wide(normal(4, 5)))  # mean, variance, weight, bias
DY = normal(2, 5, 4, 4)  # of conv2d(X, W)
POOLED, SWITCHES = oracles.max_pool2d(wide(DY), window=(3, 3), stride=(2, 2), padding=(1, 1))
POOLED = POOLED.astype(BF16)

# Each operation: a call with arrays made by `to`, and the dtypes of its results.
CALLS = {
    "conv2d": (lambda to: ops.conv2d(to(X), to(W), B, relu=True, **CONV), BF16),
    "conv_transpose2d": (lambda to: ops.conv_transpose2d(to(DY), to(W), output_size=(9, 8), **CONV), BF16),
    "conv2d_weight_grad": (lambda to: ops.conv2d_weight_grad(to(X), to(DY), kernel_size=3, **CONV), np.float32),
    "conv2d_bias_grad": (lambda to: ops.conv2d_bias_grad(to(DY)), np.float32),
    "max_pool2d": (lambda to: ops.max_pool2d(to(X), window=3, stride=2)[0], BF16),
    "max_unpool2d": (
        lambda to: ops.max_unpool2d(to(POOLED), SWITCHES, window=3, stride=2, padding=1, output_size=(5, 4)),
        BF16,
    ),
    "spatial_max": (lambda to: ops.spatial_max(to(X))[0], BF16),
    "conv2d_relu_pool": (lambda to: ops.conv2d_relu_pool(to(X), to(W), B, **CONV, **POOL)[0], BF16),
    "unpool_conv_transpose2d": (
        lambda to: ops.unpool_conv_transpose2d(to(POOLED), SWITCHES, to(W), output_size=(9, 8), **CONV, **POOL),
        BF16,
    ),
    "unpool_conv2d_weight_grad": (
        lambda to: ops.unpool_conv2d_weight_grad(to(X), to(POOLED), SWITCHES, kernel_size=3, **CONV, **POOL),
        np.float32,
    ),
    "add": (lambda to: ops.add(to(X), to(X[::-1]), relu=True), BF16),
    "avg_pool2d": (lambda to: ops.avg_pool2d(to(X), window=3, stride=2, padding=1), BF16),
    "avg_pool2d_grad": (
        lambda to: ops.avg_pool2d_grad(to(DY), window=3, stride=2, padding=1, output_size=(9, 8)),
        BF16,
    ),
    "depthwise_conv2d": (lambda to: ops.depthwise_conv2d(to(X), to(DEPTHWISE), OF_CHANNELS[0], **CONV), BF16),
    "depthwise_conv2d_data_grad": (
        lambda to: ops.depthwise_conv2d_data_grad(to(X), to(DEPTHWISE), padding=1, output_size=(9, 8)),
        BF16,
    ),
    "depthwise_conv2d_weight_grad": (
        lambda to: ops.depthwise_conv2d_weight_grad(to(X), to(X[::-1]), kernel_size=3, padding=1),
        np.float32,
    ),
    "batch_norm": (lambda to: ops.batch_norm(to(X), *OF_CHANNELS), BF16),
    "batch_norm_statistics": (lambda to: ops.batch_norm_statistics(to(X))[1], np.float32),
    "batch_norm_grad": (lambda to: ops.batch_norm_grad(to(X), to(X[::-1]), *OF_CHANNELS[:3])[0], BF16),
    "clip": (lambda to: ops.clip(to(X), 0.0, 1.0), BF16),
    "clip_grad": (lambda to: ops.clip_grad(to(X), to(X[::-1]), 0.0, 1.0), BF16),
    "leaky_relu": (lambda to: ops.leaky_relu(to(X), OF_CHANNELS[0]), BF16),
    "leaky_relu_grad": (lambda to: ops.leaky_relu_grad(to(X), to(X[::-1]), 0.1), BF16),
    "prelu_weight_grad": (lambda to: ops.prelu_weight_grad(to(X), to(X[::-1]), channels=5), np.float32),
    "copy_channels": (lambda to: ops.copy_channels(to(X), to(X[::-1].copy()), source=1, target=2, channels=3), BF16),
    "permute_channels": (lambda to: ops.permute_channels(to(X), [4, 2, 0, 1, 3]), BF16),
    "relu": (lambda to: ops.relu(to(X)), BF16),
    "relu_grad": (lambda to: ops.relu_grad(to(X), to(X[::-1])), BF16),
    "dropout": (lambda to: ops.dropout(to(X), probability=0.5, seed=1), BF16),
    "local_response_norm": (lambda to: ops.local_response_norm(to(X), alpha=1.0), BF16),
    "local_response_norm_grad": (lambda to: ops.local_response_norm_grad(to(X), to(X[::-1]), alpha=1.0), BF16),
}


@pytest.fixture(params=backends.HOST_BACKENDS)
def host(request):
    if reason := backends.status()[request.param]:
        pytest.skip(f"{request.param}: {reason}")
    with backends.use(request.param):
        yield


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(("call", "dtype"), CALLS.values(), ids=CALLS.keys())
def test_is_the_float32_operation_with_a_rounded_result(call, dtype):
    result, expected = call(lambda array: array), call(wide)
    assert result.dtype == dtype
    assert_close(result, expected, WEIGHT_GRAD)


@pytest.mark.usefixtures("host")
def test_results_are_rounded_to_nearest_even():
    x = np.array([2.0, 2.0 + 2**-6], BF16).reshape(1, 2, 1, 1)  # neighbours
    y = ops.conv2d(x, np.ones((1, 1, 1, 1), BF16), np.full(1, 2**-7, np.float32))  # half of the way to the next
    np.testing.assert_array_equal(wide(y).ravel(), [2.0, 2.0 + 2**-5])


def test_out_and_in_place():
    x = X.copy()
    assert ops.relu(x, out=x) is x
    np.testing.assert_array_equal(wide(x), np.maximum(wide(X), 0))
    with pytest.raises(TypeError, match="out must be bfloat16, got float32"):
        ops.relu(X, out=wide(X))
    with pytest.raises(TypeError, match="out must be float32, got bfloat16"):
        ops.conv2d_weight_grad(X, DY, kernel_size=3, out=W.copy(), **CONV)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("w must be bfloat16, got float32", lambda: ops.conv2d(X, wide(W), B)),
        ("w must be float32, got bfloat16", lambda: ops.conv2d(wide(X), W, B)),
        ("b must be float32, got bfloat16", lambda: ops.conv2d(X, W, B.astype(BF16))),
        ("y must be bfloat16, got float32", lambda: ops.relu_grad(X, wide(X))),
        ("x must be float32 or bfloat16, got float16", lambda: ops.relu(X.astype(np.float16))),
        ("x must be float32 or bfloat16, got int16", lambda: ops.relu(X.view(np.int16))),
        (r"x must be float32 or bfloat16, got \|V2", lambda: ops.relu(X.view("V2"))),
        ("logits must be float32, got bfloat16", lambda: ops.softmax(X.reshape(-1, 5))),
    ],
)
def test_arrays_of_another_dtype_are_refused(message, call):
    with pytest.raises(TypeError, match=message):
        call()


def test_pytorch_tensors_are_viewed_not_copied():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([[-1.0, 2.0]], dtype=torch.bfloat16)
    _, (viewed,) = backends.resolve(x=tensor)
    assert viewed.dtype == BF16
    assert viewed.ctypes.data == tensor.data_ptr()
    np.testing.assert_array_equal(wide(ops.relu(tensor)), [[0, 2]])


def test_another_librarys_bfloat16_is_refused_where_it_cannot_be_viewed():
    torch = pytest.importorskip("torch")

    class Foreign:
        dtype = "its own bfloat16"

        def __dlpack__(self, **options):
            return torch.zeros(3, dtype=torch.bfloat16).__dlpack__()

        def __dlpack_device__(self):
            return (1, 0)

    with pytest.raises(TypeError, match="x, a Foreign of its own bfloat16, cannot be viewed as an array of numpy"):
        ops.relu(Foreign())
