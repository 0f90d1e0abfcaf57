"""Sizes that are an int or (height, width)."""

from __future__ import annotations

import operator

IntPair = int | tuple[int, int]


def check_pair(name: str, value: IntPair) -> tuple[int, int]:
    """(height, width), from an int or a pair."""
    if type(value) is int and abs(value) < 2**31:  # nearly always, and six times as fast
        return value, value
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    try:
        pair = tuple(operator.index(v) for v in values)
    except TypeError:
        pair = ()
    if len(pair) != 2 or any(isinstance(v, bool) for v in values):
        raise TypeError(f"{name} must be an int or (height, width), got {value!r}")
    if any(abs(v) >= 2**31 for v in pair):
        raise ValueError(f"{name} is out of range: {value!r}")
    return pair


def as_pair(value: IntPair) -> tuple[int, int]:
    """(height, width) of one that has been checked."""
    return (value, value) if isinstance(value, int) else value
