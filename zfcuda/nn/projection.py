"""The way of a signal down the stages of a network to pixels (paper 2.1, P3)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import ops
from ..backends import Array
from .capture import Captured
from .stages import Record, Stage
from .window import Windows

__all__ = ["Descent"]


@dataclass(frozen=True)
class Descent:
    """Carries a signal by a rule from the output of the layer at `position` of the last stage to pixels."""

    stages: Sequence[Stage]
    position: int
    rule: str

    def __call__(self, signal: Array | Windows, records: Sequence[Record]) -> Array:
        """signal: whole maps, or windows of them, which become whole maps where that is cheaper; records: what the
        forward pass left of each stage -> pixels float32 (N,H,W,C)."""
        for i in reversed(range(len(self.stages))):
            stage, record, last = self.stages[i], records[i], self._last(i)
            if isinstance(signal, Windows) and not signal.pays_at(stage, last):
                signal = signal.paste()
            if isinstance(signal, Windows):
                signal = signal.project(stage, last, record, self.rule)
            else:
                signal = stage.project(last, stage.enter(signal), record, self.rule)
        return ops.cast(signal.paste() if isinstance(signal, Windows) else signal, np.float32)

    def captured(
        self,
        captured: Captured,
        signal: Array | Windows,
        records: Sequence[Record],
        identity: Callable[[], Hashable],
    ) -> Array:
        """The same, as a CUDA graph if the call before was of the same shapes; identity: of the network.

        The arrays of the records that the way leads past are arguments of the graph: a batch like the last one, forward
        and back, needs no new one. They are copied into it, a small part of the work.
        """
        kept = {
            f"{name} {i}": getattr(record, name)
            for i, record in enumerate(records)
            for name in sorted(self.stages[i].projection_reads(self._last(i), self.rule))
        }
        windows = signal if isinstance(signal, Windows) else None
        if windows is not None:
            kept["corners"] = windows.corners

        def descend(signal: Array, corners: Array | None = None, **kept: Array) -> Array:
            fixed = [
                Record(stage, kept.get(f"x {i}"), kept.get(f"y {i}"), kept.get(f"switches {i}"))
                for i, stage in enumerate(self.stages)
            ]
            return self(signal if windows is None else replace(windows, signal=signal, corners=corners), fixed)

        def key() -> Hashable:
            place = None if windows is None else (windows.height, windows.width, windows.single)
            return len(self.stages), self.position, self.rule, place, identity()

        pixels = captured(descend, key=key, signal=signal if windows is None else windows.signal, **kept)
        return pixels.copy()  # the graph's own are overwritten by its next launch

    def _last(self, stage: int) -> int:
        """The position of the layer at which the way enters a stage."""
        return self.position if stage == len(self.stages) - 1 else len(self.stages[stage].layers) - 1
