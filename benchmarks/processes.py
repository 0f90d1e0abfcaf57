"""Work in a process of its own: a copy of this one, whose crash or delay is nobody else's."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from harness import first_line

Send = Callable[[Any], None]

OUT_OF_TIME = "out of time"


class StoppedError(RuntimeError):
    """The work did not come to its end; the message says why."""


class _Failure(str):
    """The first line of an exception of the work."""


def messages(work: Callable[[Send], None], seconds: float | None = None) -> Iterator[Any]:
    """What `work` sends. `StoppedError` where it raises, kills its process, or takes longer than `seconds`."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        receiver.close()
        try:
            work(sender.send)
        except Exception as failure:
            sender.send(_Failure(first_line(failure)))

    process = context.Process(target=run)
    process.start()
    sender.close()
    end = None if seconds is None else time.monotonic() + seconds
    try:
        while (message := _next(receiver, end)) is not _END:
            if isinstance(message, _Failure):
                raise StoppedError(str(message))
            yield message
        process.join(30)
        if process.exitcode:
            raise StoppedError(f"its process ended with {process.exitcode}")
    finally:
        receiver.close()
        process.kill()
        process.join(30)


_END = object()


def _next(receiver: Connection, end: float | None) -> Any:
    if end is not None and not receiver.poll(max(0.0, end - time.monotonic())):
        raise StoppedError(OUT_OF_TIME)
    try:
        return receiver.recv()
    except EOFError:
        return _END
