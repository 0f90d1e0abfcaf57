"""How the learning rate rises and falls: factors on the trainer's rate, as pure functions of the epochs so far (P2).

A schedule is called before every epoch with its number, from 0, and the validation errors of the epochs before it. It
keeps no state, so that a resumed training sees the rates that an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..numbers import check_at_least


class Schedule(Protocol):
    def __call__(self, epoch: int, errors: Sequence[float]) -> float:
        """The factor on the learning rate in `epoch`; errors: one validation error for each epoch before it."""
        ...


def _check_factor(factor: float) -> None:
    if not 0 < factor < 1:
        raise ValueError(f"factor must be between 0 and 1, got {factor}")


@dataclass(frozen=True)
class Fixed:
    """The same rate throughout."""

    def __call__(self, epoch: int, errors: Sequence[float]) -> float:
        return 1.0


@dataclass(frozen=True)
class Step:
    """Multiplies the rate by `factor` at each of the `epochs` (numbers from 0, ascending)."""

    epochs: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_factor(self.factor)
        if list(self.epochs) != sorted(set(self.epochs)) or any(epoch < 1 for epoch in self.epochs):
            raise ValueError(f"epochs must be positive and ascending, got {self.epochs}")

    def __call__(self, epoch: int, errors: Sequence[float]) -> float:
        return self.factor ** sum(epoch >= fall for fall in self.epochs)


@dataclass(frozen=True)
class Linear:
    """Falls in a straight line from the full rate in the first of `epochs` towards zero after the last one."""

    epochs: int

    def __post_init__(self) -> None:
        check_at_least("epochs", self.epochs, 1)

    def __call__(self, epoch: int, errors: Sequence[float]) -> float:
        return max(1 - epoch / self.epochs, 1 / self.epochs)


@dataclass(frozen=True)
class Cosine:
    """Falls along half a cosine from the full rate in the first of `epochs` to zero after the last one (Loshchilov and
    Hutter 2017)."""

    epochs: int

    def __post_init__(self) -> None:
        check_at_least("epochs", self.epochs, 1)

    def __call__(self, epoch: int, errors: Sequence[float]) -> float:
        return (1 + math.cos(math.pi * min(epoch, self.epochs - 1) / self.epochs)) / 2


@dataclass(frozen=True)
class Warmup:
    """Another schedule whose first `epochs` rise in equal steps to its rate, as large batches with a large rate need
    (Goyal et al. 2017)."""

    schedule: Schedule
    epochs: int

    def __post_init__(self) -> None:
        check_at_least("epochs", self.epochs, 1)

    def __call__(self, epoch: int, errors: Sequence[float]) -> float:
        return min(1.0, (epoch + 1) / (self.epochs + 1)) * self.schedule(epoch, errors)


@dataclass(frozen=True)
class Plateau:
    """Multiplies the rate by `factor` when the validation error has not fallen for `patience` epochs: the paper's
    annealing by hand, done automatically.

    An error counts as fallen when it is at least `margin` (absolute) below the lowest one before it.
    """

    patience: int = 3
    factor: float = 0.1
    margin: float = 1e-3

    def __post_init__(self) -> None:
        _check_factor(self.factor)
        check_at_least("patience", self.patience, 1)

    def __call__(self, epoch: int, errors: Sequence[float]) -> float:
        lowest, waited, falls = float("inf"), 0, 0
        for error in errors:
            if error <= lowest - self.margin:
                lowest, waited = error, 0
                continue
            waited += 1
            if waited == self.patience:
                falls, waited = falls + 1, 0
        return self.factor**falls
