"""PyTorch's ATen operations in common terms (`zfcuda.interop.graph`). PyTorch itself is not needed for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..brief import Brief

__all__ = ["CALLS", "Arguments", "Call", "Made", "Ref"]


class Ref(str):
    """The name of a tensor, or of a number that the program computes."""


@dataclass(frozen=True, repr=False)
class Call(Brief):
    """One operation. target: "aten.conv2d.default"; arguments: by the names that the operation gives them, a tensor as
    its `Ref`, a dtype by its name; path: of the module in which it is called; own: whether that is one of PyTorch's
    own, no container.

    Where PyTorch is there to say it, compute: what it makes of arrays in the places of its tensors, in their order;
    shares: whether its outputs may lie in the memory of its first tensor."""

    target: str
    arguments: Mapping[str, Any]
    outputs: tuple[str, ...]
    path: str = ""
    own: bool = False
    compute: Callable[[Sequence[np.ndarray]], list[np.ndarray]] | None = None
    shares: bool = False


class Arguments:
    """What a call is given, in the graph's terms."""

    def __init__(self, translation: Any, call: Call):
        self._translation = translation
        self.call = call

    def __call__(self, name: str, default: Any = None) -> Any:
        """A number, a word, or a list of numbers."""
        value = self.call.arguments.get(name, default)
        if isinstance(value, (list, tuple)):
            return [self._number(one) for one in value]
        return self._number(value)

    def _number(self, value: Any) -> Any:
        if isinstance(value, Ref):
            held = self._translation.constants.get(self.of(value))
            if held is not None and held.size == 1:
                return held.item()
            if value not in self._translation.numbers:
                raise ValueError("its numbers and sizes must be known when the model is exported")
            return self._translation.numbers[value]
        return value

    def tensor(self, name: str) -> str:
        """The graph's name of a tensor, "" where it is None; a number becomes a constant."""
        value = self.call.arguments.get(name)
        if value is None:
            return ""
        if isinstance(value, Ref) and value not in self._translation.numbers:
            return self.of(value)
        return self.constant(np.float32(self._number(value)), name)

    def is_known(self, name: str) -> bool:
        """Whether the graph's tensor of this name is known before there is an image."""
        known: bool = self._translation.is_known(name)
        return known

    def tensors(self, name: str) -> list[str]:
        return [self.of(value) for value in self.call.arguments[name]]

    def of(self, ref: str) -> str:
        if ref in self._translation.changed:
            raise ValueError(f"reads {ref}, which was changed in place through another view of it: copy one of them")
        return self._translation.names.get(ref, ref)

    def constant(self, value: Any, name: str) -> str:
        held = f"{self.call.outputs[0]}/{name}"
        self._translation.constants[held] = np.asarray(value)
        return held

    def integers(self, name: str, *values: int) -> str:
        return self.constant(np.array(values, np.int64), name)


Made = str | tuple[str, Sequence[str], Mapping[str, Any]]


# ---- Calls -----------------------------------------------------------------------------------------------------------


def _same(a: Arguments) -> str:
    """In place, what is an "input" elsewhere is called "self"."""
    return a.tensor("input" if "input" in a.call.arguments else "self")


def _maybe_copied(a: Arguments) -> Made:
    """By a name of its own: what is written to it may be written to the original or not."""
    made = a.tensor("self")
    return made if a.is_known(made) else ("identity", [made], {})


def _converted(a: Arguments) -> Made:
    """What depends on the image is float32 here, whatever it is in the module."""
    made, dtype = a.tensor("self"), a("dtype")
    if dtype is not None and a.is_known(made):
        return "cast", [made], {"dtype": np.dtype(dtype)}
    _check_floating(dtype)
    return _maybe_copied(a)


def _check_floating(dtype: str | None) -> None:
    if dtype not in (None, "float16", "bfloat16", "float32", "float64"):
        raise ValueError(f"a tensor must stay floating-point, not become {dtype}")


def _window(a: Arguments) -> dict[str, Any]:
    padding = a("padding", 0)
    padding = {"same": "same_upper", "valid": 0}.get(padding, padding) if isinstance(padding, str) else padding
    return {"padding": padding, "dilation": a("dilation", 1)}


