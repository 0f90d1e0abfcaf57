"""Networks in files: safetensors with the weights and the mean image, and the architecture, the preprocessing and the
names of the classes as JSON in the metadata. No pickle.

A checkpoint may carry more than the network: tensors whose names start with a prefix and a slash (such as an
optimiser's state, "optimizer/conv1.weight"), and further metadata.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from ..backends import Array, to_host
from ..brief import Brief
from ..errors import CheckpointError
from ..files import write_atomically
from .architecture import Architecture

if TYPE_CHECKING:
    from ..data import Preprocess

__all__ = ["Checkpoint", "read_checkpoint"]

# All of ours is under one key: safetensors writes several in an order that changes from run to run.
_KEY = "zfcuda"
_FORMAT = 1
_MEAN = "preprocess/mean"
_LARGEST_MEAN = 2**27  # numbers
_DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "F64": np.dtype(np.float64)}
ORIGIN = "zfcuda.origin"  # among the further metadata

HEADS = ("softmax", "sigmoid", "none")

PathLike = str | os.PathLike[str]


def check_head(head: str, outputs: int) -> None:
    """ValueError where it is none of `HEADS`, or says nothing of so many outputs."""
    if head not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}; got {head!r}")
    if head == "softmax" and outputs == 1:
        raise ValueError(
            "head must be 'sigmoid' (of a yes or no) or 'none' (of a regression) for a network of one output, of which "
            "a softmax is always 1; got 'softmax'"
        )


@dataclass(frozen=True, repr=False)
class Checkpoint(Brief):
    """What a file holds of a network (parameters: also its state), its other tensors ("prefix/name" -> array) and its
    other metadata."""

    architecture: Architecture
    parameters: dict[str, Array]
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] | None = None
    tensors: dict[str, Array] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    head: str = "softmax"

    @property
    def origin(self) -> dict[str, Any]:
        """What the network was trained on and how, {} if that is not known."""
        return dict(json.loads(self.metadata.get(ORIGIN, "{}")))

    def write(self, path: PathLike) -> None:
        """Atomically."""
        arrays = {**self.parameters, **self.tensors}
        unprefixed = [name for name in self.tensors if "/" not in name]
        if unprefixed:
            raise ValueError(f"tensors must be named 'prefix/name', got {', '.join(unprefixed)}")
        header = {
            "format": _FORMAT,
            "architecture": self.architecture.to_dict(),
            "preprocess": None,
            "classes": self.classes,
            "head": self.head,
            "metadata": self.metadata,
        }
        if self.preprocess is not None:
            arrays[_MEAN] = self.preprocess.mean
            header["preprocess"] = {"crop": self.preprocess.crop, "scale": self.preprocess.scale}
        arrays = {name: np.ascontiguousarray(to_host(array)) for name, array in arrays.items()}
        write_atomically(path, safetensors.numpy.save(arrays, metadata={_KEY: json.dumps(header)}))


def read_checkpoint(path: PathLike, *, others: bool = True) -> Checkpoint:
    """A checkpoint on the CPU, with all that it carries or (others=False) without its other tensors; errors as in
    `zfcuda.load`. No tensor is read before it has the shape that the architecture says."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except (safetensors.SafetensorError, ValueError, OSError, TypeError) as error:
        if path.suffix in (".onnx", ".pt2"):
            raise CheckpointError(f"{path} is no network of zfcuda: `zfcuda import` makes one of it") from error
        raise CheckpointError(f"{path} is damaged, cut short or not a safetensors file: {error}") from error
    with file:
        header = (file.metadata() or {}).get(_KEY)
        if header is None:
            raise CheckpointError(f"{path} is a safetensors file, but holds no network of zfcuda")
        try:
            return _checkpoint(json.loads(header), file, others)
        # AttributeError: a dtype that NumPy lacks.
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{path} does not hold the network that it describes: {error}") from error


class _Stored(NamedTuple):
    """What the file says of a tensor."""

    shape: tuple[int, ...]
    dtype: Any


def _stored(file: Any, name: str) -> _Stored:
    found = file.get_slice(name)
    return _Stored(tuple(found.get_shape()), _DTYPES.get(found.get_dtype(), found.get_dtype()))


def _checkpoint(header: dict[str, Any], file: Any, others: bool) -> Checkpoint:
    if header["format"] != _FORMAT:
        raise ValueError(f"its format is {header['format']}, and this version reads {_FORMAT}")
    names = list(file.keys())
    architecture = Architecture.from_dict(header["architecture"])
    architecture.check_parameters({name: _stored(file, name) for name in names if "/" not in name})
    parameters = {name: file.get_tensor(name) for name in names if "/" not in name}
    tensors = {name: file.get_tensor(name) for name in names if others and "/" in name and name != _MEAN}
    classes = header["classes"]
    if classes is not None:
        outputs = math.prod(architecture.shapes()[-1])
        if not isinstance(classes, list) or len(classes) != outputs or not all(isinstance(one, str) for one in classes):
            raise ValueError(f"its classes must be {outputs} names, one for each output; got {str(classes)[:100]}")
        classes = tuple(classes)
    preprocess = header["preprocess"]
    if preprocess is not None:
        if _MEAN not in names:
            raise ValueError("it does not say how images become inputs: the mean image is missing")
        if math.prod(_stored(file, _MEAN).shape) > _LARGEST_MEAN:
            raise ValueError(f"its mean image is of {_stored(file, _MEAN).shape}")
        preprocess = _preprocess(preprocess, file.get_tensor(_MEAN))
        made = (*preprocess.crop, preprocess.image_shape[2])
        if made != architecture.input_shape:
            raise ValueError(f"its preprocessing makes images of {made}, and it takes {architecture.input_shape}")
    head = header.get("head", "softmax")
    if head not in HEADS:
        raise ValueError(f"its head is {head!r}, and not one of {', '.join(HEADS)}")
    checkpoint = Checkpoint(architecture, parameters, preprocess, classes, tensors, dict(header["metadata"]), head)
    _ = checkpoint.origin  # or an error
    return checkpoint


def _preprocess(description: dict[str, Any], mean: np.ndarray) -> Preprocess:
    # Only a trained network needs the data package, and Pillow with it.
    from ..data import Preprocess

    height, width = description["crop"]
    scale = description["scale"]
    scale = tuple(float(factor) for factor in scale) if isinstance(scale, list) else float(scale)
    return Preprocess(mean, (int(height), int(width)), scale)
