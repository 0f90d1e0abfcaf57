"""The graph of a network, drawn: a box for each operation, from the image down, that leads to its layer's gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..nn import Network
from .parts import Part

_WIDTH, _HEIGHT = 230, 34  # of a box, in pixels
_ACROSS, _DOWN = 250, 52  # from one box to the next
_MARGIN = 16


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
        boxes = [{**_corner(places["input"]), "title": "image", "detail": _size(self.network.input_shape), "layer": ""}]
        for stage in stages:
            linked = [layer.name for layer in stage.layers if layer.name in self.linked]
            kinds = " + ".join(layer.kind for layer in stage.layers)
            detail = f"{kinds} · {_size(stage.layers[-1].output_shape)}"
            boxes.append(
                {**_corner(places[stage.name]), "title": stage.name, "detail": detail, "layer": (linked or [""])[0]}
            )
        lines = [_line(places[name], places[stage.name]) for stage in stages for name in stage.inputs]
        depth, lanes = (max(place[axis] for place in places.values()) for axis in (0, 1))
        return {
            "kind": "drawing",
            "boxes": boxes,
            "lines": lines,
            "box": [_WIDTH, _HEIGHT],
            "size": [(lanes + 1) * _ACROSS + 2 * _MARGIN, depth * _DOWN + _HEIGHT + 2 * _MARGIN],
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


def _corner(place: tuple[int, int]) -> dict[str, int]:
    row, lane = place
    return {"x": _MARGIN + lane * _ACROSS, "y": _MARGIN + row * _DOWN}


def _line(upper: tuple[int, int], lower: tuple[int, int]) -> str:
    """An SVG path from box to box: straight down to the next row, else round what is between them, on the right."""
    above, below = _corner(upper), _corner(lower)
    if lower[0] == upper[0] + 1:
        x, y = above["x"] + _WIDTH // 2, above["y"] + _HEIGHT
        to_x, to_y = below["x"] + _WIDTH // 2, below["y"]
        half = (y + to_y) // 2
        return f"M{x} {y}C{x} {half} {to_x} {half} {to_x} {to_y}"
    x, y, to_x, to_y = (above["x"] + _WIDTH, above["y"] + 20, below["x"] + _WIDTH, below["y"] + 14)
    side = max(x, to_x) + 18
    return (
        f"M{x} {y}C{side} {y} {side} {y} {side} {y + 16}L{side} {to_y - 16}C{side} {to_y} {side} {to_y} {to_x} {to_y}"
    )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
