"""Stages: runs of layers that work as one fused operation, forward, backward and down to the pixels.

conv + ReLU + max pool is a `BlockStage` (the map between them is never stored), conv or fully connected + ReLU a
`RectifiedStage`, any other layer a stage of its own. A stage's forward pass leaves a `Record`, which is all that its
way back needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import ops
from ..backends import Array, array_module
from . import dense
from .layers import Conv, Dropout, FullyConnected, Layer, MaxPool, Norm, ReLU

__all__ = ["DropoutKey", "Record", "Stage", "build_stages"]

Gradients = dict[str, Array]


@dataclass(frozen=True)
class DropoutKey:
    """What makes the dropout masks of one training step: the same key gives the same masks. step: a number, or an array
    of the device, uint64 of shape ()."""

    seed: int
    step: int | Array

    def offset(self, layer_index: int) -> int | Array:
        """A Philox offset of its own for every step and layer (up to 2^16 layers, 2^48 steps)."""
        return (self.step << 16) | layer_index


class Record:
    """What one stage's forward pass keeps: its input x, its output y and the pool's switches, if it has one.

    A record may be a selection of another one's images, with repetitions; it then copies an array when asked for it.
    """

    def __init__(
        self,
        stage: Stage,
        x: Array | None,
        y: Array | None,
        switches: Array | None = None,
        images: Array | None = None,
    ):
        self.stage = stage
        self._x, self._y, self._switches = x, y, switches
        self._images = images

    def select(self, images: Array) -> Record:
        """The record of these images; `images` index the batch that went forward, not an earlier selection."""
        return Record(self.stage, self._x, self._y, self._switches, images)

    @property
    def array_module(self) -> Any:
        """NumPy or CuPy, whichever made the arrays."""
        return array_module(self._x)

    def windows(self, array: str, corners: Array, size: tuple[int, int]) -> Array:
        """What "x", "y" or "switches" hold in one window per image (`ops.cut_windows`). Copies no more than that."""
        return ops.cut_windows(getattr(self, f"_{array}"), corners, size=size, images=self._images)

    def forget_output(self) -> None:
        """Lets go of y, which may then be the memory of something else."""
        self._y = None

    def forget_input(self) -> None:
        """Lets go of x."""
        self._x = None

    def _selected(self, array: Array) -> Array:
        return array if self._images is None else self.array_module.take(array, self._images, axis=0)

    @property
    def x(self) -> Array:
        return self._selected(self._x)

    @property
    def y(self) -> Array:
        return self._selected(self._y)

    @property
    def switches(self) -> Array:
        return self._selected(self._switches)


class Stage:
    """One layer by itself, or the base of a fused run of layers."""

    backward_reads_output = True

    def __init__(self, *layers: Layer, index: int):
        self.layers = layers
        self.index = index  # of the first layer in the network

    @property
    def name(self) -> str:
        return self.layers[-1].name

    def enter(self, signal: Array) -> Array:
        """What this stage is to carry, forward or back, in its dtype."""
        return self.layers[0].enter(signal)

    def forward(self, x: Array, dropout: DropoutKey | None = None) -> Record:
        """`dropout` is given in training, None at test time."""
        return Record(self, x, self.layers[-1].forward(x))

    def activation(self, position: int, record: Record) -> Array:
        """The output of the layer at `position`, computed again from the stage's input if it was not kept."""
        if position == len(self.layers) - 1:
            return record.y
        x = record.x
        for layer in self.layers[: position + 1]:
            x = layer.forward(x)
        return x

    def projection_reads(self, position: int, rule: str) -> set[str]:
        """Which arrays of its record ("x", "y", "switches") `project` looks at."""
        reads = set()
        for i, layer in enumerate(self.layers[: position + 1]):
            if isinstance(layer, MaxPool):
                reads.add("switches")
            elif isinstance(layer, ReLU) and rule != "deconvnet":
                reads.add("y" if i == len(self.layers) - 1 else "x")
            elif isinstance(layer, Norm) and rule != "deconvnet":
                reads.add("x")
        return reads

    def project(self, position: int, signal: Array, record: Record, rule: str) -> Array:
        """Carries a signal from the output of the layer at `position` down to the stage's input."""
        for i in range(position, -1, -1):
            layer: Any = self.layers[i]
            if isinstance(layer, ReLU):
                signal = layer.undo(signal, rule, None if rule == "deconvnet" else self.activation(i, record))
            elif isinstance(layer, MaxPool):
                signal = layer.undo(signal, record.switches)
            elif isinstance(layer, Norm):
                signal = layer.undo(signal, rule, None if rule == "deconvnet" else record.x)
            elif isinstance(layer, (Conv, FullyConnected)):
                signal = layer.undo(signal)
        return signal

    def backward(
        self, dy: Array, record: Record, gradients: Gradients, *, dropout: DropoutKey, need_dx: bool
    ) -> Array | None:
        """The training pass: writes the gradients of the stage's parameters into `gradients` and returns that of its
        input, or None if it is not needed. `dy` may be overwritten, and `record` forgets what it no longer needs: its
        arrays serve the gradients to come."""
        return self.project(0, dy, record, "gradient") if need_dx else None


class NormStage(Stage):
    """Local response normalisation, whose gradient comes from its input."""

    backward_reads_output = False


