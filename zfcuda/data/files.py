"""Files below a folder, or inside a zip or tar archive, behind one face; nothing is unpacked to disk."""

from __future__ import annotations

import gzip
import lzma
import os
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from ..errors import DataError

# What a compressed tar may hold: it can only be read front to back, so its files are kept in memory.
STREAMED_LIMIT = 4 * 2**30

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, NotImplementedError)


class Files(Protocol):
    """Files by name. `names` and `folders` are relative, with "/", sorted, without hidden ones.

    `read` and `path` may be called from several threads.
    """

    names: list[str]
    folders: list[str]

    def read(self, name: str) -> bytes: ...

    def path(self, name: str) -> str:
        """The name as a user would write it, for messages and reports."""
        ...


def open_files(path: str | Path) -> Files:
    """The files of a folder, of a zip, or of a tar (plain, gz, xz or bz2).

    Folders, zips and plain tars are read on demand; a compressed tar is read once, into memory (up to 4 GiB).
    FileNotFoundError; `DataError` where the path is none of these or is damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    try:
        if zipfile.is_zipfile(path):
            return _Zip(path)
        with path.open("rb") as file:
            magic = file.read(6)
        if magic[:2] == b"\x1f\x8b" or magic == b"\xfd7zXZ\0" or magic[:3] == b"BZh":
            return _StreamedTar(path)
        if tarfile.is_tarfile(path):
            return _PlainTar(path)
    except _DAMAGE as error:
        raise DataError(f"{path}: the archive is damaged or cut short ({error})") from error
    raise DataError(f"{path}: neither a folder nor a zip or tar archive (or one that is damaged or cut short)")


def decompress(data: bytes, path: str) -> bytes:
    """gzip data, unpacked; `DataError` with the path where it is damaged or cut short."""
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or cut short ({error})") from error


def _clean(member: str) -> str:
    """A member's name as a relative path, or "" if it is hidden. "..", "." and a leading "/" mean nothing here."""
    parts = [part for part in member.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "" if any(part.startswith(".") or part == "__MACOSX" for part in parts) else "/".join(parts)


def _with_parents(names: list[str], folders: set[str]) -> list[str]:
    for name in [*names, *folders]:
        while "/" in name:
            name = name.rpartition("/")[0]
            folders.add(name)
    return sorted(folders)


class _Folder:
    def __init__(self, root: Path):
        self._root = root
        self.names, self.folders = [], []
        seen = set()
        for place, folders, names in os.walk(root, followlinks=True):
            real = os.path.realpath(place)
            if real in seen:  # a link to a folder above it
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [folder for folder in folders if _clean(folder)]
            below = Path(place).relative_to(root)
            self.folders += [(below / folder).as_posix() for folder in folders]
            self.names += [(below / name).as_posix() for name in names if _clean(name)]
        self.names.sort()
        self.folders.sort()

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def path(self, name: str) -> str:
        return str(self._root / name)


class _Archive:
    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self.names: list[str] = []
        self.folders: list[str] = []

    def path(self, name: str) -> str:
        return f"{self._path}/{name}"


class _Zip(_Archive):
    def __init__(self, path: Path):
        super().__init__(path)
        self._zip = zipfile.ZipFile(path)
        members = {_clean(info.filename): info for info in self._zip.infolist()}
        members.pop("", None)
        self._members = {name: info for name, info in members.items() if not info.is_dir()}
        self.names = sorted(self._members)
        self.folders = _with_parents(self.names, members.keys() - self._members.keys())

    def read(self, name: str) -> bytes:
        try:
            with self._lock:
                return self._zip.read(self._members[name])
        except (*_DAMAGE, RuntimeError) as error:  # RuntimeError: encrypted
            raise DataError(f"{self.path(name)}: cannot be read from the archive ({error})") from error


class _PlainTar(_Archive):
    """An uncompressed tar: every member is a range of the file."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._file = path.open("rb")
        self._ranges: dict[str, tuple[int, int]] = {}
        folders = set()
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = _clean(member.name)
                if name and member.isdir():
                    folders.add(name)
                elif name and member.isreg():
                    self._ranges[name] = (member.offset_data, member.size)
        self.names = sorted(self._ranges)
        self.folders = _with_parents(self.names, folders)

    def read(self, name: str) -> bytes:
        offset, size = self._ranges[name]
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) < size:
            raise DataError(f"{self.path(name)}: the archive is cut short")
        return data


class _StreamedTar(_Archive):
    """A compressed tar, read once and kept in memory as it was stored (JPEGs stay JPEGs)."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._data: dict[str, bytes] = {}
        folders = set()
        total = 0
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = _clean(member.name)
                if name and member.isdir():
                    folders.add(name)
                elif name and member.isreg():
                    total += member.size
                    if total > STREAMED_LIMIT:
                        raise DataError(
                            f"{path}: a compressed tar is read into memory, and this one holds more than "
                            f"{STREAMED_LIMIT / 2**30:.3g} GiB; unpack it, or use a zip"
                        )
                    file = tar.extractfile(member)
                    self._data[name] = file.read() if file else b""
        self.names = sorted(self._data)
        self.folders = _with_parents(self.names, folders)

    def read(self, name: str) -> bytes:
        return self._data[name]
