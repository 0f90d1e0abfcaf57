"""Numbers on the command line: what is no number, or out of range, is refused before anything is done."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from ..analysis.fills import FILLS

_SHOWN = 40  # characters of what was given


@dataclass(frozen=True)
class Whole:
    """The type of an argument that is a whole number from `least` to `most`."""

    least: int
    most: int

    def __call__(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # more digits than Python reads, too
            value = None
        if value is None or not self.least <= value <= self.most:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {self.least} to {self.most}, got {short(text)}"
            )
        return value


@dataclass(frozen=True)
class Sides:
    """The type of an argument that is a whole number from `least` to `most`, or two of them, height x width."""

    least: int
    most: int

    def __call__(self, text: str) -> int | tuple[int, int]:
        whole = Whole(self.least, self.most)
        try:
            values = [whole(part) for part in text.split("x", 2)]
        except argparse.ArgumentTypeError:
            values = []
        if len(values) == 1:
            return values[0]
        if len(values) == 2:
            return values[0], values[1]
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {self.least} to {self.most}, or two as in 1x16, height x width; "
            f"got {short(text)}"
        )


@dataclass(frozen=True)
class Real:
    """The type of an argument that is a number from `least` to `most`; more than `least` if that is `excluded`, and
    less than `most` if `below`; or one of `words`."""

    least: float
    most: float
    excluded: bool = False
    below: bool = False
    words: tuple[str, ...] = ()

    def __call__(self, text: str) -> float | str:
        if text in self.words:
            return text
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = self.least <= value <= self.most
        if not inside or (self.excluded and value == self.least) or (self.below and value == self.most):
            low = f"more than {self.least:g}" if self.excluded else f"at least {self.least:g}"
            high = f"less than {self.most:g}" if self.below else f"at most {self.most:g}"
            words = f", or one of {', '.join(self.words)}" if self.words else ""
            raise argparse.ArgumentTypeError(f"must be a number, {low} and {high}{words}, got {short(text)}")
        return value


def short(text: str) -> str:
    """What was given, in quotes, cut where it is long."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


# What the options count, with limits beyond any use, within which nothing overflows.
COUNT = Whole(1, 10**9)  # of images
EPOCHS = Whole(1, 10**6)
WARMUP = Whole(0, 10**6)  # epochs
BATCH = Whole(1, 2**16)
SIDE = Whole(1, 4096)  # pixels; also the largest images that are read
SIDES = Sides(1, 10**6)  # pixels, which the image bounds; of signals samples
CANVAS = Whole(2, 1024)
MANY = Whole(1, 10**4)  # maps, winners, draws, steps
PROCESSES = Whole(1, 256)
SEED = Whole(0, 2**32 - 1)
RATE = Real(0, 1e15, excluded=True)
MOMENTUM = Real(0, 1, below=True)
DECAY = Real(0, 1)
RMS = Real(0, 1e6, excluded=True)
FILL = Real(-1e6, 1e6, words=FILLS)  # of pixels
