"""What the arguments of an operation are checked for, at the border between Python's arrays and a backend.

An error names the argument, what it was and what is allowed: ValueError for shapes and values, TypeError for dtypes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal

import numpy as np

from .._devices import BFLOAT16, FLOAT32, Array, Backend
from ..backends import not_none
from ..numbers import check_number, check_whole
from ..pairs import IntPair, Padding, check_padding, check_pair

Precision = Literal["fp32", "tf32"]

# Of the elements of an array whose axes have a meaning: kernels index with 32 bits (csrc/shapes.h).
MAX_ELEMENTS = 2**31 - 2**16


def check_input(backend: Backend, name: str, array: Array, ndim: int | None, dtype: Any = FLOAT32) -> Array:
    """The argument, contiguous and aligned, after checks of its dtype, rank and size."""
    if not_none(name, array).dtype != dtype:
        raise TypeError(f"{name} must be {np.dtype(dtype).name}, got {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {array.shape}")
    size = array.size
    if size == 0:
        raise ValueError(f"{name} is empty: shape {array.shape}")
    if size > MAX_ELEMENTS and ndim is not None:
        raise ValueError(f"{name} has shape {array.shape}; at most {MAX_ELEMENTS} elements are allowed")
    contiguous = backend.xp.ascontiguousarray(array)
    if not backend.is_aligned(contiguous):
        contiguous = contiguous.copy()
    return contiguous if array.ndim else contiguous.reshape(())  # which has become (1,)


def check_indexable(name: str, array: Array) -> None:
    """Checks that 32-bit integers, with which kernels count the elements, can: before it is copied."""
    if array.size >= 2**31:
        raise ValueError(f"{name} has {array.size} elements; at most {2**31 - 1} are allowed")


def element_type(name: str, array: Array, precision: str = "fp32") -> np.dtype:
    """The dtype of the first array of an operation on float32 or bfloat16, which its other arrays must share."""
    dtype = not_none(name, array).dtype
    if dtype is FLOAT32 and precision == "fp32":  # nearly always
        return dtype
    if dtype not in (FLOAT32, BFLOAT16):
        raise TypeError(f"{name} must be float32 or bfloat16, got {dtype}")
    if precision not in ("fp32", "tf32"):
        raise ValueError(f"precision must be fp32 or tf32, got {precision!r}")
    if precision == "tf32" and dtype != FLOAT32:
        raise ValueError(f"precision tf32 is for float32 arrays, but {name} is {dtype}")
    return dtype


def expect_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")


def row_pitch(array: Array) -> int | None:
    """How many elements the rows of an array (..., C) lie apart: C, or more if they are channels of the rows of a wider
    array; None if they are not, or are too far apart to be indexed."""
    shape, strides = array.shape, array.strides
    if array.flags.c_contiguous:
        return shape[-1]
    pitch, rest = divmod(strides[-2], array.itemsize)
    even = all(strides[i] == strides[i + 1] * shape[i + 1] for i in range(array.ndim - 2))
    in_rows = strides[-1] == array.itemsize and not rest and even and 0 < shape[-1] <= pitch
    return pitch if in_rows and array.size // shape[-1] * pitch < 2**31 else None


def check_in_place(backend: Backend, name: str, array: Array, dtype: Any = FLOAT32) -> None:
    """Checks an array that an operation writes to."""
    _check_writable(backend, name, array, dtype)
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous, since it is written to")


def _check_writable(backend: Backend, name: str, array: Array, dtype: Any) -> None:
    if not_none(name, array).dtype != dtype:
        raise TypeError(f"{name} must be {np.dtype(dtype).name}, got {array.dtype}")
    if not backend.is_aligned(array):
        raise ValueError(f"{name} must lie at a multiple of its elements' size, since it is written to")
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        raise ValueError(f"{name} is read-only, but it is written to")


def check_apart(backend: Backend, out: Array | None, *inputs: Array | None, may_alias: bool = False) -> None:
    """Checks that `out` shares no memory with these inputs, as they were given: one that does may not be copied first.
    With `may_alias` it may be one of them."""
    if out is None:
        return
    for array in inputs:
        if array is None or not backend.xp.may_share_memory(out, array):
            continue
        same = array.shape == out.shape and array.dtype == out.dtype
        if may_alias and same and backend.pointer(out) == backend.pointer(array):
            continue
        if not _side_by_side(backend, out, array):
            raise ValueError("out must not share memory with an input of this operation")


def _side_by_side(backend: Backend, one: Array, other: Array) -> bool:
    """Whether two arrays are different channels of the rows of a wider one."""
    if one.dtype != other.dtype or min(one.ndim, other.ndim) < 2 or not (one.size and other.size):
        return False
    pitch = row_pitch(one)
    if pitch is None or row_pitch(other) != pitch:
        return False
    first, rest = divmod(backend.pointer(other) - backend.pointer(one), one.itemsize)
    first %= pitch
    return not rest and one.shape[-1] <= first <= pitch - other.shape[-1]


def check_output(backend: Backend, out: Array | None, shape: tuple[int, ...], *, dtype: Any = FLOAT32) -> Array:
    """`out` after checks, or a new array."""
    if out is None:
        return backend.empty(shape, dtype)
    expect_shape("out", out, shape)
    check_in_place(backend, "out", out, dtype)
    return out


def check_channels_output(
    backend: Backend, out: Array | None, shape: tuple[int, ...], *, dtype: Any
) -> tuple[Array, int]:
    """As `check_output`, but `out` may be channels of a wider array; and how many elements its rows lie apart."""
    if out is None or out.flags.c_contiguous:
        return check_output(backend, out, shape, dtype=dtype), shape[-1]
    expect_shape("out", out, shape)
    _check_writable(backend, "out", out, dtype)
    pitch = row_pitch(out)
    if pitch is None:
        raise ValueError("out must be C-contiguous or channels of a wider array, since it is written to")
    return out, pitch


@functools.lru_cache(maxsize=4096)
def geometry(kind: Callable[..., Any], *sizes: Any) -> Any:
    """A shape struct of a backend's module, of ints and tuples of ints that have been checked: it checks the geometry,
    which takes longer than all else of a call, and networks ask for the same ones again and again."""
    return kind(*sizes)


def conv_shape(
    backend: Backend, x: tuple, w: tuple, stride: IntPair, padding: Padding, dilation: IntPair, groups: int
) -> Any:
    sizes = check_pair("stride", stride), check_padding("padding", padding), check_pair("dilation", dilation)
    return geometry(backend.module.ConvShape, x, w, *sizes, check_groups(groups))


def check_groups(groups: int) -> int:
    groups = check_whole("groups", groups)
    if not 1 <= groups < 2**31:
        raise ValueError(f"groups must be at least 1 and divide the channels, got {groups}")
    return groups


def filters_of(x: Array, dy: Array, kernel_size: IntPair, groups: int) -> tuple[int, int, int, int]:
    """The shape of the filters between x and dy."""
    channels, rest = divmod(x.shape[3], check_groups(groups))
    if rest:
        raise ValueError(f"groups must divide the channels of x, {x.shape[3]}, got {groups}")
    return (dy.shape[3], *check_pair("kernel_size", kernel_size), channels)


def pool_shape(
    backend: Backend,
    x: tuple,
    window: IntPair,
    stride: IntPair,
    padding: Padding,
    ceil_mode: bool,
    *,
    prefix: str = "",
) -> Any:
    """`prefix`: of the names that stride and padding have as arguments."""
    sizes = check_pair(prefix + "stride", stride), check_padding(prefix + "padding", padding)
    return geometry(backend.module.PoolShape, x, check_pair("window", window), *sizes, bool(ceil_mode))


def check_maps(backend: Backend, name: str, values: Array | None, maps: int) -> Array | None:
    """None, or a number for each map."""
    if values is None:
        return None
    values = check_input(backend, name, values, 1)
    expect_shape(name, values, (maps,))
    return values


def check_switches(backend: Backend, y: Array, switches: Array) -> Array:
    switches = check_input(backend, "switches", switches, 4, np.uint8)
    expect_shape("switches", switches, y.shape)
    return switches


def array_or_none(number: float | Array) -> Array | None:
    """What `resolve` is to look at of an argument that may be a number of Python's or an array of shape ()."""
    return number if isinstance(number, np.ndarray) or not isinstance(number, Real) else None


def place_number(backend: Backend, name: str, number: float | Array, dtype: Any) -> Array:
    """A number where the arrays of the operation are: an array of shape (), checked, or one made of Python's number."""
    array = array_or_none(number)
    if array is not None:
        expect_shape(name, array, ())
        if array.dtype != dtype:
            raise TypeError(f"{name} must be {np.dtype(dtype).name}, got {array.dtype}")
        return array
    check = check_number if np.issubdtype(dtype, np.floating) else check_whole
    return backend.number(check(name, number), dtype)
