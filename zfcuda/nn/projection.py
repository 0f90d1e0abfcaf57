"""The way of a signal down the stages of a network to pixels (paper 2.1, P3)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import ops
from ..backends import Array
from .capture import Captured
from .layers import Stage
from .record import Record
from .window import Windows

__all__ = ["Descent"]


@dataclass(frozen=True)
class Descent:
    """Carries a signal by a rule from the output of the last of these stages to pixels."""

    stages: Sequence[Stage]
    rule: str

    def __call__(self, signal: Array | Windows, records: Sequence[Record]) -> Array:
        """signal: whole maps, or windows of them, which become whole maps where that is cheaper; records: what the
        forward pass left of each stage -> pixels float32 (N,H,W,C)."""
        for stage, record in zip(reversed(self.stages), reversed(records), strict=True):
            if isinstance(signal, Windows) and not stage.pays_on(signal):
                signal = signal.paste()
            if isinstance(signal, Windows):
                signal = stage.project_windows(signal, record, self.rule)
            else:
                signal = stage.project(stage.enter(signal), record, self.rule)
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
        reads = [sorted(stage.reads(self.rule)) for stage in self.stages]
        kept = {f"{name} {i}": record[name] for i, record in enumerate(records) for name in reads[i]}
        windows = signal if isinstance(signal, Windows) else None
        if windows is not None:
            kept["corners"] = windows.corners

        def descend(signal: Array, corners: Array | None = None, **kept: Array) -> Array:
            fixed = [Record({name: kept[f"{name} {i}"] for name in names}) for i, names in enumerate(reads)]
            return self(signal if windows is None else replace(windows, signal=signal, corners=corners), fixed)

        def key() -> Hashable:
            place = None if windows is None else (windows.height, windows.width, windows.single)
            return self.stages[-1].name, self.rule, place, identity()

        pixels = captured(descend, key=key, signal=signal if windows is None else windows.signal, **kept)
        return pixels.copy()  # the graph's own are overwritten by its next launch
