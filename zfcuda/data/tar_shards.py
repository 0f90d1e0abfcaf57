"""Tar shards in the webdataset convention, read as they are: files of a sample share their name up to its first dot.

    train-000.tar: 0001.jpg 0001.cls 0002.jpg 0002.json ...

A sample has one picture (.jpg, .png, ...) and a label: .cls, a whole number as text, or without one .json, an object
with "label", a whole number or the name of a class. What else it has plays no part. Shards are plain tars, opened when
they are read.
"""

from __future__ import annotations

import itertools
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..files import parse_json
from ..wording import listed
from .dataset import Split, check_numbers
from .files import Files, check_file
from .folders import Listed, Reading, read_halves
from .layout import PICTURES, TEST, TRAIN, role
from .limits import FILE_LIMIT, check_size
from .names import hidden, printable, relative
from .tar import Stream, members, sparse_map

_BRACES = re.compile(r"\{(?:(\d{1,9})\.\.(\d{1,9})|([^{},]*(?:,[^{},]*)+))\}")
_MOST_SHARDS = 100_000
_NUMBERED = re.compile(r"[^/]*\d\.tar")
_LABELS = (".cls", ".json")
_LABEL_LIMIT = 2**20  # bytes of a file with a label

Label = int | str


class _Sample(NamedTuple):
    """A picture's name in its shard, where its bytes are, and its label."""

    name: str
    offset: int
    size: int
    label: Label


def expand(pattern: str) -> list[Path]:
    """The paths that a pattern with braces names, {000..099} and {train,val} as in a shell; none where it has no such
    braces, or is itself the path of something. ValueError where they are too many."""
    if not _BRACES.search(pattern) or Path(pattern).exists():
        return []
    parts, place, total = [], 0, 1
    for found in _BRACES.finditer(pattern):
        first, last, words = found.groups()
        numbers = range(int(first or 0), int(last or 0) + 1)
        total *= len(words.split(",")) if words else len(numbers)
        if total > _MOST_SHARDS:
            raise ValueError(f"{printable(pattern)}: names more than {_MOST_SHARDS:,} shards")
        choices = words.split(",") if words else [f"{number:0{len(first)}}" for number in numbers]
        parts += [[pattern[place : found.start()]], choices]
        place = found.end()
    return [Path("".join(chosen)) for chosen in itertools.product(*parts, [pattern[place:]])]


def find(files: Files, path: Path) -> list[Path]:
    """The shards that a folder holds, or the archive that is one itself; none where it is something else."""
    names, folders = files.tree.names, files.tree.folders
    if path.is_dir():
        numbered = [name for name in names if _NUMBERED.fullmatch(name)]
        return [path / name for name in numbered] if not folders else []
    flat = not folders and any(name.endswith(_LABELS) for name in names)
    return [path] if (flat or any(name.endswith(".cls") for name in names)) and tarfile.is_tarfile(path) else []


