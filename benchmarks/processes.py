"""Work in a process of its own: a copy of this one, whose crash or delay is nobody else's."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from enum import Enum
from multiprocessing.connection import Connection
from typing import Any

from harness import first_line

Send = Callable[[Any], None]

OUT_OF_TIME = "out of time"


class StoppedError(RuntimeError):
    """The work did not come to its end; the message says why."""


class LateError(StoppedError):
    """The time for all of the work was over, which is no fault of the work."""

    def __init__(self) -> None:
        super().__init__(OUT_OF_TIME)


class _Failure(str):
    """The first line of an exception of the work."""


def exit_when_stopped() -> None:
    """By SIGTERM, or SIGHUP where nobody ignores that: this process ends as by Ctrl-C, and leaves none of its own."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def messages(
    work: Callable[[Send], None], seconds: float | None = None, each: Callable[[], float] | None = None
) -> Iterator[Any]:
    """What `work` sends. `LateError` where that takes longer than `seconds`, `StoppedError` where the work raises, its
    process ends before it, or a message takes longer than the seconds of `each()`: it hangs."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        receiver.close()
        try:
            work(sender.send)
            sender.send(_End.DONE)
        except Exception as failure:
            sender.send(_Failure(first_line(failure)))

    process = context.Process(target=run)
    process.start()
    sender.close()
    end = None if seconds is None else time.monotonic() + seconds
    try:
        while not isinstance(message := _next(receiver, end, each() if each else None), _End):
            if isinstance(message, _Failure):
                raise StoppedError(str(message))
            yield message
        process.join(30)
        if process.exitcode or message is _End.GONE:
            raise StoppedError(f"its process ended with {process.exitcode}")
    finally:
        receiver.close()
        process.kill()
        process.join(30)


class _End(Enum):
    """Of the messages: all are there, or the process sends no more."""

    DONE, GONE = range(2)


def _next(receiver: Connection, end: float | None, patience: float | None) -> Any:
    left = None if end is None else max(0.0, end - time.monotonic())
    waits = [one for one in (left, patience) if one is not None]
    if waits and not receiver.poll(min(waits)):
        if patience is not None and patience == min(waits):
            raise StoppedError(f"it hangs: nothing for {patience:.0f} s")
        raise LateError
    try:
        return receiver.recv()
    except EOFError:
        return _End.GONE
