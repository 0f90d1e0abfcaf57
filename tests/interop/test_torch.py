"""Networks from PyTorch modules, against the modules themselves in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[torch]'")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from tests.accuracy import relative_error  # noqa: E402
from tests.interop.modules import MODULES, as_input, images, make  # noqa: E402
from tests.interop.rules import Rule  # noqa: E402
from zfcuda import Network, backends, data, load  # noqa: E402
from zfcuda.interop import torch as interop  # noqa: E402
from zfcuda.nn.layers import RULES  # noqa: E402


@pytest.mark.parametrize("name", MODULES)
def test_logits(name, nets):
    module, net = nets(name)
    x = images(net.input_shape)
    with torch.no_grad():
        expected = module.double()(as_input(x, module)).numpy()
    assert net.head == "none"
    assert relative_error(net.forward(x).output, expected) < 1e-5
    assert relative_error(net.predict(x), expected) < 1e-5


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", MODULES)
def test_projections(name, rule, nets):
    module, net = nets(name)
    x = images(net.input_shape)
    trace = net.forward(x)
    seed = np.random.default_rng(2).standard_normal(trace.output.shape).astype(np.float32)
    pixels = net.project(trace, list(net.layers)[-1], seed, rule)
    given = as_input(x, module).requires_grad_()
    with Rule(rule):
        output = module.double()(given)
    (expected,) = torch.autograd.grad(output, given, torch.from_numpy(seed).double())
    expected = expected[:, :, None] if expected.ndim == 3 else expected
    assert relative_error(pixels, expected.permute(0, 2, 3, 1).numpy()) < 1e-4


# A convolution that works twice is two layers, each with a gradient of its own.
@pytest.mark.parametrize("name", [name for name in MODULES if name != "shared"])
def test_gradients_in_training_mode(name, nets):
    module, net = nets(name)
    module = module.double().train()
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.p = 0.0
    net = Network(net.architecture, parameters=net.parameters() | net.state())  # the other one stays as it is
    for layer in net.layers.values():
        if layer.kind == "dropout":
            layer.probability = 0.0
    x, labels = images(net.input_shape, 4), np.array([0, 2, 1, 2], np.int32)
    loss, _, gradients = net.loss_and_gradients(x, labels)
    expected = nn.functional.cross_entropy(module(as_input(x, module)), torch.from_numpy(labels).long())
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-4)
    # A module with the gradients in the place of its parameters is read in the same way as one with these.
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.copy_(parameter.grad)
    read = interop.from_module(module.float(), net.input_shape).parameters()
    scale = max(float(np.abs(gradient).max()) for gradient in read.values())
    assert set(read) == set(gradients)
    for key, gradient in gradients.items():
        if name == "normalising" and key == "conv2.bias":  # which is one number for all channels in the module
            continue
        # A bias before a batch normalisation changes nothing: its gradient is rounding.
        error = np.linalg.norm(gradient - read[key])
        assert error < 1e-4 * max(np.linalg.norm(read[key]), 0.01 * scale), key


@pytest.mark.parametrize("name", ["residual", "inception", "shuffle"])
def test_on_the_emulated_backend(name, nets):
    _, net = nets(name)
    x = images(net.input_shape, 1)
    trace = net.forward(x)
    last = list(net.layers)[-1]
    with backends.use("emulated"):
        emulated = net.forward(x)
        assert relative_error(emulated.output, trace.output) < 1e-5
        for rule in RULES:
            expected = net.project(trace, last, trace.output, rule)
            assert relative_error(net.project(emulated, last, trace.output, rule), expected) < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["residual", "dense", "inception", "mobile", "plain", "in place", "signal"])
@pytest.mark.parametrize(("opset", "axes"), [(9, None), (17, {"x": {0: "N"}})])
def test_as_onnx_files_of_pytorch(name, opset, axes, tmp_path, nets):
    """From PyTorch's older exporter, which needs no package more: shapes computed, batches of any size."""
    pytest.importorskip("onnx", reason="needs onnx: pip install 'zfcuda[onnx]'")
    from zfcuda.interop import onnx

    if name == "inception" and opset == 9:
        pytest.skip("before opset 10 it writes ceil_mode as more padding than a window has cells")
    module, expected = nets(name)
    x = images(expected.input_shape, 2)
    given, path = (as_input(x, module).float(),), str(tmp_path / "model.onnx")
    options = {"input_names": ["x"], "dynamic_axes": axes, "opset_version": opset, "dynamo": False}
    torch.onnx.export(module, given, path, **options)
    net = onnx.load(path)
    assert relative_error(net.forward(x).output, expected.forward(x).output) < 1e-5
    convolutions = [layer for layer in expected.layers if expected.layers[layer].kind in ("conv", "fc")]
    assert [layer for layer in net.layers if net.layers[layer].kind in ("conv", "fc")] == convolutions
    assert len(net.blocks) == len(expected.blocks)


