"""Local response normalisation of a model, as a layer, also where it is written out:

    x / (k + alpha * mean(x * x)) ** beta

with the mean over `size` neighbouring channels, size // 2 before and (size - 1) // 2 behind each, those that are not
there being zeros that count (as torch.nn.LocalResponseNorm does). That is an average pool of the square, between
operations that only arrange it differently; of which axis and with what padding is seen once the shape of x is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..nn.layers import NormSpec
from .builder import Builder
from .graph import Graph, Node, Unsupported
from .rearranging import REARRANGING, tensor_of
from .tensors import Tensor
from .windows import padded_sides

__all__ = ["NORMS", "with_norms"]

Sides = list[tuple[int, int]]  # of each axis: (cells before, cells behind)

# ---- Where a model has one that is written out -----------------------------------------------------------------------


def with_norms(graph: Graph) -> Graph:
    """With one node for each that may be a normalisation. (With anything else of its form, nothing could be done.)"""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    nodes = [_as_norm(node, makers, graph.constants) or node for node in graph.nodes]
    return replace(graph, nodes=nodes).computing(graph.outputs[0])


def _as_norm(node: Node, makers: Mapping[str, Node], constants: Mapping[str, np.ndarray]) -> Node | None:
    if node.op != "div" or len(node.inputs) != 2:
        return None
    x, divisor = node.inputs
    numbers = []
    for op in ("pow", "add", "mul"):
        found = _with_number(makers.get(divisor), op, constants)
        if found is None:
            return None
        divisor, number = found
        numbers.append(number)
    beta, k, alpha = numbers
    behind, average = _rearranged(divisor, makers)
    if average is None or average.op != "avgpool":
        return None
    before, square = _rearranged(average.inputs[0], makers)
    if square is None or not _is_square(square, x, constants):
        return None
    name = f"{node.name[:-3]}norm" if node.name.split(".")[-1] == "div" else node.name
    others = [other for one in (*before, *behind) for other in one.inputs[1:]]
    attributes = {"before": before, "average": average, "behind": behind, "alpha": alpha, "beta": beta, "k": k}
    return Node("written_norm", node.kind, name, (x, *others), node.outputs, attributes)


def _with_number(node: Node | None, op: str, constants: Mapping[str, np.ndarray]) -> tuple[str, float] | None:
    """(tensor, number) of what is this operation of both; the number is the exponent of a power."""
    if node is None or node.op != op or len(node.inputs) != 2 or node.attributes.get("alpha", 1) != 1:
        return None
    for tensor, number in (node.inputs, node.inputs[::-1])[: 1 if op == "pow" else 2]:
        if tensor not in constants and number in constants and constants[number].size == 1:
            return tensor, float(constants[number].reshape(()))
    return None


def _is_square(node: Node, x: str, constants: Mapping[str, np.ndarray]) -> bool:
    if node.op == "mul":
        return node.inputs == (x, x)
    return _with_number(node, "pow", constants) == (x, 2.0)


def _rearranged(name: str, makers: Mapping[str, Node]) -> tuple[list[Node], Node | None]:
    """What only arranges a tensor differently on the way to this one, and the node that made that tensor."""
    nodes: list[Node] = []
    node = makers.get(name)
    while node is not None and node.op in _ARRANGING and node.inputs:
        nodes.insert(0, node)
        node = makers.get(node.inputs[0])
    return nodes, node


_ARRANGING = (
    *("identity", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "swap"),
    "pad",  # with zeros where there are no channels
)


# ---- As a layer ------------------------------------------------------------------------------------------------------


def _lrn(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    size = node.attributes["size"]
    if size % 2 == 0 and node.attributes.get("reaches_forward"):
        raise Unsupported("the number of channels of a local response normalisation must be odd")
    x = tensor_of(operands[0])
    fields = {name: node.attributes[name] for name in ("size", "alpha", "beta", "k")}
    made = builder.add(NormSpec, node.name, [builder.channels(x, node.name)], **fields)
    return made.rearranged(made.places.reshape(x.dims))


def _written_norm(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    x, *others = operands
    size = _channels_averaged(builder, node, tensor_of(x).dims, iter(others))
    attributes = {**node.attributes, "size": size, "alpha": node.attributes["alpha"] / size}
    return _lrn(builder, replace(node, attributes=attributes), [x])


def _channels_averaged(builder: Builder, node: Node, dims: tuple[int, ...], others: Iterator[Any]) -> int:
    """Over how many channels the squares of a tensor (C, ...) are averaged. others: the operands of what arranges them,
    but the first of each. Unsupported if it is over anything else, or if they do not come back to where they were."""
    row = Tensor("square", (math.prod(dims),))  # each number is its own place
    square = row.rearranged(row.places.reshape(dims))
    pooled, around = _followed(builder, square, node.attributes["before"], others)
    window, padding = _pool(node.attributes["average"])
    unpooled = len(pooled.dims) + 1 - len(window)
    _require(unpooled >= 0)
    cells, padding = [1] * unpooled + window, [(0, 0)] * unpooled + padding
    pads = [(a + c, b + d) for (a, b), (c, d) in zip(around, padding, strict=True)]
    _require(pads == [(size // 2, (size - 1) // 2) for size in cells])
    axes = [axis for axis, size in enumerate(cells) if size > 1]
    if axes:
        _require(len(axes) == 1 and axes[0] > 0)
        places, apart = np.moveaxis(pooled.places, axes[0] - 1, -1), math.prod(dims[1:])
        _require(places.shape[-1] == dims[0])
        _require(np.array_equal(places, places[..., :1] + np.arange(dims[0], dtype=places.dtype) * apart))
    made, around = _followed(builder, pooled, node.attributes["behind"], others)
    _require(not np.any(around) and made.dims == dims and np.array_equal(made.places, square.places))
    return max(cells)


def _followed(builder: Builder, tensor: Tensor, nodes: Sequence[Node], others: Iterator[Any]) -> tuple[Tensor, Sides]:
    """The tensor behind these nodes, and the zeros around it: for each axis, that of the images first."""
    around: Sides = [(0, 0)] * (len(tensor.dims) + 1)
    for node in nodes:
        given = [next(others) for _ in node.inputs[1:]]
        if node.op == "pad":
            sides, fill = padded_sides(node, len(tensor.dims) + 1, given)
            if np.any(sides):
                _require(fill == 0 and not np.any(around))
                around = sides
        elif node.op != "identity":
            assert node.op is not None
            _require(not np.any(around))
            tensor = REARRANGING[node.op](builder, node, [tensor, *given])
            around = [(0, 0)] * (len(tensor.dims) + 1)
    return tensor, around


def _pool(average: Node) -> tuple[list[int], Sides]:
    """The sizes of an average pool's window along the last axes, and its padding, which counts."""
    window = list(average.attributes["window"])
    count = len(window)
    _require(count > 1 and average.attributes.get("divisor") is None)  # of one number it may be for all axes
    for name in ("stride", "dilation"):
        value = average.attributes.get(name, 1)
        _require(set(value if isinstance(value, (list, tuple)) else [value]) == {1})
    value = average.attributes.get("padding", 0)
    _require(not isinstance(value, str))
    pads = list(value) if isinstance(value, (list, tuple)) else [value]
    pads = pads * count if len(pads) == 1 else pads
    _require(len(pads) in (count, 2 * count))
    _require(not any(pads) or bool(average.attributes.get("count_include_pad")))
    return window, list(zip(pads[:count], pads[-count:], strict=True))


def _require(holds: bool) -> None:
    if not holds:
        raise Unsupported(
            "x / (k + alpha * mean(x * x)) ** beta is read where it is what torch.nn.LocalResponseNorm computes: the "
            "mean over size neighbouring channels, size // 2 before and (size - 1) // 2 behind, those that are not "
            "there being zeros that count"
        )


NORMS: dict[str, Callable[[Any, Node, Sequence[Any]], Any]] = {"lrn": _lrn, "written_norm": _written_norm}
