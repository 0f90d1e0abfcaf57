"""Networks from ONNX files, opset 7 and up. Needs the package onnx (`pip install 'zfcuda[onnx]'`).

Nothing of a file is executed: its operations are names, each of which is read as layers (`zfcuda.interop.operations`).
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from ..errors import CheckpointError
from ..nn import Network
from .graph import MALFORMED, Graph, Node
from .program import is_own, layer_name
from .reader import read

if TYPE_CHECKING:
    from ..data import Preprocess

__all__ = ["load"]

_OLDEST = 7
_EXTERNAL = onnx.TensorProto.EXTERNAL


def load(
    path: str | os.PathLike[str],
    *,
    preprocess: Preprocess | None = None,
    classes: Sequence[str] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    output: str | None = None,
    head: str | None = None,
    bgr: bool = False,
) -> Network:
    """The network of an ONNX file, on the CPU, with its weights in float32.

    preprocess, classes: how images become its inputs, and the names of its outputs, which such a file does not say
    input_shape: (H, W, C) where the file leaves sizes open
    output: which of several outputs is wanted; by default the first. What only others need is left out
    head: what `Network.predict` makes of the outputs, "softmax", "sigmoid" or "none"; by default what the model does
    bgr: the model takes its three channels as blue, green, red; the network takes them as red, green, blue

    A softmax or sigmoid at the end is no layer: `net.head` says what it was. Layers are called as the model's nodes or
    weights are, a convolution with the weight "layer1.0.conv1.weight" "layer1.0.conv1".

    FileNotFoundError if there is no such file; CheckpointError, with the path, if it is no ONNX file, damaged, cut
    short, has a control flow, open sizes or several inputs, or nodes that cannot be read: then it lists them all, with
    what is allowed. Weights outside of the file are read from its own folder only.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no ONNX file at {path}")
    try:
        graph = _graph(_parsed(path), path.parent, input_shape)
        return read(graph, output=output, preprocess=preprocess, classes=classes, head=head, bgr=bgr)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _parsed(path: Path) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"no ONNX file, or one that is damaged or cut short ({error})") from error
    if not model.graph.node or not model.opset_import:
        raise ValueError("no ONNX file: it holds no graph of nodes")
    made = [name for node in model.graph.node for name in node.output if name]
    made += [one.name for one in model.graph.initializer]
    if len(set(made)) != len(made):
        twice = next(name for name, count in Counter(made).items() if count > 1)
        raise ValueError(f"damaged: {twice!r} is made twice")
    names = [name for node in model.graph.node for name in (node.op_type, node.name, *node.input, *node.output)]
    names += [attribute.name for node in model.graph.node for attribute in node.attribute]
    names += [one.name for one in (*model.graph.initializer, *model.graph.input, *model.graph.output)]
    if not all(isinstance(name, str) for name in names):  # else bytes that are no text
        raise ValueError("damaged: it has names that are no text")
    version = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    if version < _OLDEST:
        raise ValueError(f"its opset must be {_OLDEST} or newer, got {version}; onnx.version_converter can convert it")
    return model


