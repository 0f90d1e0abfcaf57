"""Tar archives, front to back, whole or an error."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from .limits import check_unpacked

BLOCK = tarfile.BLOCKSIZE
_HEADER_LIMIT = 2**20  # of all that a system says about one file
_CHUNK = 2**20


def is_tar(block: bytes) -> bool:
    """Whether a tar begins with this block: a file's header, or (an empty archive) zeros."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return block == bytes(BLOCK)
    return True


class Stream:
    """A tar, plain or compressed, as tarfile reads it: front to back, no bomb unpacked."""

    def __init__(self, file: BinaryIO, path: str):
        self._file, self._unpacked, self._path = file, _decompressor(file), path
        self._place = 0
        self._last = b""  # what was read last

    @property
    def compressed(self) -> bool:
        return self._unpacked is not None

    def tell(self) -> int:
        return self._place

    def read(self, size: int) -> bytes:
        """What tarfile reads: it is only asked for headers."""
        if not 0 <= size <= _HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._read(size)

    def seek(self, place: int) -> None:
        if place < self._place:
            raise tarfile.ReadError("a header that leads backwards")
        if not self.compressed:
            self._file.seek(place)
            self._place = place
        while self._place < place and self._read(min(place - self._place, _CHUNK)):
            pass

    def take(self, place: int, size: int) -> bytes:
        """The bytes of a file."""
        self.seek(place)
        data = self._read(size)
        if len(data) < size:
            raise tarfile.ReadError("unexpected end of data")
        return data

    def check_end(self) -> None:
        """What tarfile does not look at: whether it came to the end mark, or gave up without a word at a damaged header
        or where the file was cut between two members; whether there is more; a compressed file's checksum."""
        if self._last != bytes(BLOCK):
            raise tarfile.ReadError(f"neither a file nor the end mark at byte {self._place - len(self._last)}")
        rest = self._read(_CHUNK)
        start = (len(rest) - len(rest.lstrip(b"\0"))) // BLOCK * BLOCK
        if start < len(rest) and is_tar(rest[start : start + BLOCK]):
            raise tarfile.ReadError("another archive follows behind the end mark; unpack it with tar -i")
        while self.compressed and rest:
            rest = self._read(_CHUNK)

    def _read(self, size: int) -> bytes:
        self._last = (self._unpacked or self._file).read(size)
        self._place += len(self._last)
        if self.compressed:
            check_unpacked(self._path, self._place, self._file.tell())
        return self._last


def _decompressor(file: BinaryIO) -> Any:
    start = file.read(6)
    file.seek(0)
    if start[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=file)
    if start == b"\xfd7zXZ\0":
        return lzma.LZMAFile(file)
    return bz2.BZ2File(file) if start[:3] == b"BZh" else None


def members(stream: Stream) -> Iterator[tarfile.TarInfo]:
    """All members of a tar. An error where it is not whole."""
    try:
        tar: Any = tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
    except tarfile.ReadError as error:
        raise tarfile.ReadError(f"it holds no tar: {error}") from error
    while (member := tar.next()) is not None:
        tar.members = []  # it would keep them all
        if member.size < 0 or tar.offset <= member.offset:
            raise tarfile.ReadError("a file of a negative size")
        yield member
    stream.check_end()


def sparse_map(member: tarfile.TarInfo) -> tuple[tuple[int, int], ...] | None:
    """(offset, bytes) of each piece that is stored of a sparse file, None for any other."""
    pieces: Any = member.sparse
    return None if pieces is None else tuple(pieces)
