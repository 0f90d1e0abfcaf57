"""The one control flow of ONNX files that is read: how PyTorch's exporter writes `x.squeeze(axis)`.

Where it does not know the shape it writes "if shape(x)[axis] == 1: squeeze(x, axis), else: x", from opset 11 on, as of
every nn.LocalResponseNorm. Shapes are known here, and that is a squeeze which leaves a longer axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from .onnx_tensors import constant

__all__ = ["squeeze_of"]


def squeeze_of(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, np.ndarray], folder: Path
) -> tuple[str, int] | None:
    """(x, axis) of a node "If" that is just this, else None. makers: the node that makes each tensor; folder: the
    model's. ValueError for constants that do not hold what they say."""
    branches = {one.name: one.g for one in node.attribute if one.type == onnx.AttributeProto.GRAPH}
    if node.op_type != "If" or len(node.input) != 1 or set(branches) != {"then_branch", "else_branch"}:
        return None
    squeezed, kept = (_last(branches[name]) for name in ("then_branch", "else_branch"))
    if squeezed is None or kept is None or (squeezed.op_type, kept.op_type) != ("Squeeze", "Identity"):
        return None
    inner = {one.output[0]: constant(one, folder) for one in branches["then_branch"].node if one is not squeezed}
    axis = _axis(squeezed, {**constants, **inner})
    if axis is None or len(branches["else_branch"].node) != 1 or squeezed.input[0] != kept.input[0]:
        return None
    return (kept.input[0], axis) if _asked(node.input[0], makers, constants) == (kept.input[0], axis) else None


def _last(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """The node that makes the output, there being nothing else but constants."""
    others = [node for node in graph.node if node.op_type != "Constant"]
    if len(others) != 1 or not others[0].input or not all(node.output for node in graph.node):
        return None
    if [one.name for one in graph.output] != list(others[0].output):
        return None
    return others[0]


def _axis(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> int | None:
    """The single axis of a Squeeze, by its attribute or a constant."""
    axes = [one for attribute in node.attribute if attribute.name == "axes" for one in attribute.ints]
    axes += [int(one) for name in node.input[1:] if name in constants for one in constants[name].reshape(-1)]
    return axes[0] if len(axes) == 1 else None


def _asked(
    name: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, np.ndarray]
) -> tuple[str, int] | None:
    """(x, axis) where a condition is shape(x)[axis] == 1."""
    equal = makers.get(name)
    if equal is None or equal.op_type != "Equal" or len(equal.input) != 2:
        return None
    size, one = equal.input if equal.input[1] in constants else reversed(equal.input)
    gather = makers.get(size)
    if one not in constants or constants[one].size != 1 or int(constants[one].reshape(())) != 1:
        return None
    if gather is None or gather.op_type != "Gather" or len(gather.input) != 2 or gather.input[1] not in constants:
        return None
    shape, index = makers.get(gather.input[0]), constants[gather.input[1]]
    if shape is None or shape.op_type != "Shape" or shape.attribute or len(shape.input) != 1 or index.size != 1:
        return None
    return shape.input[0], int(index.reshape(()))
