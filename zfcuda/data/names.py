"""Names of files and folders: how they are shown, which play no part, and the tree that they and their links make.

A name may be any bytes. Files are found and read by the names that the system gives (bytes that are not UTF-8 as
surrogates); whatever leaves `zfcuda.data` (classes, identifiers, messages) has been through `printable`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..errors import DataError

# What systems leave beside the files of a user; names with a dot in front are hidden anyway.
_LITTER = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"}
)
LOST = "\0"  # where a link leads that leads nowhere
# By how many ways links may lead to one folder: they could make a few folders look like millions.
_WAYS = 16


def printable(name: str) -> str:
    """A name as text that can be printed and stored: U+FFFD stands for bytes that are not UTF-8 and for control
    characters."""
    if name.isprintable():
        return name
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") else c for c in name)


def escaped(name: str) -> str:
    """As `printable`, but bytes that are not UTF-8 become their numbers, which tell such a name from others."""
    return printable("".join(f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in name))


def hidden(name: str) -> bool:
    """Whether a file or folder of this name, without its path, plays no part in a data set."""
    return name.startswith(".") or name.casefold() in _LITTER or name == "Icon\r"


def relative(name: str) -> str:
    """A path as a relative one of plain parts: "." means nothing, ".." goes up as far as there is something above."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class Tree(NamedTuple):
    """Names of all files and all folders, sorted, without hidden ones. lost: those files that are links to nowhere."""

    names: list[str]
    folders: list[str]
    lost: list[str]


def walk(scan: Callable[[str], Iterable[tuple[str, str | None]]], root: str) -> Tree:
    """What is below a folder, by names relative to it.

    scan(folder) -> what it holds, as (name without path, None for a file, for a folder which one, links followed, or
    `LOST`). A link to a folder above itself is not entered. `DataError` where links multiply one folder without end.
    """
    names: list[str] = []
    folders: list[str] = []
    lost: list[str] = []
    ways: Counter[str] = Counter()
    pending: list[tuple[str, str, tuple[str, ...]]] = [("", root, ())]
    while pending:
        prefix, here, above = pending.pop()
        above = (*above, here)
        for name, folder in scan(here):
            if hidden(name):
                continue
            if folder is None or folder == LOST:
                names.append(prefix + name)
                lost += [prefix + name] if folder == LOST else []
                continue
            folders.append(prefix + name)
            if folder in above:
                continue
            ways[folder] += 1
            if ways[folder] > _WAYS:
                raise DataError(f"{printable(folder)}: links lead to this folder by more than {_WAYS} ways")
            pending.append((f"{prefix}{name}/", folder, above))
    return Tree(sorted(names), sorted(folders), lost)
