"""The operations of ONNX as those that networks are read from (`zfcuda.interop.operations`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .graph import MALFORMED, Node
from .onnx_tensors import array
from .program import is_own, layer_name


def containers(name: str) -> list[str]:
    """Of PyTorch's "/layer1/layer1.0/relu/Relu" the modules around the node's: "/layer1" and "/layer1/layer1.0"."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(2, len(parts) - 1)] if name.startswith("/") else []


class Translation:
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

    def node(self, squeeze: tuple[str, int] | None = None) -> Node:
        """squeeze: what is squeezed and along which axis, where the node is the way to write that."""
        if squeeze is not None:
            self.inputs, self.attributes = [squeeze[0]], {"axes": [squeeze[1]]}
            self.as_inputs(axes=np.int64)
            return Node("squeeze", "If", self._name(), tuple(self.inputs), tuple(self.proto.output), {"lenient": True})
        domain = self.proto.domain if self.proto.domain != "ai.onnx" else ""
        kind = f"{domain}.{self.proto.op_type}" if domain else self.proto.op_type
        op: str | None = None
        attributes: Mapping[str, Any] = {}
        problem = ""
        if kind in NODES:
            try:
                op, attributes = NODES[kind](self)
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
        if path and _OWN_MODULES.fullmatch(last.partition("_")[0]) and name.rpartition("/")[0] not in self.containers:
            return path
        return f"{path}.{last.lower()}" if path else last.lower()


_WEIGHT = re.compile(r"(.+?)[._/](?:weights?|kernel|gamma|scale|w|s)(?:_0|:0)?", re.IGNORECASE)
# What PyTorch's newer exporter says of a node: the paths of the modules around it and its own, and their kinds.
_OF_PYTORCH = ("pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy")
_QUOTED = re.compile("'([^']*)'")
_TELLING = re.compile(r"[A-Za-z]{2}")
# What PyTorch has modules for, whose path is the node's own.
_OWN_MODULES = re.compile(
    "Conv|Gemm|MatMul|Relu|LeakyRelu|PRelu|Clip|LRN|MaxPool|AveragePool|GlobalAveragePool|BatchNormalization|Dropout|"
    "Softmax|LogSoftmax|Sigmoid"
)

_Translated = tuple[str, Mapping[str, Any]]


def _window(node: Translation) -> dict[str, Any]:
    """How a convolution or a pool goes over its input."""
    how = node("auto_pad", "NOTSET")
    padding = how.lower() if how.startswith("SAME") else 0 if how == "VALID" else node("pads", 0)
    return {"padding": padding, "stride": node("strides", 1), "dilation": node("dilations", 1)}


def _conv(node: Translation) -> _Translated:
    size, weight = node("kernel_shape"), node.constants.get(node.inputs[1])
    if size is not None and weight is not None and tuple(size) != weight.shape[2:]:
        raise ValueError(f"kernel_shape must be the weight's {weight.shape[2:]}, got {tuple(size)}")
    return "conv", _window(node) | {"groups": node("group", 1)}


def _pool(node: Translation) -> dict[str, Any]:
    return _window(node) | {"window": node("kernel_shape"), "ceil_mode": node("ceil_mode", 0)}


def _batchnorm(node: Translation) -> _Translated:
    if node("spatial", 1) != 1:
        raise ValueError("batch normalisation must be of each channel (spatial=1)")
    training = node("training_mode", 0) or len(node.proto.output) > 1
    # ONNX's momentum is what stays of the average.
    return "batchnorm", {"eps": node("epsilon", 1e-5), "momentum": 1 - node("momentum", 0.9), "training": training}


def _lrn(node: Translation) -> _Translated:
    size = node("size")
    numbers = {"alpha": node("alpha", 1e-4) / size, "beta": node("beta", 0.75), "k": node("bias", 1.0)}
    return "lrn", {"size": size, "reaches_forward": True, **numbers}


def _gemm(node: Translation) -> _Translated:
    if node("transA", 0):
        raise ValueError("transA must be 0: the images of a batch are its rows")
    return "linear", {"alpha": node("alpha", 1.0), "beta": node("beta", 1.0), "inputs_first": not node("transB", 0)}


def _softmax(node: Translation) -> _Translated:
    # Before opset 13 all axes from this one on were taken together.
    older = node.version < 13
    return "softmax", {"axis": node("axis", 1 if older else -1), "flattens": older}


def _reduction(op: str) -> Callable[[Translation], _Translated]:
    def translated(node: Translation) -> _Translated:
        node.as_inputs(axes=np.int64)
        noop = bool(node("noop_with_empty_axes", 0))
        if noop and op == "norm":
            raise ValueError("noop_with_empty_axes is read of means, sums and maxima")
        return op, {"keepdims": node("keepdims", 1), "noop": noop}

    return translated


def _clip(node: Translation) -> _Translated:
    node.as_inputs(min=np.float32, max=np.float32)
    return "clip", {}


def _pad(node: Translation) -> _Translated:
    node.as_inputs(pads=np.int64, value=np.float32)
    return "pad", {"mode": node("mode", "constant")}


def _slice(node: Translation) -> _Translated:
    node.as_inputs(starts=np.int64, ends=np.int64, axes=np.int64)
    return "slice", {}


def _split(node: Translation) -> _Translated:
    node.as_inputs(split=np.int64)
    return "split", {"axis": node("axis", 0), "parts": node("num_outputs")}


def _axes(op: str) -> Callable[[Translation], _Translated]:
    def translated(node: Translation) -> _Translated:
        node.as_inputs(axes=np.int64)
        return op, {}

    return translated


def _fill(node: Translation) -> _Translated:
    value = node("value")
    return "fill", {"value": np.float32(0) if value is None else array(value, node.folder)}


def _cast(node: Translation) -> _Translated:
    return "cast", {"dtype": np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node("to")))}


def _plain(op: str, **attributes: Any) -> Callable[[Translation], _Translated]:
    """An operation of which only these attributes count: the name here -> (the name in ONNX, its default)."""
    return lambda node: (op, {name: node(*source) for name, source in attributes.items()})


NODES: dict[str, Callable[[Translation], _Translated]] = {
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
    "Neg": _plain("neg"),
    "PRelu": _plain("prelu"),
    "Pad": _pad,
    "Pow": _plain("pow"),
    "ReduceL2": _reduction("norm"),
    "ReduceMax": _reduction("largest"),
    "ReduceMean": _reduction("mean"),
    "ReduceSum": _reduction("total"),
    "Relu": _plain("relu"),
    "Reshape": _plain("reshape", allowzero=("allowzero", 0)),
    "Shape": _plain("shape", start=("start", 0), end=("end", None)),
    "Sigmoid": _plain("sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _plain("sqrt"),
    "Squeeze": _axes("squeeze"),
    "Sub": _plain("sub"),
    "Sum": _plain("add"),
    "Transpose": _plain("transpose", order=("perm", ())),
    "Unsqueeze": _axes("unsqueeze"),
}
