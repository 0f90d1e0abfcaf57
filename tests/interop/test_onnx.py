"""zfcuda/interop/onnx.py against onnxruntime."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'zfcuda[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime, the reference")

from onnx import TensorProto, numpy_helper  # noqa: E402

from tests.accuracy import relative_error  # noqa: E402
from tests.interop import onnx_models  # noqa: E402
from tests.interop.onnx_models import CLASSIFIER, WEIGHTS, images, ints, model, nhwc, positive, read, w  # noqa: E402
from tests.interop.onnx_operations import FC, OPERATIONS  # noqa: E402
from zfcuda import CheckpointError, backends, data, load  # noqa: E402

# ---- Whole nets ------------------------------------------------------------------------------------------------------

LIGHT = {  # what blocks they have
    "bvlc_alexnet": 6,
    "densenet121": 6,
    "inception_v1": 6,
    "inception_v2": 6,
    "resnet50": 6,
    "shufflenet": 5,
    "squeezenet": 5,
    "vgg19": 8,
    "zfnet512": 6,
}


@pytest.mark.parametrize("name", LIGHT)
def test_the_nets_of_the_onnx_package(name, tmp_path):
    proto = onnx_models.light(name)
    x = images(proto)
    net = read(proto, tmp_path)
    expected = onnx_models.run(tmp_path / "model.onnx", x).reshape(len(x), -1)
    assert 0.01 < expected.std() < 1000
    assert relative_error(net.forward(nhwc(x)).output, expected) < 1e-4
    assert len(net.blocks) == LIGHT[name]


@pytest.mark.parametrize("what", OPERATIONS)
def test_operations(what, tmp_path):
    nodes, weights = OPERATIONS[what]
    last = what == "channels last"
    proto = model(nodes, weights, ("N", 12, 10, 3) if last else ("N", 3, 12, 10))
    x = images(proto)
    expected = onnx_models.run(proto, x)
    net = read(proto, tmp_path)
    output = net.forward(x if last else nhwc(x)).output
    if expected.ndim == 4 and output.ndim == 4:
        expected = nhwc(expected)
    assert relative_error(output, expected.reshape(output.shape)) < 1e-5
    assert net.head == "none"
    np.testing.assert_array_equal(net.predict(x if last else nhwc(x)), output.reshape(len(x), -1))


OLDER = {
    "dropout and clip": (7, "c = Conv (x, w)\nd, mask = Dropout <ratio=0.3> (c)\ny = Clip <min=0.0, max=6.0> (d)"),
    "pad": (10, 'p = Pad <mode="constant", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.0> (x)\ny = Conv (p, w)'),
    "slice": (9, "s = Slice <axes=[1], starts=[0], ends=[3]> (x)\ny = Conv (s, w)"),
    "split": (11, "c = Conv (x, w)\na, b = Split <axis=1, split=[1, 3]> (c)\ny = Concat <axis=1> (b, a)"),
    "squeeze": (
        11,
        "c = Conv (x, w)\ng = GlobalAveragePool (c)\ns = Squeeze <axes=[2, 3]> (g)\nu = Unsqueeze <axes=[2]> (s)\n"
        "y = Flatten (u)",
    ),
    "softmax of all": (11, "c = Conv (x, w)\ng = GlobalAveragePool (c)\ny = Softmax (g)"),
    "split in parts": (18, "c = Conv (x, w)\na, b = Split <axis=1, num_outputs=2> (c)\ny = Concat <axis=1> (b, a)"),
}


@pytest.mark.parametrize("what", OLDER)
def test_operations_as_other_opsets_have_them(what, tmp_path):
    opset, nodes = OLDER[what]
    proto = model(nodes, {"w": w(4, 3, 3, 3)}, opset=opset)
    x = images(proto)
    net = read(proto, tmp_path)
    expected = onnx_models.run(proto, x)
    expected = expected if what in ("squeeze", "softmax of all") else nhwc(expected)
    assert relative_error(net.predict(nhwc(x)), expected.reshape(2, -1)) < 1e-5


REDUCED = {
    "axes from the end": (13, "f = ReduceMean <axes=[-2, -1], keepdims=0> (c)", {}),
    "axes as an input": (18, "f = ReduceMean <keepdims=0> (c, axes)", {"axes": ints(-1, 2)}),
    "axes as an input, kept": (18, "m = ReduceMax (c, axes)\nf = Flatten (m)", {"axes": ints(3, 2)}),
    "axes of a sum": (13, "f = ReduceSum <keepdims=0, noop_with_empty_axes=1> (c, axes)", {"axes": ints(-1, -2)}),
    "axes of a node": (18, "a = Constant <value_ints=[2, 3]> ()\nf = ReduceMean <keepdims=0> (c, a)", {}),
    "one after the other": (
        18,
        "r = ReduceSum <keepdims=0> (c, axis)\nf = ReduceMax <keepdims=0> (r, axis)",
        {"axis": ints(-1)},
    ),
    "no axes": (18, "r = ReduceMean <noop_with_empty_axes=1> (c)\nf = Flatten (r)", {}),
    "axes that are none": (18, "r = ReduceMax <noop_with_empty_axes=1> (c, axes)\nf = Flatten (r)", {"axes": ints()}),
    "a sum of none": (13, "r = ReduceSum <noop_with_empty_axes=1> (c, axes)\nf = Flatten (r)", {"axes": ints()}),
}


@pytest.mark.parametrize("what", REDUCED)
def test_reductions(what, tmp_path):
    opset, nodes, weights = REDUCED[what]
    units = 4 * 10 * 8 if "Flatten (r)" in nodes else 4
    weights = {"w": w(4, 3, 3, 3), "fc": w(5, units), **weights}
    proto = model(f"c = Conv (x, w)\n{nodes}\n{FC}", weights, opset=opset)
    x = images(proto)
    assert relative_error(read(proto, tmp_path).forward(nhwc(x)).output, onnx_models.run(proto, x)) < 1e-5


def test_the_mean_of_one_channel_is_one_number(tmp_path):
    nodes = "c = Conv (x, w)\nr = ReduceMean <axes=[1, 2, 3], keepdims=0> (c)\nf = Unsqueeze (r, axis)\n" + FC
    proto = model(nodes, {"w": w(1, 3, 3, 3), "axis": ints(1), "fc": w(5, 1)})
    x = images(proto)
    assert relative_error(read(proto, tmp_path).forward(nhwc(x)).output, onnx_models.run(proto, x)) < 1e-5


def test_signals(tmp_path):
    nodes = (
        "c = Conv <strides=[2], pads=[1, 1]> (x, w)\nr = Relu (c)\np = MaxPool <kernel_shape=[3], strides=[2]> (r)\n"
        "b = BatchNormalization (p, g, s, m, v)\nj = Concat <axis=1> (b, p)\na = AveragePool <kernel_shape=[2]> (j)\n"
        "f = Flatten (a)\n" + FC
    )
    weights = {"w": w(4, 2, 5), "g": w(4), "s": w(4), "m": w(4), "v": positive(4), "fc": w(3, 48)}
    proto = model(nodes, weights, ("N", 2, 31))
    x = images(proto)
    net = read(proto, tmp_path)
    assert net.input_shape == (1, 31, 2)
    assert relative_error(net.predict(nhwc(x)[:, None]), onnx_models.run(proto, x)) < 1e-5


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_weights_of_other_types(dtype, tmp_path):
    nodes, weights = OPERATIONS["matmul and add"]
    expected = read(model(nodes, weights), tmp_path).parameters()
    number = {"float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE, "bfloat16": TensorProto.BFLOAT16}[dtype]
    typed = {name: array.astype(backends.BFLOAT16 if dtype == "bfloat16" else dtype) for name, array in weights.items()}
    proto = model(nodes, typed, dtype=number)
    net = read(proto, tmp_path)
    for name, array in net.parameters().items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name], rtol=2**-7)


def test_fields_instead_of_raw_data(tmp_path):
    nodes, weights = OPERATIONS["groups"]
    proto = model(nodes, {})
    tensors = [onnx.helper.make_tensor(name, TensorProto.FLOAT, v.shape, v.ravel()) for name, v in weights.items()]
    proto.graph.initializer.extend(tensors)
    np.testing.assert_array_equal(read(proto, tmp_path).layers["conv"].weight.reshape(6, 3, 3), weights["w"][:, 0])


# ---- What is known besides the layers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "head"),
    [("Softmax", "softmax"), ("LogSoftmax", "softmax"), ("Sigmoid", "sigmoid"), ("Identity", "none")],
)
def test_the_end_of_a_model_is_its_head(end, head, tmp_path):
    proto = model(CLASSIFIER + f"y = {end} (l)", WEIGHTS)
    x = images(proto)
    net = read(proto, tmp_path, classes=list("abcde"))
    assert net.head == head
    expected = onnx_models.run(proto, x)
    np.testing.assert_allclose(net.predict(nhwc(x)), np.exp(expected) if end == "LogSoftmax" else expected, rtol=1e-4)
    assert read(proto, tmp_path, head="sigmoid").head == "sigmoid"
    preprocess = data.Preprocess(np.zeros((14, 12, 3), np.float32), (12, 10))
    net = read(proto, tmp_path, preprocess=preprocess)
    net.save(tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    assert again.head == head
    assert again.preprocess.crop == (12, 10)
    np.testing.assert_array_equal(again.predict(nhwc(x)), net.predict(nhwc(x)))


def test_the_head_of_maps(tmp_path):
    """Of every pixel by itself: a sigmoid, but no softmax."""
    proto = model("c = Conv (x, w)\ny = Sigmoid (c)", {"w": w(4, 3, 3, 3)})
    x = images(proto)
    net = read(proto, tmp_path)
    assert (net.head, net.layers["conv"].output_shape) == ("sigmoid", (10, 8, 4))
    np.testing.assert_allclose(net.predict(nhwc(x)), nhwc(onnx_models.run(proto, x)).reshape(2, -1), rtol=1e-4)
    with pytest.raises(CheckpointError, match="softmax is read over all outputs together"):
        read(model("c = Conv (x, w)\ny = Softmax <axis=1> (c)", {"w": w(4, 3, 3, 3)}), tmp_path)


def test_names(tmp_path):
    """By weights, by PyTorch's paths of modules, by the nodes themselves; an unspeaking name gives way to the kind."""
    proto = model(CLASSIFIER + "y = Softmax (l)", WEIGHTS)
    for node, name in zip(proto.graph.node, ["/conv1/Conv", "/layer1/layer1.0/relu/Relu", "", "", ""], strict=True):
        node.name = name
    assert list(read(proto, tmp_path).layers) == ["conv1", "layer1.0.relu", "fc"]
    proto.graph.node[1].name, proto.graph.node[2].name = "/layer1/layer1.0/Relu", "/layer1/layer1.0/pool/MaxPool"
    assert list(read(proto, tmp_path).layers) == ["conv1", "layer1.0.relu", "fc"]  # functional, as it has modules in it
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(
        numpy_helper.from_array(array, f"onnx::{i}") for i, array in enumerate(WEIGHTS.values())
    )
    proto.graph.node[0].input[1] = "onnx::0"
    proto.graph.node[3].input[1:] = ["onnx::1", "onnx::2"]
    proto.graph.node[1].name, proto.graph.node[3].name = "n7", "scope/input"
    assert list(read(proto, tmp_path).layers) == ["conv1", "relu", "scope.input"]
    proto.graph.node[0].name, proto.graph.node[3].name = "input", "input"
    assert list(read(proto, tmp_path).layers) == ["input_1", "relu", "input_2"]


