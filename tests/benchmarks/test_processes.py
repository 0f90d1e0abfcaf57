"""benchmarks/processes.py: work in a process of its own, which may crash or hang alone."""

import multiprocessing
import os
import time

import pytest
from processes import LateError, StoppedError, messages


def test_messages_come_in_order():
    def work(send):
        for number in range(3):
            send((number, os.getpid()))

    found = list(messages(work))
    assert [number for number, _ in found] == [0, 1, 2]
    assert {process for _, process in found} != {os.getpid()}


def stopped(then):
    """Why the work stopped after its first message."""

    def work(send):
        send("first")
        then()

    found = messages(work)
    assert next(found) == "first"
    with pytest.raises(StoppedError) as why:
        next(found)
    return str(why.value)


def test_why_it_stopped():
    assert stopped(lambda: os.kill(os.getpid(), 9)) == "its process ended with -9"
    assert stopped(lambda: os._exit(3)) == "its process ended with 3"
    assert stopped(lambda: os._exit(0)) == "its process ended with 0"  # before its work did
    assert stopped(lambda: int("x\ny")) == "ValueError: invalid literal for int() with base 10: 'x\\ny'"


def test_what_takes_too_long_is_ended():
    with pytest.raises(LateError, match=r"^out of time$"):
        list(messages(lambda send: time.sleep(1000), 1.0, lambda: 60.0))
    assert not multiprocessing.active_children()


def test_what_hangs_is_ended_and_not_late():
    def work(send):
        for _ in range(3):
            time.sleep(0.5)
            send("here")
        time.sleep(1000)

    found = messages(work, 600.0, lambda: 3.0)
    assert [next(found) for _ in range(3)] == ["here"] * 3
    with pytest.raises(StoppedError, match=r"^it hangs: nothing for 3 s$") as why:
        next(found)
    assert not isinstance(why.value, LateError)
    assert not multiprocessing.active_children()


def test_nobody_waits_for_work_that_is_no_longer_wanted():
    def work(send):
        send("first")
        time.sleep(100)

    found = messages(work)
    next(found)
    found.close()
    assert not multiprocessing.active_children()
