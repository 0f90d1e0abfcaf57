"""Files below a folder, or inside a zip or tar archive, behind one face; nothing is unpacked to disk.

An archive is whole or an error: links in it are read as what they point to, and what cannot be read (a link that leaves
the archive, a device, an encrypted file) is listed like any other file and says so when it is read.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..errors import DataError
from .limits import FILE_LIMIT, check_size, check_unpacked, most_unpacked
from .names import LOST, Tree, printable, relative, walk
from .tar import BLOCK, Stream, is_tar, members, sparse_map

# What a compressed tar may hold: it can only be read front to back, so its files are kept in memory.
STREAMED_LIMIT = 4 * 2**30

_FOLDERS = 2**25  # characters of the paths of all folders in an archive; a million class folders have fewer
_LINKS = 40  # that lead from one to the next, as in Linux
_OTHER_ARCHIVES = {b"7z\xbc\xaf": "7z", b"Rar!": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard"}
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class Readable(Protocol):
    """Files by name. `read` and `path` may be called from several threads, and in forks of the process."""

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        """What the file holds; `DataError` with its path where it cannot be read or has more than `limit` bytes."""
        ...

    def path(self, name: str) -> str:
        """The name as a user would write it, for messages and reports: always printable."""
        ...


class Files(Readable, Protocol):
    """Files of a folder or archive: those of `tree`, by relative names with "/"."""

    tree: Tree

    def real(self, folder: str) -> str:
        """The folder itself, whatever links lead to it: the same text for the same folder."""
        ...


def open_files(path: str | Path) -> Files:
    """The files of a folder, of a zip, or of a tar (plain, gz, xz or bz2).

    Folders, zips and plain tars are read on demand; a compressed tar is read once, into memory (up to 4 GiB).
    FileNotFoundError; `DataError` where the path is none of these, is damaged, or unpacks to far more than it is.
    """
    path = Path(path)
    if path.is_dir():
        return _Folder(path)
    shown = printable(str(path))
    if not path.exists():
        raise FileNotFoundError(f"{shown}: no such file or folder")
    check_file(path)
    with path.open("rb") as file:
        start = file.read(BLOCK)
    if start[:2] == b"PK":
        return _Zip(path)
    if start[:2] == b"\x1f\x8b" or start[:6] == b"\xfd7zXZ\0" or start[:3] == b"BZh" or is_tar(start):
        return _Tar(path)
    if zipfile.is_zipfile(path):  # one that unpacks itself
        return _Zip(path)
    if start[:4] in _OTHER_ARCHIVES:
        kind = _OTHER_ARCHIVES[start[:4]]
        raise DataError(f"{shown}: a {kind} archive, which cannot be read; unpack it, or pack it as zip or tar")
    raise DataError(f"{shown}: neither a folder nor a zip or tar archive (or one that is damaged or cut short)")


def read_file(path: str | Path, limit: int = FILE_LIMIT) -> bytes:
    """What a file on disk holds. It never waits, as for a FIFO. OSError, or `DataError` with the path."""
    check_file(path, limit)
    with open(path, "rb") as file:
        return file.read()


def check_file(path: str | Path, limit: int | None = None) -> None:
    """OSError where there is nothing; `DataError` where it is no file, or has more than `limit` bytes."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise DataError(f"{printable(str(path))}: is {kind}, not a file")
    if limit is not None and found.st_size > limit:
        check_size(printable(str(path)), found.st_size, limit)