def _conv(a: Arguments) -> Made:
    if a("transposed"):
        raise ValueError("transposed convolutions are not read")
    inputs = [a.tensor(name) for name in ("input", "weight", "bias")]
    return "conv", inputs, _window(a) | {"stride": a("stride", 1), "groups": a("groups", 1)}


def _pool(a: Arguments) -> dict[str, Any]:
    window = a("kernel_size")
    return _window(a) | {"window": window, "stride": a("stride") or window, "ceil_mode": a("ceil_mode", False)}


def _maxpool(a: Arguments) -> Made:
    return "maxpool", [a.tensor("self")], _pool(a)


def _avgpool(a: Arguments) -> Made:
    attributes = _pool(a) | {"count_include_pad": a("count_include_pad", True), "divisor": a("divisor_override")}
    return "avgpool", [a.tensor("self")], attributes


def _adaptive(mean: bool) -> Callable[[Arguments], Made]:
    return lambda a: ("adaptive_pool", [a.tensor("self")], {"size": a("output_size"), "mean": mean})


def _batch_norm(a: Arguments) -> Made:
    inputs = [a.tensor(name) for name in ("input", "weight", "bias", "running_mean", "running_var")]
    attributes = {"eps": a("eps"), "momentum": a("momentum"), "training": a("training", False)}
    return "batchnorm", inputs, attributes


def _linear(a: Arguments) -> Made:
    return "linear", [a.tensor("input"), a.tensor("weight"), a.tensor("bias")], {}


def _addmm(a: Arguments) -> Made:
    attributes = {"inputs_first": True, "alpha": a("alpha", 1), "beta": a("beta", 1)}
    return "linear", [a.tensor("mat1"), a.tensor("mat2"), a.tensor("self")], attributes


def _weight_norm(a: Arguments) -> Made:
    return "weight_norm", [a.tensor("v"), a.tensor("g")], {"axis": a("dim", 0)}


def _vector_norm(a: Arguments) -> Made:
    if a("ord", 2) != 2:
        raise ValueError("norms are read that are roots of sums of squares")
    return _reduction("norm")(a)


def _matmul(second: str) -> Callable[[Arguments], Made]:
    return lambda a: ("linear", [a.tensor("self"), a.tensor(second)], {"inputs_first": True})


def _binary(op: str, first: str = "self", second: str = "other") -> Callable[[Arguments], Made]:
    def made(a: Arguments) -> Made:
        if a("rounding_mode") is not None:
            raise ValueError("quotients that are rounded are not read")
        return op, [a.tensor(first), a.tensor(second)], {"alpha": float(a("alpha", 1))}

    return made


def _bounds(low: str | float | None, high: str | float | None) -> Callable[[Arguments], Made]:
    """clip between two arguments, or numbers."""

    def bound(a: Arguments, value: str | float | None, name: str) -> str:
        number = a(value) if isinstance(value, str) else value
        return "" if number is None else a.constant(np.float32(number), name)

    return lambda a: ("clip", [a.tensor("self"), bound(a, low, "low"), bound(a, high, "high")], {})


def _hardtanh(a: Arguments) -> Made:
    low, high = a("min_val", -1.0), a("max_val", 1.0)
    return "clip", [a.tensor("self"), a.constant(np.float32(low), "low"), a.constant(np.float32(high), "high")], {}


def _rrelu(a: Arguments) -> Made:
    """At test time the slope is the mean of its bounds."""
    return "leaky_relu", [a.tensor("self")], {"slope": (a("lower", 1 / 8) + a("upper", 1 / 3)) / 2}


def _threshold(a: Arguments) -> Made:
    if a("threshold") != 0 or a("value") != 0:
        raise ValueError("a threshold other than that of a ReLU is not read")
    return "relu", [a.tensor("self")], {}


def _dropout(a: Arguments) -> Made:
    return "dropout", [_same(a)], {"probability": a("p")}


