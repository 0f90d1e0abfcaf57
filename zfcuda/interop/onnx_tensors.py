"""The constants of ONNX files: tensors inside of them or in files beside them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

_DTYPES = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "INT16", "INT32", "INT64", "UINT8", "BOOL")
_LARGEST = 2**28  # numbers of a tensor outside of the file: thrice those of VGG's first fully connected layer


def array(tensor: onnx.TensorProto, folder: Path) -> np.ndarray:
    """ValueError if it does not hold what it says. `folder` is the model's, the only one that is read from."""
    kinds = {onnx.TensorProto.DataType.Value(name): name for name in _DTYPES}
    if tensor.data_type not in kinds:
        raise ValueError(f"tensor {tensor.name} is of data type {tensor.data_type}; read are {', '.join(_DTYPES)}")
    dims = tuple(tensor.dims)
    if min(dims, default=0) < 0:
        raise ValueError(f"tensor {tensor.name} has dimensions {dims}")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        return _external(tensor, folder, dtype, dims)
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ValueError(f"tensor {tensor.name} does not hold what its dimensions {dims} say: {error}") from error


def _external(tensor: onnx.TensorProto, folder: Path, dtype: np.dtype, dims: tuple[int, ...]) -> np.ndarray:
    given = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset = int(given.get("offset") or 0)
        length = int(given["length"]) if given.get("length") else None
    except ValueError:
        raise ValueError(f"tensor {tensor.name}: offset and length of its data must be numbers, got {given}") from None
    size = math.prod(dims) * dtype.itemsize
    if math.prod(dims) > _LARGEST:
        raise ValueError(f"tensor {tensor.name} of {dims} is too large; at most {_LARGEST:,} numbers are allowed")
    if length not in (None, size):
        raise ValueError(f"tensor {tensor.name} of {dims} needs {size} bytes; its external data has {length}")
    data = _read_beside(folder, given.get("location", ""), offset, size, f"tensor {tensor.name}")
    return np.frombuffer(data, dtype.newbyteorder("<") if dtype.kind != "V" else dtype).reshape(dims)


def constant(node: onnx.NodeProto, folder: Path) -> np.ndarray:
    """The value of a node "Constant"; ValueError if it is not of numbers."""
    (attribute,) = [one for one in node.attribute if one.name.startswith(("value", "sparse"))][:1] or [None]
    value = None if attribute is None else onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return array(value, folder)
    if attribute is None or attribute.name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError(f"constant {node.output[0]} must be numbers")
    return np.array(value, np.float32 if "float" in attribute.name else np.int64)


def _read_beside(folder: Path, location: str, offset: int, size: int, what: str) -> bytes:
    """A part of a file in the model's folder, or in one inside it."""
    file = folder / location
    try:
        if not location or not file.resolve().is_relative_to(folder.resolve()) or ".." in Path(location).parts:
            raise ValueError(f"{what}: its data must lie in the model's folder, not in {location[:99]!r}")
        if not file.is_file():
            raise ValueError(f"{what}: its data is missing, {file}")
    except (OSError, RuntimeError) as error:  # a name that is too long; links without end, which are either
        raise ValueError(f"{what}: its data cannot be looked for, {location[:99]!r}: {error}") from error
    held = file.stat().st_size
    if offset < 0 or offset + size > held:
        raise ValueError(f"{what}: bytes {offset} to {offset + size} of {file} are wanted, which has {held}")
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(size)