def test_names_of_the_modules_of_pytorch(tmp_path):
    """As its newer exporter writes them beside a node: a module's own, with the operation where that is functional."""
    kinds = {"relu": "torch.nn.modules.activation.ReLU", "block": "models.Block", "": "models.Net"}
    proto = model(
        "c = Conv (x, conv_weight)\na = Relu (c)\nb = Add (a, a)\ny = Relu (b)", {"conv_weight": w(4, 3, 3, 3)}
    )
    operations = ("convolution.default", "relu.default", "add.Tensor", "relu.default")
    places = ([""], ["", "block", "block.relu"], ["", "block"], [""])
    for i, (node, paths, operation) in enumerate(zip(proto.graph.node, places, operations, strict=True)):
        scopes = [*paths, f"{operation.split('.')[0]}_{i}"]
        classes = [kinds[path.split(".")[-1]] for path in paths] + [f"aten.{operation}"]
        for key, words in (("name_scopes", scopes), ("class_hierarchy", classes)):
            node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=str(words))
        node.name = f"node_{i}"
    assert list(read(proto, tmp_path).layers) == ["conv", "block.relu", "block.add", "relu"]
    for node in proto.graph.node:
        node.metadata_props[1].value = "['other.Net']"  # which does not fit
    assert list(read(proto, tmp_path).layers) == ["conv", "node_1", "node_2", "node_3"]


