"""A model of CuPy, as far as zfcuda uses it: the values of its arrays are NumPy's, the emulator runs the kernels.

What it models is what CUDA graphs are about. While a stream is captured, work is recorded and not done, and what it
will make is unknown (poisoned); to read a value then is the error that it is in CUDA. A graph that is launched does the
recorded work on the same memory again, which must come from a pool that lives as long.
"""

from __future__ import annotations

import contextlib
import types
import weakref

import numpy as np


class CaptureError(RuntimeError):
    """As a `CUDARuntimeError` in CuPy."""


def _read(name):
    return lambda self, *args: getattr(self.get(), name)(*args)


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    def __init__(self, cupy, values):
        self.cupy = cupy
        self.values = values

    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    flags = property(lambda self: self.values.flags)
    device = property(lambda self: types.SimpleNamespace(id=self.cupy.gpu))
    data = property(lambda self: types.SimpleNamespace(ptr=self.values.ctypes.data))
    __cuda_array_interface__ = property(lambda self: {"data": (self.values.ctypes.data, False)})

    def __len__(self):
        return len(self.values)

    # ---- Views ----

    def _view(self, values):
        assert np.shares_memory(values, self.values)
        return ndarray(self.cupy, values)

    def reshape(self, *shape):
        return self._view(self.values.reshape(*shape))

    def view(self, dtype):
        return self._view(self.values.view(dtype))

    def __getitem__(self, index):
        if isinstance(index, tuple) and any(isinstance(at, ndarray) for at in index):
            return self.cupy.compute(lambda values, *at: values[at], self, *index)
        return self._view(self.values[index])

    # ---- Work on the device ----

    def __setitem__(self, index, value):
        def assign(target, value):
            target[index] = value

        self.cupy.work(assign, self, value)

    def set(self, values):
        self.cupy.wait()
        self.values[...] = values

    def fill(self, value):
        self.cupy.work(lambda target: target.fill(value), self)

    def copy(self):
        return self.cupy.compute(np.copy, self)

    def astype(self, dtype):
        return self.cupy.compute(lambda values: values.astype(dtype), self)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        assert method == "__call__"
        if out is not None:
            (target,) = out
            self.cupy.work(lambda target, *inputs: ufunc(*inputs, out=target, **options), target, *inputs)
            return target
        return self.cupy.compute(lambda *inputs: ufunc(*inputs, **options), *inputs)

    def __getattr__(self, name):
        if name not in {"sum", "min", "max", "argmax", "any", "all"}:
            raise AttributeError(name)
        return lambda *args, **options: self.cupy.compute(lambda values: getattr(values, name)(*args, **options), self)

    # ---- What waits for the device ----

    def get(self, out=None, blocking=True):
        if blocking:
            self.cupy.wait()
        if out is None:
            return self.values.copy()
        out[...] = self.values
        return out

    __int__, __float__, __bool__, __index__ = (
        _read("__int__"),
        _read("__float__"),
        _read("__bool__"),
        _read("__index__"),
    )
    item, tolist = _read("item"), _read("tolist")


ndarray.__module__ = "cupy"


class Memory:
    """What a graph knows of an array: where it is. It keeps nothing alive."""

    def __init__(self, values):
        owner = values
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        self._owner = weakref.ref(owner)
        offset = values.ctypes.data - owner.ctypes.data
        self._form = {"shape": values.shape, "dtype": values.dtype, "offset": offset, "strides": values.strides}

    def __call__(self):
        owner = self._owner()
        assert owner is not None, "a graph uses memory that has been freed"
        return np.ndarray(buffer=owner, **self._form)


class Stream:
    """Work on arrays is done at once; what other libraries put behind it (`later`) when something waits for it. seen:
    how much of the work it comes after."""

    def __init__(self, cupy, ptr):
        self.cupy = cupy
        self.ptr = ptr
        self.recorded = None
        self.seen = 0
        self._later = []

    def later(self, work):
        self._later.append(work)

    def finish(self, count):
        """The first so many of all that was put behind it."""
        for number, work in enumerate(self._later[:count]):
            if work is not None:
                self._later[number] = None
                work()

    def synchronize(self):
        self.finish(len(self._later))

    def wait_event(self, event):
        self.cupy.calls.append(("wait", self.ptr))
        self.seen = max(self.seen, event.seen)
        event.stream.finish(event.later)

    def __enter__(self):
        self.cupy.streams.append(self)

    def __exit__(self, *_):
        self.cupy.streams.pop()

    def begin_capture(self):
        assert self.ptr, "the default stream cannot be captured"
        self.recorded = []

    def is_capturing(self):
        return self.recorded is not None

    def end_capture(self):
        recorded, self.recorded = self.recorded, None
        self.cupy.captures += 1
        return types.SimpleNamespace(launch=lambda: self.cupy.launch(recorded))


class MemoryPool:
    def __init__(self):
        self.blocks = []

    def malloc(self, values):
        self.blocks.append(values)
        return values


class Kernels:
    """The module of a backend (or a submodule), each of whose operations is work on a stream."""

    def __init__(self, module, cupy):
        self._module, self._cupy = module, cupy

    def __getattr__(self, name):
        function = getattr(self._module, name)
        if isinstance(function, types.ModuleType):
            return Kernels(function, self._cupy)
        if isinstance(function, type) or name.endswith("_workspace"):
            return function
        return lambda *args: self._cupy.work(lambda: function(*args))


