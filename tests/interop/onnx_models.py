"""ONNX models for tests: from a few lines of text, and the nets that the onnx package carries, with random weights."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from zfcuda.interop import onnx as interop

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
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


SMALL = {"w": w(4, 3, 3, 3)}  # of one convolution
CLASSIFIER = "c = Conv (x, conv1_weight)\nr = Relu (c)\nf = Flatten (r)\nl = Gemm <transB=1> (f, fc_weight, fc_bias)\n"
WEIGHTS = {"conv1_weight": w(4, 3, 5, 5), "fc_weight": w(5, 192), "fc_bias": w(5)}


def model(nodes, weights, shape=("N", 3, 12, 10), opset=13, outputs=("y",), dtype=onnx.TensorProto.FLOAT):
    """A model from lines such as "y = Conv <strides=[2, 2]> (x, w)"; x is its input."""
    parsed = [onnx.parser.parse_node(line) for line in nodes.strip().splitlines()]
    graph = onnx.helper.make_graph(
        parsed,
        "graph",
        [onnx.helper.make_tensor_value_info("x", dtype, shape)],
        [onnx.helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


def light(name):
    """One of the onnx package's nets, whose constant weights give way to random ones, of a scale that keeps activations
    about as large as they are. Its output is what its softmax reads."""
    graph = onnx.load(LIGHT / f"light_{name}.onnx").graph
    rng = np.random.default_rng(0)
    shapes = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    uses = {read: (node.op_type, place) for node in graph.node for place, read in enumerate(node.input)}
    weights = {
        node.output[0]: _weight(rng, *uses[node.output[0]], tuple(shapes[node.input[0]]))
        for node in graph.node
        if node.op_type == "ConstantOfShape" and node.output[0] in uses
    }
    nodes = [node for node in graph.node if node.op_type not in ("ConstantOfShape", "Softmax")]
    weights |= {name: array for name, array in shapes.items() if any(name in node.input for node in nodes)}
    image = [one for one in graph.input if one.name not in shapes]
    output = onnx.helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = onnx.helper.make_graph(nodes, name, image, [output], tensors)
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 9)], ir_version=8)


def _weight(rng, op, place, shape):
    if op in ("Conv", "Gemm") and place == 1:
        noise = rng.standard_normal(100_003, np.float32)  # again and again: a hundred million would take seconds
        return np.resize(noise * np.float32(np.sqrt(2 / np.prod(shape[1:]))), shape)
    if op == "BatchNormalization" and place == 4:
        return rng.uniform(0.8, 1.5, shape).astype(np.float32)
    if op in ("BatchNormalization", "Unsqueeze") and place in (0, 1):
        return rng.uniform(0.5, 0.9, shape).astype(np.float32)
    return rng.normal(0, 0.1, shape).astype(np.float32)


def run(model, x):
    """What onnxruntime makes of a model, or of the path of one, on the CPU: x (N, ...) as it takes it -> its first
    output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]
