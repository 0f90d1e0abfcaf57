"""Networks from ONNX files, opset 7 and up. Needs the package onnx (`pip install 'zfcuda[onnx]'`).

Nothing of a file is executed: its operations are names, each of which is read as layers (`zfcuda.interop.onnx_nodes`).
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from ..errors import CheckpointError
from ..nn import Network
from .graph import Graph, check_image_shape, transposes
from .onnx_nodes import NODES, Translation, containers
from .onnx_squeeze import squeeze_of
from .onnx_tensors import array, constant
from .reader import read

if TYPE_CHECKING:
    from ..data import Preprocess

__all__ = ["load"]

_OLDEST = 7
_ANOTHER = 13  # where the batch is open: how many images it is read for besides one
_LARGEST = 2**31  # bytes of a message of protobuf
_FIELDS = 2**16  # of a model; it has a dozen, and one for each function
_VARINT = 10  # bytes of a number, at most


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

    FileNotFoundError if there is no such file; TypeError if input_shape is none; CheckpointError, with the path, if it
    is no ONNX file, damaged, cut short, has a control flow, open sizes or several inputs, computes with the number of
    images where that is open, or has nodes that cannot be read: then it lists them all, with what is allowed. Weights
    outside of the file are read from its own folder only.
    """
    path = Path(path)
    if input_shape is not None:
        input_shape = check_image_shape(input_shape)
    if not path.is_file():
        raise FileNotFoundError(f"no ONNX file at {path}")
    try:
        graph = _graph(_parsed(path), path.parent, input_shape)
        return read(graph, output=output, preprocess=preprocess, classes=classes, head=head, bgr=bgr)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _parsed(path: Path) -> onnx.ModelProto:
    size = path.stat().st_size
    if size >= _LARGEST:
        raise ValueError(f"no ONNX file: it holds {size:,} bytes, and they are smaller than {_LARGEST:,}")
    _check_fields(path, size)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"no ONNX file, or one that is damaged or cut short ({error})") from error
    if not model.graph.node or not model.opset_import:
        raise ValueError("no ONNX file: it holds no graph of nodes")
    idle = next((node for node in model.graph.node if not node.output), None)
    if idle is not None:
        raise ValueError(f"damaged: a node {idle.op_type} has no output")
    held = [one.name for one in model.graph.initializer]
    made = [name for node in model.graph.node for name in node.output if name] + held
    made += {one.name for one in model.graph.input}.difference(held)
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


def _check_fields(path: Path, size: int) -> None:
    """ValueError where the fields of the message do not fill the file: found out before all of it is in memory."""
    place = fields = 0
    with path.open("rb") as file:
        while place < size and fields < _FIELDS:
            file.seek(place)
            head = file.read(2 * _VARINT)
            key, used = _varint(head, 0)
            value, used = _varint(head, used) if key & 7 in (0, 2) else (0, used)
            lengths = {0: 0, 1: 8, 2: value, 5: 4} if key >> 3 else {}
            place += used + lengths.get(key & 7, size)
            fields += 1
    if place != size:
        raise ValueError(f"no ONNX file, or one that is damaged or cut short (it is no message of {size:,} bytes)")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of protobuf, seven bits a byte, and where it ends."""
    value = 0
    for shift, byte in enumerate(data[place : place + _VARINT]):
        value |= (byte & 127) << 7 * shift
        place += 1
        if byte < 128:
            break
    return value, place


def _graph(model: onnx.ModelProto, folder: Path, input_shape: tuple[int, int, int] | None) -> Graph:
    constants = {one.name: array(one, folder) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            constants[node.output[0]] = constant(node, folder)
    inputs = [one for one in model.graph.input if one.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs) or "none"
        raise ValueError(f"a model with one input is read; this one has {names}")
    version = max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    modules = {above for node in model.graph.node for above in containers(node.name)}
    makers = {name: node for node in model.graph.node for name in node.output}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            continue
        nodes.append(
            Translation(node, version, folder, constants, modules).node(squeeze_of(node, makers, constants, folder))
        )
    outputs = tuple(one.name for one in model.graph.output)
    batch, dims, channels_first = _sizes(inputs[0], input_shape, transposes(nodes, inputs[0].name))
    kinds = tuple(NODES), "zfcuda.interop.onnx_nodes.NODES"
    graph = Graph(inputs[0].name, dims, batch or 1, nodes, constants, outputs, *kinds, channels_first=channels_first)
    if batch or not any(node.op == "shape" for node in nodes):  # by which alone the batch becomes a number
        return graph
    return dataclasses.replace(graph, other=dataclasses.replace(graph, batch=_ANOTHER))


def _sizes(
    value: onnx.ValueInfoProto, input_shape: tuple[int, int, int] | None, transposed: bool
) -> tuple[int, tuple[int, ...], bool]:
    """(images of a batch, 0 where that is open; the other dimensions; whether input_shape says that channels are the
    first of them) of the model's input. transposed: whether the model takes it for (H, W, C)."""
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
    channels_first = input_shape is not None
    if input_shape is not None:
        height, width, channels = input_shape
        wanted: tuple[int, ...] = (channels, height, width)
        if transposed and len(dims) == 3 and _fits(dims, input_shape):
            wanted, channels_first = input_shape, False
        if len(dims) < 3:
            wanted = (channels, width) if len(dims) == 2 else (height * width * channels,)
        if not _fits(dims, wanted):
            raise ValueError(f"input_shape {input_shape} does not fit its input {value.name} ({shown})")
        dims = list(wanted)
    if min(dims) < 1:
        raise ValueError(
            f"its input {value.name} ({shown}) has open sizes: give input_shape=(height, width, channels), or export "
            "it with fixed ones (only the batch may be open)"
        )
    if max(dims) >= 2**24 or math.prod(dims) >= 2**31:
        raise ValueError(f"its input {value.name} ({shown}) is too large")
    return max(batch, 0), tuple(dims), channels_first


def _fits(dims: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether all sizes that are not open are those."""
    return all(size < 1 or size == want for size, want in zip(dims, wanted, strict=True))
