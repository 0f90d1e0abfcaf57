"""The way of a signal down the stages of a network to pixels (paper 2.1, P3)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import ops
from ..backends import Array, array_module, resolve
from .capture import Captured
from .layers import Stage
from .record import Record
from .window import Windows

__all__ = ["Descent"]


@dataclass(frozen=True)
class Descent:
    """Carries a signal by a rule from the output of the last of these stages, of which each reads the image or others
    before it, to pixels."""

    stages: Sequence[Stage]
    rule: str

    def __call__(self, signal: Array | Windows, records: Sequence[Record]) -> Array:
        """signal: whole maps, or windows of them, which become whole maps where that is cheaper; records: what the
        forward pass left of each stage -> pixels float32 (N,H,W,C)."""
        arriving: dict[str, Array | Windows] = {self.stages[-1].name: signal}
        for stage, record in zip(reversed(self.stages), reversed(records), strict=True):
            if stage.name not in arriving:
                continue
            for name, part in zip(stage.inputs, self._through(stage, arriving.pop(stage.name), record), strict=True):
                if len(stage.inputs) == 1 or not _known_zero(part):
                    arriving[name] = _sum(arriving[name], part) if name in arriving else part
        if "input" not in arriving:
            x = records[0]["x"]
            return array_module(x).zeros(x.shape, np.float32)
        signal = arriving["input"]
        return ops.cast(signal.paste() if isinstance(signal, Windows) else signal, np.float32)

    def _through(self, stage: Stage, signal: Array | Windows, record: Record) -> Sequence[Array | Windows]:
        if isinstance(signal, Windows) and not stage.pays_on(signal):
            signal = signal.paste()
        if isinstance(signal, Windows):
            return stage.project_windows(signal, record, self.rule)
        return stage.project(stage.enter(signal), record, self.rule)

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


def _known_zero(signal: Array | Windows) -> bool:
    """Whether there is nothing in it, as far as that can be seen without waiting for a GPU: where layers join, most of
    what is looked at came from one of them."""
    array = signal.signal if isinstance(signal, Windows) else signal
    backend, _ = resolve(signal=array)
    # One image says it of most. Then NumPy compares a vector of numbers at a time, while for `any` each becomes a bool.
    return backend.on_host and not array[0].any() and not array.max() and not array.min()


def _sum(first: Array | Windows, second: Array | Windows) -> Array | Windows:
    """Of two signals that arrive at one layer."""
    if isinstance(first, Windows) and isinstance(second, Windows):
        together = first.plus(second)
        if together is not None:
            return together
    first, second = (one.paste() if isinstance(one, Windows) else one for one in (first, second))
    if first.dtype != second.dtype:
        first, second = (ops.cast(one, np.float32) for one in (first, second))
    return ops.add(first, second)
