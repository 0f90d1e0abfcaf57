"""Long loops: a progress bar, and a Ctrl-C that loses nothing of what is done."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

from ..errors import Interrupted

T = TypeVar("T")


class Steps:
    """The numbers 0, 1, ... below `total`, `batch_size` of them at a time, as ranges.

        with Steps(len(source), 64, unit="images ranked", label="ranking") as steps:
            for indices in steps:
                ...
        return steps.finish(found)

    A progress bar is shown if there is a `label` for it and somebody to see it. Ctrl-C ends the block, and `finish`
    then raises `Interrupted` with what was found. A step that Ctrl-C breaks must leave nothing in it: what a step
    found is kept in one assignment at its end.
    """

    def __init__(self, total: int, batch_size: int = 1, *, unit: str = "items", label: str = ""):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.done = 0
        self._total, self._batch_size, self._unit, self._label = total, batch_size, unit, label
        self._stopped = False

    def __iter__(self) -> Iterator[range]:
        with tqdm(total=self._total, desc=self._label, leave=False, disable=None if self._label else True) as bar:
            for start in range(0, self._total, self._batch_size):
                step = range(start, min(start + self._batch_size, self._total))
                yield step
                self.done += len(step)
                bar.update(len(step))

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        if self._stopped and self.done == 0:
            raise Interrupted(None, self._how_far()) from None
        return self._stopped

    def finish(self, found: T) -> T:
        """What was found; raises `Interrupted` with it if Ctrl-C ended the block."""
        if self._stopped:
            raise Interrupted(found, self._how_far())
        return found

    def _how_far(self) -> str:
        return f"{self.done:,} of {self._total:,} {self._unit}"
