"""Networks from the files of torch.export.save (.pt2), of PyTorch 2.8 and newer. PyTorch is not needed.

Such a file is a zip with the program as JSON and the weights as plain bytes, which is all that is looked at: what may
be pickled in it (sample inputs, objects) is not, and no expression in it is evaluated, as torch.export.load would.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import BFLOAT16
from ..errors import CheckpointError
from ..nn import Network
from .aten import Call, Ref
from .graph import MALFORMED
from .program import Program, is_own, translate
from .reader import read

if TYPE_CHECKING:
    from ..data import Preprocess

__all__ = ["load"]

_SCHEMA = 8  # the major version of the JSON
_LARGEST_JSON = 2**28
# Where it is open: numbers that no program mentions, as it may in y[:2]. What depends on them is another network for
# the one than for the other.
_BATCHES = (13, 17)
_REPEATED = 2**24  # numbers of a tensor that stands on fewer, by strides of 0
_DTYPES = {
    **{1: np.dtype(np.uint8), 2: np.dtype(np.int8), 3: np.dtype("<i2"), 4: np.dtype("<i4"), 5: np.dtype("<i8")},
    **{6: np.dtype("<f2"), 7: np.dtype("<f4"), 8: np.dtype("<f8"), 12: np.dtype(np.bool_), 13: BFLOAT16},
}


def load(
    path: str | os.PathLike[str],
    *,
    preprocess: Preprocess | None = None,
    classes: Sequence[str] | None = None,
    output: str | None = None,
    head: str | None = None,
    bgr: bool = False,
) -> Network:
    """The network of a file that torch.export.save wrote; arguments and layers as of `interop.torch.from_module`.

    Where the model computes with the number of images (as y * x.size(0)), that is refused if the batch was exported as
    open, by dynamic_shapes=({0: torch.export.Dim("batch")},); else the file says a number like any other.

    FileNotFoundError if there is no such file; CheckpointError, with the path, if it is none of these files, damaged,
    of an older PyTorch, or has weights that are pickled, open sizes, or nodes that cannot be read: then it lists them.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no exported program at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            program = _program(_Archive(archive))
        return read(translate(program), output=output, preprocess=preprocess, classes=classes, head=head, bgr=bgr)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: no file of torch.export.save, or one that is damaged ({error})") from error
    except (*MALFORMED, RecursionError) as error:
        raise CheckpointError(f"{path}: does not describe a program as this version reads it ({error!r})") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


