"""Networks as PyTorch modules, and there and back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[torch]'")

from torch import nn  # noqa: E402

from tests.accuracy import relative_error  # noqa: E402
from tests.interop.modules import MODULES, images  # noqa: E402
from zfcuda import Network  # noqa: E402
from zfcuda.interop import torch as interop  # noqa: E402
from zfcuda.nn.architecture import (  # noqa: E402
    Architecture,
    BatchNormSpec,
    ConvSpec,
    FlattenSpec,
    FullyConnectedSpec,
    MaxPoolSpec,
    ReLUSpec,
)


@pytest.mark.parametrize("name", MODULES)
def test_there_and_back(name, nets):
    _, net = nets(name)
    x = images(net.input_shape)
    module = interop.to_module(net)
    with torch.no_grad():
        output = module(interop.images_to_torch(x))
    assert relative_error(output.numpy(), net.forward(x).output) < 1e-5
    again = interop.from_module(module, net.input_shape)
    assert relative_error(again.forward(x).output, net.forward(x).output) < 1e-5
    assert [layer.kind for layer in again.layers.values()] == [layer.kind for layer in net.layers.values()]
    if name not in ("inception", "shuffle", "normalising"):  # where channels are permuted, or sides padded apart
        assert list(again.layers) == [layer.replace(".", "_") for layer in net.layers]


@pytest.mark.parametrize("name", ["plain", "mobile"])
def test_a_module_is_in_eval_mode(name, nets):
    """It computes what the network does, with dropout and batch normalisation in it, and keeps its averages."""
    _, net = nets(name)
    module = interop.to_module(net)
    assert not any(child.training for child in module.modules())
    x = images(net.input_shape)
    with torch.no_grad():
        assert relative_error(module(interop.images_to_torch(x)).numpy(), net.forward(x).output) < 1e-5
    assert all(child.training for child in module.train().modules())


CONVOLVED = (
    ConvSpec("conv1", 6, (1, 5), (1, 2), (0, 2)),
    BatchNormSpec("bn1"),
    ReLUSpec("relu1"),
    MaxPoolSpec("pool1", (1, 2), (1, 2)),
)
UNITS = (FullyConnectedSpec("fc1", 7), BatchNormSpec("bn2"), ReLUSpec("relu2"), FullyConnectedSpec("fc2", 3))


@pytest.mark.parametrize("channels", [2, 13])  # 13 images without a batch are one of 13 channels
@pytest.mark.parametrize(
    "layers",
    [(*CONVOLVED, *UNITS), (*CONVOLVED, FlattenSpec("flat"), *UNITS), (FlattenSpec("flat"), *UNITS), UNITS],
    ids=["conv", "conv, flat", "flat", "units"],
)
def test_normalised_units_of_images_one_pixel_high(layers, channels):
    """BatchNorm1d says nothing of what the module takes."""
    net = Network(Architecture((1, 24, channels), layers, initial="he"), seed=2)
    rng = np.random.default_rng(0)
    state = {name: rng.uniform(0.5, 1.5, array.shape).astype(np.float32) for name, array in net.state().items()}
    net.set_parameters(net.parameters() | state)
    x = images(net.input_shape)
    module = interop.to_module(net).eval()
    with torch.no_grad():
        output = module(interop.images_to_torch(x))
    assert relative_error(output.numpy(), net.forward(x).output) < 1e-5
    again = interop.from_module(module, net.input_shape)
    assert relative_error(again.forward(x).output, net.forward(x).output) < 1e-5
    assert [(one.kind, one.output_shape) for one in again.layers.values() if one.kind != "flatten"] == [
        (one.kind, one.output_shape) for one in net.layers.values() if one.kind != "flatten"
    ]


def test_what_takes_neither_images_nor_signals():
    module = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv2d(4, 4, 3))
    with pytest.raises(ValueError, match=r"inputs of \(13, 2, 1, 24\): .*; for inputs of \(13, 2, 24\): ."):
        interop.from_module(module, (1, 24, 2))


@pytest.mark.parametrize("name", ["residual", "shuffle", "normalising"])
def test_weights_of_a_graph(name, nets):
    module, expected = nets(name)
    net = Network(expected.architecture, seed=5)
    interop.load_weights(net, module)
    for key, array in (expected.parameters() | expected.state()).items():
        np.testing.assert_array_equal((net.parameters() | net.state())[key], array)
    interop.load_weights(net, interop.to_module(expected))  # whose names are others
    before = {key: array.copy() for key, array in net.parameters().items()}
    other = nets("dense")[0] if name != "shuffle" else nets("mobile")[0]
    with pytest.raises(ValueError, match="module"):
        interop.load_weights(net, other)
    for key, array in net.parameters().items():
        np.testing.assert_array_equal(array, before[key])


def test_weights_of_another_graph(nets):
    module, expected = nets("residual")
    module.layer1[0].conv2 = nn.Conv2d(8, 8, 3, 1, 1, bias=True)
    with pytest.raises(ValueError, match=r"layer layer1.0.conv2 must match layer1.0.conv2: must be .*bias=False"):
        interop.load_weights(Network(expected.architecture), module)
    module.layer1 = nn.Identity()
    with pytest.raises(ValueError, match=r"must match|module has"):
        interop.load_weights(Network(expected.architecture), module)
