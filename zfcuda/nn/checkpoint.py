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
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from ..backends import Array, to_host
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
ORIGIN = "zfcuda.origin"  # among the further metadata

HEADS = ("softmax", "sigmoid", "none")

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Checkpoint:
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


def read_checkpoint(path: PathLike) -> Checkpoint:
    """A checkpoint with all that it carries, on the CPU; errors as in `zfcuda.load`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no dict
    except (safetensors.SafetensorError, ValueError, OSError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged, cut short or not a safetensors file: {error}") from error
    if header is None:
        raise CheckpointError(f"{path} is a safetensors file, but holds no network of zfcuda")
    try:
        return _checkpoint(json.loads(header), tensors)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} does not hold the network that it describes: {error}") from error


def _checkpoint(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> Checkpoint:
    if header["format"] != _FORMAT:
        raise ValueError(f"its format is {header['format']}, and this version reads {_FORMAT}")
    parameters = {name: array for name, array in tensors.items() if "/" not in name}
    others = {name: array for name, array in tensors.items() if "/" in name}
    architecture = Architecture.from_dict(header["architecture"])
    architecture.check_parameters(parameters)
    classes = header["classes"]
    if classes is not None:
        outputs = math.prod(architecture.shapes()[-1])
        if not isinstance(classes, list) or len(classes) != outputs or not all(isinstance(one, str) for one in classes):
            raise ValueError(f"its classes must be {outputs} names, one for each output; got {str(classes)[:100]}")
        classes = tuple(classes)
    preprocess = header["preprocess"]
    if preprocess is not None:
        preprocess = _preprocess(preprocess, others.pop(_MEAN, None))
        made = (*preprocess.crop, preprocess.image_shape[2])
        if made != architecture.input_shape:
            raise ValueError(f"its preprocessing makes images of {made}, and it takes {architecture.input_shape}")
    head = header.get("head", "softmax")
    if head not in HEADS:
        raise ValueError(f"its head is {head!r}, and not one of {', '.join(HEADS)}")
    checkpoint = Checkpoint(architecture, parameters, preprocess, classes, others, dict(header["metadata"]), head)
    _ = checkpoint.origin  # or an error
    return checkpoint


def _preprocess(description: dict[str, Any], mean: np.ndarray | None) -> Preprocess:
    # Only a trained network needs the data package, and Pillow with it.
    from ..data import Preprocess

    if mean is None:
        raise ValueError("it does not say how images become inputs: the mean image is missing")
    height, width = description["crop"]
    scale = description["scale"]
    scale = tuple(float(factor) for factor in scale) if isinstance(scale, list) else float(scale)
    return Preprocess(mean, (int(height), int(width)), scale)