def _graph(model: onnx.ModelProto, folder: Path, input_shape: tuple[int, int, int] | None) -> Graph:
    constants = {one.name: _array(one, folder) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            constants[node.output[0]] = _constant(node, folder)
    inputs = [one for one in model.graph.input if one.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs) or "none"
        raise ValueError(f"a model with one input is read; this one has {names}")
    batch, dims = _sizes(inputs[0], input_shape)
    version = max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    containers = {above for node in model.graph.node for above in _containers(node.name)}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            continue
        nodes.append(_Translation(node, version, folder, constants, containers).node())
    outputs = tuple(one.name for one in model.graph.output)
    return Graph(inputs[0].name, dims, batch, nodes, constants, outputs, tuple(_NODES))


def _sizes(value: onnx.ValueInfoProto, input_shape: tuple[int, int, int] | None) -> tuple[int, tuple[int, ...]]:
    """(images of a batch, the other dimensions) of the model's input."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        raise ValueError(f"its input {value.name} must be a tensor of a known number of dimensions")
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
    if value.type.tensor_type.elem_type not in floating:
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        raise ValueError(f"its input {value.name} must be floating-point numbers, got {kind}")
    found = [int(dim.dim_value) if dim.HasField("dim_value") else 0 for dim in value.type.tensor_type.shape.dim]
    shown = ", ".join(str(dim.dim_param or dim.dim_value) for dim in value.type.tensor_type.shape.dim)
    if len(found) not in (2, 3, 4):
        raise ValueError(f"its input {value.name} must be (N, C, H, W), (N, C, W) or (N, units), got ({shown})")
    batch, *dims = found
    if input_shape is not None:
        height, width, channels = input_shape
        # As they may stand in the model: channels first, or last where those are given so.
        last = len(dims) == 3 and dims[2] == channels and dims[0] != channels
        wanted: tuple[int, ...] = (height, width, channels) if last else (channels, height, width)
        if len(dims) < 3:
            wanted = (channels, width) if len(dims) == 2 else (height * width * channels,)
        if any(size > 0 and size != want for size, want in zip(dims, wanted, strict=True)):
            raise ValueError(f"input_shape {input_shape} does not fit its input {value.name} ({shown})")
        dims = list(wanted)
    if min(dims) < 1:
        raise ValueError(
            f"its input {value.name} ({shown}) has open sizes: give input_shape=(height, width, channels), or export "
            "it with fixed ones (only the batch may be open)"
        )
    if max(dims) >= 2**24 or math.prod(dims) >= 2**31:
        raise ValueError(f"its input {value.name} ({shown}) is too large")
    return max(batch, 1), tuple(dims)


# ---- Tensors ---------------------------------------------------------------------------------------------------------

_DTYPES = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "INT16", "INT32", "INT64", "UINT8", "BOOL")


def _array(tensor: onnx.TensorProto, folder: Path) -> np.ndarray:
    kinds = {onnx.TensorProto.DataType.Value(name): name for name in _DTYPES}
    if tensor.data_type not in kinds:
        raise ValueError(f"tensor {tensor.name} is of data type {tensor.data_type}; read are {', '.join(_DTYPES)}")
    dims = tuple(tensor.dims)
    if min(dims, default=0) < 0:
        raise ValueError(f"tensor {tensor.name} has dimensions {dims}")
    if tensor.data_location == _EXTERNAL:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        return _external(tensor, folder, dtype, dims)
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ValueError(f"tensor {tensor.name} does not hold what its dimensions {dims} say: {error}") from error


def _external(tensor: onnx.TensorProto, folder: Path, dtype: np.dtype, dims: tuple[int, ...]) -> np.ndarray:
    given = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset = int(given.get("offset") or 0)
        length = int(given["length"]) if given.get("length") else None
    except ValueError:
        raise ValueError(f"tensor {tensor.name}: offset and length of its data must be numbers, got {given}") from None
    size = math.prod(dims) * dtype.itemsize
    if length not in (None, size):
        raise ValueError(f"tensor {tensor.name} of {dims} needs {size} bytes; its external data has {length}")
    data = _read_beside(folder, given.get("location", ""), offset, size, f"tensor {tensor.name}")
    return np.frombuffer(data, dtype.newbyteorder("<") if dtype.kind != "V" else dtype).reshape(dims)


def _constant(node: onnx.NodeProto, folder: Path) -> np.ndarray:
    (attribute,) = [one for one in node.attribute if one.name.startswith(("value", "sparse"))][:1] or [None]
    value = None if attribute is None else onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _array(value, folder)
    if attribute is None or attribute.name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError(f"constant {node.output[0]} must be numbers")
    return np.array(value, np.float32 if "float" in attribute.name else np.int64)


def _read_beside(folder: Path, location: str, offset: int, size: int, what: str) -> bytes:
    """A part of a file in the model's folder, or in one inside it."""
    file = folder / location
    try:
        if not location or not file.resolve().is_relative_to(folder.resolve()) or ".." in Path(location).parts:
            raise ValueError(f"{what}: its data must lie in the model's folder, not in {location[:99]!r}")
        if not file.is_file():
            raise ValueError(f"{what}: its data is missing, {file}")
    except OSError as error:  # a name that is too long, links without end
        raise ValueError(f"{what}: its data cannot be looked for, {location[:99]!r}: {error.strerror}") from error
    held = file.stat().st_size
    if offset < 0 or offset + size > held:
        raise ValueError(f"{what}: bytes {offset} to {offset + size} of {file} are wanted, which has {held}")
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(size)


# ---- Nodes -----------------------------------------------------------------------------------------------------------


def _containers(name: str) -> list[str]:
    """Of PyTorch's "/layer1/layer1.0/relu/Relu" the modules around the node's: "/layer1" and "/layer1/layer1.0"."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(2, len(parts) - 1)] if name.startswith("/") else []


class _Translation:
    """A node of ONNX. `inputs` may be changed; `constants` are the model's, `containers` its modules with others in
    them."""

    def __init__(
        self,
        node: onnx.NodeProto,
        version: int,
        folder: Path,
        constants: dict[str, np.ndarray],
        containers: set[str],
    ):
        self.proto = node
        self.version = version
        self.folder = folder
        self.constants = constants
        self.containers = containers
        self.inputs = list(node.input)
        self.attributes: dict[str, Any] = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}

    def __call__(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        value = self.attributes.get(name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def as_inputs(self, **attributes: np.dtype | type) -> None:
        """Puts attributes, as older opsets have them, behind the first input, where newer ones do."""
        if not any(name in self.attributes for name in attributes):
            return
        del self.inputs[1:]
        for name, dtype in attributes.items():
            held = ""
            if name in self.attributes:
                held = f"{self.proto.output[0]}/{name}"
                self.constants[held] = np.array(self(name), dtype)
            self.inputs.append(held)

    def node(self) -> Node:
        domain = self.proto.domain if self.proto.domain != "ai.onnx" else ""
        kind = f"{domain}.{self.proto.op_type}" if domain else self.proto.op_type
        op: str | None = None
        attributes: Mapping[str, Any] = {}
        problem = ""
        if kind in _NODES:
            try:
                op, attributes = _NODES[kind](self)
            except ValueError as error:
                problem = str(error)
            except MALFORMED as error:
                problem = f"has attributes that are not those of its kind ({error})"
        elif any(one.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for one in self.proto.attribute):
            problem = "control flow is not read; export the model without it, for one size of images"
        else:
            problem = "is no operation that is read"
        return Node(op, kind, self._name(), tuple(self.inputs), tuple(self.proto.output), attributes, problem)

    def _name(self) -> str:
        """By the weight, by PyTorch's module, else as the node is called; of "/layer1/layer1.0/relu/Relu"
        "layer1.0.relu"."""
        found = _WEIGHT.fullmatch(self.inputs[1]) if len(self.inputs) > 1 else None
        if found and not found[1].startswith(("onnx::", "/")):
            return found[1]
        held = {one.key: one.value for one in self.proto.metadata_props if isinstance(one.value, str)}
        scopes, kinds = (_QUOTED.findall(held.get(key, "")) for key in _OF_PYTORCH)
        if len(scopes) == len(kinds) >= 2:
            operation = kinds[-1].removeprefix("aten.").partition(".")[0]
            return layer_name(scopes[-2], is_own(kinds[-2]), operation)
        name = self.proto.name or (self.proto.output[0] if self.proto.output else "")
        if not _TELLING.search(name):
            return self.proto.op_type.lower()
        if not name.startswith("/"):
            return name
        *scopes, last = name.strip("/").split("/")
        path = before = ""
        for scope in scopes:
            path = path.removesuffix(before) if scope.startswith(f"{before}.") else f"{path}."
            path, before = (path + scope).strip("."), scope
        if path and last.partition("_")[0] in _OWN_MODULES and name.rpartition("/")[0] not in self.containers:
            return path
        return f"{path}.{last.lower()}" if path else last.lower()


_WEIGHT = re.compile(r"(.+?)[._/](?:weights?|kernel|gamma|scale|w|s)(?:_0|:0)?", re.IGNORECASE)
# What PyTorch's newer exporter says of a node: the paths of the modules around it and its own, and their kinds.
_OF_PYTORCH = ("pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy")
_QUOTED = re.compile("'([^']*)'")
_TELLING = re.compile(r"[A-Za-z]{2}")
# What PyTorch has modules for, whose path is the node's own.
_OWN_MODULES = (
    *(
        "Conv",
        "Gemm",
        "MatMul",
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Clip",
        "LRN",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
    ),
    *("BatchNormalization", "Dropout", "Softmax", "LogSoftmax", "Sigmoid"),
)

_Translated = tuple[str, Mapping[str, Any]]


def _window(node: _Translation) -> dict[str, Any]:
    """How a convolution or a pool goes over its input."""
    how = node("auto_pad", "NOTSET")
    padding = how.lower() if how.startswith("SAME") else 0 if how == "VALID" else node("pads", 0)
    return {"padding": padding, "stride": node("strides", 1), "dilation": node("dilations", 1)}


def _conv(node: _Translation) -> _Translated:
    size, weight = node("kernel_shape"), node.constants.get(node.inputs[1])
    if size is not None and weight is not None and tuple(size) != weight.shape[2:]:
        raise ValueError(f"kernel_shape must be the weight's {weight.shape[2:]}, got {tuple(size)}")
    return "conv", _window(node) | {"groups": node("group", 1)}


def _pool(node: _Translation) -> dict[str, Any]:
    return _window(node) | {"window": node("kernel_shape"), "ceil_mode": node("ceil_mode", 0)}


def _batchnorm(node: _Translation) -> _Translated:
    if node("spatial", 1) != 1:
        raise ValueError("batch normalisation must be of each channel (spatial=1)")
    training = node("training_mode", 0) or len(node.proto.output) > 1
    # ONNX's momentum is what stays of the average.
    return "batchnorm", {"eps": node("epsilon", 1e-5), "momentum": 1 - node("momentum", 0.9), "training": training}


def _lrn(node: _Translation) -> _Translated:
    size = node("size")
    numbers = {"alpha": node("alpha", 1e-4) / size, "beta": node("beta", 0.75), "k": node("bias", 1.0)}
    return "lrn", {"size": size, "reaches_forward": True, **numbers}


def _gemm(node: _Translation) -> _Translated:
    if node("transA", 0):
        raise ValueError("transA must be 0: the images of a batch are its rows")
    return "linear", {"alpha": node("alpha", 1.0), "beta": node("beta", 1.0), "inputs_first": not node("transB", 0)}


def _softmax(node: _Translation) -> _Translated:
    # Before opset 13 all axes from this one on were taken together.
    older = node.version < 13
    return "softmax", {"axis": node("axis", 1 if older else -1), "flattens": older}


def _mean(node: _Translation) -> _Translated:
    node.as_inputs(axes=np.int64)
    return "mean", {"keepdims": node("keepdims", 1)}


def _clip(node: _Translation) -> _Translated:
    node.as_inputs(min=np.float32, max=np.float32)
    return "clip", {}


def _pad(node: _Translation) -> _Translated:
    node.as_inputs(pads=np.int64, value=np.float32)
    return "pad", {"mode": node("mode", "constant")}


def _slice(node: _Translation) -> _Translated:
    node.as_inputs(starts=np.int64, ends=np.int64, axes=np.int64)
    return "slice", {}


def _split(node: _Translation) -> _Translated:
    node.as_inputs(split=np.int64)
    return "split", {"axis": node("axis", 0), "parts": node("num_outputs")}


def _axes(op: str) -> Callable[[_Translation], _Translated]:
    def translated(node: _Translation) -> _Translated:
        node.as_inputs(axes=np.int64)
        return op, {}

    return translated


def _fill(node: _Translation) -> _Translated:
    value = node("value")
    return "fill", {"value": np.float32(0) if value is None else _array(value, node.folder)}


def _cast(node: _Translation) -> _Translated:
    return "cast", {"dtype": np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node("to")))}


def _plain(op: str, **attributes: Any) -> Callable[[_Translation], _Translated]:
    """An operation of which only these attributes count: the name here -> (the name in ONNX, its default)."""
    return lambda node: (op, {name: node(*source) for name, source in attributes.items()})


_NODES: dict[str, Callable[[_Translation], _Translated]] = {
    "Add": _plain("add"),
    "AveragePool": lambda node: ("avgpool", _pool(node) | {"count_include_pad": node("count_include_pad", 0)}),
    "BatchNormalization": _batchnorm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _plain("concat", axis=("axis", 1)),
    "Constant": _plain("identity"),
    "ConstantOfShape": _fill,
    "Conv": _conv,
    "Div": _plain("div"),
    "Dropout": _plain("dropout", probability=("ratio", 0.5)),
    "Expand": _plain("expand"),
    "Flatten": _plain("flatten_to_two", axis=("axis", 1)),
    "Gather": _plain("gather", axis=("axis", 0)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node: ("mean", {"spatial": True, "keepdims": True}),
    "GlobalMaxPool": lambda node: ("adaptive_pool", {"size": 1, "mean": False}),
    "Identity": _plain("identity"),
    "LRN": _lrn,
    "LeakyRelu": _plain("leaky_relu", slope=("alpha", 0.01)),
    "LogSoftmax": _softmax,
    "MatMul": lambda node: ("linear", {"inputs_first": True}),
    "MaxPool": lambda node: ("maxpool", _pool(node)),
    "Mul": _plain("mul"),
    "PRelu": _plain("prelu"),
    "Pad": _pad,
    "Pow": _plain("pow"),
    "ReduceMean": _mean,
    "Relu": _plain("relu"),
    "Reshape": _plain("reshape", allowzero=("allowzero", 0)),
    "Shape": _plain("shape", start=("start", 0), end=("end", None)),
    "Sigmoid": _plain("sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _axes("squeeze"),
    "Sub": _plain("sub"),
    "Sum": _plain("add"),
    "Transpose": _plain("transpose", order=("perm", ())),
    "Unsqueeze": _axes("unsqueeze"),
}
