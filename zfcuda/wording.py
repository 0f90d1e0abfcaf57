"""What messages and reports say of many names, of a layer, of one that there is not, and of several faults."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Sequence

_MOST = 20  # faults that are told


def listed(names: Sequence[str], most: int = 30) -> str:
    """Names in a message, separated by commas: all of them, or the first and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def layer_words(name: str) -> str:
    """A layer's name where it stands in words or alone: of one without letters, as "8" of a `Sequential`, "layer 8"."""
    return name if any(letter.isalpha() for letter in name) else f"layer {name}"


def like(name: str, known: Iterable[str]) -> str:
    """What is spelled nearly so among the names that there are, three at most, as in ", which is like 'conv1'"."""
    near = difflib.get_close_matches(name, list(known))
    return f", which is like {' or '.join(map(repr, near))}" if near else ""


def check_none(faults: Iterable[str]) -> None:
    """ValueError where there are faults: one as it is, several as a list of lines, of more than twenty the first."""
    found = list(itertools.islice(faults, _MOST + 1))
    if len(found) == 1:
        raise ValueError(found[0])
    if found:
        head = f"{len(found)} faults:" if len(found) <= _MOST else f"more than {_MOST} faults, the first of them:"
        raise ValueError("\n  ".join([head, *found[:_MOST]]))
