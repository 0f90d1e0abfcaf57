"""What each operation of a model becomes that reads a tensor: layers of the network (of arrays alone see
`zfcuda.interop.folding`).

A function reads one node: (builder, node, operands) -> the node's output, or a list of its outputs. It raises
`Unsupported`, with what is allowed, where the network has no layer for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..nn.layers import (
    AddSpec,
    BatchNormSpec,
    ClipSpec,
    ConcatSpec,
    DropoutSpec,
    FullyConnectedSpec,
    LayerSpec,
    LeakyReLUSpec,
    PReLUSpec,
    ReLUSpec,
)
from .builder import Builder
from .folding import computed
from .graph import Node, Unsupported
from .norms import NORMS
from .rearranging import REARRANGING, floats, known, tensor_of
from .tensors import Tensor
from .windows import WINDOWS

__all__ = ["OPERATIONS"]

# ---- Products, normalisation -----------------------------------------------------------------------------------


def _linear(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    """alpha x W + beta b, W being (units, inputs) or with `inputs_first` (inputs, units)."""
    x, weight, *rest = operands
    x = tensor_of(x)
    weight = floats(weight, "the weight")
    if weight.ndim != 2 or len(x.dims) != 1:
        raise Unsupported(f"products of rows (N, K) and a matrix are read, got {('N', *x.dims)} and {weight.shape}")
    weight = weight.T if node.attributes.get("inputs_first") else weight
    if weight.shape[1] != x.dims[0]:
        raise Unsupported(f"the weight must have {x.dims[0]} inputs, got {weight.shape[1]}")
    x = builder.whole(x, node.name)
    if x.table is not None:
        weight = weight.take(np.argsort(x.places), axis=1)
    if node.attributes.get("alpha", 1) != 1:
        weight = weight * np.float32(node.attributes["alpha"])
    arrays = {"weight": weight}
    if rest and rest[0] is not None:
        bias = floats(rest[0], "the bias") * np.float32(node.attributes.get("beta", 1))
        try:
            arrays["bias"] = np.broadcast_to(bias, (1, len(weight)))[0]
        except ValueError:  # of another shape, or for each image
            raise Unsupported(
                f"the bias must be one number or one for each of {len(weight)} units, got {bias.shape}"
            ) from None
    return builder.add(FullyConnectedSpec, node.name, [x], arrays, units=len(weight), bias="bias" in arrays)


def _batchnorm(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    x, *given = operands
    x = tensor_of(x)
    if node.attributes.get("training"):
        raise Unsupported(
            "batch normalisation must be that of test time: export the model in eval mode, with running statistics"
        )
    x = builder.by_channel(x, node.name)
    channels = x.dims[0]
    arrays = {}
    for name, array in zip(("weight", "bias", "running_mean", "running_var"), given, strict=True):
        default = np.float32(1 if name in ("weight", "running_var") else 0)
        numbers = floats(array, f"the {name}") if array is not None else np.full(channels, default)
        if numbers.shape != (channels,):
            raise Unsupported(f"the {name} must have one number for each of {channels} channels, got {numbers.shape}")
        arrays[name] = x.per_channel(numbers.reshape(1, -1, *[1] * (len(x.dims) - 1)), builder.batch)
    fields: dict[str, Any] = {name: float(node.attributes[name]) for name in ("eps", "momentum")}
    fields["affine"] = given[0] is not None or given[1] is not None
    smallest = float(arrays["running_var"].min())
    if not smallest + fields["eps"] > 0:
        raise Unsupported(f"running_var + eps must be positive, got {smallest:g} + {fields['eps']:g}")
    return x.like(builder.add(BatchNormSpec, node.name, [x], arrays, **fields).layer)


def _affine(builder: Builder, name: str, x: Tensor, scale: Any, shift: Any) -> Tensor:
    """x * scale + shift, by a batch normalisation of this name that is fixed."""
    x = builder.by_channel(x, name)
    vectors = [x.per_channel(np.asarray(one), builder.batch) for one in (scale, shift)]
    if not all(np.isfinite(one).all() for one in vectors):
        raise Unsupported("constants must be finite")
    arrays = {"weight": vectors[0], "bias": vectors[1]}
    arrays |= {"running_mean": np.zeros_like(vectors[0]), "running_var": np.ones_like(vectors[0])}
    return x.like(builder.add(BatchNormSpec, name, [x], arrays, eps=0.0, frozen=True).layer)


# ---- One number at a time ----------------------------------------------------------------------------------------


def _elementwise(builder: Builder, node: Node, x: Tensor, kind: type[LayerSpec], **fields: Any) -> Tensor:
    x = builder.whole(x, node.name)
    return x.like(builder.add(kind, node.name, [x], **fields).layer)


def _relu(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    return _elementwise(builder, node, tensor_of(operands[0]), ReLUSpec)


def _leaky_relu(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    return _elementwise(builder, node, tensor_of(operands[0]), LeakyReLUSpec, slope=float(node.attributes["slope"]))


def _prelu(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    x, slopes = tensor_of(operands[0]), floats(operands[1], "the slopes")
    if slopes.ndim == 1 and slopes.size > 1 and node.attributes.get("by_channel"):
        slopes = slopes.reshape(1, -1, *[1] * (len(x.dims) - 1))
    if slopes.size == 1:
        x = builder.whole(x, node.name)
        return x.like(builder.add(PReLUSpec, node.name, [x], {"weight": slopes.reshape(1)}, per_channel=False).layer)
    x = builder.by_channel(x, node.name)
    weight = x.per_channel(slopes, builder.batch)
    return x.like(builder.add(PReLUSpec, node.name, [x], {"weight": weight}).layer)


def _clip(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    x = tensor_of(operands[0])
    largest = float(np.finfo(np.float32).max)
    bounds = [-largest, largest]
    for i, operand in enumerate(operands[1:3]):
        if operand is not None:
            bounds[i] = min(max(float(known(operand, "a bound").reshape(())), -largest), largest)
    low, high = bounds
    if bounds == [-largest, largest]:
        return x
    if bounds == [0.0, largest]:
        return _elementwise(builder, node, x, ReLUSpec)
    return _elementwise(builder, node, x, ClipSpec, low=low, high=high)


def _dropout(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    x, *rest = operands
    probability = float(node.attributes.get("probability", 0.5))
    if rest and rest[0] is not None:
        probability = float(known(rest[0], "the probability").reshape(()))
    if not 0 < probability < 1:
        return tensor_of(x)
    return _elementwise(builder, node, tensor_of(x), DropoutSpec, probability=probability)


# ---- Several tensors -----------------------------------------------------------------------------------------------


def _sum(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    """Of tensors and constants; with an attribute alpha, x + alpha y."""
    operands = _scaled(builder, node, operands)
    tensors = [one for one in operands if isinstance(one, Tensor)]
    total = tensors[0] if len(tensors) == 1 else _joined(builder, node, tensors)
    constants = [one for one in operands if isinstance(one, np.ndarray)]
    if not constants:
        return total
    shift = computed(builder, lambda: sum(constants[1:], start=constants[0]), constants)
    if np.any(shift):
        return _affine(builder, node.name, total, 1.0, floats(shift, "a constant"))
    total.check_keeps_rank(np.asarray(shift))
    return total


def _joined(builder: Builder, node: Node, tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if any(one.dims != first.dims for one in tensors):
        shapes = " and ".join(str(("N", *one.dims)) for one in tensors)
        raise Unsupported(f"sums are read of tensors of one shape, got {shapes}")
    tensors = builder.alike(tensors, node.name)
    return tensors[0].like(builder.add(AddSpec, node.name, tensors).layer)


def _scaled(builder: Builder, node: Node, operands: Sequence[Any]) -> Sequence[Any]:
    """The operands of x + alpha y, with alpha y in the place of y."""
    alpha = node.attributes.get("alpha", 1)
    if alpha == 1:
        return operands
    x, y = operands
    if isinstance(y, np.ndarray):
        return x, computed(builder, lambda: (y * alpha).astype(y.dtype), [y])
    return x, _affine(builder, f"{node.name}.factor", y, alpha, 0.0)


def _difference(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    x, y = _scaled(builder, node, operands)
    if isinstance(y, np.ndarray):
        return _affine(builder, node.name, x, 1.0, -floats(y, "a constant"))
    if isinstance(x, np.ndarray):
        return _affine(builder, node.name, y, -1.0, floats(x, "a constant"))
    return _joined(builder, node, [x, _affine(builder, f"{node.name}.negative", y, -1.0, 0.0)])


def _negative(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    return _affine(builder, node.name, operands[0], -1.0, 0.0)


def _product(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    x, y = operands if isinstance(operands[0], Tensor) else operands[::-1]
    return _affine(builder, node.name, x, floats(y, "a constant"), 0.0)


def _quotient(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    x, y = operands
    if isinstance(y, Tensor):
        raise Unsupported("a divisor must be constant")
    with np.errstate(divide="ignore"):  # what is not finite is refused
        factor = 1 / floats(y, "a constant")
    return _affine(builder, node.name, x, factor, 0.0)


def _total(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    """The sum over whole maps, or over their height or width: so many times the mean."""
    made = WINDOWS["mean"](builder, dataclasses.replace(node, name=f"{node.name}.mean"), operands)
    count = math.prod(tensor_of(operands[0]).dims) // math.prod(made.dims)
    return _affine(builder, node.name, made, float(count), 0.0) if count > 1 else made


def _concat(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    tensors = [tensor_of(one, "each input") for one in operands]
    rank = len(tensors[0].dims) + 1
    axis = node.attributes["axis"] % rank - 1
    if axis < 0 or any(len(one.dims) != rank - 1 for one in tensors):
        raise Unsupported("tensors are joined along their channels or units, and not along the batch")
    if len(tensors) == 1:
        return tensors[0]
    if rank == 2:
        rows = [builder.flat(one, node.name) for one in tensors]
        starts = np.cumsum([0, *(one.shape[0] for one in rows)])
        table = np.concatenate([one.places + start for one, start in zip(rows, starts, strict=False)])
        return builder.add(ConcatSpec, node.name, rows).rearranged(table.astype(np.int32))
    if any(one.is_spatial(axis) for one in tensors):
        raise Unsupported(
            f"tensors are joined along their channels or units; axis {axis + 1} of {('N', *tensors[0].dims)} is their "
            "height or width, along which no layer joins them"
        )
    # Channels come first, wherever they are in the model.
    turned = [one.rearranged(np.moveaxis(one.places, axis, 0)) for one in tensors]
    if any(one.dims[1:] != turned[0].dims[1:] for one in turned):
        shapes = " and ".join(str(("N", *one.dims)) for one in tensors)
        raise Unsupported(f"tensors are joined that differ along one axis only, got {shapes}")
    made = builder.add(ConcatSpec, node.name, [builder.channels(one, node.name) for one in turned])
    places = made.places.reshape(-1, *turned[0].dims[1:])
    return made.rearranged(np.moveaxis(places, 0, axis))


# ---- The end -------------------------------------------------------------------------------------------------------


def _softmax(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    x = tensor_of(operands[0])
    axis = node.attributes["axis"] % (len(x.dims) + 1) - 1
    together = node.attributes.get("flattens") and axis == 0
    if axis < 0 or not (together or x.dims[axis] == math.prod(x.dims)):
        raise Unsupported(f"softmax is read over all outputs together, not along one axis of {('N', *x.dims)}")
    return dataclasses.replace(x, head="softmax")


def _sigmoid(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    return dataclasses.replace(tensor_of(operands[0]), head="sigmoid")


OPERATIONS: dict[str, Callable[[Any, Node, Sequence[Any]], Any]] = {
    **REARRANGING,
    **WINDOWS,
    **NORMS,
    "linear": _linear,
    "batchnorm": _batchnorm,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "clip": _clip,
    "dropout": _dropout,
    "add": _sum,
    "sub": _difference,
    "mul": _product,
    "div": _quotient,
    "neg": _negative,
    "total": _total,
    "concat": _concat,
    "softmax": _softmax,
    "sigmoid": _sigmoid,
}