def test_one_of_several_outputs(tmp_path):
    nodes = CLASSIFIER + "a = Gemm <transB=1> (f, aux)\nu = Resize (a)"
    proto = model(nodes, WEIGHTS | {"aux": w(2, 192)}, outputs=("l", "a", "u"))
    x = images(proto)
    net = read(proto, tmp_path)
    assert list(net.layers) == ["conv1", "relu", "fc"]
    assert net.num_classes == 5
    assert read(proto, tmp_path, output="a").num_classes == 2
    assert net.predict(nhwc(x)).shape == (2, 5)
    with pytest.raises(CheckpointError, match="output must be one of l, a, u; got 'z'"):
        read(proto, tmp_path, output="z")


def test_sizes_left_open(tmp_path):
    proto = model(CLASSIFIER + "y = Softmax (l)", WEIGHTS, ("N", 3, "H", "W"))
    with pytest.raises(CheckpointError, match=r"its input x \(N, 3, H, W\) has open sizes: give input_shape="):
        read(proto, tmp_path)
    assert read(proto, tmp_path, input_shape=(12, 10, 3)).input_shape == (12, 10, 3)
    with pytest.raises(CheckpointError, match=r"input_shape \(12, 10, 4\) does not fit its input x"):
        read(proto, tmp_path, input_shape=(12, 10, 4))
    with pytest.raises(TypeError, match=r"input_shape must be \(height, width, channels\), such as .* got 12"):
        read(proto, tmp_path, input_shape=12)


