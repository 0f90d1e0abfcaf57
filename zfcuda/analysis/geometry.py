"""Receptive fields: which pixels an activation sees (paper 2.1, P4), and which activations a pixel reaches.

Windows are half-open ranges per axis. Both directions go through every layer and are clipped to its map each time, so
they are exact: padding in the middle of a net holds no pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..nn.layers import Conv, FullyConnected, Layer, MaxPool
from ..pairs import as_pair

if TYPE_CHECKING:
    from ..nn.network import Network

Pair = tuple[int, int]


class Window(NamedTuple):
    """A rectangle of pixels; a frame may reach beyond the image, an exact window does not."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Span:
    """One layer along one axis: windows of `kernel` cells at `stride` over `size` cells padded by `padding`.

    A layer that keeps positions (ReLU, normalisation, dropout) has kernel 1, stride 1; `whole` means that every
    output sees every input (fully connected layers).
    """

    size: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    whole: bool = False

    @property
    def outputs(self) -> int:
        return 1 if self.whole else (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def inputs_of(self, start: int, stop: int) -> Pair:
        """The inputs that the outputs [start, stop) see."""
        if self.whole:
            return 0, self.size
        first = start * self.stride - self.padding
        last = (stop - 1) * self.stride - self.padding + self.kernel
        return min(max(first, 0), self.size), max(min(last, self.size), 0)

    def outputs_of(self, start: int, stop: int) -> Pair:
        """The outputs that see an input of [start, stop); empty (start == stop) if none does."""
        if self.whole:
            return (0, 1) if stop > start else (0, 0)
        first = max(0, -(-(start + self.padding - self.kernel + 1) // self.stride))
        last = min(self.outputs - 1, (stop - 1 + self.padding) // self.stride)
        return (first, last + 1) if stop > start and last >= first else (first, first)


class Field(NamedTuple):
    """The way from the image to one layer, as spans down and across."""

    down: tuple[Span, ...]
    across: tuple[Span, ...]

    def window(self, row: int, column: int) -> Window:
        """Exactly the pixels that this position of the layer sees, clipped by the image's edge."""
        top, bottom = receptive_range(self.down, row)
        left, right = receptive_range(self.across, column)
        return Window(top, left, bottom - top, right - left)

    def frame(self, row: int, column: int) -> Window:
        """The window in the size that all positions share: not clipped, unless it would cover the image."""
        top, height = receptive_frame(self.down, row)
        left, width = receptive_frame(self.across, column)
        return Window(top, left, height, width)


def receptive_range(spans: Sequence[Span], position: int) -> Pair:
    """The pixels [start, stop) that one position of the last layer sees, clipped by the image's edge."""
    start, stop = position, position + 1
    for span in reversed(spans):
        start, stop = span.inputs_of(start, stop)
    return start, stop


def receptive_frame(spans: Sequence[Span], position: int) -> Pair:
    """(start, size) of what the position would see if the image had no edge; the image where that is as large."""
    start, size = position, 1
    for span in reversed(spans):
        start = 0 if span.whole else start * span.stride - span.padding
        size = span.size if span.whole else (size - 1) * span.stride + span.kernel
    image = spans[0].size if spans else 1
    return (start, size) if size < image else (0, image)


def spans_of(layer: Layer) -> tuple[Span, Span]:
    """A layer of a network as a span down and one across."""
    if isinstance(layer, FullyConnected) and len(layer.input_shape) != 3:
        return Span(1), Span(1)
    height, width = layer.input_shape[:2] if len(layer.input_shape) == 3 else (1, 1)
    if isinstance(layer, FullyConnected):
        return Span(height, whole=True), Span(width, whole=True)
    if isinstance(layer, (Conv, MaxPool)):
        kernel = layer.kernel_size if isinstance(layer, Conv) else layer.window
        sizes = ((height, width), as_pair(kernel), as_pair(layer.stride), as_pair(layer.padding))
        down, across = (Span(*axis) for axis in zip(*sizes, strict=True))
        return down, across
    return Span(height), Span(width)


def field_of(net: Network, layer: str) -> Field:
    """The receptive field of a layer of this network."""
    names = list(net.layers)
    spans = [spans_of(net.layers[name]) for name in names[: names.index(layer) + 1]]
    return Field(tuple(down for down, _ in spans), tuple(across for _, across in spans))