# ---- Names, heads, and what is known besides --------------------------------------------------------------------


def test_layers_have_the_names_of_modules(nets):
    _, net = nets("residual")
    assert list(net.layers)[:12] == [
        *("conv1", "bn1", "relu", "pool", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu", "layer1.0.conv2"),
        *("layer1.0.bn2", "layer1.0.add", "layer1.0.relu_1", "layer1.1.conv1"),
    ]
    assert {"layer2.0.downsample.0", "layer2.0.downsample.1", "pool_1", "relu_1", "mean", "fc"} <= set(net.layers)
    assert net.blocks == {1: "relu", 2: "layer1.1.relu_1", 3: "relu_1", 4: "fc"}


def test_orders_of_channels_have_the_names_of_what_makes_them(nets):
    """And not of the layers that read them, of which the first may be in another module."""

    class Stage(nn.Module):
        def forward(self, x):
            return F.channel_shuffle(F.relu(x), 2)

    module = nn.Sequential(nn.Conv2d(3, 4, 3), Stage(), nn.ChannelShuffle(2), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1))
    net = interop.from_module(module, (6, 6, 3))
    assert list(net.layers) == ["0", "1.relu", "3", "4"]  # twice in two groups is as it was
    module[2] = nn.ReLU6()
    assert list(interop.from_module(module, (6, 6, 3)).layers) == [
        *("0", "1.relu", "2", "1.channel_shuffle.permute", "3", "4")
    ]


def test_a_layer_has_its_module_s_name_whatever_is_done_before_it(nets):
    """What takes a part of maps, and makes rows of them, is called as the operations that do."""

    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.flat, self.fc = nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(48, 4)
            self.norm, self.last = nn.BatchNorm1d(8), nn.Linear(8, 2)

        def forward(self, x):
            x = self.conv(x)
            rows = self.fc(self.flat(x[:, 1:4])), self.fc(x[:, :3].flatten(1))
            return self.last(self.norm(torch.cat([rows[0], rows[1]], 1)))

    net = interop.from_module(Parts().eval(), (6, 6, 3))
    kinds = {name: layer.kind for name, layer in net.layers.items()}
    assert [name for name, kind in kinds.items() if kind == "fc"] == ["fc", "fc_1", "last"]
    assert [name for name, kind in kinds.items() if kind == "flatten"] == ["flat", "flatten"]
    assert {kind for name, kind in kinds.items() if "." in name} <= {"permute", "slice"}
    assert kinds["norm"] == "batchnorm"


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: torch.add(x, x.relu(), alpha=0.5), ["conv", "relu", "add.factor", "add"]),
        (lambda x: x - x.relu(), ["conv", "relu", "sub.negative", "sub"]),
        (lambda x: 1 - x, ["conv", "rsub"]),
        (lambda x: x.sum((2, 3)), ["conv", "sum.mean", "sum", "flatten"]),
        (lambda x: x[:, :, ::2].mean((2, 3)), ["conv", "slice", "mean", "flatten"]),
        (
            lambda x: torch.cat([x.relu().flatten(1), x.flatten(1)], 1),
            ["conv", "relu", "flatten", "flatten_1", "cat", "permute"],
        ),
    ],
)
def test_an_operation_of_several_layers_ends_with_the_one_of_its_name(function, names):
    assert list(interop.from_module(Wrong(function), (6, 6, 3)).layers) == names


def test_what_is_fixed_is_no_parameter(nets):
    _, net = nets("normalising")
    assert not {name for name in net.parameters() if not name.startswith(("conv", "rows", "fc"))}
    assert net.layers["conv2"].bias is not None  # the shift behind it