def test_input_shape_of_channels_last(tmp_path):
    weights = {"w": w(4, 3, 3, 3)}
    nodes = "t = Transpose <perm=[0, 3, 1, 2]> (x)\nc = Conv (t, w)\ny = Relu (c)"
    for shape in (("N", "H", "W", 3), ("N", "H", "W", "C"), ("N", 12, 10, 3)):
        assert read(model(nodes, weights, shape), tmp_path, input_shape=(12, 10, 3)).input_shape == (12, 10, 3)


def test_input_shape_of_an_image_that_is_transposed(tmp_path):
    """Of sizes that are not (H, W, C)."""
    nodes = "t = Transpose <perm=[0, 3, 1, 2]> (x)\nc = Conv (t, w)\ny = Relu (c)"
    proto = model(nodes, {"w": w(4, 10, 3, 3)}, ("N", 3, 12, 10))
    assert read(proto, tmp_path).input_shape == (3, 12, 10)
    with pytest.raises(CheckpointError, match="must be maps"):
        read(proto, tmp_path, input_shape=(12, 10, 3))


def test_input_shape_of_an_image_that_is_not_transposed(tmp_path):
    proto = model("y = Conv (x, w)", {"w": w(4, 12, 3, 3)}, ("N", 12, 10, 3))
    with pytest.raises(CheckpointError, match=r"input_shape \(12, 10, 3\) does not fit its input x"):
        read(proto, tmp_path, input_shape=(12, 10, 3))


def test_on_the_emulated_backend(tmp_path):
    for what in ("batchnorm", "shuffle", "split and join"):
        proto = model(*OPERATIONS[what], ("N", 3, 12, 10))
        x = nhwc(images(proto))
        net = read(proto, tmp_path)
        trace = net.forward(x)
        layer = list(net.layers)[-1]
        pixels = net.project(trace, layer, trace[layer])
        with backends.use("emulated"):
            emulated = net.forward(x)
            assert relative_error(emulated.output, trace.output) < 1e-5
            assert relative_error(net.project(emulated, layer, trace[layer]), pixels) < 1e-5
