"""What the emulator is told of the arrays of a call: zfcuda/_emulation.py."""

import types

import numpy as np
import pytest

from zfcuda._emulation import CheckedBackend


class Debug:
    def __init__(self):
        self.known, self.forgotten = [], 0

    def register_array(self, address, size, is_written, name):
        self.known.append((address, size, is_written, name))

    def forget_arrays(self):
        self.forgotten += 1


@pytest.fixture
def backend():
    module = types.SimpleNamespace(empty=np.empty, address=lambda array: array.ctypes.data, debug=Debug())
    return CheckedBackend(module)


def test_the_arrays_of_a_call_are_known_until_it_ends(backend):
    debug = backend.module.debug
    x, y = np.ones(3, np.float32), backend.empty((3,))

    def operation(size, x, none, y, scratch, stream):
        assert (size, none, stream) == (3, None, None)
        assert debug.known == [
            (x.ctypes.data, 12, True, "array 0 of the call, float32 (3,),"),
            (y.ctypes.data, 12, False, "array 1 of the call, float32 (3,),"),
            (scratch.ctypes.data, 40, False, "array 2 of the call, uint8 (40,),"),
        ]
        assert debug.forgotten == 0

    backend.run(operation, (3, x, None, y), (lambda items: 4 * items, 10))
    assert debug.forgotten == 1

    debug.known.clear()
    backend.run(lambda *arguments: None, (y,), ())
    assert [is_written for _, _, is_written, _ in debug.known] == [True]


def test_they_are_forgotten_where_it_fails(backend):
    def operation(*arguments):
        raise RuntimeError("out of bounds")

    with pytest.raises(RuntimeError, match="out of bounds"):
        backend.run(operation, (backend.empty((2,)),), ())
    assert backend.module.debug.forgotten == 1
