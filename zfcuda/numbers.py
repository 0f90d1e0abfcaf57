"""Numbers as arguments: an error names the argument, what it was and what is allowed."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

import ml_dtypes
import numpy as np


def check_number(name: str, value: Any) -> float:
    """A number as Python's float. TypeError if it is none, ValueError if no float is as large."""
    if type(value) is float:  # nearly always
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, (Real, ml_dtypes.bfloat16)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large for a float") from None


def check_whole(name: str, value: Any) -> int:
    """A whole number as Python's int. TypeError if it is none."""
    if type(value) is int:  # nearly always
        return value
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    return number


def check_at_least(name: str, value: Any, least: int) -> int:
    """A whole number, as Python's int, that is not below `least`. TypeError, ValueError."""
    number = check_whole(name, value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number
