"""Convolutions, pools, means, maxima and padding of a model, as layers.

Signals, (N, C, W) in a model, are maps of height 1 here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..nn.layers import AvgPoolSpec, BatchNormSpec, ClipSpec, ConcatSpec, ConvSpec, LayerSpec, MaxPoolSpec
from ..nn.span import Span
from .builder import Builder
from .graph import Node, Unsupported
from .rearranging import floats, integers, known, reduced_axes, tensor_of
from .tensors import NO_PADDING, Tensor

__all__ = ["PADDED", "WINDOWS", "padded_sides"]

PADDED = ("conv", "maxpool", "avgpool", "pad", "identity")  # which take maps with padding around them

Sides = tuple[int, int, int, int]  # top, bottom, left, right

_SWITCHES = 256  # cells of a max pool's window


def _conv(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    x, weight, *rest = operands
    signal = len(tensor_of(x).dims) == 2
    x = tensor_of(x).as_maps()
    weight = floats(weight, "the weight")
    if weight.ndim != (3 if signal else 4):
        raise Unsupported(f"convolutions of one and two dimensions are read; the weight has shape {weight.shape}")
    weight = weight[:, :, None] if signal else weight
    x, weight = _of_image(x, weight)
    x = builder.maps(x, node.name)
    bias = floats(rest[0], "the bias") if rest and rest[0] is not None else None
    kernel = weight.shape[2:]
    stride, dilation = (_two(node.attributes.get(name, 1), signal) for name in ("stride", "dilation"))
    padding = _padding(node, x, kernel, stride, dilation, signal)
    if any(x.padding) and x.fill != 0:
        raise Unsupported(f"in front of a convolution maps are padded with zeros, not {x.fill:g}")
    padding = _both(padding, x.padding)
    fields = {"kernel": _short(kernel), "stride": _short(stride), "dilation": _short(dilation)}
    fields |= {"padding": _short_padding(padding), "groups": node.attributes.get("groups", 1)}
    arrays = {"weight": weight.transpose(0, 2, 3, 1)} | ({} if bias is None else {"bias": bias})
    made = builder.add(ConvSpec, node.name, [x], arrays, maps=len(weight), bias=bias is not None, **fields)
    return _as_it_was(made, signal)


def _of_image(x: Tensor, weight: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Filters over the image's channels in another order, as filters over them in their own."""
    order = x.channel_order()
    if x.layer != "input" or x.table is None or order is None or not x.is_whole or weight.shape[1] != len(order):
        return x, weight
    return dataclasses.replace(x, table=None), weight[:, np.argsort(order)]


