"""Sizes that are an int or (height, width), and paddings, which may also be (top, bottom, left, right)."""

from __future__ import annotations

import operator

IntPair = int | tuple[int, int]
Padding = IntPair | tuple[int, int, int, int]


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


def check_size(name: str, value: IntPair) -> tuple[int, int]:
    """(height, width) of maps, each at least 1, from an int or a pair."""
    pair = check_pair(name, value)
    if min(pair) < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return pair


def check_part(name: str, value: IntPair, whole: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a part of maps of (height, width), at most as large, from an int or a pair. An int is both,
    cut to the map's shorter side: 16 is 1 x 16 of a signal of 1 x 128."""
    height, width = check_size(name, value)
    most = whole if isinstance(value, (tuple, list)) else (max(whole),) * 2
    if height > most[0] or width > most[1]:
        got = f"{height} x {width}" if isinstance(value, (tuple, list)) else height
        raise ValueError(f"{name} must be at most the image's {whole[0]} x {whole[1]}, got {got}")
    return min(height, whole[0]), min(width, whole[1])


def check_steps(name: str, value: IntPair, whole: tuple[int, int]) -> tuple[int, int]:
    """(down, across), each at least 1, of what moves over maps of (height, width), from an int or a pair. An int is
    both, cut to the map's sides."""
    down, across = check_size(name, value)
    return (down, across) if isinstance(value, (tuple, list)) else (min(down, whole[0]), min(across, whole[1]))


def check_padding(name: str, value: Padding) -> tuple[int, int, int, int]:
    """(top, bottom, left, right), from an int, a pair or all four."""
    if type(value) is int and abs(value) < 2**31:
        return value, value, value, value
    if isinstance(value, (tuple, list)) and len(value) == 4:
        (top, left), (bottom, right) = check_pair(name, value[::2]), check_pair(name, value[1::2])
        return top, bottom, left, right
    try:
        height, width = check_pair(name, value)
    except TypeError:
        message = f"{name} must be an int, (height, width) or (top, bottom, left, right), got {value!r}"
        raise TypeError(message) from None
    return height, height, width, width


def as_pair(value: IntPair) -> tuple[int, int]:
    """(height, width) of one that has been checked."""
    return (value, value) if isinstance(value, int) else value


def as_sides(value: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)) of a padding that has been checked."""
    if isinstance(value, tuple) and len(value) == 4:
        return (value[0], value[1]), (value[2], value[3])
    height, width = as_pair(value)
    return (height, height), (width, width)