@pytest.mark.parametrize(
    ("end", "head"),
    [(nn.Softmax(1), "softmax"), (nn.LogSoftmax(-1), "softmax"), (nn.Sigmoid(), "sigmoid"), (nn.Identity(), "none")],
)
def test_the_end_of_a_module_is_its_head(end, head, tmp_path):
    shape, module = make("mobile")
    module = nn.Sequential(module, end)
    preprocess = data.Preprocess(np.zeros((*shape[:2], 4), np.float32), shape[:2])
    net = interop.from_module(module, shape, classes=list("abcd"), preprocess=preprocess)
    assert (net.head, net.classes, net.preprocess) == (head, tuple("abcd"), preprocess)
    x = images(shape)
    with torch.no_grad():
        expected = module(as_input(x, module).float()).numpy()
    expected = np.exp(expected) if isinstance(end, nn.LogSoftmax) else expected
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-4, atol=1e-6)
    assert interop.from_module(module, shape, head="none").head == "none"
    net.save(tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    assert again.architecture == net.architecture
    np.testing.assert_array_equal(again.predict(x), net.predict(x))


def test_the_module_stays_as_it_is():
    shape, module = make("mobile")
    module.train()
    module.features[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    net = interop.from_module(module, shape)
    assert module.training
    assert not module.features[1].training
    for array in net.parameters().values():
        array[...] = 7
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_of_other_types(dtype):
    shape, module = make("plain")
    net = interop.from_module(module.to(dtype), shape)
    for name, array in net.parameters().items():
        assert array.dtype == np.float32
        assert np.isfinite(array).all(), name


def test_one_of_several_outputs():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.one, self.other = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 5)

        def forward(self, x):
            x = self.conv(x).mean((2, 3))
            return self.one(x), {"aux": torch.erf(self.other(x)), "plain": self.other(x)}

    net = interop.from_module(Heads().eval(), (6, 6, 3))
    assert list(net.layers) == ["conv", "mean", "one"]
    with pytest.raises(ValueError, match=r"output must be one of linear, .*; got 'x'"):
        interop.from_module(Heads(), (6, 6, 3), output="x")


def test_a_softmax_of_one_output_says_nothing():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 1))
    message = "head must be 'sigmoid' .* or 'none' .* for a network of one output, of which a softmax is always 1"
    for one, options in ((module, {"head": "softmax"}), (nn.Sequential(module, nn.Softmax(1)), {})):
        with pytest.raises(ValueError, match=message):
            interop.from_module(one, (6, 6, 3), **options)
    net = interop.from_module(nn.Sequential(module, nn.Softmax(1)), (6, 6, 3), head="sigmoid")
    assert net.head == "sigmoid"
    with pytest.raises(ValueError, match=message):
        net.head = "softmax"
    assert net.head == "sigmoid"


# ---- What cannot be read -------------------------------------------------------------------------------------------


class Wrong(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.conv = function, nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.function(self.conv(x))


def through_a_view(x):
    flat = x.flatten(1)
    flat.relu_()
    return x.mean((2, 3))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            nn.functional.silu,
            r"silu \(aten.silu.default\): is no operation that is read\n\d\d operations are read\. "
            r"README.md says which \(Your own network\), and zfcuda.interop.aten.CALLS lists their names$",
        ),
        (lambda x: torch.cat([x, x.relu()], 2), r"axis 2 of \('N', 4, 4, 4\) is their height or width, along which no"),
        (lambda x: torch.cat([x, x.relu()], 3), r"axis 3 of \('N', 4, 4, 4\) is their height or width, along which no"),
        (lambda x: torch.cat([x.mean(2), x.amax(2)], 2), r"axis 2 of \('N', 4, 4\) is their height or width, along"),
        (
            lambda x: F.conv1d(x.mean(3), torch.ones(3, 4, 3)),
            r"lie along the width of what a layer makes, .* this one, of \('N', 4, 4\), lies along the height",
        ),
        (lambda x: F.max_pool1d(x.mean(3), 2), "a signal must lie along the width of what a layer makes"),
        (nn.functional.gelu, r"\d\d operations are read; gelu, which is like 'relu'"),
        (lambda x: x.sigmoid().relu(), r"relu \(aten.relu.default\): sigmoid is read at the end of a model only"),
        (
            lambda x: x * x.sigmoid(),
            r"mul \(aten.mul.Tensor\): products are read of a tensor and constants, not of two",
        ),
        (lambda x: x * x, "products are read of a tensor and constants"),
        (lambda x: x.sqrt(), "is read of what is known before there is an image"),
        (lambda x: 2.0**x, r"pow.Scalar\): .* what is known before there is an image"),
        (lambda x: x.view(-1, 16), "must leave the images of a batch apart"),
        (lambda x: x[:2], "must leave the images of a batch apart"),
        (lambda x: nn.functional.adaptive_avg_pool2d(x, 3), r"\(3, 3\) does not divide \(4, 4\)"),
        (lambda x: x.softmax(1), "softmax is read over all outputs together"),
        (lambda x: x - torch.tensor([1.0, 2.0, 3.0, 4.0]), "these differ from pixel to pixel"),
        (lambda x: nn.functional.interpolate(x, scale_factor=2), "is no operation that is read"),
        (lambda x: nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), "padding must be by a constant, not reflect"),
        (through_a_view, "reads conv2d, which was changed in place through another"),
        (
            lambda x: nn.functional.batch_norm(x, None, None, training=True),
            "must be that of test time: export the model in eval mode, with running statistics",
        ),
        (lambda x: x.mean(1), "means, sums and maxima are read over height, width or both, of all of a map"),
        (lambda x: x.sum((1, 2)), "means, sums and maxima are read over height"),
        (lambda x: x.amax(), "means, sums and maxima must leave the images of a batch apart"),
        (lambda x: x[:, :, 1::2].mean((2, 3)), "means, sums and maxima are read over height, width or both, of all of"),
        (lambda x: x[:, :, 1::2].relu(), "channels of what a layer makes, whole or at every so manyth row and column"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 1, 1), value=1), "channels are added to maps without padding, and of zeros"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 5, 0)), "at most as many channels of zeros are added as there are, 4; got 5"),
        (lambda x: F.pad(x, (0, 1, 0, 0, 5, 0)), "padding must be of the height and width of maps, or of their"),
        (lambda x: F.pad(x, (1, 1, 1, 1)), "maps are padded in front of layers only"),
        (lambda x: F.pad(F.max_pool2d(x, 4), (1, 2, 3, 4)), "maps are padded in front of layers only"),
        (lambda x: nn.functional.max_pool2d(x, 2, dilation=2), "a max pool must have a dilation of 1"),
    ],
)
def test_what_cannot_be_read(function, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        interop.from_module(Wrong(function), (6, 6, 3))


def test_every_gate_is_listed():
    """Also those behind others: squeeze and excitation, twice; what multiplies by constants is none."""

    class Squeezing(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return F.relu(x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))) * 0.5

    module = nn.Sequential(nn.Conv2d(3, 4, 3), Squeezing(), nn.Dropout(inplace=True), Squeezing(), nn.SiLU())
    with pytest.raises(ValueError, match="cannot be read") as error:
        interop.from_module(module, (6, 6, 3))
    first, *listed, _ = str(error.value).splitlines()
    assert first.startswith("3 of the model's ")
    assert [line.split(":")[0] for line in listed] == [
        *("  1.mul (aten.mul.Tensor)", "  3.mul (aten.mul.Tensor)", "  4 (aten.silu.default)")
    ]
    for line in listed[:2]:
        assert "products are read of a tensor and constants, not of two tensors, as of gates (squeeze and exc" in line


