"""The graph of a network, drawn: a box for each operation, from the image down, that leads to its layer's gallery."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..analysis.figures import is_signal
from ..nn import Network
from ..wording import layer_words
from .parts import Part

_NARROWEST, _WIDEST, _HEIGHT = 200, 340, 34  # of a box, in pixels
_GAP, _DOWN = 20, 52  # between boxes side by side, and from one row to the next
_MARGIN = 16
_INSIDE = 8  # from a box's edge to its text
_LETTER, _SMALL = 7.0, 6.0  # the width of most letters of a title, and of a detail


@dataclass(frozen=True)
class Drawing(Part):
    """The stages of a network (layers that work as one operation share a box) with what each reads. The boxes of
    `linked` layers, those that have a gallery on the page, lead there."""

    network: Network
    linked: Sequence[str] = ()
    caption: str = ""

    def shown(self) -> dict[str, Any]:
        stages = self.network.stages
        places = _places([(stage.name, stage.inputs) for stage in stages])
        shape = self.network.input_shape
        texts = {"input": ("signal" if is_signal(*shape[:2]) else "image", _size(shape))}
        links = {"input": ""}
        for stage in stages:
            kinds = " + ".join(layer.kind for layer in stage.layers)
            texts[stage.name] = layer_words(stage.name), f"{kinds} · {_size(stage.layers[-1].output_shape)}"
            links[stage.name] = next((layer.name for layer in stage.layers if layer.name in self.linked), "")
        width = _width(list(texts.values()))
        boxes = [
            {
                **_corner(places[name], width),
                "title": title,
                "detail": detail,
                "name": _shortened(title, int((width - 2 * _INSIDE) / _LETTER)),
                "kinds": _shortened(detail, int((width - 2 * _INSIDE) / _SMALL)),
                "layer": links[name],
            }
            for name, (title, detail) in texts.items()
        ]
        lines = [_line(places[name], places[stage.name], width) for stage in stages for name in stage.inputs]
        depth, lanes = (max(place[axis] for place in places.values()) for axis in (0, 1))
        return {
            "kind": "drawing",
            "boxes": boxes,
            "lines": lines,
            "box": [width, _HEIGHT],
            "inside": _INSIDE,
            "size": [(lanes + 1) * (width + _GAP) + 2 * _MARGIN, depth * _DOWN + _HEIGHT + 2 * _MARGIN],
            "caption": self.caption,
        }


def _places(nodes: Sequence[tuple[str, tuple[str, ...]]]) -> dict[str, tuple[int, int]]:
    """(row, lane) of each: a row below the lowest of what it reads, in the lane of the first of these if it is free."""
    places = {"input": (0, 0)}
    taken = {(0, 0)}
    for name, inputs in nodes:
        row = 1 + max(places[one][0] for one in inputs)
        lane = min(places[one][1] for one in inputs)
        while (row, lane) in taken:
            lane += 1
        places[name] = row, lane
        taken.add((row, lane))
    return places


def _width(texts: Sequence[tuple[str, str]]) -> int:
    """Of all boxes: what the longest title and detail take, within limits."""
    widest = max(max(_LETTER * len(title), _SMALL * len(detail)) for title, detail in texts)
    return min(max(math.ceil(widest) + 2 * _INSIDE, _NARROWEST), _WIDEST)


def _shortened(text: str, most: int) -> str:
    """The text, without its middle where it has more than `most` letters: names of layers differ at their ends."""
    if len(text) <= most:
        return text
    ahead = (most - 1) // 2
    return f"{text[:ahead]}…{text[ahead + 1 - most :]}"


def _corner(place: tuple[int, int], width: int) -> dict[str, int]:
    row, lane = place
    return {"x": _MARGIN + lane * (width + _GAP), "y": _MARGIN + row * _DOWN}


def _line(upper: tuple[int, int], lower: tuple[int, int], width: int) -> str:
    """An SVG path from box to box: straight down to the next row, else round what is between them, on the right."""
    above, below = _corner(upper, width), _corner(lower, width)
    if lower[0] == upper[0] + 1:
        x, y = above["x"] + width // 2, above["y"] + _HEIGHT
        to_x, to_y = below["x"] + width // 2, below["y"]
        half = (y + to_y) // 2
        return f"M{x} {y}C{x} {half} {to_x} {half} {to_x} {to_y}"
    x, y, to_x, to_y = (above["x"] + width, above["y"] + 20, below["x"] + width, below["y"] + 14)
    side = max(x, to_x) + 18
    return (
        f"M{x} {y}C{side} {y} {side} {y} {side} {y + 16}L{side} {to_y - 16}C{side} {to_y} {side} {to_y} {to_x} {to_y}"
    )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
