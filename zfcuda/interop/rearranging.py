"""Operations that only arrange numbers differently, or tell about tensors: of arrays that are known, and of tensors.

Each is one function of NumPy arrays. Of a tensor it is done to the table of places (`zfcuda.interop.tensors`), which
has one image where the tensor has a batch; so none of them may touch the first axis.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .graph import Node, Unsupported
from .tensors import Tensor

__all__ = ["REARRANGING", "floats", "integers", "known", "reduced_axes", "tensor_of"]

_TAKING = ("split", "slice", "gather")


def tensor_of(operand: Any, what: str = "its input") -> Tensor:
    if not isinstance(operand, Tensor):
        raise Unsupported(f"{what} must depend on the image")
    return operand


def known(operand: Any, what: str) -> np.ndarray:
    """An operand that is an array. Unsupported if it depends on the image."""
    if not isinstance(operand, np.ndarray):
        raise Unsupported(f"{what} must be known before there is an image; here it is computed from it, or missing")
    return operand


def integers(operand: Any, what: str) -> list[int]:
    """An operand that is a known list of integers."""
    array = known(operand, what)
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise Unsupported(f"{what} must be a list of integers, got {array.dtype} of shape {array.shape}")
    return [int(value) for value in array.reshape(-1)]


def floats(operand: Any, what: str) -> np.ndarray:
    """Weights as float32, from any of the floating-point types. Unsupported for integers, as of quantised models."""
    array = known(operand, what)
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise Unsupported(f"{what} must be floating-point numbers of 16, 32 or 64 bits, got {array.dtype}")
    return array.astype(np.float32, copy=False)


def reduced_axes(node: Node, given: Sequence[Any], rank: int) -> list[int]:
    """The axes of a reduction, which the first of these operands lists: all where that is missing or empty, but none
    with the attribute `noop`; with `spatial` those of maps."""
    if node.attributes.get("spatial"):
        return list(range(2, rank))
    axes = integers(given[0], "the axes") if given and given[0] is not None else []
    if not axes:
        return [] if node.attributes.get("noop") else list(range(rank))
    return sorted({_axis_of(axis, rank) for axis in axes})


def _arranges(function: Callable[[Any, Node, Any, Sequence[Any], int], np.ndarray | list[np.ndarray]]) -> Any:
    """From a function of (builder, node, array, the other operands, batch), which gives arrays, to an operation."""

    def operation(builder: Any, node: Node, operands: Sequence[Any]) -> Any:
        first, *others = operands
        if isinstance(first, np.ndarray):
            made = function(builder, node, first, others, len(first) if first.ndim else 0)
            _count(builder, made, first)
            return made if isinstance(made, list) else np.asarray(made)
        if node.op in _TAKING and first.table is not None and first.is_whole and first.channel_order() is not None:
            first = builder.maps(first, node.name)  # once, and not for each of the parts
        table = first.places[None]
        results: Any = function(builder, node, table, others, builder.batch)
        _count(builder, results, table)
        several = isinstance(results, list)
        tensors = []
        for result in results if several else [results]:
            if result.ndim < 1 or len(result) != 1:
                raise Unsupported("an operation must leave the images of a batch apart")
            made = dataclasses.replace(first.rearranged(np.asarray(result[0])), by=node.name)
            if len(first.dims) > 1 and len(made.dims) == 1:
                made = dataclasses.replace(made, row_by=node.name)
            tensors.append(made)
        return tensors if several else tensors[0]

    return operation


def _count(builder: Any, made: Any, of: np.ndarray) -> None:
    """Makes room for results that are no views of what they were made of."""
    for array in made if isinstance(made, list) else [made]:
        if not np.may_share_memory(array, of):
            builder.make_room(np.size(array), of.dtype)


@_arranges
def _reshape(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    return _reshaped(array, integers(others[0], "the shape"), batch, bool(node.attributes.get("allowzero")))


def _reshaped(array: np.ndarray, target: list[int], batch: int, allowzero: bool = False) -> np.ndarray:
    """`batch`: the length of the array's first axis, in the model."""
    before = (batch, *array.shape[1:]) if array.ndim else ()
    if not allowzero and any(size == 0 and i >= len(before) for i, size in enumerate(target)):
        raise Unsupported(f"cannot reshape {before} to {target}")
    shape = [before[i] if size == 0 and not allowzero else size for i, size in enumerate(target)]
    count, rest = math.prod(before), math.prod(size for size in shape if size != -1)
    if shape.count(-1) == 1 and rest > 0 and count % rest == 0:
        shape[shape.index(-1)] = count // rest
    if math.prod(shape) != count or min(shape, default=1) < 0:
        raise Unsupported(f"cannot reshape {before} to {target}")
    if array.ndim and len(array) != batch:
        if not shape or shape[0] != batch:
            raise Unsupported(f"a reshape of {('N', *before[1:])} to {shape} must leave the images of a batch apart")
        shape[0] = len(array)
    return array.reshape(shape)