class DropoutStage(Stage):
    """Dropout in training, whose mask is computed again on the way back."""

    backward_reads_output = False

    def forward(self, x: Array, dropout: DropoutKey | None = None) -> Record:
        return Record(self, x, x if dropout is None else self._drop(x, dropout))

    def _drop(self, x: Array, dropout: DropoutKey, out: Array | None = None) -> Array:
        layer: Any = self.layers[0]
        offset = dropout.offset(self.index)
        return ops.dropout(x, probability=layer.probability, seed=dropout.seed, offset=offset, out=out)

    def backward(
        self, dy: Array, record: Record, gradients: Gradients, *, dropout: DropoutKey, need_dx: bool
    ) -> Array | None:
        return self._drop(dy, dropout, out=dy)


class RectifiedStage(Stage):
    """A convolution or fully connected layer, with the ReLU after it if there is one."""

    def forward(self, x: Array, dropout: DropoutKey | None = None) -> Record:
        weighted: Any = self.layers[0]
        return Record(self, x, weighted.forward(x, relu=len(self.layers) == 2))

    def backward(
        self, dy: Array, record: Record, gradients: Gradients, *, dropout: DropoutKey, need_dx: bool
    ) -> Array | None:
        weighted: Any = self.layers[0]
        if len(self.layers) == 2:
            dy = ops.relu_grad(dy, record.y, out=dy)
        record.forget_output()
        ops.conv2d_bias_grad(dy, out=gradients[f"{weighted.name}.bias"])
        dw = gradients[f"{weighted.name}.weight"]
        if isinstance(weighted, Conv):
            size = weighted.kernel_size
            ops.conv2d_weight_grad(record.x, dy, kernel_size=size, out=dw, **weighted.geometry, **weighted.arithmetic)
        else:
            dense.weight_grad(dy, record.x, out=dw, **weighted.arithmetic)
        record.forget_input()
        return weighted.undo(dy) if need_dx else None


class BlockStage(Stage):
    """conv + ReLU + max pool as one operation: only the pooled map and its switches are stored (design: the map is
    positive where the pooled value is, so that is the ReLU's mask as well)."""

    def forward(self, x: Array, dropout: DropoutKey | None = None) -> Record:
        conv, _, pool = self.parts()
        y, switches = ops.conv2d_relu_pool(
            x, conv.filters, conv.bias, **conv.geometry, **pool.block_geometry, **conv.arithmetic
        )
        return Record(self, x, y, switches)

    def projection_reads(self, position: int, rule: str) -> set[str]:
        if position < 2:
            return super().projection_reads(position, rule)
        return {"switches"} if rule == "deconvnet" else {"switches", "y"}

    def project(self, position: int, signal: Array, record: Record, rule: str) -> Array:
        if position < 2:
            return super().project(position, signal, record, rule)
        # Windows that name one pixel share its activation, so masking the pooled signal is masking the map.
        if rule != "deconvnet":
            signal = ops.relu_grad(signal, record.y)
        return self._undo(signal, record.switches, rectify=rule != "gradient")

    def backward(
        self, dy: Array, record: Record, gradients: Gradients, *, dropout: DropoutKey, need_dx: bool
    ) -> Array | None:
        conv, _, pool = self.parts()
        dy = ops.relu_grad(dy, record.y, out=dy)
        record.forget_output()
        ops.conv2d_bias_grad(dy, out=gradients[f"{conv.name}.bias"])
        ops.unpool_conv2d_weight_grad(
            record.x,
            dy,
            record.switches,
            kernel_size=conv.kernel_size,
            out=gradients[f"{conv.name}.weight"],
            **conv.geometry,
            **pool.block_geometry,
            **conv.arithmetic,
        )
        record.forget_input()
        return self._undo(dy, record.switches, rectify=False) if need_dx else None

    def _undo(self, signal: Array, switches: Array, *, rectify: bool) -> Array:
        conv, _, pool = self.parts()
        return ops.unpool_conv_transpose2d(
            signal,
            switches,
            conv.filters,
            output_size=conv.input_size,
            rectify=rectify,
            **conv.geometry,
            **pool.block_geometry,
            **conv.arithmetic,
        )

    def parts(self) -> tuple[Conv, ReLU, MaxPool]:
        conv, relu, pool = self.layers
        assert isinstance(conv, Conv)
        assert isinstance(relu, ReLU)
        assert isinstance(pool, MaxPool)
        return conv, relu, pool


class PoolStage(Stage):
    """A max pool that does not follow conv + ReLU."""

    def forward(self, x: Array, dropout: DropoutKey | None = None) -> Record:
        pool: Any = self.layers[0]
        y, switches = pool.forward_with_switches(x)
        return Record(self, x, y, switches)


def build_stages(layers: list[Layer]) -> list[Stage]:
    """Cuts a network's layers into stages, each as long as a fused operation allows."""
    stages: list[Stage] = []
    i = 0
    while i < len(layers):
        kinds = [type(layer) for layer in layers[i : i + 3]]
        stage: Stage
        if kinds == [Conv, ReLU, MaxPool]:
            stage = BlockStage(*layers[i : i + 3], index=i)
        elif kinds[0] in (Conv, FullyConnected):
            stage = RectifiedStage(*layers[i : i + (2 if kinds[1:2] == [ReLU] else 1)], index=i)
        elif kinds[0] is MaxPool:
            stage = PoolStage(layers[i], index=i)
        elif kinds[0] is Norm:
            stage = NormStage(layers[i], index=i)
        elif kinds[0] is Dropout:
            stage = DropoutStage(layers[i], index=i)
        else:
            stage = Stage(layers[i], index=i)
        stages.append(stage)
        i += len(stage.layers)
    return stages
