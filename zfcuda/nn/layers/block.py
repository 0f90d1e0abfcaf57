"""conv + ReLU + max pool as one operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ... import ops
from ...backends import Array
from ..record import Record, Training
from ..window import Windows
from .stage import Stage


class Block(Stage):
    """Only the pooled map and its switches are stored (design: the map is positive where the pooled value is, so that
    is the ReLU's mask as well)."""

    def __init__(self, *layers: Any):
        super().__init__(*layers)
        self.conv, _, self.pool = layers

    @classmethod
    def fits(cls, layers: Sequence[Any]) -> bool:
        """Blocks are of dense filters."""
        return not layers[0].sparsity

    @property
    def geometry(self) -> dict[str, Any]:
        pool = self.pool
        geometry = {"window": pool.window, "pool_stride": pool.stride, "pool_padding": pool.padding}
        return self.conv.geometry | geometry | {"pool_ceil_mode": pool.ceil_mode}

    def forward(self, inputs: Sequence[Array], training: Training | None = None) -> Record:
        conv, (x,) = self.conv, inputs
        y, switches = ops.conv2d_relu_pool(x, conv.filters, conv.bias, **self.geometry, **conv.arithmetic)
        return Record({"x": x, "y": y, "switches": switches})

    def reads(self, rule: str) -> set[str]:
        return {"switches"} if rule == "deconvnet" else {"switches", "y"}

    def project(self, signal: Array, record: Record, rule: str) -> Sequence[Array]:
        # Windows that name one pixel share its activation, so masking the pooled signal is masking the map.
        if rule != "deconvnet":
            signal = ops.relu_grad(signal, record["y"])
        return [self._undo(signal, record["switches"], rectify=rule != "gradient")]

    def project_windows(self, windows: Windows, record: Record, rule: str) -> Sequence[Windows]:
        windows = windows.within_maps(self.enter(windows.signal))
        conv, pool, rectify = self.conv, self.pool, rule != "gradient"
        record = record.within(windows.corners, windows.size)
        if rule != "deconvnet":
            windows = replace(windows, signal=ops.relu_grad(windows.signal, record["y"]))
        if windows.single:
            followed = pool.undo_windows(windows, rule, record)
            if rectify:
                followed = replace(followed, signal=ops.relu(followed.signal))
            return conv.distribute_windows(followed, rule, record)
        size = windows.reach(pool.spans, conv.spans)
        here = {"output_size": size, "padding": 0, "pool_padding": 0, "pool_ceil_mode": False}
        signal = self._undo(windows.signal, record["switches"], rectify=rectify, **here)
        return [windows.moved(pool.spans, windows.signal).moved(conv.spans, signal)]

    def backward(self, dy: Array, record: Record, training: Training, need_dx: bool) -> Sequence[Array]:
        conv = self.conv
        dy = ops.relu_grad(dy, record["y"], out=dy)
        record.forget("y")
        if conv.bias is not None:
            ops.conv2d_bias_grad(dy, out=training.gradients[f"{conv.name}.bias"])
        ops.unpool_conv2d_weight_grad(
            record["x"],
            dy,
            record["switches"],
            kernel_size=conv.kernel_size,
            out=training.gradients[f"{conv.name}.weight"],
            **self.geometry,
            **conv.arithmetic,
        )
        record.forget("x")
        return [self._undo(dy, record["switches"], rectify=False)] if need_dx else ()

    def _undo(self, signal: Array, switches: Array, *, rectify: bool, **here: Any) -> Array:
        geometry = {"output_size": self.conv.input_size} | self.geometry | here
        return ops.unpool_conv_transpose2d(
            signal, switches, self.conv.filters, rectify=rectify, **geometry, **self.conv.arithmetic
        )
