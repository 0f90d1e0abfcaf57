"""What operations make of arrays alone, which are known before there is an image: of parameters, shapes and constants.

A function reads one node as those of `zfcuda.interop.operations` do, each operand being an array or None. What only
arranges numbers differently is in `zfcuda.interop.rearranging`, for arrays and tensors alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .graph import MALFORMED, Node, Unsupported
from .rearranging import REARRANGING, floats, reduced_axes

__all__ = ["FOLDING", "KNOWN", "computed"]


def computed(builder: Any, function: Callable[[], Any], operands: Sequence[np.ndarray]) -> np.ndarray:
    """What a function of arrays makes, that are broadcast against each other."""
    try:
        count = math.prod(np.broadcast_shapes(*(one.shape for one in operands)))
    except ValueError:
        raise Unsupported(f"constants of {' and '.join(str(one.shape) for one in operands)} do not fit") from None
    builder.make_room(count, np.result_type(*operands))
    with np.errstate(all="ignore"):
        return np.asarray(function())


def _elementwise(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """From a function of the node and its arrays."""

    def folded(builder: Any, node: Node, operands: Sequence[Any]) -> np.ndarray:
        return computed(builder, lambda: function(node, *operands), [one for one in operands if one is not None])

    return folded


def _sum(node: Node, *arrays: np.ndarray) -> Any:
    return functools.reduce(np.add, _scaled(node, arrays))


def _difference(node: Node, *arrays: np.ndarray) -> Any:
    return np.subtract(*_scaled(node, arrays))


def _scaled(node: Node, arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    alpha = node.attributes.get("alpha", 1)
    return arrays if alpha == 1 else (arrays[0], (arrays[1] * alpha).astype(arrays[1].dtype))


def _quotient(node: Node, x: np.ndarray, y: np.ndarray) -> Any:
    whole = x.dtype.kind in "iu" and y.dtype.kind in "iu"
    return np.trunc(x / y).astype(x.dtype) if whole else x / y


def _clip(node: Node, x: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None) -> Any:
    return x if low is None and high is None else np.clip(x, low, high).astype(x.dtype)


def _concat(builder: Any, node: Node, operands: Sequence[Any]) -> np.ndarray:
    builder.make_room(sum(one.size for one in operands), np.result_type(*operands))
    return np.concatenate(operands, node.attributes["axis"])


def _linear(builder: Any, node: Node, operands: Sequence[Any]) -> np.ndarray:
    """alpha x W + beta b, also of vectors."""
    x, weight = (floats(one, "a factor") for one in operands[:2])
    bias = operands[2] if len(operands) > 2 else None
    weight = weight if node.attributes.get("inputs_first") else weight.T
    if x.ndim not in (1, 2) or weight.ndim not in (1, 2) or x.shape[-1] != weight.shape[0]:
        raise Unsupported(f"products are of vectors and matrices that fit, got {x.shape} and {weight.shape}")
    builder.make_room(math.prod(x.shape[:-1] + weight.shape[1:]), np.dtype(np.float32))
    made: Any = node.attributes.get("alpha", 1) * (x @ weight)
    if bias is not None:
        made = made + node.attributes.get("beta", 1) * floats(bias, "a summand")
    return np.asarray(made, np.float32)


def _reduction(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def folded(builder: Any, node: Node, operands: Sequence[Any]) -> np.ndarray:
        x, *rest = operands
        axes = tuple(reduced_axes(node, rest, x.ndim))
        made = function(x, axis=axes, keepdims=bool(node.attributes.get("keepdims")))
        return np.asarray(made, x.dtype)

    return folded


def _norm(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.sqrt(np.square(floats(x, "a norm's array")).sum(axis, dtype=np.float64, keepdims=keepdims))


def _weight_norm(builder: Any, node: Node, operands: Sequence[Any]) -> np.ndarray:
    """g v / |v|, a norm for each index of one axis, or of all of v where that is -1 (Salimans and Kingma 2016)."""
    v, g = (floats(one, "a weight") for one in operands)
    axes = tuple(axis for axis in range(v.ndim) if axis != node.attributes["axis"])
    return computed(builder, lambda: v * (g / _norm(v, axes, True)).astype(np.float32), [v, g])


def _evaluated(builder: Any, node: Node, operands: Sequence[Any]) -> list[np.ndarray]:
    """By the library that the model is of."""
    try:
        made: list[np.ndarray] = node.attributes["compute"](operands)
    except (RuntimeError, ValueError, *MALFORMED) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise Unsupported(f"cannot be computed of parameters alone: {reason}") from error
    return made


FOLDING: dict[str, Callable[[Any, Node, Sequence[Any]], Any]] = {
    "add": _elementwise(_sum),
    "sub": _elementwise(_difference),
    "mul": _elementwise(lambda node, x, y: x * y),
    "div": _elementwise(_quotient),
    "neg": _elementwise(lambda node, x: -x),
    "pow": _elementwise(lambda node, x, y: x**y),
    "sqrt": _elementwise(lambda node, x: np.sqrt(x)),
    "clip": _elementwise(_clip),
    "concat": _concat,
    "linear": _linear,
    "mean": _reduction(np.mean),
    "total": _reduction(np.sum),
    "largest": _reduction(np.max),
    "norm": _reduction(_norm),
    "weight_norm": _weight_norm,
    "evaluated": _evaluated,
}

KNOWN = frozenset({*FOLDING, *REARRANGING})
"""The operations of which the result is known where all that they read is."""
