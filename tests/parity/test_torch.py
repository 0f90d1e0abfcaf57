"""zfcuda/interop/torch.py, and the networks against PyTorch as an independent reference."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")

from tests.accuracy import FP32, WEIGHT_GRAD, assert_close  # noqa: E402
from zfcuda import backends, models  # noqa: E402
from zfcuda.interop import torch as interop  # noqa: E402
from zfcuda.nn import Architecture, Network  # noqa: E402
from zfcuda.nn.architecture import ConvSpec, FullyConnectedSpec, ReLUSpec  # noqa: E402


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.fixture
def network():
    net = models.zfnet_small(7, (24, 20, 3), seed=1)
    rng = np.random.default_rng(2)
    for name, array in net.parameters().items():
        if name.endswith("bias"):
            array[...] = 0.1 * rng.standard_normal(array.shape)
    return net


def test_arrays_share_memory():
    tensor = torch.arange(6.0).reshape(2, 3)
    array = interop.from_torch(tensor)
    array[1, 2] = 50
    assert tensor[1, 2] == 50
    back = interop.to_torch(array)
    back[0, 0] = 70
    assert tensor[0, 0] == 70


def test_bfloat16_arrays_share_memory():
    tensor = torch.randn(2, 3, 5, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    array = interop.images_from_torch(tensor)
    assert array.dtype == backends.BFLOAT16
    assert array.ctypes.data == tensor.data_ptr()
    np.testing.assert_array_equal(array.astype(np.float32), tensor.permute(0, 2, 3, 1).float().numpy())
    back = interop.images_to_torch(array)
    assert back.dtype == torch.bfloat16
    assert back.data_ptr() == tensor.data_ptr()
    assert torch.equal(back, tensor)


def test_gradients_are_left_behind():
    assert interop.from_torch(torch.ones(3, requires_grad=True)).sum() == 3


def test_channels_last_images_cross_without_a_copy():
    tensor = torch.randn(2, 3, 5, 4).contiguous(memory_format=torch.channels_last)
    array = interop.images_from_torch(tensor)
    assert array.shape == (2, 5, 4, 3)
    assert array.flags.c_contiguous
    assert array.ctypes.data == tensor.data_ptr()
    back = interop.images_to_torch(array)
    assert back.data_ptr() == tensor.data_ptr()
    assert back.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(back, tensor)


def test_module_computes_what_the_network_does(network):
    x = images(3, *network.input_shape)
    module = interop.to_module(network).double().eval()
    outputs = {}
    signal = interop.images_to_torch(x).double()
    for name, child in module.named_children():
        signal = outputs[name] = child(signal)
    trace = network.forward(x)
    for name in network.layers:
        expected = outputs[name].detach()
        expected = (expected.permute(0, 2, 3, 1) if expected.ndim == 4 else expected).numpy()
        assert_close(trace[name], expected, what=name)


def test_gradients_agree(network):
    x = images(4, *network.input_shape)
    labels = np.array([0, 6, 3, 3], np.int32)
    module = interop.to_module(network).double().eval()
    # Dropout off: the masks of the two libraries differ.
    for name in ("drop6", "drop7"):
        network.layers[name].probability = 0.0
    loss, _, gradients = network.loss_and_gradients(x, labels)
    expected = torch.nn.functional.cross_entropy(
        module(interop.images_to_torch(x).double()), torch.from_numpy(labels).long()
    )
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=FP32)
    reference = models.zfnet_small(7, (24, 20, 3))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.grad)
    interop.load_weights(reference, module)
    for name, gradient in gradients.items():
        assert_close(gradient, reference.parameters()[name], WEIGHT_GRAD, name)


def test_weights_survive_the_round_trip(network):
    module = interop.to_module(network)
    other = models.zfnet_small(7, (24, 20, 3), seed=9)
    interop.load_weights(other, module)
    for name, array in network.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], array)
    module.conv1.weight.data.zero_()
    assert network.layers["conv1"].weight.any()
    assert other.layers["conv1"].weight.any()


def test_names_with_dots_and_names_that_meet():
    layers = (ConvSpec("layer1.conv", 2, 3), FullyConnectedSpec("head", 2))
    module = interop.to_module(Network(Architecture((4, 4, 1), layers)))
    assert [name for name, _ in module.named_children()] == ["layer1_conv", "flatten", "head"]
    for other in ("layer1_conv", "flatten"):
        net = Network(Architecture((4, 4, 1), (layers[0], ReLUSpec(other), layers[1])))
        with pytest.raises(ValueError, match="layers of a module must have different names"):
            interop.to_module(net)


def test_a_kind_of_layer_that_pytorch_does_not_have(network, monkeypatch):
    monkeypatch.delitem(interop._MODULES, "norm")
    with pytest.raises(TypeError, match="layer norm1 is of kind 'norm', of which PyTorch has no module"):
        interop.to_module(network)


def test_missing_bias_is_zero(network):
    module = interop.to_module(network)
    module.conv2.bias = None
    interop.load_weights(network, module)
    assert not network.layers["conv2"].bias.any()


def test_functions_between_the_layers_are_not_seen(network):
    """A module may pool and rectify by functions, or by one module for all layers."""
    layers = interop.to_module(network)
    module = torch.nn.ModuleDict(
        {
            name: child
            for name, child in layers.named_children()
            if isinstance(child, (torch.nn.Conv2d, torch.nn.Linear))
        }
    )
    module["rectify"], module["drop"], module["pool"] = layers.relu1, torch.nn.Dropout(0.1), layers.pool1
    other = models.zfnet_small(7, (24, 20, 3), seed=9)
    interop.load_weights(other, module)
    for name, array in network.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], array)


POOL = {"kernel_size": 3, "stride": 2, "padding": 1}


def first_conv(**options):
    return torch.nn.Conv2d(3, 32, 5, **{"padding": 2, **options})


class Doubled(torch.nn.Conv2d):
    """A convolution that does something more."""

    def forward(self, x):
        return 2 * super().forward(x)


def with_parameter(network):
    module = interop.to_module(network)
    module.scale = torch.nn.Parameter(torch.ones(1))
    return module


def tied(network):
    module = interop.to_module(network)
    module.conv5.weight = module.conv4.weight
    return module


def with_weight(network, change):
    module = interop.to_module(network)
    module.conv1.weight = torch.nn.Parameter(change(module.conv1.weight.detach()), requires_grad=False)
    return module


def replaced(network, name, child):
    module = interop.to_module(network)
    setattr(module, name, child)
    return module


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("module has 7 Conv2d and Linear", lambda net: replaced(net, "fc7", torch.nn.Identity())),
        (
            "layer conv1 must match conv1: weight must be",
            lambda net: replaced(net, "conv1", torch.nn.Conv2d(3, 9, 5, padding=2)),
        ),
        (
            r"layer conv1 must match conv1: padding must be \(2, 2\), got \(1, 2\)",
            lambda net: replaced(net, "conv1", torch.nn.Conv2d(3, 32, 5, padding=(1, 2))),
        ),
        (
            "layer conv3 must match conv3: dilation",
            lambda net: replaced(net, "conv3", torch.nn.Conv2d(64, 128, 3, padding=1, dilation=2)),
        ),
        ("layer fc8 must match fc8: kind must be Linear", lambda net: replaced(net, "fc8", torch.nn.Conv2d(1, 1, 1))),
        ("layer fc8 must match fc8: weight", lambda net: replaced(net, "fc8", torch.nn.Linear(512, 8))),
        *(
            (f"layer conv1 must match conv1: {word}", lambda net, what=what: replaced(net, "conv1", first_conv(**what)))
            for word, what in {
                "padding_mode must be zeros, got circular": {"padding_mode": "circular"},
                r"stride must be \(1, 1\), got \(2, 1\)": {"stride": (2, 1)},
                r"dilation must be \(1, 1\), got \(1, 2\)": {"dilation": (1, 2)},
                r"padding must be \(2, 2\), got same": {"padding": "same"},
            }.items()
        ),
        (
            "layer conv3 must match conv3: weight must be",
            lambda net: replaced(net, "conv3", torch.nn.Conv2d(64, 128, 3, padding=1, groups=2)),
        ),
        *(
            (
                f"layer pool1 must match a layer of the network, such as pool1: {word}",
                lambda net, what=what: replaced(net, "pool1", torch.nn.MaxPool2d(**{**POOL, **what})),
            )
            for word, what in {
                "ceil_mode must be False, got True": {"ceil_mode": True},
                "return_indices must be False, got True": {"return_indices": True},
                r"dilation must be \(1, 1\), got \(2, 2\)": {"dilation": 2},
                r"kernel_size must be \(3, 3\), got \(2, 2\)": {"kernel_size": 2},
            }.items()
        ),
        (
            "layer norm1 must match a layer of the network, such as norm1: alpha must be",
            lambda net: replaced(net, "norm1", torch.nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0)),
        ),
        *(
            (
                f"layer {name} is a {type(child).__name__}, which no layer of the network does",
                lambda net, name=name, child=child: replaced(net, name, child),
            )
            for name, child in {
                "conv2": torch.nn.ConvTranspose2d(32, 64, 3),
                "pool2": torch.nn.AvgPool2d(3, 2, count_include_pad=False),
                "norm1": torch.nn.BatchNorm2d(32),
                "relu3": torch.nn.LeakyReLU(),
                "softmax": torch.nn.Softmax(dim=1),
            }.items()
        ),
        (
            r"layer conv1 must match conv1: kind must be Conv2d, got .*\.Doubled",
            lambda net: replaced(net, "conv1", Doubled(3, 32, 5, padding=2)),
        ),
        ("module's scale has no place in the network", lambda net: with_parameter(net)),
        (r"module's conv5\.weight is that of conv4\.weight", lambda net: tied(net)),
        *(
            (f"module's conv1.weight {word}", lambda net, change=change: with_weight(net, change))
            for word, change in {
                "must be a dense tensor of real .*complex64": lambda weight: weight.to(torch.complex64),
                "must be a dense tensor of real .*torch.int32": lambda weight: weight.int(),
                "must be a dense tensor of real .*sparse_coo": lambda weight: weight.to_sparse(),
                "must be a dense tensor of real .*on meta": lambda weight: weight.to("meta"),
                "has values that are not finite in float32": lambda weight: weight.double() * 1e300,
            }.items()
        ),
    ],
)
def test_another_architecture_changes_nothing(network, message, change):
    before = {name: array.copy() for name, array in network.parameters().items()}
    with pytest.raises(ValueError, match=message):
        interop.load_weights(network, change(network))
    for name, array in network.parameters().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "tensor must be a torch.Tensor, got ndarray", lambda: interop.from_torch(np.zeros(3))),
        (TypeError, "tensor must be dense", lambda: interop.from_torch(torch.eye(3).to_sparse())),
        (TypeError, "array must be a NumPy or CuPy array, got list", lambda: interop.to_torch([1.0])),
        (ValueError, "tensor must have 4 dimensions", lambda: interop.images_from_torch(torch.zeros(3, 4))),
        (ValueError, "array must have 4 dimensions", lambda: interop.images_to_torch(np.zeros((3, 4)))),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()
