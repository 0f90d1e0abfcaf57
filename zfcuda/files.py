"""Files, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LARGEST_TEXT = 2**28  # bytes


def write_atomically(path: str | os.PathLike[str], *data: bytes | memoryview) -> None:
    """Writes a file whole or not at all: beside, flushed to the disk, then renamed. OSError with the path if it cannot.

    What a killed process leaves beside has a name of its own for each path, so that the next write takes it away.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with os.fdopen(_opened_alone(temporary), "wb") as file:
            try:
                file.truncate()
                file.writelines(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _opened_alone(path: Path) -> int:
    """A descriptor of the file, new or old, that no other process writes to before this one has closed it."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            with contextlib.suppress(OSError):  # where there are no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever had it has renamed it meanwhile


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of this context. A second one does not."""
    if threading.current_thread() is not threading.main_thread():  # which alone gets it
        yield
        return
    pressed: list[Any] = []

    def wait(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(frame)

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed and callable(before):
        before(signal.SIGINT, pressed[0])


def read_text(path: str | os.PathLike[str]) -> str:
    """A text in UTF-8. OSError; ValueError where it is none, no file (one would wait for a FIFO's other end), or larger
    than 256 MiB."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a file")
    if found.st_size > _LARGEST_TEXT:
        raise ValueError(f"it holds {found.st_size:,} bytes, more than the {_LARGEST_TEXT:,} that can be read")
    return Path(path).read_text(encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a file of JSON holds. Errors as of `read_text`; ValueError also where it is no JSON, nested deeper than can
    be read, or names something twice, of which JSON readers keep the last."""
    return parse_json(read_text(path))


def parse_json(text: str | bytes) -> Any:
    """What JSON says. ValueError where it is none, nested deeper than can be read, or names something twice."""
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} is named twice")
    return found


def utf8(text: str) -> bytes:
    """Text as UTF-8. U+FFFD stands for what is none: names may be any bytes, which Python reads as surrogates."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text).encode()
