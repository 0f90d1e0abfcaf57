"""Operations whose edges are PyTorch's, against PyTorch: what pools leave out and divide by, NaN, ends of clips."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")

from tests.accuracy import FP32, WEIGHT_GRAD, assert_close  # noqa: E402
from zfcuda import ops  # noqa: E402
from zfcuda.interop.torch import images_from_torch, images_to_torch  # noqa: E402

functional = torch.nn.functional


def tensors(rng, *shape):
    """In float64, and as our array: images as NHWC."""
    tensor = torch.from_numpy(rng.standard_normal(shape, np.float32))
    return tensor.double().requires_grad_(), images_from_torch(tensor.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("seed", range(150))
def test_average_pools(seed):
    rng = np.random.default_rng(seed)
    window = tuple(int(v) for v in rng.integers(1, 6, 2))
    geometry = {
        "stride": tuple(int(v) for v in rng.integers(1, 7, 2)),
        "padding": tuple(int(rng.integers(0, k // 2 + 1)) for k in window),
        "ceil_mode": bool(rng.random() < 0.6),
        "count_include_pad": bool(rng.random() < 0.5),
    }
    x, ours = tensors(rng, 2, 3, *(int(v) for v in rng.integers(5, 13, 2)))
    expected = functional.avg_pool2d(x, window, **geometry)
    y = ops.avg_pool2d(ours, window=window, **geometry)
    assert_close(images_to_torch(y).numpy(), expected.detach().numpy(), what=(window, geometry))
    dy, our_dy = tensors(rng, *expected.shape)
    expected.backward(dy.detach())
    dx = ops.avg_pool2d_grad(our_dy, window=window, **geometry, output_size=ours.shape[1:3])
    assert_close(images_to_torch(dx).numpy(), x.grad.numpy(), what=(window, geometry))


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("geometry", [(3, 1, 1, 1), (3, 2, 1, 1), (5, 1, 4, 2)])
def test_depthwise_convolution(geometry, multiplier):
    kernel, stride, padding, dilation = geometry
    of = {"stride": stride, "padding": padding, "dilation": dilation}
    rng = np.random.default_rng(0)
    (x, our_x), (w, our_w) = tensors(rng, 2, 5, 9, 8), tensors(rng, 5 * multiplier, 1, kernel, kernel)
    expected = functional.conv2d(x, w, groups=5, **of)
    assert_close(images_to_torch(ops.depthwise_conv2d(our_x, our_w, **of)).numpy(), expected.detach().numpy())
    dy, our_dy = tensors(rng, *expected.shape)
    expected.backward(dy.detach())
    dx = ops.depthwise_conv2d_data_grad(our_dy, our_w, **of, output_size=(9, 8), channels=5)
    dw = ops.depthwise_conv2d_weight_grad(our_x, our_dy, **of, kernel_size=kernel)
    assert_close(images_to_torch(dx).numpy(), x.grad.numpy())
    assert_close(images_to_torch(dw).numpy(), w.grad.numpy(), WEIGHT_GRAD)


def test_batch_norm_in_training():
    rng = np.random.default_rng(0)
    x, ours = tensors(rng, 4, 5, 6, 7)
    (weight, our_weight), (bias, our_bias) = (tensors(rng, 5, 1, 1, 1) for _ in range(2))
    our_weight, our_bias = our_weight.ravel(), our_bias.ravel()
    running = torch.zeros(5).double(), torch.ones(5).double()
    expected = functional.batch_norm(x, *running, weight.ravel(), bias.ravel(), training=True, momentum=1.0)
    mean, variance = ops.batch_norm_statistics(ours)
    assert_close(mean, running[0].numpy())
    assert_close(variance * (4 * 6 * 7) / (4 * 6 * 7 - 1), running[1].numpy())  # PyTorch keeps the unbiased one
    y = ops.batch_norm(ours, mean, variance, our_weight, our_bias)
    assert_close(images_to_torch(y).numpy(), expected.detach().numpy())
    dy, our_dy = tensors(rng, *x.shape)
    expected.backward(dy.detach())
    dx, dweight, dbias = ops.batch_norm_grad(our_dy, ours, mean, variance, our_weight)
    assert_close(images_to_torch(dx).numpy(), x.grad.numpy(), FP32)
    assert_close(dweight, weight.grad.numpy().ravel(), WEIGHT_GRAD)
    assert_close(dbias, bias.grad.numpy().ravel(), WEIGHT_GRAD)


ELEMENT_WISE = {
    "relu6": (functional.relu6, lambda x: ops.clip(x, 0, 6), lambda dy, x: ops.clip_grad(dy, x, 0, 6)),
    "hardtanh": (functional.hardtanh, lambda x: ops.clip(x, -1, 1), lambda dy, x: ops.clip_grad(dy, x, -1, 1)),
    "leaky_relu": (
        lambda x: functional.leaky_relu(x, 0.125),
        lambda x: ops.leaky_relu(x, 0.125),
        lambda dy, x: ops.leaky_relu_grad(dy, x, 0.125),
    ),
    "negative leaky_relu": (
        lambda x: functional.leaky_relu(x, -0.5),
        lambda x: ops.leaky_relu(x, -0.5),
        lambda dy, x: ops.leaky_relu_grad(dy, x, -0.5),
    ),
}


@pytest.mark.parametrize("name", ELEMENT_WISE)
def test_element_wise_at_the_edges(name):
    theirs, forward, backward = ELEMENT_WISE[name]
    edges = [0.0, -0.0, 6.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 5.999, 1e-30, -1e-30]
    # In whole vectors: what is left over has another gradient at NaN in PyTorch's hardtanh.
    x = torch.tensor(edges * 16, dtype=torch.float32, requires_grad=True)
    dy = torch.arange(1.0, len(edges) * 16 + 1)
    y = theirs(x)
    y.backward(dy)
    ours = x.detach().numpy()
    np.testing.assert_array_equal(forward(ours), y.detach().numpy())
    np.testing.assert_array_equal(backward(dy.numpy(), ours), x.grad.numpy())


@pytest.mark.parametrize("channels", [1, 5])
def test_prelu(channels):
    rng = np.random.default_rng(1)
    x, ours = tensors(rng, 2, 5, 3, 4)
    with torch.no_grad():
        x[0, 1, 2, 3] = 0.0
    ours[0, 2, 3, 1] = 0.0
    slope = torch.from_numpy(rng.standard_normal(channels, np.float32)).requires_grad_()
    expected = functional.prelu(x, slope.double())
    assert_close(images_to_torch(ops.leaky_relu(ours, slope.detach())).numpy(), expected.detach().numpy())
    dy, our_dy = tensors(rng, *x.shape)
    expected.backward(dy.detach())
    assert_close(images_to_torch(ops.leaky_relu_grad(our_dy, ours, slope.detach())).numpy(), x.grad.numpy())
    assert_close(ops.prelu_weight_grad(our_dy, ours, channels=channels), slope.grad.numpy(), WEIGHT_GRAD)