class Cupy:
    """The module. captures, launches: how many graphs there were; plain: how much work was done without one."""

    ndarray = ndarray
    float32 = np.float32

    def __init__(self, gpus=1):
        self.gpu = 0  # which of them is the current one; all arrays are there
        self.streams = [Stream(self, 0)]
        self.made = []  # streams, by their ptr - 1
        self.captures = self.launches = self.plain = 0
        self.calls = []  # events that were recorded and waited for: what, on which stream
        self._pool = None
        self.cuda = types.SimpleNamespace(
            Stream=self._stream,
            MemoryPool=MemoryPool,
            Event=lambda block=False, disable_timing=False, interprocess=False: Event(self, disable_timing),
            Device=lambda number=None: Device(self, self.gpu if number is None else number),
            runtime=types.SimpleNamespace(getDeviceCount=lambda: gpus),
            using_allocator=self._using_allocator,
            get_current_stream=lambda: self.streams[-1],
        )

    def _stream(self, null=False, non_blocking=False, ptds=False, priority=None):
        assert non_blocking, "it would wait for the default stream, and that for it"
        self.made.append(Stream(self, len(self.made) + 1))
        return self.made[-1]

    @contextlib.contextmanager
    def _using_allocator(self, malloc):
        self._pool, before = malloc.__self__, self._pool
        yield
        self._pool = before

    def get_default_memory_pool(self):
        return types.SimpleNamespace(free_all_blocks=lambda: None)

    # ---- Work ----

    @property
    def recorded(self):
        return self.streams[-1].recorded

    def wait(self):
        if self.recorded is not None:
            raise CaptureError("operation not permitted when stream is capturing")

    def work(self, function, *args):
        values = [arg.values if isinstance(arg, ndarray) else arg for arg in args]
        if self.recorded is None:
            self.plain += 1
            function(*values)
        else:
            held = [Memory(value) if isinstance(value, np.ndarray) else value for value in values]
            self.recorded.append((function, held))

    def launch(self, recorded):
        self.launches += 1
        for function, values in recorded:
            function(*(value() if isinstance(value, Memory) else value for value in values))

    def compute(self, function, *args):
        """A new array with the function's result, which a launched graph computes anew."""
        values = [arg.values if isinstance(arg, ndarray) else arg for arg in args]
        result = np.asarray(function(*values))
        array = self.empty(result.shape, result.dtype)
        self.work(lambda target, *values: np.copyto(target, function(*values)), array, *args)
        return array

    # ---- Functions ----

    def empty(self, shape, dtype=np.float32):
        values = np.empty(shape, dtype)
        values.reshape(-1).view(np.uint8)[...] = 0xFF
        if self.recorded is not None and self._pool is None:
            raise AssertionError("memory of the common pool in a graph")
        return ndarray(self, values if self._pool is None else self._pool.malloc(values))

    def empty_like(self, array):
        return self.empty(array.shape, array.dtype)

    def zeros(self, shape, dtype):
        array = self.empty(shape, dtype)
        array.fill(0)
        return array

    def zeros_like(self, array):
        return self.zeros(array.shape, array.dtype)

    def asarray(self, values):
        if isinstance(values, ndarray):
            return values
        self.wait()
        array = self.empty(np.shape(values), np.asarray(values).dtype)
        array.values[...] = values
        return array

    def ascontiguousarray(self, array):
        return array if array.flags.c_contiguous else array.copy()

    def multiply(self, a, b, out):
        return np.multiply(a, b, out=out)

    def may_share_memory(self, a, b):
        return np.may_share_memory(a.values, b.values)

    def arange(self, n):
        return self.compute(lambda: np.arange(n))

    def take(self, array, indices, axis=None):
        return self.compute(lambda values, at: np.take(values, at, axis, mode="wrap"), array, indices)

    def sqrt(self, array):
        return self.compute(np.sqrt, array)

    def log(self, array):
        return self.compute(np.log, array)

    def maximum(self, a, b):
        return self.compute(np.maximum, a, b)

    def abs(self, array):
        return self.compute(np.abs, array)

    def isfinite(self, array):
        return self.compute(np.isfinite, array)

    def count_nonzero(self, array):
        return self.compute(np.count_nonzero, array)

    def nonzero(self, array):
        self.wait()
        return tuple(self.asarray(index) for index in np.nonzero(array.values))


class Device:
    def __init__(self, cupy, number):
        self.cupy = cupy
        self.id = number
        self.pci_bus_id = f"0000:0{number}:00.0"

    def use(self):
        self.cupy.gpu = self.id

    def __enter__(self):
        assert self.id == self.cupy.gpu
        return self

    def __exit__(self, *_):
        pass


class Event:
    def __init__(self, cupy, disable_timing):
        assert disable_timing
        self.cupy = cupy

    def record(self, stream=None):
        self.stream = stream or self.cupy.streams[-1]
        self.cupy.calls.append(("record", self.stream.ptr))
        # Work is counted for all but the streams of `later`, which see what they have waited for.
        self.later = len(self.stream._later)
        self.seen = self.stream.seen if self.later else self.cupy.plain

    def synchronize(self):
        self.stream.finish(self.later)
