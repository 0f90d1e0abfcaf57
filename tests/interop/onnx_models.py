"""ONNX models for tests: from a few lines of text, and the nets that the onnx package carries, with random weights."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


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
    loaded = onnx.load(LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(0)
    shapes = {one.name: tuple(numpy_helper.to_array(one)) for one in loaded.graph.initializer}
    uses = {}
    for node in loaded.graph.node:
        for place, read in enumerate(node.input):
            uses.setdefault(read, (node.op_type, place))
    nodes = []
    for node in loaded.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = shapes[node.input[0]]
            weight = _weight(rng, *uses.get(node.output[0], ("", 0)), shape).astype(np.float32)
            loaded.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        else:
            nodes.append(node)
    softmax = [node for node in nodes if node.op_type == "Softmax"]
    if softmax:
        loaded.graph.output[0].name = softmax[0].input[0]
        loaded.graph.output[0].type.tensor_type.ClearField("shape")
        nodes.remove(softmax[0])
    used = {name for node in nodes for name in node.input}
    initializers = [one for one in loaded.graph.initializer if one.name in used]
    inputs = [one for one in loaded.graph.input if one.name not in shapes]
    for field, values in (("node", nodes), ("initializer", initializers), ("input", inputs)):
        values = [type(value).FromString(value.SerializeToString()) for value in values]
        loaded.graph.ClearField(field)
        getattr(loaded.graph, field).extend(values)
    return loaded


def _weight(rng, op, place, shape):
    if op in ("Conv", "Gemm") and place == 1:
        return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    if op == "BatchNormalization" and place == 4:
        return rng.uniform(0.8, 1.5, shape)
    if op in ("BatchNormalization", "Unsqueeze") and place in (0, 1):
        return rng.uniform(0.5, 0.9, shape)
    return rng.normal(0, 0.1, shape)


def run(proto, x):
    """What onnxruntime makes of it on the CPU: x (N, ...) as the model takes it -> its first output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]
