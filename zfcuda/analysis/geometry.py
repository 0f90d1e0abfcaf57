"""Receptive fields: which pixels an activation sees (paper 2.1, P4), and which activations a pixel reaches.

Windows are half-open ranges per axis. Both directions go through every layer and are clipped to its map each time, so
they are exact: padding in the middle of a net holds no pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

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


def check_box(name: str, box: Sequence[int] | np.ndarray, height: int, width: int) -> Window:
    """A box (top, left, height, width) as the window of an image of this size; ValueError if it is none."""
    if len(box) != 4 or not all(isinstance(v, (int, np.integer)) for v in box):
        raise ValueError(f"{name} must be (top, left, height, width) in pixels, got {box!r}")
    window = Window(*(int(v) for v in box))
    inside = min(window.top, window.left) >= 0 and min(window.height, window.width) >= 1
    if not inside or window.top + window.height > height or window.left + window.width > width:
        raise ValueError(f"{name} must lie in the image of {height} x {width}, got {tuple(window)}")
    return window


def shorter_side(shape: tuple[int, ...]) -> int:
    """The shorter side of images (H,W,...), of which sizes are shares; of signals, 1 x W, their length."""
    return min((side for side in shape[:2] if side > 1), default=1)


class Node(NamedTuple):
    """A layer along one axis: its name, the names of what it reads ("input" is the image), and its span."""

    name: str
    inputs: tuple[str, ...]
    span: Span


class Field(NamedTuple):
    """The ways from the image to one layer, which is the last node, down and across."""

    down: tuple[Node, ...]
    across: tuple[Node, ...]

    def window(self, row: int, column: int) -> Window:
        """The pixels that this position of the layer sees, clipped by the image's edge: exactly, but that what lies
        between the cells of dilated windows, or of branches, counts."""
        top, bottom = receptive_range(self.down, row)
        left, right = receptive_range(self.across, column)
        return Window(top, left, bottom - top, right - left)

    def frame(self, row: int, column: int) -> Window:
        """The window in the size that all positions share: not clipped, unless it would cover the image."""
        top, height = receptive_frame(self.down, row)
        left, width = receptive_frame(self.across, column)
        return Window(top, left, height, width)


def receptive_range(nodes: Sequence[Node], position: int) -> Pair:
    """The pixels [start, stop) that one position of the last layer sees, clipped by the image's edge."""
    return _pixels(nodes, position, lambda span, start, stop: span.inputs_of(start, stop))


def receptive_frame(nodes: Sequence[Node], position: int) -> Pair:
    """(start, size) of what the position would see if the image had no edge; the image where that is as large."""

    def without_edge(span: Span, start: int, stop: int) -> Pair:
        first = span.start(start)
        return first, first + span.reach(stop - start)

    start, stop = _pixels(nodes, position, without_edge)
    image = next(node.span.size for node in nodes if "input" in node.inputs)
    return (start, stop - start) if stop - start < image else (0, image)


def _pixels(nodes: Sequence[Node], position: int, inputs: Callable[[Span, int, int], Pair]) -> Pair:
    """What the position sees, by what a range of a layer sees of its inputs; of several ways, what holds all."""
    seen = {nodes[-1].name: (position, position + 1)}
    for node in reversed(nodes):
        if node.name in seen:
            part = inputs(node.span, *seen.pop(node.name))
            for name in node.inputs:
                seen[name] = _hull(seen[name], part) if name in seen else part
    return seen["input"]


def _hull(first: Pair, second: Pair) -> Pair:
    """What holds both ranges; an empty one needs no room."""
    whole = [one for one in (first, second) if one[1] > one[0]] or [first]
    return min(start for start, _ in whole), max(stop for _, stop in whole)


def field_of(net: Network, layer: str) -> Field:
    """The receptive field of a layer of this network."""
    layers = list(net.layers.values())
    layers = layers[: list(net.layers).index(layer) + 1]
    down, across = (tuple(Node(one.name, one.inputs, one.spans[axis]) for one in layers) for axis in (0, 1))
    return Field(down, across)
