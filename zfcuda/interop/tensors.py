"""Tensors of a model, each as a part of what a layer of the network makes.

A model keeps maps as (C, H, W), and flattens, splits and turns them as it likes; our layers make (H, W, C) or
(units,). A `Tensor` has, for each of its numbers, the place in the layer's output where that number stands. So a
reshape, a transpose or a slice is the same done to a table of places, and only what needs maps or rows has to ask
whether they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..brief import Brief
from ..nn.span import Shape
from .graph import Unsupported

__all__ = ["LARGEST", "NO_PADDING", "Tensor"]

NO_PADDING = (0, 0, 0, 0)

LARGEST = 2**26  # numbers of an image that are followed one by one


@dataclass(frozen=True, repr=False)
class Tensor(Brief):
    """One image's part of a tensor of the model.

    layer, shape: where the numbers are, "input" being the image, and the shape (H, W, C) or (units,) of that
    table: int32, of the tensor's dimensions without the batch (none, where there is one number for an image): their
    places in it; None where they stand as usual, maps
    as (C, H, W), rows as they are. No place comes twice.
    padding: (top, bottom, left, right) cells of `fill` around the maps, which whatever comes next must do
    by: the name of the operation that put the numbers where they stand now, "" if that is the layer itself
    row_by: of a row that was maps, the name of the operation that made it one
    head: what the last layer's output has gone through: "softmax", "sigmoid" or "none"
    """

    layer: str
    shape: Shape
    table: np.ndarray | None = None
    padding: tuple[int, int, int, int] = NO_PADDING
    fill: float = 0.0
    by: str = ""
    row_by: str = ""
    head: str = "none"

    @property
    def dims(self) -> tuple[int, ...]:
        """The tensor's dimensions in the model, without the batch."""
        if self.table is not None:
            return self.table.shape
        return self.shape if len(self.shape) == 1 else (self.shape[2], *self.shape[:2])

    @property
    def places(self) -> np.ndarray:
        if self.table is not None:
            return self.table
        count = math.prod(self.shape)
        if count > LARGEST:
            raise Unsupported(f"a tensor of {count:,} numbers is rearranged; at most {LARGEST:,} can be")
        places = np.arange(count, dtype=np.int32).reshape(self.shape)
        return places if len(self.shape) == 1 else places.transpose(2, 0, 1)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its layer's output, in whatever order."""
        return self.table is None or self.table.size == math.prod(self.shape)

    def rearranged(self, table: np.ndarray) -> Tensor:
        """The same layer's numbers at these places."""
        tensor = replace(self, table=None)
        if table.shape == tensor.dims and np.array_equal(table, tensor.places):
            table = None  # type: ignore[assignment]
        return replace(self, table=table)

    def like(self, layer: str) -> Tensor:
        """The tensor after a layer that leaves each number at its place."""
        return replace(self, layer=layer)

    def as_maps(self) -> Tensor:
        """A signal's (C, W) as maps (C, 1, W). Unsupported where it lies along the height of its layer's maps."""
        if len(self.dims) == 2 and len(self.shape) == 3 and self.shape[0] > 1 == self.shape[1] and self.is_whole:
            raise Unsupported(
                "a signal must lie along the width of what a layer makes, as a mean over the height leaves it; this "
                f"one, of {('N', *self.dims)}, lies along the height: transpose height and width before"
            )
        return self.rearranged(self.places[:, None]) if len(self.dims) == 2 else self

    def as_grid(self) -> Tensor | None:
        """The same numbers as maps (K, P, Q), whatever the tensor's dimensions are: some of the layer's channels, in
        the order in which they come, at some rows and columns; None if they are no such block of maps."""
        if len(self.shape) != 3:
            return None
        if self.channel_order() is not None or self.steps() is not None:
            return self
        _, width, channels = self.shape
        places = self.places.reshape(-1)
        pixels = np.unique(places // channels)
        rows, columns = np.unique(pixels // width), np.unique(pixels % width)
        found, first = np.unique(places % channels, return_index=True)
        order = found[np.argsort(first)]
        grid = (rows[:, None] * width + columns) * channels + order[:, None, None]
        return self.rearranged(grid.astype(np.int32)) if grid.size == places.size else None

    def channel_order(self) -> np.ndarray | None:
        """Of maps (K, H, W): which channels of the layer they are; None if they are none of its channels."""
        if self.table is None:
            return np.arange(self.shape[2])
        if self.table.ndim != 3 or len(self.shape) != 3 or self.table.shape[1:] != self.shape[:2]:
            return None
        height, width, channels = self.shape
        order = self.table[:, 0, 0]
        pixels = np.arange(height * width, dtype=np.int32).reshape(1, height, width) * channels
        return order if np.array_equal(self.table, order[:, None, None] + pixels) else None

    def steps(self) -> tuple[int, int] | None:
        """Of maps (K, P, Q) that are some of the layer's channels at every so manyth row and column, from the first on:
        these two numbers; None if they are not."""
        if self.table is None or self.table.ndim != 3 or len(self.shape) != 3 or not self.table.size:
            return None
        height, width, channels = self.shape
        _, rows, columns = self.table.shape
        down, across = -(-height // rows), -(-width // columns)
        if rows > 1:
            down = int(self.table[0, 1, 0] - self.table[0, 0, 0]) // (width * channels)
        if columns > 1:
            across = int(self.table[0, 0, 1] - self.table[0, 0, 0]) // channels
        pixels = np.arange(height * width, dtype=np.int32).reshape(1, height, width) * channels
        order = self.table[:, :1, :1]
        if down < 1 or across < 1 or order.max() >= channels:
            return None
        return (down, across) if np.array_equal(self.table, order + pixels[:, ::down, ::across]) else None

    def is_spatial(self, axis: int) -> bool:
        """Whether along this axis its numbers lie at other pixels of one channel of its layer."""
        channels = self.places % self.shape[-1]
        return len(self.shape) == 3 and self.dims[axis] > 1 and bool((channels == channels.take([0], axis)).all())

    def check_keeps_rank(self, numbers: np.ndarray) -> None:
        """Unsupported for numbers of more axes than the tensor: combined with them it would have as many."""
        if numbers.ndim > len(self.dims) + 1:
            raise Unsupported(f"constants of shape {numbers.shape} have more axes than {('N', *self.dims)}")

    def per_channel(self, numbers: np.ndarray, batch: int) -> np.ndarray:
        """Numbers that the model combines with the tensor by its rules of broadcasting, as one for each channel (or
        unit) of the layer. float32 (C,)."""
        channels = self.shape[-1]
        self.check_keeps_rank(numbers)
        if numbers.size == 1:
            return np.full(channels, numbers.reshape(()), np.float32)
        if numbers.ndim > len(self.dims) and not (numbers == numbers[:1]).all():
            raise Unsupported("constants must be the same for all images of a batch; these differ from image to image")
        try:
            spread = np.broadcast_to(numbers, (batch, *self.dims))[0]
        except ValueError:
            raise Unsupported(f"constants of shape {numbers.shape} do not fit {('N', *self.dims)}") from None
        if not self.is_whole:
            raise Unsupported("constants are combined with a part of a layer's output, out of its order")
        standing = np.empty(math.prod(self.shape), np.float32)
        standing[self.places.reshape(-1)] = spread.reshape(-1)
        pixels = standing.reshape(-1, channels)
        if not (pixels == pixels[0]).all():
            raise Unsupported("constants must be one number or one for each channel; these differ from pixel to pixel")
        return pixels[0]