def _maxpool(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    signal = len(tensor_of(operands[0]).dims) == 2
    x = builder.maps(tensor_of(operands[0]).as_maps(), node.name)
    window, stride, padding = _pooling(node, x, signal)
    if set(_two(node.attributes.get("dilation", 1), signal)) != {1}:
        raise Unsupported("a max pool must have a dilation of 1")
    if math.prod(window) > _SWITCHES:
        raise Unsupported(f"a max pool's window has at most {_SWITCHES} cells, got {window[0]} x {window[1]}")
    if any(x.padding):
        if x.fill > -1e30 and not (x.fill == 0 and _is_rectified(builder, x.layer)):
            raise Unsupported(
                f"in front of a max pool maps are padded with -inf, or behind a ReLU with zeros; not {x.fill:g}"
            )
        if node.attributes.get("ceil_mode"):
            padding = _behind_for_ceil(x, window, stride, padding)
            node = dataclasses.replace(node, attributes={**node.attributes, "ceil_mode": False})
        padding = _both(padding, x.padding)
    return _pooled(builder, MaxPoolSpec, node, x, window, stride, padding, signal)


def _behind_for_ceil(x: Tensor, window: tuple[int, int], stride: tuple[int, int], padding: Sides) -> Sides:
    """A pool's padding with which it makes without ceil_mode the windows that it makes with it of maps with padding
    around them: the last of them starts before the end of these maps with their own padding."""
    sides = []
    befores, afters = (padding[0], padding[2]), (padding[1], padding[3])
    for size, cells, step, before, after in zip(_padded_size(x), window, stride, befores, afters, strict=True):
        span = Span(size, cells, step, before, after=after, ceil=True)
        sides += [before, max(0, span.start(span.outputs - 1) + cells - size)]
    return tuple(sides)  # type: ignore[return-value]


def _avgpool(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    signal = len(tensor_of(operands[0]).dims) == 2
    x = builder.maps(tensor_of(operands[0]).as_maps(), node.name)
    window, stride, padding = _pooling(node, x, signal)
    counts = bool(node.attributes.get("count_include_pad", False))
    if node.attributes.get("divisor") is not None:
        raise Unsupported("an average divides by the cells of its window, not by a number of its own")
    if set(_two(node.attributes.get("dilation", 1), signal)) != {1}:
        raise Unsupported("an average pool must have a dilation of 1")
    if any(x.padding):
        if x.fill != 0 or (any(padding) and not counts) or node.attributes.get("ceil_mode"):
            raise Unsupported("in front of an average pool maps are padded with zeros that count, without ceil_mode")
        padding, counts = _both(padding, x.padding), True
    if window == stride == (1, 1) and not any(padding):
        return _as_it_was(x, signal)
    if not any(padding):
        counts = True
    return _pooled(builder, AvgPoolSpec, node, x, window, stride, padding, signal, count_include_pad=counts)


def _pooled(
    builder: Builder,
    kind: type[LayerSpec],
    node: Node,
    x: Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: Sides,
    signal: bool,
    **fields: Any,
) -> Tensor:
    if max(padding[:2]) >= window[0] or max(padding[2:]) >= window[1]:
        raise Unsupported(
            f"a pool's padding, with that around the maps, must be smaller than its window {window}; got {padding}"
        )
    if node.attributes.get("ceil_mode"):  # the only window of maps that are smaller ends with their padding
        padded = x.shape[0] + sum(padding[:2]), x.shape[1] + sum(padding[2:])
        both = zip(window, padded, stride, strict=True)
        window = tuple(have if have < cells < have + step else cells for cells, have, step in both)  # type: ignore[assignment]
    fields |= {"window": _short(window), "stride": _short(stride), "padding": _short_padding(padding)}
    made = builder.add(kind, node.name, [x], ceil_mode=bool(node.attributes.get("ceil_mode", False)), **fields)
    return _as_it_was(made, signal)


def _adaptive_pool(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    """Adaptive average (attribute `mean`) or max pooling to `size`, None for a side that stays."""
    signal = len(tensor_of(operands[0]).dims) == 2
    x = builder.maps(tensor_of(operands[0]).as_maps(), node.name)
    size = node.attributes["size"]
    size = (size, size) if isinstance(size, int) else (1, *size) if signal else tuple(size)
    size = tuple(have if want is None else want for want, have in zip(size, x.shape[:2], strict=True))
    if min(size) < 1 or any(have % want for have, want in zip(x.shape[:2], size, strict=True)):
        raise Unsupported(f"an adaptive pool's size must divide that of the maps; {size} does not divide {x.shape[:2]}")
    window = (x.shape[0] // size[0], x.shape[1] // size[1])
    if window == (1, 1):
        return _as_it_was(x, signal)
    if not node.attributes["mean"]:
        made = _largest_of(builder, node, x, window)
    elif size == (1, 1):
        made = builder.add(AvgPoolSpec, node.name, [x])
    else:
        made = builder.add(AvgPoolSpec, node.name, [x], window=_short(window))
    return _as_it_was(made, signal)


def _mean(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    """Over whole maps, or over their height or width."""
    return _reduced(builder, node, operands, _mean_of)


def _largest(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    """Likewise the maximum."""
    return _reduced(builder, node, operands, _largest_of)


def _mean_of(builder: Builder, node: Node, x: Tensor, window: tuple[int, int]) -> Tensor:
    if window == x.shape[:2]:
        return builder.add(AvgPoolSpec, node.name, [x])
    return builder.add(AvgPoolSpec, node.name, [x], window=window, stride=window)


def _largest_of(builder: Builder, node: Node, x: Tensor, window: tuple[int, int]) -> Tensor:
    if math.prod(window) > _SWITCHES:
        raise Unsupported(f"a max pool's window has at most {_SWITCHES} cells, got {window[0]} x {window[1]}")
    return builder.add(MaxPoolSpec, node.name, [x], window=_short(window), stride=_short(window))


def _reduced(builder: Builder, node: Node, operands: Sequence[Any], pool: Callable[..., Tensor]) -> Tensor:
    """Whole maps, or their height or width, to one number. pool: does it, of (builder, node, maps, window)."""
    x, *rest = operands
    x = tensor_of(x)
    chosen = reduced_axes(node, rest, len(x.dims) + 1)
    if not chosen:
        return x
    if chosen[0] == 0:
        raise Unsupported("means, sums and maxima must leave the images of a batch apart")
    reduced = [axis - 1 for axis in chosen]
    maps = len(x.dims) == 3 and (x.channel_order() is not None or x.steps() is not None)
    if maps and reduced in ([1], [2]):
        return _reduced_along(builder, node, x, reduced[0], pool)
    kept = [axis for axis in range(len(x.dims)) if axis not in reduced]
    places = x.places.transpose([*kept, *reduced]).reshape(math.prod(x.dims[axis] for axis in kept), -1)
    made, order = _channels_of(builder, node, x, np.sort(places, axis=1))
    if made.shape[:2] != (1, 1):
        made = pool(builder, node, made, made.shape[:2])
    dims = tuple(1 if axis in reduced else size for axis, size in enumerate(x.dims))
    dims = dims if node.attributes.get("keepdims") else tuple(x.dims[axis] for axis in kept)
    return made.rearranged(order.astype(np.int32).reshape(dims))


def _channels_of(builder: Builder, node: Node, x: Tensor, places: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Maps that have each of these rows of places of the tensor's layer as all of a channel, and which; with a layer
    more where the rows are of every so manyth pixel."""
    if len(x.shape) == 3:
        height, width, channels = x.shape
        order, across = places[:, 0], len(np.unique(places[0] // channels % width))
        if np.array_equal(places, order[:, None] + np.arange(height * width, dtype=np.int32) * channels):
            return Tensor(x.layer, x.shape), order
        if places.shape[1] % across == 0:
            sampled = x.rearranged(places.reshape(len(places), -1, across))
            if sampled.steps() is not None:
                return builder.maps(sampled, node.name), np.arange(len(places))
    raise Unsupported(
        "means, sums and maxima are read over height, width or both, of all of a map or of every so manyth pixel"
    )


def _reduced_along(builder: Builder, node: Node, x: Tensor, axis: int, pool: Callable[..., Tensor]) -> Tensor:
    """One axis of maps (C, H, W)."""
    made = builder.maps(x, node.name)
    size = x.dims[axis]
    if size > 1:
        made = pool(builder, node, made, (size, 1) if axis == 1 else (1, size))
    return made if node.attributes.get("keepdims") else made.rearranged(made.places.squeeze(axis))


def _pad(builder: Builder, node: Node, operands: Sequence[Any]) -> Tensor:
    """Padding that the next layer does. operands: x, (begin of each axis, end of each axis), the number in it, axes."""
    x, pads, *rest = operands
    x = tensor_of(x)
    rank = len(x.dims) + 1
    sides, fill = padded_sides(node, rank, [pads, *rest])
    numbers = [number for side in sides for number in side]
    if rank == 4 and any(sides[1]) and not any(any(sides[axis]) for axis in (0, 2, 3)) and min(numbers) >= 0:
        return _channels_around(builder, node, x, sides[1], fill)
    if rank not in (3, 4) or any(any(side) for side in sides[:2]) or min(numbers) < 0:
        raise Unsupported("padding must be of the height and width of maps, or of their channels, not negative")
    if not any(numbers):
        return x
    if x.padding != NO_PADDING and x.fill != fill:
        raise Unsupported("maps are padded twice, with different numbers")
    around = sides[rank - 2] if rank == 4 else (0, 0)
    padding = _both(x.padding, (*around, *sides[rank - 1]))
    return dataclasses.replace(x, padding=padding, fill=fill)


def padded_sides(node: Node, rank: int, given: Sequence[Any]) -> tuple[list[tuple[int, int]], float]:
    """Of a pad the cells (before, behind) of each axis of the tensor, and the number in them. given: its operands but
    the tensor."""
    pads, value, axes = [*given, None, None][:3]
    if node.attributes.get("mode", "constant") != "constant":
        raise Unsupported(f"padding must be by a constant, not {node.attributes['mode']}")
    numbers = integers(pads, "the padding")
    fill = float(known(value, "what is padded with").reshape(())) if value is not None else 0.0
    chosen = list(range(rank)) if axes is None else integers(axes, "the axes")
    sides = [(0, 0)] * rank
    for i, axis in enumerate(chosen):
        sides[axis % rank] = numbers[i], numbers[i + len(chosen)]
    return sides, fill


def _channels_around(builder: Builder, node: Node, x: Tensor, counts: tuple[int, int], fill: float) -> Tensor:
    """So many channels of zeros before and behind those of the maps, as of a residual block without projection (He et
    al. 2016, option A): some of the maps, times a factor of zero that is fixed."""
    if fill != 0 or x.padding != NO_PADDING:
        raise Unsupported("channels are added to maps without padding, and of zeros only")
    x = builder.maps(x, node.name)
    if max(counts) > x.shape[2]:
        raise Unsupported(f"at most as many channels of zeros are added as there are, {x.shape[2]}; got {max(counts)}")
    part = builder.maps(x.rearranged(x.places[: max(counts)]), node.name)
    arrays = {name: np.zeros(max(counts), np.float32) for name in ("weight", "bias", "running_mean", "running_var")}
    arrays["running_var"] += 1
    zeros = builder.add(BatchNormSpec, f"{node.name}.zeros", [part], arrays, eps=0.0, frozen=True)
    before, behind = ([builder.maps(zeros.rearranged(zeros.places[:n]), node.name)] if n else [] for n in counts)
    return builder.add(ConcatSpec, node.name, [*before, x, *behind])


def _is_rectified(builder: Builder, layer: str) -> bool:
    """Whether a layer's output is never negative."""
    spec = builder.layers.get(layer)
    if spec is None:
        return False
    if isinstance(spec, ClipSpec):
        return spec.low >= 0
    if spec.kind in ("pool", "avgpool", "dropout", "concat", "add", "permute", "slice", "flatten"):
        return all(_is_rectified(builder, name) for name in spec.inputs)
    return spec.kind == "relu"


def _two(value: Any, signal: bool) -> tuple[int, int]:
    """(height, width), from a number or a list; of a signal (1, width)."""
    values = [int(one) for one in value] if isinstance(value, (list, tuple)) else [int(value)]
    if signal and len(values) == 1:
        return 1, values[0]
    if len(values) == 1:
        return values[0], values[0]
    if len(values) != 2 or signal:
        raise Unsupported(f"convolutions and pools of one and two dimensions are read, got {values}")
    return values[0], values[1]


def _pooling(node: Node, x: Tensor, signal: bool) -> tuple[tuple[int, int], tuple[int, int], Sides]:
    window = _two(node.attributes["window"], signal)
    stride = _two(node.attributes["stride"], signal)
    return window, stride, _padding(node, x, window, stride, (1, 1), signal)


def _padding(
    node: Node,
    x: Tensor,
    kernel: Sequence[int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    signal: bool,
) -> Sides:
    """(top, bottom, left, right), from the numbers at the begin of all axes and then at their end, one for each axis,
    or a word that says how large the output is to be."""
    value = node.attributes.get("padding", 0)
    if value in ("same_upper", "same_lower"):
        sides = []
        for size, cells, step, apart in zip(_padded_size(x), kernel, stride, dilation, strict=True):
            total = max(0, (-(-size // step) - 1) * step + (cells - 1) * apart + 1 - size)
            sides += [total // 2, total - total // 2] if value == "same_upper" else [total - total // 2, total // 2]
        return tuple(sides)  # type: ignore[return-value]
    values = [int(one) for one in value] if isinstance(value, (list, tuple)) else [int(value)]
    if min(values) < 0:
        raise Unsupported(f"padding must not be negative, got {values}")
    if signal and len(values) <= 2:
        return 0, 0, values[0], values[-1]
    if len(values) == 4 and not signal:
        return values[0], values[2], values[1], values[3]
    height, width = _two(values, signal)
    return height, height, width, width


def _padded_size(x: Tensor) -> tuple[int, int]:
    """(height, width) of the maps in the model, with what is around them."""
    top, bottom, left, right = x.padding
    return x.shape[0] + top + bottom, x.shape[1] + left + right


def _both(one: Sides, other: Sides) -> Sides:
    return tuple(a + b for a, b in zip(one, other, strict=True))  # type: ignore[return-value]


def _short(pair: Sequence[int]) -> Any:
    """One number where both are the same."""
    return int(pair[0]) if pair[0] == pair[1] else (int(pair[0]), int(pair[1]))


def _short_padding(padding: Sequence[int]) -> Any:
    top, bottom, left, right = padding
    return _short((top, left)) if (top, left) == (bottom, right) else (top, bottom, left, right)


def _as_it_was(made: Tensor, signal: bool) -> Tensor:
    return made.rearranged(made.places[:, 0]) if signal else made


WINDOWS: dict[str, Callable[[Any, Node, Sequence[Any]], Any]] = {
    "conv": _conv,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "adaptive_pool": _adaptive_pool,
    "mean": _mean,
    "largest": _largest,
    "pad": _pad,
}
