"""A network in the making: layers one after the other, with their arrays."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..nn import Architecture, Network, number_blocks
from ..nn.layers import AvgPoolSpec, BatchNormSpec, FlattenSpec, LayerSpec, PermuteSpec, SliceSpec
from ..nn.span import Shape
from .graph import Unsupported
from .tensors import Tensor

__all__ = ["Builder"]


_ROOM = 2**30  # bytes that reading a model may make besides its own
_LARGEST = 2**27  # numbers of a layer's output for an image
_ROUNDING = 1e-6  # of an array's largest number: what is computed twice by a library may differ by some of it


class Builder:
    """The layers so far, and their parameters and state. batch: how many images the model works on; held: how many
    bytes of numbers it holds."""

    def __init__(self, image: Shape, batch: int, held: int = 0):
        self.image = image
        self.batch = batch
        self._room = _ROOM + held
        self.layers: dict[str, LayerSpec] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self._parts: dict[tuple[str, bytes], Tensor] = {}  # (layer, order of its channels) -> what has just these
        self._taken: dict[str, int] = {}  # how often a name was wanted

    def add(
        self,
        kind: type[LayerSpec],
        name: str,
        inputs: Sequence[Tensor],
        arrays: Mapping[str, np.ndarray] | None = None,
        **fields: Any,
    ) -> Tensor:
        """A layer that reads these tensors' layers, with its parameters and state -> what it makes, as usual."""
        name = self._free_name(name)
        spec = kind(name=name, inputs=tuple(tensor.layer for tensor in inputs), **fields)
        shape = spec.joined_shape([tensor.shape for tensor in inputs])
        if math.prod(shape) > _LARGEST:
            count = math.prod(shape)
            raise Unsupported(f"its output has {count:,} numbers for an image; at most {_LARGEST:,} are allowed")
        expected = spec.parameter_shapes(inputs[0].shape) | spec.state_shapes(inputs[0].shape)
        for array, numbers in (arrays or {}).items():
            if numbers.shape != expected[array]:
                wanted = expected[array]
                raise Unsupported(f"its {array} must have shape {wanted} for such an input, got {numbers.shape}")
            if not np.isfinite(numbers).all():
                raise Unsupported(f"its {array} has values that are not finite in float32")
            self.arrays[f"{name}.{array}"] = np.array(numbers, np.float32, order="C")
        self.layers[name] = spec
        return Tensor(name, shape)

    def _free_name(self, name: str) -> str:
        parts = [part for part in re.split(r"[./]", "".join(c for c in name if c.isprintable())) if part]
        base = ".".join(parts) or "layer"
        name = base
        while name in self.layers or name == "input":
            self._taken[base] = self._taken.get(base, 0) + 1
            name = f"{base}_{self._taken[base]}"
        return name

    def make_room(self, count: int, dtype: np.dtype) -> None:
        """For an array of so many numbers more. Unsupported where a model makes far more than it holds: a small file
        could fill the memory."""
        size = count * dtype.itemsize
        if size > self._room:
            raise Unsupported(
                f"it would make an array of {count:,} {dtype}, and all that a model makes must fit into {_ROOM:,} bytes"
            )
        self._room -= size

    def maps(self, tensor: Tensor, name: str = "") -> Tensor:
        """The tensor (K, H, W) as all that a layer makes, in its order, with a layer more if that is necessary. Padding
        around it and its head stay."""
        order = tensor.channel_order()
        if order is None and (steps := tensor.steps()) is not None:
            sampled = self.add(AvgPoolSpec, tensor.by or _named(name, "slice"), [tensor], window=1, stride=steps)
            order = tensor.places[:, 0, 0]
            tensor = dataclasses.replace(tensor, layer=sampled.layer, shape=sampled.shape, table=sampled.places[order])
        if order is None:
            raise _no_maps(tensor)
        made = self._some_of(tensor, order, name)
        return dataclasses.replace(made, padding=tensor.padding, fill=tensor.fill, head=tensor.head)

    def flat(self, tensor: Tensor, name: str) -> Tensor:
        """A row (K,) of all that a layer makes, in any order, the layer's output being a row too. What flattens is
        called as the operation that made the row, or else after the one that needs it, of this name."""
        if len(tensor.shape) == 3:
            made = self.add(FlattenSpec, tensor.row_by or _named(name, "flatten"), [tensor])
            tensor = dataclasses.replace(tensor, layer=made.layer, shape=made.shape).rearranged(tensor.places)
        return tensor if tensor.is_whole else self.in_order(tensor, name)

    def whole(self, tensor: Tensor, name: str) -> Tensor:
        """The tensor, of the same dimensions, as all of what a layer makes, in any order."""
        if tensor.is_whole:
            return tensor
        if len(tensor.shape) == 1 or len(tensor.dims) == 1:
            row = self.flat(tensor.rearranged(tensor.places.reshape(-1)), name)
            return row.rearranged(row.places.reshape(tensor.dims))
        grid = tensor.as_grid()
        if grid is None:
            raise _no_maps(tensor)
        made = self.maps(grid, name)
        now = np.empty(math.prod(tensor.shape), np.int32)
        now[grid.places] = made.places
        return made.rearranged(now[tensor.places])

    def channels(self, tensor: Tensor, name: str = "") -> Tensor:
        """A tensor (C, ...) as maps (C, H, W) that are all of what a layer makes, in its order, whatever dimensions
        the pixels have in the model: one for a signal or the mean of columns."""
        tensor = self.whole(tensor, name)
        height, width = tensor.shape[:2] if len(tensor.shape) == 3 else (0, 0)
        if tensor.dims and tensor.dims[0] * height * width == math.prod(tensor.shape):
            tensor = tensor.rearranged(tensor.places.reshape(-1, height, width))
        return self.maps(tensor, name)

    def alike(self, tensors: Sequence[Tensor], name: str) -> list[Tensor]:
        """Tensors of the same dimensions, each as all of what a layer makes, and all in the same order."""
        dims = tensors[0].dims
        tensors = [self.whole(one, name) for one in tensors]
        first = next((one for one in tensors if one.table is None), tensors[0])
        if all(one.shape == first.shape and _stand_alike(one, first) for one in tensors):
            return tensors
        if len(dims) == 1 or any(len(one.shape) == 1 for one in tensors):
            rows = [self.flat(one.rearranged(one.places.reshape(-1)), name) for one in tensors]
            ordered = [self.in_order(row, name) for row in rows]
            return [row.rearranged(row.places.reshape(dims)) for row in ordered]
        order = np.argsort(first.places.reshape(-1))
        standing = [one.places.reshape(-1)[order].reshape(first.shape).transpose(2, 0, 1) for one in tensors]
        maps = [self.maps(one.rearranged(places), name) for one, places in zip(tensors, standing, strict=True)]
        return [one.rearranged(first.places) for one in maps]

    def by_channel(self, tensor: Tensor, name: str) -> Tensor:
        """The same, where a number for each channel of the tensor is one for each channel of the layer."""
        if len(tensor.dims) == 1 and len(tensor.shape) == 3 and tensor.shape[:2] != (1, 1):
            tensor = self.flat(tensor, name)
        return self.whole(tensor, name)

    def in_order(self, tensor: Tensor, name: str = "") -> Tensor:
        """A row (K,) of units as all that a layer makes, in its order."""
        if len(tensor.dims) != 1 or len(tensor.shape) != 1:
            raise Unsupported(f"a tensor of {('N', *tensor.dims)} must be a row of units")
        return dataclasses.replace(self._some_of(tensor, tensor.places, name), head=tensor.head)

    def _some_of(self, tensor: Tensor, order: np.ndarray, name: str) -> Tensor:
        """These channels (or units) of the tensor's layer, in this order. What does that is called after the operation
        that arranged them so, or else after the one that needs it, of this name."""
        key = (tensor.layer, order.astype(np.int32).tobytes())
        if key not in self._parts:
            self._parts[key] = self._reordered(tensor, order, tensor.by or name)
        return self._parts[key]

    def _reordered(self, tensor: Tensor, order: np.ndarray, name: str) -> Tensor:
        made = Tensor(tensor.layer, tensor.shape)
        channels = tensor.shape[-1]
        start, count = int(order.min()), len(order)
        if not np.array_equal(np.sort(order), np.arange(start, start + count)):
            # What is wanted comes to the front, the others behind it.
            order = np.concatenate([order, np.setdiff1d(np.arange(channels), order)])
            made, start = self.add(PermuteSpec, _named(name, "permute"), [made], order=tuple(order.tolist())), 0
            order = np.arange(count)
        if count < channels:
            made = self.add(SliceSpec, _named(name, "slice"), [made], start=start, stop=start + count)
        if not np.array_equal(order, np.arange(start, start + count)):
            made = self.add(PermuteSpec, _named(name, "permute"), [made], order=tuple((order - start).tolist()))
        return made

    # ---- The end ---------------------------------------------------------------------------------------------

    def network(self) -> Network:
        """The network of these layers. ValueError if they are none that can be one."""
        if not self.layers:
            raise ValueError("the model has no layers")
        self._fold()
        architecture = Architecture(self.image, tuple(self.layers.values()), "he")  # type: ignore[arg-type]
        return Network(number_blocks(architecture), parameters=self.arrays)

    def keep_only(self, last: str) -> None:
        """This layer and all on which it stands, and none whose shape alone was wanted."""
        needed = {last}
        for name in reversed(self.layers):
            if name in needed:
                needed.update(self.layers[name].inputs)
        self.layers = {name: spec for name, spec in self.layers.items() if name in needed}
        self.arrays = {key: array for key, array in self.arrays.items() if key.rpartition(".")[0] in needed}

    def first_difference(self, other: Builder) -> str | None:
        """The name of the first layer that another one does not have so, with its arrays but for rounding; None if it
        has all of them."""
        arrays, others = self.arrays, other.arrays
        known = {key for key in arrays if key in others and _alike(arrays[key], others[key])}
        differing = {key.rpartition(".")[0] for key in {*arrays, *others} - known}
        return next(
            (name for name, spec in self.layers.items() if name in differing or other.layers.get(name) != spec), None
        )

    def _fold(self) -> None:
        """Puts a fixed factor and shift of each channel into a batch normalisation before it that has its own, and a
        shift into a convolution or fully connected layer without bias, where nothing else reads that."""
        readers: dict[str, list[str]] = {name: [] for name in ("input", *self.layers)}
        for spec in self.layers.values():
            for name in spec.inputs:
                readers[name].append(spec.name)
        for name in list(self.layers):
            spec = self.layers[name]
            before = self.layers.get(spec.inputs[0])
            if not _is_fixed(spec) or before is None or len(readers[before.name]) > 1:
                continue
            scale, shift = self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"]
            if isinstance(before, BatchNormSpec) and before.affine:
                self.arrays[f"{before.name}.weight"] = self.arrays[f"{before.name}.weight"] * scale
                self.arrays[f"{before.name}.bias"] = self.arrays[f"{before.name}.bias"] * scale + shift
            elif before.weighted and not before.bias and (scale == 1).all():  # type: ignore[attr-defined]
                self.layers[before.name] = dataclasses.replace(before, bias=True)  # type: ignore[call-arg]
                self.arrays[f"{before.name}.bias"] = shift
            else:
                continue
            self._remove(name, before.name, readers)

    def _remove(self, name: str, instead: str, readers: dict[str, list[str]]) -> None:
        del self.layers[name]
        for array in ("weight", "bias", "running_mean", "running_var"):
            del self.arrays[f"{name}.{array}"]
        readers[instead] = readers.pop(name)
        for other in dict.fromkeys(readers[instead]):
            spec = self.layers[other]
            inputs = tuple(instead if one == name else one for one in spec.inputs)
            self.layers[other] = dataclasses.replace(spec, inputs=inputs)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    if np.array_equal(one, other):
        return True
    return one.shape == other.shape and float(np.abs(one - other).max()) <= _ROUNDING * float(np.abs(one).max())


def _stand_alike(one: Tensor, other: Tensor) -> bool:
    return one.table is other.table or np.array_equal(one.places, other.places)


def _no_maps(tensor: Tensor) -> Unsupported:
    return Unsupported(
        f"a tensor of {('N', *tensor.dims)} must be maps (N, C, H, W) or a signal (N, C, W), channels of what a layer "
        f"makes, whole or at every so manyth row and column"
    )


def _is_fixed(spec: LayerSpec) -> bool:
    """Whether the layer is no more than a factor and a shift of each channel."""
    return isinstance(spec, BatchNormSpec) and spec.frozen


def _named(name: str, what: str) -> str:
    return f"{name}.{what}" if name else what
