"""Memory of batches is used again when nobody holds it, and not before."""

import gc
import pickle
import threading

import numpy as np
import pytest

from zfcuda.data import buffers
from zfcuda.data.buffers import Buffers


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_that_nobody_holds_is_used_again():
    kept = Buffers()
    array = kept.empty((3, 4, 5, 2))
    assert (array.shape, array.dtype, array.flags.writeable, array.flags.c_contiguous) == ((3, 4, 5, 2), np.uint8, 1, 1)
    first = address(array)
    del array
    again = kept.empty((120,))
    assert address(again) == first
    assert address(kept.empty((120,))) != first  # it is held


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[3:7, 1],
        lambda array: array[5:].T[1:],
        lambda array: array.view(np.int8)[::2],
        lambda array: memoryview(array)[4:],
        lambda array: np.lib.stride_tricks.sliding_window_view(array, (2, 2)),
        lambda array: np.frombuffer(array, np.uint8)[10:],
    ],
)
def test_a_view_holds_the_memory(view):
    kept = Buffers()
    array = kept.empty((10, 8))
    array[:] = np.arange(80).reshape(10, 8)
    seen = view(array)
    before = np.array(seen)
    first = address(array)
    del array
    gc.collect()
    other = kept.empty((10, 8))
    assert address(other) != first
    other[:] = 255
    np.testing.assert_array_equal(np.array(seen), before)
    del seen
    assert address(kept.empty((10, 8))) == first


def test_what_is_too_small_or_too_much_is_not_kept(monkeypatch):
    monkeypatch.setattr(buffers, "_KEPT", 100)
    kept = Buffers()
    for size in (60, 40, 101):
        arrays = [kept.empty((size,)) for _ in range(3)]
        del arrays
        assert sum(memory.size for memory in kept._free) <= 100
    assert kept.empty((0,)).shape == (0,)
    assert kept.empty((2, 0, 3)).size == 0


def test_a_copy_in_another_process_begins_with_none():
    kept = Buffers()
    kept.empty((10,))
    assert pickle.loads(pickle.dumps(kept))._free == []


def test_threads_share_it():
    kept, wrong = Buffers(), []

    def fill(number):
        for size in range(1, 400):
            array = kept.empty((size % 7 + 1, 1000))
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