def test_modules_that_cannot_be_exported():
    def branching(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"torch.export cannot follow the module for inputs of \(13, 3, 6, 6\): "):
        interop.from_module(Wrong(branching), (6, 6, 3))
    with pytest.raises(ValueError, match="cannot follow the module"):
        interop.from_module(Wrong(nn.Identity()), (6, 6, 4))
    with pytest.raises(TypeError, match=r"module must be a .*Module, got dict"):
        interop.from_module({}, (6, 6, 3))
    for shape in ((6, 6), (6, 6, 0), (6, 6, 3, 1)):
        with pytest.raises(
            ValueError, match=r"input_shape must be \(height, width, channels\), all positive, of signals .* got \(6"
        ):
            interop.from_module(Wrong(nn.Identity()), shape)
    for shape in (32, None, (6.0, 6, 3)):
        with pytest.raises(TypeError, match=r"input_shape must be \(height, width, channels\), such as \(224, .* got "):
            interop.from_module(Wrong(nn.Identity()), shape)
    assert interop.from_module(Wrong(nn.Identity()), [6, np.int64(6), 3]).input_shape == (6, 6, 3)


def test_weights_that_are_not_finite():
    module = Wrong(nn.Identity())
    module.conv.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="its weight has values that are not finite"):
        interop.from_module(module, (6, 6, 3))


def test_variances_that_are_negative():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module[1].running_var[2] = -1
    with pytest.raises(ValueError, match=r"running_var \+ eps must be positive, got -1 \+ 1e-05"):
        interop.from_module(module, (6, 6, 3))


def test_normalisation_that_learns_nothing():
    """Its 1 and 0 are no parameters, here or there, and a constant factor behind it is none of its own."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)).eval()
    net = interop.from_module(module, (6, 6, 3))
    assert list(net.parameters()) == ["0.weight", "0.bias"]
    assert set(net.state()) == {f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert set(interop.to_module(net).state_dict()) == set(module.state_dict())
    scaled = interop.from_module(Wrong(lambda x: 2 * module[1](x)), (6, 6, 3))
    assert [layer.frozen for layer in scaled.layers.values() if layer.kind == "batchnorm"] == [False, True]
