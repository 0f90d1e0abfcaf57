"""Stages: runs of layers that work as one fused operation, forward, backward and down to the pixels.

Which runs there are, the kinds say (`Layer.fusions`); any other layer is a stage of its own. Within a run each layer
reads the one before and nobody else does. A stage's forward pass leaves a `Record`, which is all that its way back
needs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
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

    @classmethod
    def fits(cls, layers: Sequence[Layer]) -> bool:
        """Whether the fused operation can be all that these layers, which are of its kinds, are."""
        return True

    def __init__(self, *layers: Layer):
        self.layers = layers

    @property
    def name(self) -> str:
        """Of what it makes: its last layer's."""
        return self.layers[-1].name

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what it reads."""
        return self.layers[0].inputs

    @property
    def parameter_names(self) -> list[str]:
        """As `Network.parameters` has them."""
        return [f"{layer.name}.{parameter}" for layer in self.layers for parameter in layer.parameter_shapes]

    @property
    def overwrites(self) -> bool:
        return any(layer.overwrites for layer in self.layers)

    def parts(self) -> Sequence[Layer]:
        """The layers that one after another do at test time what the stage does, with the weights of now."""
        return self.layers

    @property
    def adding(self) -> Any:
        """The layer that at test time is all of the stage, and that adds an array to its result (`Layer.adds`); None if
        there is none."""
        return self.layers[0] if len(self.layers) == 1 and self.layers[0].adds else None

    @property
    def writes_apart(self) -> bool:
        """As `Layer.writes_apart`, by `write`."""
        return len(self.layers) == 1 and self.layers[0].writes_apart

    def write(self, x: Array, out: Array) -> None:
        """Its output at test time to `out`."""
        layer: Any = self.layers[0]
        layer.forward(x, out=out)

    def hold(self) -> None:
        """As `Layer.hold`."""
        for layer in self.layers:
            layer.hold()

    def release(self) -> None:
        for layer in self.layers:
            layer.release()

    def enter(self, signal: Array) -> Array:
        """What this stage is to carry, forward or back, in its dtype."""
        return self.layers[0].enter(signal)

    def forward(self, inputs: Sequence[Array], training: Training | None = None) -> Record:
        return Record(self.layers[0].run(inputs, training))

    def make(self, inputs: Sequence[Array]) -> dict[Hashable, Array]:
        """What a forward pass that keeps nothing goes on with, by name: the stage's output at test time."""
        return {self.name: self.forward(inputs)["y"]}

    def reads(self, rule: str) -> set[str]:
        """Which arrays of its record `project` looks at."""
        return {name for layer in self.layers for name in layer.reads(rule)}

    def project(self, signal: Array, record: Record, rule: str) -> Sequence[Array]:
        """Carries a signal from the stage's output down to each of its inputs."""
        for layer in reversed(self.layers[1:]):
            signal = layer.undo(signal, rule, record)
        return self.layers[0].distribute(signal, rule, record)

    def project_windows(self, windows: Windows, record: Record, rule: str) -> Sequence[Windows]:
        """As `project`, with windows in any dtype."""
        windows = windows.within_maps(self.enter(windows.signal))
        for layer in reversed(self.layers[1:]):
            windows = layer.undo_windows(windows, rule, record.within(windows.corners, windows.size))
        return self.layers[0].distribute_windows(windows, rule, record.within(windows.corners, windows.size))

    def pays_on(self, windows: Windows) -> bool:
        """Whether `project_windows` can be, and saves enough of the work."""
        if not all(layer.on_windows for layer in self.layers):
            return False
        spread = [layer.spans for layer in reversed(self.layers) if layer.product is None and not windows.single]
        height, width = windows.reach(*spread)
        map_height, map_width = self.layers[0].output_shape[:2]
        return height * width <= _LARGEST_SHARE * map_height * map_width

    def backward(self, dy: Array, record: Record, training: Training, need_dx: bool) -> Sequence[Array]:
        """As `Layer.backward`, through all layers."""
        for layer in reversed(self.layers[1:]):
            (dy,) = layer.backward(dy, record, training, True)
        return self.layers[0].backward(dy, record, training, need_dx)


class Rectified(Stage):
    """A layer that rectifies its result on request, and the ReLU after it."""

    @property
    def writes_apart(self) -> bool:
        return self.layers[0].writes_apart

    def write(self, x: Array, out: Array) -> None:
        layer: Any = self.layers[0]
        layer.forward(x, relu=True, out=out)

    def forward(self, inputs: Sequence[Array], training: Training | None = None) -> Record:
        return Record(self.layers[0].run_rectified(inputs, training))


def build_stages(layers: Sequence[Layer]) -> list[Stage]:
    """Cuts a network's layers into stages, each as long as a fused operation allows. A stage stands where its first
    layer does, so that what it reads is there, and what reads it comes later."""
    readers: dict[str, list[Layer]] = {layer.name: [] for layer in layers}
    for layer in layers:
        for name in layer.inputs:
            if name in readers:
                readers[name].append(layer)
    stages: list[Stage] = []
    taken: set[str] = set()
    for layer in layers:
        if layer.name not in taken:
            stages.append(_longest_stage(layer, readers))
            taken.update(one.name for one in stages[-1].layers)
    return stages


def _longest_stage(layer: Layer, readers: Mapping[str, Sequence[Layer]]) -> Stage:
    chain, longest = [layer], max(map(len, layer.fusions), default=0)
    for _ in range(longest):
        following = readers[chain[-1].name]
        if len(following) != 1 or len(following[0].inputs) != 1:
            break
        chain.append(following[0])
    for followers, fused in layer.fusions.items():
        run = chain[: 1 + len(followers)]
        if tuple(one.kind for one in run[1:]) == followers and fused.fits(run):
            return fused(*run)
    return Stage(layer)


def needed_for(last: Stage, stages: Sequence[Stage]) -> list[Stage]:
    """Those of a network's stages, in their order, without which this one's output cannot be."""
    wanted = {last.name}
    found: list[Stage] = []
    for stage in reversed(stages):
        if stage.name in wanted:
            found.append(stage)
            wanted.update(stage.inputs)
    return found[::-1]
