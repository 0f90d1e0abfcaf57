"""Long loops: a progress bar, a Ctrl-C that loses nothing of what is done, and several processes that share the work.

How a loop is cut into steps does not depend on the number of processes, and what the steps have found comes back in
their order: so no result depends on that number either, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

from ..errors import Interrupted
from ..numbers import check_at_least
from ..training import Ranks

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

    ranks: of processes (MPI) that all come to this loop with the same arguments, and share its steps in `map`;
    `RanksDiffer` where they do not have as many. There Ctrl-C is an error like others: it ends all of them.
    """

    def __init__(
        self, total: int, batch_size: int = 1, *, unit: str = "items", label: str = "", ranks: Ranks | None = None
    ):
        batch_size = check_at_least("batch_size", batch_size, 1)
        self.done = 0
        self._ranks = ranks or Ranks()
        self._total, self._batch_size, self._unit = total, batch_size, unit
        self._label = label if self._ranks.rank == 0 else ""
        self._stopped = False

    def __iter__(self) -> Iterator[range]:
        with tqdm(total=self._total, desc=self._label, leave=False, disable=None if self._label else True) as bar:
            for number in range(-(-self._total // self._batch_size)):
                step = self._step(number)
                yield step
                self.done += len(step)
                bar.update(len(step))

    def _step(self, number: int) -> range:
        """Empty behind the last."""
        start, stop = (min(self._total, self._batch_size * edge) for edge in (number, number + 1))
        return range(start, stop)

    def map(self, function: Callable[[range], T]) -> Iterator[tuple[range, T]]:
        """(step, what `function` finds in it) for each, in order. Of several ranks, every one computes one of as many
        steps as there are ranks, and all get what each has found, which must be something that can be pickled; what
        one of them raises ends all, with one message that names it."""
        found: list[T] = []
        self._ranks.check_same({self._unit: self._total, "at a time": self._batch_size})
        for number, step in enumerate(self):
            turn = number % self._ranks.size
            if turn == 0:
                own = self._step(number + self._ranks.rank)
                with self._ranks.ending_together():
                    found = self._ranks.gather(function(own) if own else None)
            yield step, found[turn]

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._stopped = self._ranks.size == 1 and kind is not None and issubclass(kind, KeyboardInterrupt)
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
