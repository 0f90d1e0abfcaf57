"""The index of packed images: a file of JSON that says what the other files in its folder hold.

{"format": "zfcuda packed images", "version": 2, "complete": true, "sha256": of all else that is here,
 "classes": [name, ...], "image_shape": [H, W, C],
 "source": SHA-256 of what was packed, "options": {"seed": ..., "shard_images": ...},
 "halves": {"train": HALF, "test": HALF}}

HALF = {"images": N, "digest": of the whole half (`zfcuda.data.digest`),
        "labels": {"file", "sha256"}   .npy, int32 (N,)
        "names":  {"file", "sha256"}   UTF-8, a line an image: where it came from
        "mean":   {"file", "sha256"}   .npy, float32 (H,W,C)
        "shards": [{"file", "sha256", "first", "count"}, ...]}   .npy, uint8 (count,H,W,C); their
                                                                         labels are [first, first + count)

`digest` and `mean` are missing until all shards of the half are there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...files import read_json, write_atomically
from ..names import printable

INDEX = "packed.json"
FORMAT = "zfcuda packed images"
VERSION = 2
HALVES = ("train", "test")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a file in the folder, and nowhere else
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SIDE = 2**16


@dataclass(frozen=True)
class File:
    """A file of the folder, and its SHA-256."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Shard(File):
    """Images [first, first + count) of a half."""

    first: int
    count: int


@dataclass
class Half:
    images: int
    labels: File
    names: File
    shards: list[Shard] = field(default_factory=list)
    digest: str | None = None
    mean: File | None = None

    @property
    def packed(self) -> int:
        """How many images are in the shards."""
        return sum(shard.count for shard in self.shards)


@dataclass
class Index:
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    source: str
    options: dict[str, int]
    halves: dict[str, Half]
    complete: bool = False

    def save(self, folder: Path) -> None:
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        content["sha256"] = checksum(content)
        write_atomically(folder / INDEX, json.dumps(content, indent=1).encode())


def checksum(content: dict[str, Any]) -> str:
    """The SHA-256 of what an index says, but for the one that it has."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Of a file's bytes; OSError where it cannot be read."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


# ---- Reading -----------------------------------------------------------------------------------------------


def read_index(folder: Path) -> Index:
    """The index of a folder, finished or not. `DataError` with its path where it is damaged or contradicts itself."""
    path = folder / INDEX
    where = printable(str(path))
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{where}: cannot be read as the index of packed images ({reason})") from error
    try:
        return _index(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: {error}") from None


def _index(content: Any) -> Index:
    if _value(content, "format", str) != FORMAT:
        raise ValueError(f"format must be {FORMAT!r}, got {content['format']!r:.80}")
    if _value(content, "version", int) != VERSION:
        raise ValueError(f"version {content['version']} of packed images, where {VERSION} is read: pack them anew")
    if _checksum(content, "sha256") != checksum(content):
        raise ValueError("is damaged or was edited: its SHA-256 is not the one that it names")
    classes = tuple(_value(content, "classes", list))
    if not classes or not all(isinstance(one, str) for one in classes):
        raise ValueError("classes must be a list of names")
    shape = tuple(_value(content, "image_shape", list))
    if len(shape) != 3 or not all(type(side) is int and 1 <= side <= _SIDE for side in shape):
        raise ValueError(f"image_shape must be [H, W, C], each from 1 to {_SIDE}, got {list(shape)!s:.80}")
    halves = _value(content, "halves", dict)
    options = _value(content, "options", dict)
    index = Index(
        classes=classes,
        image_shape=shape,
        source=_checksum(content, "source"),
        options={name: _value(options, name, int) for name in ("seed", "shard_images")},
        halves={name: _half(_value(halves, name, dict), name) for name in HALVES},
        complete=_value(content, "complete", bool),
    )
    files = [file.file for half in index.halves.values() for file in files_of(half)]
    twice = [name for name in files if files.count(name) > 1] if len(set(files)) < len(files) else []
    if twice:
        raise ValueError(f"names the file {twice[0]} twice")
    for name, half in index.halves.items():
        if index.complete and (half.packed != half.images or half.digest is None or half.mean is None):
            raise ValueError(
                f"says that it is complete, but has shards with {half.packed} of {half.images} {name} images"
            )
    return index


def files_of(half: Half) -> list[File]:
    return [half.labels, half.names, *([half.mean] if half.mean else []), *half.shards]


def _half(content: dict[str, Any], name: str) -> Half:
    half = Half(_value(content, "images", int), _file(content, "labels"), _file(content, "names"))
    if half.images < 1:
        raise ValueError(f"images of {name} must be at least 1, got {half.images}")
    packed = 0  # Half.packed, without adding all shards for each
    for entry in _value(content, "shards", list):
        file = _named(entry)
        shard = Shard(file.file, file.sha256, _value(entry, "first", int), _value(entry, "count", int))
        if shard.first != packed or not 1 <= shard.count <= half.images - packed:
            raise ValueError(
                f"{shard.file} must hold images from {packed} on, of {half.images}; got {shard.count} from "
                f"{shard.first} on"
            )
        half.shards.append(shard)
        packed += shard.count
    half.digest = _checksum(content, "digest") if content.get("digest") is not None else None
    half.mean = _file(content, "mean") if content.get("mean") is not None else None
    return half


def _file(content: Any, name: str) -> File:
    return _named(_value(content, name, dict))


def _named(entry: Any) -> File:
    name = _value(entry, "file", str)
    if not _NAME.fullmatch(name):
        raise ValueError(f"file must be the name of one in this folder, got {name!r:.80}")
    return File(name, _checksum(entry, "sha256"))


def _checksum(content: Any, name: str) -> str:
    value = _value(content, name, str)
    if not _SHA256.fullmatch(value):
        raise ValueError(f"{name} must be a SHA-256, 64 hexadecimal digits, got {value!r:.80}")
    return value


def _value(content: Any, name: str, kind: type) -> Any:
    value = content.get(name) if isinstance(content, dict) else None
    if type(value) is not kind:
        raise ValueError(f"{name} must be of the type {kind.__name__}, got {value!r:.80}")
    return value
