"""What zfcuda/interop/onnx.py refuses of a model, and how it says so."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'zfcuda[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime, the reference")

from onnx import TensorProto  # noqa: E402

from tests.interop.onnx_models import CLASSIFIER, SMALL, WEIGHTS, ints, model, read, w  # noqa: E402
from zfcuda import CheckpointError, data  # noqa: E402
from zfcuda.interop import onnx as interop  # noqa: E402

UNREADABLE = {
    "an operation": (
        "c = Conv (x, w)\ny = Gelu (c)",
        SMALL,
        r"c? ?\(Gelu\): is no operation that is read\n\d\d operations are read; Gelu, which is like 'Relu'.* "
        r"README.md says which \(Your own network\), and zfcuda.interop.onnx_nodes.NODES lists their names$",
    ),
    "of others": ("y = com.microsoft.FusedConv (x, w)", SMALL, r"\(com.microsoft.FusedConv\): is no operation"),
    "a product": ("c = Conv (x, w)\ny = Mul (c, c)", SMALL, r"\(Mul\): products are read of a tensor and constants"),
    "squeeze and excitation": (
        "c = Conv (x, w)\ng = GlobalAveragePool (c)\ne = Conv (g, v)\ns = Sigmoid (e)\ny = Mul (c, s)",
        SMALL | {"v": w(4, 4, 1, 1)},
        r"1 of the model's 5 nodes cannot be read:\n  mul \(Mul\): products are read of a tensor and constants, not of "
        r"two tensors, as of gates \(squeeze and excitation",
    ),
    "a root": ("c = Conv (x, w)\ny = Sqrt (c)", SMALL, r"sqrt \(Sqrt\): is read of what is known before there is"),
    "a mean of all": ("c = Conv (x, w)\ny = ReduceMean (c)", SMALL, "must leave the images of a batch apart"),
    "a sum of axes that are none": (
        "c = Conv (x, w)\ny = ReduceSum (c, axes)",
        SMALL | {"axes": ints()},
        "must leave the images of a batch apart",
    ),
    "a sum of one pixel, of axes that are none": (
        "c = Conv (x, w)\ng = GlobalAveragePool (c)\ny = ReduceSum (g, axes)",
        SMALL | {"axes": ints()},
        "must leave the images of a batch apart",
    ),
    "an axis beyond": ("c = Conv (x, w)\ny = ReduceMax <axes=[4]> (c)", SMALL, "there is no axis 4 of a tensor of 4"),
    "a softmax of one": (
        "c = Conv (x, w)\nf = Flatten (c)\nl = MatMul (f, m)\ny = Softmax (l)",
        SMALL | {"m": w(320, 1)},
        "head must be 'sigmoid' .* or 'none' .* for a network of one output",
    ),
    "a negative variance": (
        "y = BatchNormalization (x, g, g, g, v)",
        {"g": np.ones(3, np.float32), "v": np.float32([1, -0.5, 1])},
        r"running_var \+ eps must be positive, got -0.5 \+ 1e-05",
    ),
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
    "every second image": (
        "c = Conv (x, w)\ny = Slice (c, start, end, axis, step)",
        SMALL | {"start": ints(0), "end": ints(100), "axis": ints(0), "step": ints(2)},
        "along the images of a batch the step must be 1, got 2",
    ),
    "images the other way round": (
        "c = Conv (x, w)\ny = Slice (c, start, end, axis, step)",
        SMALL | {"start": ints(-1), "end": ints(-100), "axis": ints(0), "step": ints(-1)},
        "along the images of a batch the step must be 1, got -1",
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


def test_the_path_of_a_gate(tmp_path):
    nodes, weights, _ = UNREADABLE["squeeze and excitation"]
    proto = model(nodes, weights)
    for node in proto.graph.node:
        node.name = f"/stages/stages.1/se/{node.op_type}"
    with pytest.raises(CheckpointError, match=r"  stages\.1\.se\.mul \(Mul\): products are read"):
        read(proto, tmp_path)


def test_a_bias_for_each_image(tmp_path):
    weights = {"w": w(12, 2), "b": w(2, 1)}
    with pytest.raises(CheckpointError, match=r"the bias must be one number or one for each of 2 units, got \(2, 1\)"):
        read(model("y = Gemm (x, w, b)", weights, (2, 12)), tmp_path)


def test_a_tensor_that_is_made_twice(tmp_path):
    for nodes, name in (
        ("c = Conv (x, w)\nk = Relu (c)\ny = Add (k, c)", "k"),
        ("y = Conv (x, w)\ny = Relu (y)", "y"),
        ("x = Relu (x)\ny = Conv (x, w)", "x"),
    ):
        with pytest.raises(CheckpointError, match=f"damaged: '{name}' is made twice"):
            read(model(nodes, SMALL | {"k": w(1, 4, 1, 1)}), tmp_path)


@pytest.mark.parametrize("kind", ["Constant", "Relu"])
def test_a_node_without_outputs(tmp_path, kind):
    proto = model("c = Conv (x, w)\ny = Relu (c)", SMALL)
    proto.graph.node.insert(1, onnx.helper.make_node(kind, ["c"] if kind == "Relu" else [], []))
    with pytest.raises(CheckpointError, match=f"damaged: a node {kind} has no output"):
        read(proto, tmp_path)


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


def squeezing(change=None):
    """A model with "if shape(x)[1] == 1: squeeze(x, 1), else: x" before its convolution, or something like it."""
    then = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Constant", [], ["axes"], value_ints=[2 if change == "another axis" else 1]),
            onnx.helper.make_node("Squeeze", ["x", "axes"], ["squeezed"]),
        ],
        "then",
        [],
        [onnx.helper.make_tensor_value_info("squeezed", TensorProto.FLOAT, None)],
    )
    kept = onnx.helper.make_node("Relu" if change == "another branch" else "Identity", ["x"], ["kept"])
    other = onnx.helper.make_graph(
        [kept], "else", [], [onnx.helper.make_tensor_value_info("kept", TensorProto.FLOAT, None)]
    )
    asked = "Greater" if change == "another question" else "Equal"
    proto = model(
        f"s = Shape (x)\ng = Gather <axis=0> (s, one)\nq = {asked} (g, {'two' if change == 'two' else 'one'})\n"
        "y = Conv (m, w)",
        SMALL | {"one": ints(1), "two": ints(2)},
    )
    graph = {"then_branch": then, "else_branch": other}
    if change == "branches swapped":
        graph = {"then_branch": other, "else_branch": then}
    proto.graph.node.insert(3, onnx.helper.make_node("If", ["q"], ["m"], name="if", **graph))
    return proto


def test_the_squeeze_of_pytorch_is_no_control_flow(tmp_path):
    net = read(squeezing(), tmp_path)
    assert list(net.layers) == ["conv"]


def test_damaged_squeezes_are_an_error_or_another_model(tmp_path):
    """Inputs, outputs, attributes and kinds of what belongs to it, gone or others."""
    rng = np.random.default_rng(0)
    read_at_all = 0
    for _ in range(300):
        proto = squeezing()
        nodes = [node for node in proto.graph.node if node.op_type in ("Shape", "Gather", "Equal", "If")]
        nodes += [inner for one in nodes[-1].attribute for inner in one.g.node]
        for node in rng.choice(np.array(nodes, object), rng.integers(1, 3)):
            fields = [field for field in (node.input, node.output, node.attribute) if len(field)]
            if rng.integers(3):
                field = fields[rng.integers(len(fields))]
                del field[rng.integers(len(field))]
            else:
                node.op_type = str(rng.choice(["Squeeze", "Identity", "Constant", "Shape", "If", "Equal"]))
        onnx.save(proto, tmp_path / "model.onnx")
        try:
            interop.load(tmp_path / "model.onnx")
            read_at_all += 1
        except CheckpointError:
            pass
    assert read_at_all < 100


@pytest.mark.parametrize("change", ["another axis", "another branch", "another question", "two", "branches swapped"])
def test_what_only_looks_like_it_is(tmp_path, change):
    with pytest.raises(CheckpointError, match=r"if \(If\): control flow is not read"):
        read(squeezing(change), tmp_path)
