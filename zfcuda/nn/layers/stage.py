"""Stages: runs of layers that work as one fused operation, forward, backward and down to the pixels.

Which runs there are, the kinds say (`Layer.fusions`); any other layer is a stage of its own. A stage's forward pass
leaves a `Record`, which is all that its way back needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...backends import Array
from ..record import Record, Training
from ..window import Windows
from .base import Layer

# Where a convolution's window has more than this share of its map's cells, moving windows costs more than it saves.
_LARGEST_SHARE = 0.8


class Stage:
    """One layer by itself, or the base of a fused run of layers, in which only the first layer may read "x" on its way
    back and only the last one "y": of the maps between them nothing is kept."""

    pool: Any = None  # the pool that is one operation with the stage's product

    def __init__(self, *layers: Layer):
        self.layers = layers

    @property
    def name(self) -> str:
        return self.layers[-1].name

    def enter(self, signal: Array) -> Array:
        """What this stage is to carry, forward or back, in its dtype."""
        return self.layers[0].enter(signal)

    def forward(self, x: Array, training: Training | None = None) -> Record:
        return Record({"x": x, **self.layers[0].run(x, training)})

    def reads(self, rule: str) -> set[str]:
        """Which arrays of its record `project` looks at."""
        return {name for layer in self.layers for name in layer.reads(rule)}

    def project(self, signal: Array, record: Record, rule: str) -> Array:
        """Carries a signal from the stage's output down to its input."""
        for layer in reversed(self.layers):
            signal = layer.undo(signal, rule, record)
        return signal

    def project_windows(self, windows: Windows, record: Record, rule: str) -> Windows:
        """As `project`, with windows in any dtype."""
        windows = windows.within_maps(self.enter(windows.signal))
        for layer in reversed(self.layers):
            windows = layer.undo_windows(windows, rule, record.within(windows.corners, windows.size))
        return windows

    def pays_on(self, windows: Windows) -> bool:
        """Whether `project_windows` can be, and saves enough of the work."""
        if not all(layer.on_windows for layer in self.layers):
            return False
        spread = [layer.spans for layer in reversed(self.layers) if layer.product is None and not windows.single]
        height, width = windows.reach(*spread)
        map_height, map_width = self.layers[0].output_shape[:2]
        return height * width <= _LARGEST_SHARE * map_height * map_width

    def backward(self, dy: Array, record: Record, training: Training, need_dx: bool) -> Array | None:
        """As `Layer.backward`, through all layers."""
        signal: Any = dy
        for layer in reversed(self.layers):
            signal = layer.backward(signal, record, training, need_dx or layer is not self.layers[0])
        return signal


class Rectified(Stage):
    """A layer whose `forward` rectifies its result on request, and the ReLU after it."""

    def forward(self, x: Array, training: Training | None = None) -> Record:
        weighted: Any = self.layers[0]
        return Record({"x": x, "y": weighted.forward(x, relu=True)})


def build_stages(layers: Sequence[Layer]) -> list[Stage]:
    """Cuts a network's layers into stages, each as long as a fused operation allows."""
    stages: list[Stage] = []
    i = 0
    while i < len(layers):
        stage = Stage(layers[i])
        for followers, fused in layers[i].fusions.items():
            run = layers[i : i + 1 + len(followers)]
            if tuple(layer.kind for layer in run[1:]) == followers:
                stage = fused(*run)
                break
        stages.append(stage)
        i += len(stage.layers)
    return stages