@_arranges
def _flatten(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    start, end = (_axis(node.attributes.get(name, default), array) for name, default in (("start", 1), ("end", -1)))
    return array.reshape(*array.shape[:start], -1, *array.shape[end + 1 :])


@_arranges
def _flatten_to_two(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    """ONNX's Flatten."""
    axis = node.attributes["axis"]
    axis = axis + array.ndim if axis < 0 else axis
    return array.reshape(math.prod(array.shape[:axis]), -1)


@_arranges
def _unflatten(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    axis, sizes = _axis(node.attributes["axis"], array), integers(others[0], "the sizes")
    return _reshaped(array, [*array.shape[:axis], *sizes, *array.shape[axis + 1 :]], len(array))


@_arranges
def _channel_shuffle(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    n, channels, *size = array.shape
    groups = node.attributes["groups"]
    if channels % groups:
        raise Unsupported(f"groups must divide the {channels} channels, got {groups}")
    return array.reshape(n, groups, channels // groups, *size).swapaxes(1, 2).reshape(array.shape)


@_arranges
def _squeeze(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    if others and others[0] is not None:
        axes = tuple(_axis(axis, array) for axis in integers(others[0], "the axes"))
        if node.attributes.get("lenient"):  # PyTorch leaves an axis that is longer
            axes = tuple(axis for axis in axes if array.shape[axis] == 1 and (axis > 0 or batch == 1))
    else:
        axes = tuple(axis for axis, size in enumerate(array.shape) if size == 1 and (axis > 0 or batch == 0))
    return array.squeeze(axes)


@_arranges
def _unsqueeze(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    return np.expand_dims(array, tuple(integers(others[0], "the axes")))


@_arranges
def _transpose(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    order = node.attributes["order"] or range(array.ndim)[::-1]
    return array.transpose([_axis(axis, array) for axis in order])


@_arranges
def _swap(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    return array.swapaxes(*node.attributes["axes"])


@_arranges
def _slice(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    given = [None if one is None else integers(one, "the bounds of a slice") for one in [*others, None, None][:4]]
    starts, ends = given[0] or [], given[1] or []
    axes = given[2] if given[2] is not None else list(range(len(starts)))
    steps = given[3] if given[3] is not None else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = _axis(axis, array)
        if axis == 0 and len(array) == 1 and step != 1:  # also where a batch is of one image, and all would be taken
            raise Unsupported(f"along the images of a batch the step must be 1, got {step}")
        size = batch if axis == 0 else array.shape[axis]
        chosen = range(size)[slice(start, None if step < 0 and end < -size else end, step)]
        if axis == 0 and batch != len(array):
            if chosen != range(size):
                raise Unsupported("an operation must leave the images of a batch apart")
            continue
        array = array.take(np.asarray(chosen, np.intp), axis)
    return array


@_arranges
def _split(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> list[np.ndarray]:
    axis = _axis(node.attributes.get("axis", 0), array)
    size = array.shape[axis]
    if others and others[0] is not None:
        sizes = integers(others[0], "the sizes of a split")
    else:
        each = node.attributes.get("size") or -(-size // (node.attributes.get("parts") or len(node.outputs)))
        sizes = [each] * (size // each) + ([size % each] if size % each else [])
    if sum(sizes) != size or len(sizes) < len(node.outputs) or axis == 0:
        raise Unsupported(f"cannot split {size} into {sizes}")
    return np.split(array, np.cumsum(sizes)[:-1], axis)


@_arranges
def _gather(builder: Any, node: Node, array: np.ndarray, others: Sequence[Any], batch: int) -> np.ndarray:
    axis = _axis(node.attributes.get("axis", 0), array)
    indices = known(others[0], "the indices")
    if indices.dtype.kind not in "iu":
        raise Unsupported(f"indices must be integers, got {indices.dtype}")
    size = array.shape[axis]
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        raise Unsupported(f"indices must be in [{-size}, {size}), got {indices.min()} to {indices.max()}")
    builder.make_room(array.size // max(1, size) * indices.size, array.dtype)
    if batch != len(array) and (axis == 0 or len(np.unique(indices % size)) < indices.size):
        raise Unsupported("each number of a tensor may be taken once, of each image of a batch")
    return array.take(indices, axis)


def _axis(axis: int, array: np.ndarray) -> int:
    return _axis_of(axis, array.ndim)


def _axis_of(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise Unsupported(f"there is no axis {axis} of a tensor of {rank} dimensions")
    return axis % rank


# ---- What is known before there is an image --------------------------------------------------------------------


def _shape(builder: Any, node: Node, operands: Sequence[Any]) -> np.ndarray:
    (x,) = operands
    shape = (builder.batch, *x.dims) if isinstance(x, Tensor) else known(x, "a tensor").shape
    return np.array(shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64)


def _fill(builder: Any, node: Node, operands: Sequence[Any]) -> np.ndarray:
    shape = integers(operands[0], "the shape")
    if min(shape, default=0) < 0:
        raise Unsupported(f"a shape must not be negative, got {shape}")
    value = node.attributes["value"].reshape(())
    builder.make_room(math.prod(shape), value.dtype)
    return np.full(shape, value)


def _expand(builder: Any, node: Node, operands: Sequence[Any]) -> np.ndarray:
    array, shape = known(operands[0], "what is repeated"), integers(operands[1], "the shape")
    try:
        shape = list(np.broadcast_shapes(array.shape, shape))
    except ValueError:
        raise Unsupported(f"cannot repeat {array.shape} to {shape}") from None
    builder.make_room(math.prod(shape), array.dtype)
    return np.broadcast_to(array, shape)


def _identity(builder: Any, node: Node, operands: Sequence[Any]) -> Any:
    return operands[0]


def _cast(builder: Any, node: Node, operands: Sequence[Any]) -> Any:
    (x,), dtype = operands, node.attributes["dtype"]
    if isinstance(x, np.ndarray):
        builder.make_room(x.size, dtype)
        return x.astype(dtype)
    if dtype.kind != "f" and dtype.name != "bfloat16":
        raise Unsupported(f"a tensor must stay floating-point, not become {dtype}")
    return x


REARRANGING = {
    "reshape": _reshape,
    "flatten": _flatten,
    "flatten_to_two": _flatten_to_two,
    "unflatten": _unflatten,
    "channel_shuffle": _channel_shuffle,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "transpose": _transpose,
    "swap": _swap,
    "slice": _slice,
    "split": _split,
    "gather": _gather,
    "shape": _shape,
    "fill": _fill,
    "expand": _expand,
    "identity": _identity,
    "cast": _cast,
}
