"""Receptive fields: which pixels an activation sees (paper 2.1, P4), and which activations a pixel reaches.

Windows are half-open ranges per axis. Both directions go through every layer and are clipped to its map each time, so
they are exact: padding in the middle of a net holds no pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..nn.span import Span

if TYPE_CHECKING:
    from ..nn.network import Network

Pair = tuple[int, int]


class Window(NamedTuple):
    """A rectangle of pixels; a frame may reach beyond the image, an exact window does not."""

    top: int
    left: int
    height: int
    width: int


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
        start, size = span.start(start), span.reach(size)
    image = spans[0].size if spans else 1
    return (start, size) if size < image else (0, image)


def field_of(net: Network, layer: str) -> Field:
    """The receptive field of a layer of this network."""
    names = list(net.layers)
    spans = [net.layers[name].spans for name in names[: names.index(layer) + 1]]
    return Field(tuple(down for down, _ in spans), tuple(across for _, across in spans))
