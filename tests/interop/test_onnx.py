"""zfcuda/interop/onnx.py against onnxruntime."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'zfcuda[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime, the reference")

from onnx import TensorProto, numpy_helper  # noqa: E402

from tests.accuracy import relative_error  # noqa: E402
from tests.interop import onnx_models  # noqa: E402
from tests.interop.onnx_models import model  # noqa: E402
from zfcuda import CheckpointError, backends, data, load  # noqa: E402
from zfcuda.interop import onnx as interop  # noqa: E402

RNG = np.random.default_rng(0)


def w(*shape):
    """A weight, its first axis being units."""
    return (RNG.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)


def positive(*shape):
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def read(proto, path, **options):
    onnx.save(proto, path / "model.onnx")
    return interop.load(path / "model.onnx", **options)


def images(proto, count=2):
    dims = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(1).standard_normal((dims[0] or count, *dims[1:])).astype(np.float32)


def nhwc(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


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


# ---- Operations --------------------------------------------------------------------------------------------------

FC = "y = Gemm <transB=1> (f, fc)"
CASES = {
    "same upper": ('y = Conv <auto_pad="SAME_UPPER", strides=[2, 3]> (x, w)', {"w": w(4, 3, 4, 3)}),
    "same lower": (
        'c = Conv <auto_pad="SAME_LOWER", strides=[3, 2]> (x, w)\n'
        'y = MaxPool <auto_pad="SAME_LOWER", kernel_shape=[2, 3], strides=[2, 2]> (c)',
        {"w": w(4, 3, 4, 3)},
    ),
    "valid": ('y = Conv <auto_pad="VALID", dilations=[2, 1]> (x, w, b)', {"w": w(4, 3, 3, 3), "b": w(4)}),
    "four sides": (
        "c = Conv <pads=[0, 1, 2, 1]> (x, w)\n"
        "p = MaxPool <kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]> (c)\n"
        "y = AveragePool <kernel_shape=[2, 2], pads=[1, 0, 0, 1]> (p)",
        {"w": w(4, 3, 3, 3)},
    ),
    "groups": (
        "c = Conv <pads=[1, 1, 1, 1], group=3> (x, w)\ny = Conv <group=2> (c, v)",
        {"w": w(6, 1, 3, 3), "v": w(4, 3, 1, 1)},
    ),
    "ceil": (
        "c = Conv (x, w)\np = MaxPool <kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1> (c)\n"
        "y = AveragePool <kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1> (p)",
        {"w": w(4, 3, 1, 1)},
    ),
    "average that counts padding": (
        "c = Conv (x, w)\n"
        "y = AveragePool <kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1> (c)",
        {"w": w(4, 3, 1, 1)},
    ),
    "batchnorm": (
        "c = Conv (x, w)\nd = BatchNormalization <epsilon=1e-3> (c, g, b, m, v)\ny = Relu (d)",
        {"w": w(4, 3, 3, 3), "g": w(4), "b": w(4), "m": w(4), "v": positive(4)},
    ),
    "norm": (
        "c = Conv (x, w)\ny = LRN <size=3, alpha=0.5, beta=0.6, bias=1.5> (c)",
        {"w": w(7, 3, 3, 3)},
    ),
    "rectifiers": (
        "c = Conv (x, w)\nd = LeakyRelu <alpha=0.2> (c)\ne = PRelu (d, s)\nf = Clip (e, low, high)\n"
        "h = PRelu (f, t)\ny = Clip (h, zero)",
        {
            "w": w(4, 3, 3, 3),
            "s": positive(4, 1, 1),
            "t": positive(1),
            "low": np.float32(-0.5),
            "high": np.float32(0.5),
            "zero": np.float32(0),
        },
    ),
    "constants by channel": (
        "n = Sub (x, m)\ns = Div (n, d)\nc = Conv (s, w)\np = Mul (c, g)\nq = Add (b, p)\nr = Relu (q)\n"
        "y = Sub (one, r)",
        {
            "m": w(1, 3, 1, 1),
            "d": positive(3, 1, 1),
            "w": w(4, 3, 3, 3),
            "g": w(4, 1, 1),
            "b": w(1, 4, 1, 1),
            "one": np.float32(1),
        },
    ),
    "scale behind batchnorm": (
        "c = Conv (x, w)\nd = BatchNormalization (c, g, b, m, v)\na = Unsqueeze (k, axes)\ne = Mul (d, a)\n"
        "h = Unsqueeze (l, axes)\ni = Add (e, h)\ny = Relu (i)",
        {
            **{"w": w(4, 3, 3, 3), "g": w(4), "b": w(4), "m": w(4), "v": positive(4)},
            **{"k": w(4), "l": w(4), "axes": ints(1, 2)},
        },
    ),
    "matmul and add": (
        "c = Conv (x, w)\nr = Relu (c)\nf = Flatten (r)\nh = MatMul (f, m)\ni = Add (h, b)\nj = Relu (i)\n"
        "y = MatMul (j, n)",
        {"w": w(4, 3, 5, 5), "m": w(192, 6), "b": w(6), "n": w(6, 3)},
    ),
    "gemm": (
        "c = Conv (x, w)\nf = Reshape (c, shape)\ny = Gemm <alpha=0.5, beta=2.0> (f, m, b)",
        {"w": w(4, 3, 5, 5), "shape": ints(0, -1), "m": w(192, 6), "b": w(1, 6)},
    ),
    "shape computed": (
        "c = Conv (x, w)\ns = Shape (c)\nn = Gather <axis=0> (s, zero)\nu = Unsqueeze (n, zero1)\n"
        "t = Concat <axis=0> (u, rest)\nf = Reshape (c, t)\n" + FC,
        {"w": w(4, 3, 5, 5), "zero": np.int64(0), "zero1": ints(0), "rest": ints(-1), "fc": w(5, 192)},
    ),
    "shuffle": (
        "c = Conv (x, w)\na = Reshape (c, five)\nb = Transpose <perm=[0, 2, 1, 3, 4]> (a)\nd = Reshape (b, four)\n"
        "y = Conv (d, v)",
        {"w": w(6, 3, 3, 3), "five": ints(-1, 2, 3, 10, 8), "four": ints(-1, 6, 10, 8), "v": w(2, 6, 1, 1)},
    ),
    "split and join": (
        "c = Conv (x, w)\na, b = Split <axis=1> (c, sizes)\nd = Relu (b)\ne = Concat <axis=1> (d, a, c)\n"
        "s = Slice (e, start, end, axes)\ny = Conv (s, v)",
        {
            **{"w": w(6, 3, 3, 3), "sizes": ints(2, 4), "v": w(2, 7, 1, 1)},
            **{"start": ints(2), "end": ints(9), "axes": ints(1)},
        },
    ),
    "other order of channels": (
        "r = Gather <axis=1> (x, bgr)\nc = Conv (r, w)\ny = Relu (c)",
        {"bgr": ints(2, 1, 0), "w": w(4, 3, 3, 3)},
    ),
    "sums": (
        "c = Conv (x, w)\nd = Conv (x, v)\ne = Conv (d, u)\ns = Sum (c, d, e)\nt = Add (s, c)\nz = Sub (t, d)\n"
        "y = Relu (z)",
        {"w": w(4, 3, 1, 1), "v": w(4, 3, 1, 1), "u": w(4, 4, 1, 1)},
    ),
    "padding apart": (
        'p = Pad <mode="constant"> (x, pads)\nc = Conv <strides=[2, 2]> (p, w)\nr = Relu (c)\n'
        "q = Pad (r, pads2, zero)\ny = MaxPool <kernel_shape=[3, 3], strides=[2, 2]> (q)",
        {
            **{"pads": ints(0, 0, 1, 2, 0, 0, 3, 1), "w": w(4, 3, 3, 3)},
            **{"pads2": ints(0, 0, 1, 1, 0, 0, 1, 1), "zero": np.float32(0)},
        },
    ),
    "global average": (
        "c = Conv (x, w)\ng = GlobalAveragePool (c)\nf = Flatten (g)\n" + FC,
        {"w": w(4, 3, 3, 3), "fc": w(5, 4)},
    ),
    "mean": (
        "c = Conv (x, w)\nf = ReduceMean <axes=[2, 3], keepdims=0> (c)\n" + FC,
        {"w": w(4, 3, 3, 3), "fc": w(5, 4)},
    ),
    "mean of rows": (
        "c = Conv (x, w)\nr = Reshape (c, three)\nf = ReduceMean <axes=[-1], keepdims=0> (r)\n" + FC,
        {"w": w(4, 3, 3, 3), "three": ints(0, 4, -1), "fc": w(5, 4)},
    ),
    "global maximum": (
        "c = Conv (x, w)\ng = GlobalMaxPool (c)\nf = Squeeze (g, axes)\n" + FC,
        {"w": w(4, 3, 3, 3), "axes": ints(2, 3), "fc": w(5, 4)},
    ),
    "channels last": (
        "t = Transpose <perm=[0, 3, 1, 2]> (x)\nc = Conv (t, w)\nb = Transpose <perm=[0, 2, 3, 1]> (c)\nr = Relu (b)\n"
        "j = Concat <axis=3> (r, b)\nk = Add (j, bias)\ns = Reshape (k, shape)\nf = Dropout (s)\n" + FC,
        {"w": w(4, 3, 3, 3), "bias": w(8), "shape": ints(-1, 640), "fc": w(5, 640)},
    ),
    "rows joined": (
        "c = Conv (x, w)\na = Flatten (c)\nd = Conv (x, v)\nb = Flatten (d)\nj = Concat <axis=1> (a, b)\nf = Relu (j)\n"
        + FC,
        {"w": w(2, 3, 10, 8), "v": w(1, 3, 9, 9), "fc": w(5, 26)},
    ),
    "batchnorm of rows": (
        "c = Conv (x, w)\na = Flatten (c)\nf = BatchNormalization (a, g, b, m, v)\n" + FC,
        {"w": w(2, 3, 10, 8), "g": w(18), "b": w(18), "m": w(18), "v": positive(18), "fc": w(5, 18)},
    ),
    "maps as output": ("c = Conv (x, w)\ny = Relu (c)", {"w": w(4, 3, 3, 3)}),
    "rows of maps as output": ("c = Conv (x, w)\ny = Flatten (c)", {"w": w(2, 3, 9, 8)}),
    "filled weights": (
        "w = ConstantOfShape <value: tensor = float[1] {0.25}> (shape)\nc = Conv (x, w)\n"
        "b = Constant <value_float=0.5> ()\n"
        "s = Add (c, b)\nk = Cast <to=1> (s)\ny = Identity (k)",
        {"shape": ints(4, 3, 3, 3)},
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_operations(what, tmp_path):
    nodes, weights = CASES[what]
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
    nodes, weights = CASES["matmul and add"]
    expected = read(model(nodes, weights), tmp_path).parameters()
    number = {"float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE, "bfloat16": TensorProto.BFLOAT16}[dtype]
    typed = {name: array.astype(backends.BFLOAT16 if dtype == "bfloat16" else dtype) for name, array in weights.items()}
    proto = model(nodes, typed, dtype=number)
    net = read(proto, tmp_path)
    for name, array in net.parameters().items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name], rtol=2**-7)


def test_fields_instead_of_raw_data(tmp_path):
    nodes, weights = CASES["groups"]
    proto = model(nodes, {})
    tensors = [onnx.helper.make_tensor(name, TensorProto.FLOAT, v.shape, v.ravel()) for name, v in weights.items()]
    proto.graph.initializer.extend(tensors)
    np.testing.assert_array_equal(read(proto, tmp_path).layers["conv"].weight.reshape(6, 3, 3), weights["w"][:, 0])


# ---- What is known besides the layers ----------------------------------------------------------------------------

CLASSIFIER = "c = Conv (x, conv1_weight)\nr = Relu (c)\nf = Flatten (r)\nl = Gemm <transB=1> (f, fc_weight, fc_bias)\n"
WEIGHTS = {"conv1_weight": w(4, 3, 5, 5), "fc_weight": w(5, 192), "fc_bias": w(5)}


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


def test_on_the_emulated_backend(tmp_path):
    for what in ("batchnorm", "shuffle", "split and join"):
        proto = model(*CASES[what], ("N", 3, 12, 10))
        x = nhwc(images(proto))
        net = read(proto, tmp_path)
        trace = net.forward(x)
        layer = list(net.layers)[-1]
        pixels = net.project(trace, layer, trace[layer])
        with backends.use("emulated"):
            emulated = net.forward(x)
            assert relative_error(emulated.output, trace.output) < 1e-5
            assert relative_error(net.project(emulated, layer, trace[layer]), pixels) < 1e-5


# ---- What cannot be read -------------------------------------------------------------------------------------------

SMALL = {"w": w(4, 3, 3, 3)}
UNREADABLE = {
    "an operation": (
        "c = Conv (x, w)\ny = Gelu (c)",
        SMALL,
        r"c? ?\(Gelu\): is no operation that is read\noperations that are read: .*Conv, ",
    ),
    "of others": ("y = com.microsoft.FusedConv (x, w)", SMALL, r"\(com.microsoft.FusedConv\): is no operation"),
    "a product": ("c = Conv (x, w)\ny = Mul (c, c)", SMALL, r"\(Mul\): products are read of a tensor and constants"),
    "quantised": (
        "y = Conv (x, w)",
        {"w": np.ones((4, 3, 3, 3), np.int8)},
        "the weight must be floating-point .* int8",
    ),
    "weights that do not fit": ("y = Conv (x, w)", {"w": w(4, 2, 3, 3)}, "its weight must have shape"),
    "too large a window": ("y = Conv (x, w)", {"w": w(4, 3, 13, 3)}, "window of 13 is larger than its padded input"),
    "a computed weight": (
        "c = Conv (x, w)\ny = Conv (x, c)",
        SMALL,
        "the weight must be known before there is an image",
    ),
    "three dimensions": ("y = Conv (x, w)", {"w": w(4, 3, 3, 3, 3)}, "convolutions of one and two dimensions"),
    "across the batch": (
        "c = Conv (x, w)\ny = Reshape (c, s)",
        SMALL | {"s": ints(-1, 80)},
        "must leave the images of a batch apart",
    ),
    "a softmax inside": ("s = Softmax (x)\ny = Conv (s, w)", SMALL, "softmax is read over all outputs together"),
    "a sigmoid inside": ("s = Sigmoid (x)\ny = Conv (s, w)", SMALL, "sigmoid is read at the end of a model only"),
    "padding at the end": (
        "c = Conv (x, w)\np = Pad (c, s)\nq = Pad (p, s)\ny = Relu (q)",
        SMALL | {"s": ints(0, 0, 1, 1, 0, 0, 1, 1)},
        "maps are padded in front of a convolution or a pool only",
    ),
    "zeros before a maximum": (
        "c = Conv (x, w)\np = Pad (c, s)\ny = MaxPool <kernel_shape=[2, 2]> (p)",
        SMALL | {"s": ints(0, 0, 1, 1, 0, 0, 1, 1)},
        "padded with -inf, or behind a ReLU with zeros; not 0",
    ),
    "an image subtracted": (
        "s = Sub (x, m)\ny = Conv (s, w)",
        SMALL | {"m": w(3, 12, 10)},
        "these differ from pixel to pixel",
    ),
    "broadcasting": (
        "c = Conv (x, w)\ng = GlobalAveragePool (c)\ny = Add (c, g)",
        SMALL,
        r"sums are read of tensors of one shape, got \('N', 4, 10, 8\) and \('N', 4, 1, 1\)",
    ),
    "an even number of channels": ("c = Conv (x, w)\ny = LRN <size=4> (c)", SMALL, "must be odd"),
    "absurd sizes": (
        "s = ConstantOfShape (n)\ny = Conv (x, s)",
        {"n": ints(2**30, 2**30, 3, 3)},
        "it would make an array of",
    ),
    "an outer product": (
        "s = Mul (a, b)\ny = Conv (x, s)",
        {"a": np.ones((2**16, 1), np.float32), "b": np.ones((1, 2**16), np.float32)},
        "it would make an array of",
    ),
    "many arrays": (
        "a = Expand (k, n)\nb = Expand (k, n)\nd = Expand (k, n)\ns = Concat <axis=0> (a, b, d)\ny = Conv (x, s)",
        {"k": w(1), "n": ints(2**27)},
        "array of 134,217,728 float32, and all that a model makes must fit into 1,073,741,824 bytes",
    ),
    "an array that doubles": (
        "\n".join(f"k{i + 1} = Concat <axis=0> (k{i}, k{i})" for i in range(8)) + "\ny = Conv (x, k8)",
        {"k0": w(2**20)},
        "all that a model makes must fit into",
    ),
    "maps that double": (
        "m0 = Conv (x, w)\n"
        + "\n".join(f"m{i + 1} = Concat <axis=1> (m{i}, m{i})" for i in range(24))
        + "\ny = Relu (m24)",
        SMALL,
        "numbers is rearranged; at most",
    ),
    "a norm of no channels": (
        "c = Conv (x, w)\ny = LRN <size=0> (c)",
        SMALL,
        r"attributes that are not those of its kind \(.*zero\)",
    ),
    "division by zero": (
        "c = Conv (x, w)\ny = Div (c, k)",
        SMALL | {"k": np.zeros(1, np.float32)},
        "constants must be finite",
    ),
    "another kernel": ("y = Conv <kernel_shape=[5, 5]> (x, w)", SMALL, r"must be the weight's \(3, 3\), got \(5, 5\)"),
    "vast padding": ("y = Conv <pads=[9000, 9000, 9000, 9000]> (x, w)", SMALL, "numbers for an image; at most"),
    "indices": ("c, i = MaxPool <kernel_shape=[2, 2]> (x)\ny = Conv (i, w)", SMALL, "it reads i, which is no output"),
    "no layers": ("y = Identity (x)", {}, "the model has no layers"),
    "a constant output": ("z = Conv (x, w)\ny = Identity (w)", SMALL, "output does not depend on its input"),
    "no weights": ("y = Relu (x)", {}, "a network needs a conv or fc layer"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read(what, tmp_path, monkeypatch):
    nodes, weights, message = UNREADABLE[what]
    if what == "an array that doubles":
        monkeypatch.setattr("zfcuda.interop.builder._ROOM", 2**28)
    proto = model(nodes, weights)
    with pytest.raises(CheckpointError, match=f"(?s)model.onnx: .*{message}"):
        read(proto, tmp_path)


def test_a_bias_for_each_image(tmp_path):
    weights = {"w": w(12, 2), "b": w(2, 1)}
    with pytest.raises(CheckpointError, match=r"the bias must be one number or one for each of 2 units, got \(2, 1\)"):
        read(model("y = Gemm (x, w, b)", weights, (2, 12)), tmp_path)


def test_a_tensor_that_is_made_twice(tmp_path):
    for nodes, name in (("c = Conv (x, w)\nk = Relu (c)\ny = Add (k, c)", "k"), ("y = Conv (x, w)\ny = Relu (y)", "y")):
        with pytest.raises(CheckpointError, match=f"damaged: '{name}' is made twice"):
            read(model(nodes, SMALL | {"k": w(1, 4, 1, 1)}), tmp_path)


def test_an_image_that_is_too_large(tmp_path):
    with pytest.raises(CheckpointError, match="an image of 2,028,000,000 numbers is too large; at most 67,108,864"):
        read(model("y = Conv (x, w)", SMALL, ("N", 3, 26_000, 26_000)), tmp_path)


def test_many_layers_of_one_name(tmp_path):
    """In a time that is linear in their number."""
    chain = "\n".join(f"r{i + 1} = Relu (r{i})" for i in range(3000))
    net = read(model(f"r0 = Conv (x, w)\n{chain}\ny = Relu (r3000)", SMALL), tmp_path)
    assert list(net.layers)[-1] == "relu_3000"


def test_all_that_cannot_be_read_is_in_one_error(tmp_path):
    nodes = "a = Conv (x, w)\nb = Gelu (a)\nc = Conv (b, w)\nd = Mish (x)\ny = Add (c, d)"
    with pytest.raises(CheckpointError, match="2 of the model's 5 nodes cannot be read") as error:
        read(model(nodes, SMALL, opset=20), tmp_path)
    assert [line.partition(":")[0].strip() for line in str(error.value).splitlines()[1:-1]] == [
        "gelu (Gelu)",
        "mish (Mish)",
    ]


def test_control_flow(tmp_path):
    branch = onnx.helper.make_graph([onnx.parser.parse_node("z = Identity (x)")], "g", [], [])
    proto = model("c = Conv (x, w)\ny = Relu (c)", SMALL)
    proto.graph.node.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    proto.graph.output[0].name = "z"
    with pytest.raises(CheckpointError, match=r"\(If\): control flow is not read"):
        read(proto, tmp_path)


def test_several_inputs(tmp_path):
    proto = model("c = Conv (x, w)\ny = Add (c, z)", SMALL)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, ("N", 4, 10, 8)))
    with pytest.raises(CheckpointError, match="a model with one input is read; this one has x, z"):
        read(proto, tmp_path)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 3), TensorProto.INT64, "its input x must be floating-point numbers, got INT64"),
        ((1, 1, 3, 12, 10), TensorProto.FLOAT, r"must be \(N, C, H, W\), .* got \(1, 1, 3, 12, 10\)"),
        (("N", 3, 2**30, 2**30), TensorProto.FLOAT, "is too large"),
        (None, TensorProto.FLOAT, "must be a tensor of a known number of dimensions"),
    ],
)
def test_inputs_that_are_no_images(shape, dtype, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        read(model("y = Conv (x, w)", SMALL, shape, dtype=dtype), tmp_path)


def test_classes_and_preprocessing_that_do_not_fit(tmp_path):
    proto = model(CLASSIFIER + "y = Softmax (l)", WEIGHTS)
    with pytest.raises(CheckpointError, match="classes must be 5 names, one for each output; got 2"):
        read(proto, tmp_path, classes=["a", "b"])
    preprocess = data.Preprocess(np.zeros((14, 12, 3), np.float32), (12, 12))
    with pytest.raises(CheckpointError, match=r"preprocess must make images of \(12, 10, 3\), got \(12, 12, 3\)"):
        read(proto, tmp_path, preprocess=preprocess)
    with pytest.raises(CheckpointError, match="head must be one of softmax, sigmoid, none; got 'tanh'"):
        read(proto, tmp_path, head="tanh")


# ---- Files -----------------------------------------------------------------------------------------------------------


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(FileNotFoundError, match="no ONNX file at "):
        interop.load(path)
    for content in (b"", b"a text of no meaning", b"\x89PNG\r\n\x1a\n" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="no ONNX file"):
            interop.load(path)
    whole = model(CLASSIFIER + "y = Softmax (l)", WEIGHTS).SerializeToString()
    for share in (0.2, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match=r"model\.onnx: "):
            interop.load(path)
    path.write_bytes(model("y = Conv (x, w)", SMALL, opset=6).SerializeToString())
    with pytest.raises(CheckpointError, match="its opset must be 7 or newer, got 6"):
        interop.load(path)


def test_random_damage_is_an_error_or_another_model(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "model.onnx"
    read_at_all = 0
    for what, (nodes, weights) in CASES.items():
        whole = model(nodes, weights, ("N", 12, 10, 3) if what == "channels last" else ("N", 3, 12, 10))
        for _ in range(12):
            content = bytearray(whole.SerializeToString())
            for _ in range(rng.integers(1, 4)):
                content[rng.integers(len(content))] = rng.integers(256)
            path.write_bytes(content)
            try:
                interop.load(path)
                read_at_all += 1
            except CheckpointError:
                pass
    assert 20 < read_at_all < 12 * len(CASES) - 20


@pytest.mark.parametrize("change", [{"dims": [4, 3, 3, 300]}, {"dims": [-4, 3, 3, 3]}, {"data_type": 8}])
def test_damaged_tensors(change, tmp_path):
    proto = model("y = Conv (x, w)", SMALL)
    for name, value in change.items():
        if name == "dims":
            del proto.graph.initializer[0].dims[:]
            proto.graph.initializer[0].dims.extend(value)
        else:
            setattr(proto.graph.initializer[0], name, value)
    with pytest.raises(CheckpointError, match="tensor w "):
        read(proto, tmp_path)


def external(path, location="weights.bin", **entries):
    """A model whose weight is in another file."""
    proto = model("y = Conv (x, w)", SMALL)
    tensor = proto.graph.initializer[0]
    raw = bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": 8, "length": len(raw), **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    onnx.save(proto, path / "model.onnx")
    return bytes(8) + raw


def test_external_data(tmp_path):
    content = external(tmp_path)
    with pytest.raises(CheckpointError, match="tensor w: its data is missing, "):
        interop.load(tmp_path / "model.onnx")
    (tmp_path / "weights.bin").write_bytes(content)
    net = interop.load(tmp_path / "model.onnx")
    np.testing.assert_array_equal(net.layers["conv"].weight, nhwc(SMALL["w"]))
    (tmp_path / "weights.bin").write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"tensor w: bytes 8 to 440 of .* are wanted, which has 439"):
        interop.load(tmp_path / "model.onnx")
    for entries, message in [
        ({"length": 7}, "needs 432 bytes"),
        ({"offset": "x"}, "numbers"),
        ({"offset": -1}, "bytes -1"),
    ]:
        external(tmp_path, **entries)
        with pytest.raises(CheckpointError, match=message):
            interop.load(tmp_path / "model.onnx")


def test_external_data_stays_in_the_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    content = external(folder)
    (tmp_path / "outside.bin").write_bytes(content)
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    for location in ("../outside.bin", str(tmp_path / "outside.bin"), "link.bin", "inner/../../outside.bin", ""):
        external(folder, location)
        with pytest.raises(CheckpointError, match="its data must lie in the model's folder"):
            interop.load(folder / "model.onnx")
    (folder / "inner").mkdir()
    (folder / "inner" / "weights.bin").write_bytes(content)
    external(folder, "inner/weights.bin")
    interop.load(folder / "model.onnx")


@pytest.mark.parametrize("start", [b"", model("y = Relu (x)", {}).SerializeToString()[:9]])
def test_what_is_no_message_is_not_read(tmp_path, monkeypatch, start):
    """Sparse files: read whole, they would fill the memory."""
    with open(tmp_path / "zeros.onnx", "wb") as file:
        file.write(start)
        file.truncate(2**31 - 1)
    monkeypatch.setattr("pathlib.Path.read_bytes", None)
    with pytest.raises(CheckpointError, match=r"zeros\.onnx: no ONNX file, or one that is damaged or cut short"):
        interop.load(tmp_path / "zeros.onnx")


def test_what_is_too_large_is_not_read(tmp_path):
    """Sparse files: read whole, they would fill the memory."""
    for name in ("vast.onnx", "weights.bin"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(2**36)
    with pytest.raises(CheckpointError, match=r"vast\.onnx: no ONNX file: it holds 68,719,476,736 bytes"):
        interop.load(tmp_path / "vast.onnx")
    proto = model("y = Conv (x, w)", SMALL)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [2**33]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=r"tensor w of \(8589934592,\) is too large; at most 268,435,456 numbers"):
        interop.load(tmp_path / "model.onnx")