def decompress(data: bytes, path: str) -> bytes:
    """gzip data, unpacked; `DataError` with the path where it is damaged, cut short, or unpacks to far more."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(most_unpacked(len(data)) + 1)
    except Exception as error:
        raise DataError(f"{path}: damaged or cut short ({error})") from error
    check_unpacked(path, len(unpacked), len(data))
    return unpacked


class _Folder:
    def __init__(self, root: Path):
        self._prefix = str(root / "x")[:-1]
        self.tree = walk(self._scan, os.path.realpath(root))

    def _scan(self, folder: str) -> Iterator[tuple[str, str | None]]:
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            raise DataError(f"{printable(folder)}: cannot be looked into ({error.strerror or error})") from error
        for entry in entries:
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                yield entry.name, target if os.path.isdir(target) else None if os.path.exists(target) else LOST
            else:
                yield entry.name, entry.path if entry.is_dir() else None

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        try:
            return read_file(self._prefix + name, limit)
        except OSError as error:
            raise DataError(f"{self.path(name)}: cannot be read ({error.strerror or error})") from error

    def path(self, name: str) -> str:
        return printable(self._prefix + name)

    def real(self, folder: str) -> str:
        return os.path.realpath(self._prefix + folder)


# ---- Archives ------------------------------------------------------------------------------------------------


class _Link(NamedTuple):
    """A symbolic link in an archive."""

    target: str


class _Unreadable(NamedTuple):
    """What is in an archive but cannot be read, and why."""

    reason: str


class _Archive:
    """The tree of an archive. `_entries`: path -> None for a folder, else a link, or what its bytes are read by."""

    def __init__(self, path: Path):
        self._path = path
        self._entries: dict[str, Any] = {}
        try:
            self._list()
        except DataError:
            raise
        except Exception as error:  # zipfile and tarfile raise whatever the damage makes them raise
            raise DataError(f"{self.path('')}: the archive is damaged or cut short ({error})") from error
        self._children = self._folders()
        self.tree = walk(self._scan, "")

    def _list(self) -> None:
        """Fills `_entries`. Of two files with one name the later counts, as it does when the archive is unpacked."""
        raise NotImplementedError

    def _contents(self, entry: Any, path: str, limit: int) -> bytes:
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)  # another process opens it for itself

    def _folders(self) -> dict[str, set[str]]:
        """What each folder holds. `DataError` where a short archive has folders in folders without end."""
        children: dict[str, set[str]] = {"": set()}
        characters = 0
        for name, entry in self._entries.items():
            if entry is None:
                children.setdefault(name, set())
            while name:
                name, base = name.rpartition("/")[::2]
                if name not in children:
                    characters += len(name)
                    if characters > _FOLDERS:
                        raise DataError(
                            f"{self.path('')}: the names of its folders have more than {_FOLDERS:,} characters"
                        )
                known = children.setdefault(name, set())
                if base in known:
                    break
                known.add(base)
        for name in children:
            if self._entries.get(name) is not None:
                raise DataError(f"{self.path(name)}: stands in the archive both as a file and as a folder")
        return children

    def _scan(self, folder: str) -> Iterator[tuple[str, str | None]]:
        for base in self._children[folder]:
            target = f"{folder}/{base}" if folder else base
            if isinstance(self._entries.get(target), _Link):
                try:
                    target = self._follow(target)
                except DataError:
                    target = LOST
            known = target in self._children
            yield base, target if known else None if self._entries.get(target) is not None else LOST

    def _follow(self, name: str) -> str:
        """Where a path leads in the end. `DataError` where that is outside of the archive, or nowhere."""
        here: list[str] = []
        pending, links = name.split("/")[::-1], 0
        while pending:
            part = pending.pop()
            if part == ".." and here:
                here.pop()
            elif part == "..":
                raise DataError(f"{self.path(name)}: is a link that leaves the archive")
            elif part not in ("", "."):
                here.append(part)
                entry = self._entries.get("/".join(here))
                if isinstance(entry, _Link):
                    links += 1
                    if links > _LINKS:
                        raise DataError(f"{self.path(name)}: is a link that leads back to itself")
                    if entry.target.startswith("/"):
                        raise DataError(f"{self.path(name)}: is a link that leaves the archive")
                    here.pop()
                    pending += entry.target.split("/")[::-1]
        return "/".join(here)

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        path = self.path(name)
        entry = self._entries.get(name)
        if entry is None or isinstance(entry, _Link):  # None: it is below a folder that is a link
            target = self._follow(name)
            entry = self._entries.get(target)
            if entry is None:
                raise DataError(f"{path}: is a link to {printable(target)}, and no file of the archive is there")
        if isinstance(entry, _Unreadable):
            raise DataError(f"{path}: {entry.reason}")
        return self._contents(entry, path, limit)

    def path(self, name: str) -> str:
        return printable(f"{self._path}/{name}" if name else str(self._path))

    def real(self, folder: str) -> str:
        return self._follow(folder)


class _Zip(_Archive):
    def _list(self) -> None:
        self._open()
        stored = self._zip.infolist()
        check_unpacked(self.path(""), sum(info.file_size for info in stored), self._path.stat().st_size)
        for info in stored:
            written = _name_in_zip(info)
            name = relative(written)
            if name:
                self._entries[name] = None if written.endswith("/") else self._entry(info)

    def _open(self) -> None:
        self._zip, self._lock, self._process = zipfile.ZipFile(self._path), threading.Lock(), os.getpid()

    def _entry(self, info: zipfile.ZipInfo) -> Any:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.flag_bits & 1:
            return _Unreadable("is encrypted; unpack the archive with its password first")
        if kind == stat.S_IFLNK:
            target = self._contents(info, self.path(info.filename), limit=2**16)
            return _Link(target.decode("utf-8", "surrogateescape"))
        return _Unreadable(f"is {_KINDS[kind]}, not a file") if kind in _KINDS else info

    def _contents(self, entry: zipfile.ZipInfo, path: str, limit: int) -> bytes:
        check_size(path, entry.file_size, limit)
        check_unpacked(path, entry.file_size, entry.compress_size)
        if self._process != os.getpid():  # a fork shares the place in the open file, and perhaps a lock that is held
            self._open()
        try:
            with self._lock, self._zip.open(entry) as file:
                if entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    return file.read(entry.file_size)  # no more, whatever there is
                # zipfile unpacks all that it has read at once, however much that makes: little at a time.
                return b"".join(iter(lambda: file.read(4096), b""))
        except Exception as error:
            raise DataError(f"{path}: cannot be read from the archive ({error})") from error


def _name_in_zip(info: zipfile.ZipInfo) -> str:
    """A member's name. Where it does not say that it is UTF-8, zipfile has taken its bytes for DOS's letters: it is
    UTF-8 nevertheless where it can be, and else, on Unix, bytes without letters."""
    name = info.filename
    from_unix = info.create_system == 3
    if not info.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):  # no DOS letters: a field beside it had the name in Unicode
            stored = name.encode("cp437")
            name = stored.decode("utf-8", "surrogateescape" if from_unix else "strict")
    return name if from_unix else name.replace("\\", "/")


class _Member(NamedTuple):
    """A file in a tar. stored: its bytes, or where they begin in the archive. pieces: of a sparse file, (offset, bytes)
    of what is stored, with zeros between."""

    size: int
    stored: int | bytes
    pieces: tuple[tuple[int, int], ...] | None

    @property
    def stored_size(self) -> int:
        return self.size if self.pieces is None else sum(count for _, count in self.pieces)


class _Tar(_Archive):
    """A tar: read on demand where it is plain; where it is compressed once, its files kept as they were stored (JPEGs
    stay JPEGs)."""

    def _list(self) -> None:
        self._file = self._path.open("rb")
        self._kept = 0
        stream = Stream(self._file, self.path(""))
        for member in members(stream):
            name = relative(member.name)
            if name:
                self._entries[name] = self._entry(member, stream)

    def _entry(self, member: tarfile.TarInfo, stream: Stream) -> Any:
        if member.isdir() or member.type == b"D":  # D: GNU's folders of incremental archives
            return None
        if member.issym():
            return _Link(member.linkname)
        if member.islnk():  # to what has stood there until now
            missing = f"is a hard link to {printable(member.linkname)}, and no file of the archive is there"
            return self._entries.get(relative(member.linkname)) or _Unreadable(missing)
        if not member.isreg():
            kind = "a FIFO" if member.isfifo() else "a device" if member.isdev() else f"of the kind {member.type!r}"
            return _Unreadable(f"is {kind}, not a file")
        file = _Member(member.size, member.offset_data, sparse_map(member))
        if any(offset < 0 or count < 0 or offset + count > file.size for offset, count in file.pieces or ()):
            return _Unreadable("is a sparse file with a damaged map")
        if not stream.compressed:
            return file
        if file.stored_size > FILE_LIMIT:
            return _Unreadable(f"holds {file.stored_size:,} bytes, more than the {FILE_LIMIT:,} that can be read")
        self._kept += file.stored_size
        if self._kept > STREAMED_LIMIT:
            raise DataError(
                f"{self.path('')}: a compressed tar is read into memory, and this one holds more than "
                f"{STREAMED_LIMIT / 2**30:.3g} GiB; unpack it, or use a zip"
            )
        return file._replace(stored=stream.take(member.offset_data, file.stored_size))

    def _contents(self, entry: _Member, path: str, limit: int) -> bytes:
        check_size(path, max(entry.size, entry.stored_size), limit)
        data = entry.stored
        if isinstance(data, int):
            data = os.pread(self._file.fileno(), entry.stored_size, data)
        if len(data) < entry.stored_size:
            raise DataError(f"{path}: the archive is cut short")
        if entry.pieces is None:
            return data
        whole, place = bytearray(entry.size), 0
        for offset, count in entry.pieces:
            whole[offset : offset + count] = data[place : place + count]
            place += count
        return bytes(whole)