class _Archive:
    """The members of a file, below its one folder."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._members = {info.filename.partition("/")[2]: info for info in archive.infolist()}

    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str, limit: int) -> bytes:
        info = self._members.get(name)
        if info is None:
            raise ValueError(f"no file of torch.export.save of PyTorch 2.8 or newer: it has no {name}; export it again")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
            raise ValueError(f"{name} must be stored uncompressed, of at most {limit:,} bytes")
        return self._archive.read(info)

    def json(self, name: str) -> Any:
        return json.loads(self.read(name, _LARGEST_JSON))


def _program(archive: _Archive) -> Program:
    models = [name for name in archive.names() if name.startswith("models/") and name.endswith(".json")]
    if len(models) != 1:
        raise ValueError(f"no file of torch.export.save of PyTorch 2.8 or newer: it has {len(models)} models, not 1")
    name = models[0].removeprefix("models/").removesuffix(".json")
    model = archive.json(models[0])
    if model["schema_version"]["major"] != _SCHEMA:
        raise ValueError(
            f"the version of its format is {model['schema_version']}, and {_SCHEMA} is read; export it again"
        )
    if archive.read("byteorder", 16).strip() != b"little":
        raise ValueError("its numbers must be little-endian")
    graph, signature = model["graph_module"]["graph"], model["graph_module"]["signature"]
    held = _tensors(archive, "weights", name) | _tensors(archive, "constants", name)
    inputs, constants = [], {}
    for spec in signature["input_specs"]:
        ((kind, given),) = spec.items()
        if kind == "user_input":
            inputs.append(_input(given["arg"], graph["tensor_values"]))
            continue
        field = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
        if kind not in field:
            raise ValueError(f"its inputs must be tensors, parameters and buffers, got {kind}")
        constants[given["arg"]["name"]] = held[given[field[kind]]]
    outputs = [spec["user_output"]["arg"] for spec in signature["output_specs"] if "user_output" in spec]
    names = tuple(one["as_tensor"]["name"] for one in outputs if "as_tensor" in one)
    calls = [_call(node) for node in graph["nodes"]]
    program, other = (
        Program([(one, (fixed or batch, *sizes)) for one, fixed, sizes in inputs], constants, calls, names)
        for batch in _BATCHES
    )
    return program if all(fixed for _, fixed, _ in inputs) else dataclasses.replace(program, other=other)


def _input(given: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[str, int, list[int]]:
    """The name of an input, its batch, 0 where that is open, and its other sizes."""
    if "as_tensor" not in given:
        raise ValueError(f"its inputs must be tensors, got {next(iter(given), 'nothing')}")
    name = given["as_tensor"]["name"]
    batch, *sizes = (size.get("as_int") for size in values[name]["sizes"])
    if any(size is None for size in sizes):
        raise ValueError(f"its input {name} has open sizes: export it with fixed ones (only the batch may be open)")
    return name, batch or 0, sizes


def _tensors(archive: _Archive, folder: str, model: str) -> dict[str, np.ndarray]:
    found = {}
    for name, entry in archive.json(f"data/{folder}/{model}_{folder}_config.json")["config"].items():
        if entry["use_pickle"]:
            raise ValueError(f"{name} is pickled, and no pickle is read: export the model with plain tensors")
        found[name] = _tensor(name, entry["tensor_meta"], archive, f"data/{folder}/{entry['path_name']}")
    return found


def _tensor(name: str, meta: Mapping[str, Any], archive: _Archive, member: str) -> np.ndarray:
    if meta["dtype"] not in _DTYPES:
        raise ValueError(f"{name} is of data type {meta['dtype']}, which is not read")
    dtype = _DTYPES[meta["dtype"]]
    sizes, strides = ([int(one["as_int"]) for one in meta[field]] for field in ("sizes", "strides"))
    offset = int(meta["storage_offset"]["as_int"])
    if min([offset, *sizes, *strides], default=0) < 0 or math.prod(sizes) * dtype.itemsize >= 2**40:
        raise ValueError(f"{name} has sizes {sizes}, strides {strides} and offset {offset}")
    if 0 in sizes:
        return np.zeros(sizes, dtype)
    data = archive.read(member, 2**40)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if (last + 1) * dtype.itemsize > len(data):
        raise ValueError(
            f"{name} of {sizes} needs {(last + 1) * dtype.itemsize:,} bytes, and {member} has {len(data):,}"
        )
    if math.prod(sizes) > max(len(data) // dtype.itemsize, _REPEATED):
        raise ValueError(f"{name} of {sizes} repeats the numbers of {member}; at most {_REPEATED:,} may be made so")
    flat = np.frombuffer(data, dtype, len(data) // dtype.itemsize)[offset:]
    steps = [stride * dtype.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(flat, sizes, steps, writeable=False)


def _call(node: Mapping[str, Any]) -> Call:
    outputs: list[str] = []
    for output in node["outputs"]:
        for kind, value in output.items():
            several = value if isinstance(value, list) else [value]
            outputs += [str(one.get("name", one.get("as_name"))) for one in several if isinstance(one, dict)]
            if kind == "as_none":
                outputs.append("")
    arguments = {given["name"]: _argument(given["arg"]) for given in node["inputs"]}
    *_, last = node["metadata"].get("nn_module_stack", "").split(";")
    parts = last.split(",")
    path, kind = (parts[1], parts[2]) if len(parts) == 3 else ("", "")
    return Call(node["target"], arguments, tuple(outputs), path, is_own(kind))


def _argument(given: Mapping[str, Any]) -> Any:
    ((kind, value),) = given.items()
    if kind == "as_none":
        return None
    if kind in ("as_tensor", "as_optional_tensor"):
        return Ref(value["name"]) if "name" in value else None
    if kind == "as_optional_tensors":
        return [Ref(one["as_tensor"]["name"]) if "as_tensor" in one else None for one in value]
    if kind == "as_tensors":
        return [Ref(one["name"]) for one in value]
    if kind == "as_sym_int":
        return _symbol(value)
    if kind == "as_sym_ints":
        return [_symbol(one) for one in value]
    if kind == "as_scalar_type":
        return _DTYPES[value].name if value in _DTYPES else f"dtype {value}"
    if kind == "as_float" and isinstance(value, str):  # infinities
        return float(value)
    return value


def _symbol(given: Mapping[str, Any]) -> Any:
    return Ref(given["as_name"]) if "as_name" in given else given["as_int"]