def open_tar_shards(shards: Sequence[Path], where: str, reading: Reading) -> Split:
    """Both halves of a set in shards. Where the names of some say test or validation, and of all others train, they are
    the test half.

    The classes are the numbers from 0 to the largest label, or the names that labels are, sorted. FileNotFoundError for
    a shard that is missing; `DataError` with its path where one is damaged, cut short, or no tar of samples.
    """
    missing = [printable(str(path)) for path in shards if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{where}: {len(missing)} of {len(shards)} shards are missing: {listed(missing, 3)}")
    if len(set(shards)) < len(shards):
        raise DataError(f"{where}: names a shard twice")
    train, test = _halves(shards, where)
    samples = TarShards()
    found = [samples.add(paths, where) for paths in (train, test) if paths]
    classes, labels = _classes([[sample.label for sample in half] for half in found], where)
    halves = [Listed([sample.name for sample in half], of) for half, of in zip(found, labels, strict=True)]
    return read_halves(samples, where, classes, halves[0], halves[1] if test else None, reading)


def _halves(shards: Sequence[Path], where: str) -> tuple[list[Path], list[Path]]:
    said: dict[str, list[Path]] = {}
    for path in shards:
        said.setdefault(role(path.name.removesuffix(".tar"))[0], []).append(path)
    test = [word for word in said if word in TEST]
    train = [word for word in said if word in TRAIN or not word]
    if not test or not train:
        if len(said) == 1:
            return list(shards), []
    elif len(test) == len(train) == 1:
        return said[train[0]], said[test[0]]
    names = ", ".join(printable(paths[0].name) for paths in said.values())
    raise DataError(f"{where}: it cannot be told which of these is which half: {names}; a pattern can name two of them")


def _classes(halves: list[list[Label]], where: str) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """The classes, and the labels of each half, int32 (N,)."""
    every = {label for half in halves for label in half}
    kinds = {type(label) for label in every}
    if len(kinds) > 1:
        raise DataError(f"{where}: some labels are numbers, others are names")
    if kinds == {int}:
        largest = max(every)
        check_numbers(min(every), largest, sum(map(len, halves)), where)  # type: ignore[type-var, arg-type]
        return tuple(map(str, range(largest + 1))), [np.array(half, np.int32) for half in halves]  # type: ignore[operator]
    unknown = sorted(map(str, set(halves[-1]) - set(halves[0])))
    if unknown:
        raise DataError(f"{where}: the test half has classes that the training half lacks: {listed(unknown)}")
    names = sorted(map(str, every))
    places = {name: place for place, name in enumerate(names)}
    return tuple(names), [np.array([places[str(label)] for label in half], np.int32) for half in halves]


class TarShards:
    """Pictures in shards, by the path of a shard and their name in it."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, int, int]] = {}

    def add(self, shards: Sequence[Path], where: str) -> list[_Sample]:
        """Looks through shards, and returns their samples."""
        added = []
        for path in shards:
            shard = str(path)
            for sample in _samples(path):
                name = f"{shard}/{sample.name}"
                self._places[name] = shard, sample.offset, sample.size
                added.append(sample._replace(name=name))
        if not added:
            raise DataError(f"{where}: holds no samples; expected pictures with a label beside each, 1.jpg and 1.cls")
        return added

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        shard, offset, size = self._places[name]
        check_size(self.path(name), size, limit)
        try:
            with open(shard, "rb", buffering=0) as file:
                data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise DataError(f"{self.path(name)}: cannot be read ({error.strerror or error})") from error
        if len(data) < size:
            raise DataError(f"{self.path(name)}: the archive is cut short")
        return data

    def path(self, name: str) -> str:
        return printable(name)


def _samples(path: Path) -> Iterator[_Sample]:
    """All samples of a shard, in order. `DataError` where it is not whole, or a sample is none."""
    shown = printable(str(path))
    check_file(path)
    pictures: dict[str, _Sample] = {}
    labels: dict[tuple[str, str], tuple[str, Label | DataError]] = {}
    try:
        with path.open("rb") as file:
            stream = Stream(file, shown)
            if stream.compressed:
                raise DataError(f"{shown}: is compressed, and shards are read at any place: unpack it to a plain tar")
            for member in members(stream):
                name = relative(member.name)
                base = name.rpartition("/")[2]
                key = name[: len(name) - len(base)] + base.partition(".")[0]
                kind = Path(base.casefold()).suffix
                if member.isdir() or hidden(base) or kind not in (*PICTURES, *_LABELS):
                    continue
                if not member.isreg() or sparse_map(member) is not None:
                    raise DataError(f"{shown}/{printable(name)}: is a link or something else that is no plain file")
                if kind in PICTURES:
                    if key in pictures:
                        raise DataError(
                            f"{shown}/{printable(name)}: is the second picture of a sample, after "
                            f"{printable(pictures[key].name)}"
                        )
                    pictures[key] = _Sample(name, member.offset_data, member.size, -1)
                    continue
                try:
                    if (key, kind) in labels:
                        raise DataError(f"{shown}/{printable(name)}: is the second {kind} of a sample")
                    check_size(f"{shown}/{printable(name)}", member.size, _LABEL_LIMIT)
                    data = stream.take(member.offset_data, member.size)
                    labels[key, kind] = name, _label(data, kind, shown, name)
                except DataError as error:  # nobody asks for a .json beside a .cls
                    labels[key, kind] = name, error
    except DataError:
        raise
    except Exception as error:  # tarfile raises whatever the damage makes it raise
        raise DataError(f"{shown}: the archive is damaged or cut short ({error})") from error
    for key, sample in pictures.items():
        found = labels.get((key, ".cls")) or labels.get((key, ".json"))
        if found is None:
            raise DataError(f"{shown}/{printable(sample.name)}: has no label beside it, {printable(key)}.cls or .json")
        if isinstance(found[1], DataError):
            raise found[1]
        yield sample._replace(label=found[1])
    for (key, _), (name, _) in labels.items():
        if key not in pictures:
            raise DataError(f"{shown}/{printable(name)}: has no picture beside it, {printable(key)}.jpg or another")


def _label(data: bytes, kind: str, shard: str, name: str) -> Label:
    try:
        if kind == ".cls":
            if b"_" in data:  # which is a number's in Python
                raise ValueError(f"invalid literal {data!r:.80}")
            return int(data)
        content = parse_json(data)
        label = content.get("label") if isinstance(content, dict) else None
        if type(label) is int:
            return label
        if isinstance(label, str) and label:
            return printable(label)
        raise ValueError("label must be a whole number or a name")
    except ValueError as error:
        what = "a whole number" if kind == ".cls" else 'JSON with "label", a whole number or a name'
        raise DataError(f"{shard}/{printable(name)}: holds no label, {what} ({error})") from error