def _pad(a: Arguments) -> Made:
    """PyTorch's padding begins with the last axis: (left, right, top, bottom, ...)."""
    pads = a("pad")
    axes = [-1 - i for i in range(len(pads) // 2)]
    inputs = [a.tensor("self"), a.integers("pads", *pads[::2], *pads[1::2])]
    inputs += [a.constant(np.float32(a("value") or 0), "value"), a.integers("axes", *axes)]
    return "pad", inputs, {"mode": a("mode", "constant")}


def _shape(name: str) -> Callable[[Arguments], Made]:
    return lambda a: ("reshape", [a.tensor("self"), a.integers("shape", *a(name))], {"allowzero": True})


def _flatten(a: Arguments) -> Made:
    return "flatten", [a.tensor("self")], {"start": a("start_dim", 0), "end": a("end_dim", -1)}


def _unflatten(a: Arguments) -> Made:
    return "unflatten", [a.tensor("self"), a.integers("sizes", *a("sizes"))], {"axis": a("dim")}


def _squeeze(a: Arguments) -> Made:
    dims = a("dim")
    if dims is None:
        return "squeeze", [a.tensor("self")], {}
    axes = a.integers("axes", *(dims if isinstance(dims, list) else [dims]))
    return "squeeze", [a.tensor("self"), axes], {"lenient": True}


def _unsqueeze(a: Arguments) -> Made:
    return "unsqueeze", [a.tensor("self"), a.integers("axes", a("dim"))], {}


def _permute(a: Arguments) -> Made:
    return "transpose", [a.tensor("self")], {"order": a("dims")}


def _transpose(a: Arguments) -> Made:
    return "swap", [a.tensor("self")], {"axes": (a("dim0", 0), a("dim1", 1))}


def _cat(a: Arguments) -> Made:
    return "concat", a.tensors("tensors"), {"axis": a("dim", 0)}


def _chunk(a: Arguments) -> Made:
    return "split", [a.tensor("self")], {"axis": a("dim", 0), "parts": a("chunks")}


def _split(a: Arguments) -> Made:
    sizes = a("split_size", a("split_sizes"))
    if isinstance(sizes, list):
        return "split", [a.tensor("self"), a.integers("sizes", *sizes)], {"axis": a("dim", 0)}
    return "split", [a.tensor("self")], {"axis": a("dim", 0), "size": sizes}


def _between(a: Arguments, axis: int, start: int, end: int, step: int = 1) -> Made:
    bounds = [
        a.integers(name, value) for name, value in (("start", start), ("end", end), ("axis", axis), ("step", step))
    ]
    return "slice", [a.tensor("self"), *bounds], {}


def _slice(a: Arguments) -> Made:
    end = a("end")
    return _between(a, a("dim", 0), a("start") or 0, 2**62 if end is None else end, a("step", 1))


def _narrow(a: Arguments) -> Made:
    return _between(a, a("dim"), a("start"), a("start") + a("length"))


def _flip(a: Arguments) -> Made:
    count = len(a("dims"))
    starts, ends = a.integers("starts", *[-1] * count), a.integers("ends", *[-(2**62)] * count)
    inputs = [a.tensor("self"), starts, ends, a.integers("axes", *a("dims")), a.integers("steps", *[-1] * count)]
    return "slice", inputs, {}


def _select(a: Arguments) -> Made:
    return "gather", [a.tensor("self"), a.constant(np.int64(a("index")), "index")], {"axis": a("dim")}


def _index_select(a: Arguments) -> Made:
    return "gather", [a.tensor("self"), a.tensor("index")], {"axis": a("dim")}


def _index(a: Arguments) -> Made:
    given = [(axis, one) for axis, one in enumerate(a.call.arguments["indices"]) if one is not None]
    if len(given) != 1:
        raise ValueError("a tensor is indexed along one axis at a time")
    return "gather", [a.tensor("self"), a.of(given[0][1])], {"axis": given[0][0]}


def _channel_shuffle(a: Arguments) -> Made:
    return "channel_shuffle", [a.tensor("self")], {"groups": a("groups")}


def _reduction(op: str) -> Callable[[Arguments], Made]:
    def made(a: Arguments) -> Made:
        _check_floating(a("dtype"))
        dims = a("dim")
        dims = dims if isinstance(dims, list) else [] if dims is None else [dims]
        axes = [a.integers("axes", *dims)] if dims else []  # none: all of them
        return op, [a.tensor("self"), *axes], {"keepdims": a("keepdim", False)}

    return made


def _softmax(a: Arguments) -> Made:
    return "softmax", [a.tensor("self")], {"axis": a("dim")}


def _pow(a: Arguments) -> Made:
    return "pow", [a.tensor("self"), a.tensor("exponent")], {}


def _plain(op: str, **attributes: tuple[str, Any]) -> Callable[[Arguments], Made]:
    """attributes: the name here -> (the argument's name in ATen, its default)."""
    return lambda a: (op, [a.tensor("self")], {name: a(*source) for name, source in attributes.items()})


CALLS: dict[str, Callable[[Arguments], Made]] = {
    "_log_softmax": _softmax,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_softmax": _softmax,
    "_to_copy": _converted,
    "_unsafe_view": _shape("size"),
    "_weight_norm": _weight_norm,
    "_weight_norm_interface": _weight_norm,
    "adaptive_avg_pool1d": _adaptive(True),
    "adaptive_avg_pool2d": _adaptive(True),
    "adaptive_max_pool1d": _adaptive(False),
    "adaptive_max_pool2d": _adaptive(False),
    "add": _binary("add"),
    "addmm": _addmm,
    "alias": _same,
    "alpha_dropout": _same,
    "amax": _reduction("largest"),
    "avg_pool1d": _avgpool,
    "avg_pool2d": _avgpool,
    "avg_pool3d": _avgpool,
    "batch_norm": _batch_norm,
    "cat": _cat,
    "channel_shuffle": _channel_shuffle,
    "chunk": _chunk,
    "clamp": _bounds("min", "max"),
    "clamp_max": _bounds(None, "max"),
    "clamp_min": _bounds("min", None),
    "clone": _same,
    "constant_pad_nd": _pad,
    "contiguous": _maybe_copied,
    "conv1d": _conv,
    "conv2d": _conv,
    "convolution": _conv,
    "detach": _same,
    "div": _binary("div"),
    "dot": _matmul("tensor"),
    "dropout": _dropout,
    "expand": lambda a: ("expand", [a.tensor("self"), a.integers("size", *a("size"))], {}),
    "feature_alpha_dropout": _same,
    "feature_dropout": _dropout,
    "flatten": _flatten,
    "flip": _flip,
    "hardtanh": _hardtanh,
    "index": _index,
    "index_select": _index_select,
    "leaky_relu": _plain("leaky_relu", slope=("negative_slope", 0.01)),
    "lift_fresh_copy": _same,
    "linalg_vector_norm": _vector_norm,
    "linear": _linear,
    "log_softmax": _softmax,
    "matmul": _matmul("other"),
    "max_pool1d": _maxpool,
    "max_pool2d": _maxpool,
    "max_pool2d_with_indices": _maxpool,
    "mean": _reduction("mean"),
    "mm": _matmul("mat2"),
    "mul": _binary("mul"),
    "mv": _matmul("vec"),
    "narrow": _narrow,
    "native_channel_shuffle": _channel_shuffle,
    "pad": _pad,
    "neg": _plain("neg"),
    "permute": _permute,
    "pow": _pow,
    "prelu": lambda a: ("prelu", [a.tensor("self"), a.tensor("weight")], {"by_channel": True}),
    "relu": _plain("relu"),
    "relu6": _bounds(0.0, 6.0),
    "reshape": _shape("shape"),
    "rrelu": _rrelu,
    "rsub": _binary("sub", "other", "self"),
    "select": _select,
    "sigmoid": _plain("sigmoid"),
    "slice": _slice,
    "softmax": _softmax,
    "split": _split,
    "split_with_sizes": _split,
    "squeeze": _squeeze,
    "sqrt": _plain("sqrt"),
    "sub": _binary("sub"),
    "sum": _reduction("total"),
    "t": _transpose,
    "threshold": _threshold,
    "to": _converted,
    "transpose": _transpose,
    "unflatten": _unflatten,
    "unsqueeze": _unsqueeze,
    "vdot": _matmul("other"),
    "view": _shape("size"),
}
