"""ZFNet at 224 x 224 against PyTorch: logits, and projections of every block by the three rules.

PyTorch's network is written here from the paper, with a ReLU whose backward pass is the rule; it shares no code with
zfcuda. Pools put gradients that meet together, which is unpooling with switches.
"""

import numpy as np
import pytest

from tests.accuracy import assert_close
from zfcuda import models
from zfcuda.nn.layers import RULES

torch = pytest.importorskip("torch")
functional = torch.nn.functional


class Rectifier(torch.autograd.Function):
    """ReLU, whose backward pass masks, rectifies, or both."""

    @staticmethod
    def forward(context, x, rule):
        context.save_for_backward(x)
        context.rule = rule
        return x.clamp(min=0)

    @staticmethod
    def backward(context, signal):
        (x,) = context.saved_tensors
        if context.rule != "deconvnet":
            signal = signal * (x > 0)
        return signal if context.rule == "gradient" else signal.clamp(min=0), None


class SkippedNorm(torch.autograd.Function):
    """Local response normalisation that the way down skips."""

    @staticmethod
    def forward(context, x):
        return normalise(x)

    @staticmethod
    def backward(context, signal):
        return signal


def normalise(x):
    return functional.local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2.0)  # PyTorch divides alpha by size


def pytorch_zfnet(weights, x, rule):
    """Every block's activation, {1: pool1, ...}, NCHW."""
    geometry = {1: (2, 1), 2: (2, 0), 3: (1, 1), 4: (1, 1), 5: (1, 1)}
    pool_padding = {1: 1, 2: 1, 5: 0}
    blocks = {}
    for number, (stride, padding) in geometry.items():
        w = torch.from_numpy(weights[f"conv{number}.weight"]).permute(0, 3, 1, 2).contiguous()
        x = functional.conv2d(x, w, torch.from_numpy(weights[f"conv{number}.bias"]), stride=stride, padding=padding)
        x = Rectifier.apply(x, rule)
        if number in pool_padding:
            x = functional.max_pool2d(x, 3, 2, pool_padding[number])
        blocks[number] = x
        if number in (1, 2):
            x = SkippedNorm.apply(x) if rule == "deconvnet" else normalise(x)
    x = x.permute(0, 2, 3, 1).flatten(1)
    for number in (6, 7, 8):
        x = functional.linear(x, *(torch.from_numpy(weights[f"fc{number}.{kind}"]) for kind in ("weight", "bias")))
        if number < 8:
            x = Rectifier.apply(x, rule)
        blocks[number] = x
    return blocks


def as_nhwc(tensor):
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


@pytest.fixture(scope="module")
def network():
    network = models.zfnet(100, seed=7)
    rng = np.random.default_rng(8)
    for name, array in network.parameters().items():
        if name.endswith("bias"):
            array += rng.normal(0, 0.1, array.shape).astype(np.float32)
        elif name.startswith(("fc", "conv3", "conv4", "conv5")):
            array *= 2  # else the signal of a network that was never trained fades on its way up
    return network


@pytest.fixture(scope="module")
def image():
    """A smooth image with noise, in [-128, 128]."""
    rng = np.random.default_rng(9)
    rows, columns = np.mgrid[:224, :224] / 224
    waves = [np.sin(6 * a * rows + 9 * b * columns + c) for a, b, c in rng.normal(0, 2, (3, 3))]
    return (60 * np.stack(waves, -1) + rng.normal(0, 20, (224, 224, 3)))[None].clip(-128, 128).astype(np.float32)


@pytest.mark.parametrize("rule", RULES)
def test_logits_and_projections_of_every_block(network, image, rule):
    x = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous().requires_grad_()
    blocks = pytorch_zfnet(network.parameters(), x, rule)
    trace = network.forward(image)
    assert_close(trace.output, as_nhwc(blocks[8]))
    for number, name in network.blocks.items():
        activations = trace[name]
        assert_close(activations, as_nhwc(blocks[number]), what=name)
        whole = activations * np.random.default_rng(number).normal(size=activations.shape).astype(np.float32)
        # One activation of a map goes down on windows.
        strongest = np.where(activations == activations.max(), activations, np.float32(0))
        for signal in (whole, strongest) if activations.ndim == 4 else (whole,):
            seed = torch.from_numpy(signal)
            seed = seed.permute(0, 3, 1, 2).contiguous() if signal.ndim == 4 else seed
            (expected,) = torch.autograd.grad(blocks[number], x, seed, retain_graph=True)
            pixels = network.project(trace, name, signal, rule)
            assert pixels.any(), name
            assert_close(pixels, as_nhwc(expected), what=name)
