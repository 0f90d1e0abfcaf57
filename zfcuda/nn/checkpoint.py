"""Networks in files: safetensors with the weights and the mean image, and the architecture, the preprocessing and the
names of the classes as JSON in the metadata. No pickle.

A checkpoint may carry more than the network: tensors whose names start with a prefix and a slash (such as an
optimiser's state, "optimizer/conv1.weight"), and further metadata. `load` ignores them; `read_checkpoint` gives them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from ..backends import Array, to_host
from ..errors import CheckpointError
from ..files import write_atomically
from .architecture import Architecture
from .network import Network

if TYPE_CHECKING:
    from ..data import Preprocess

__all__ = ["Checkpoint", "load", "read_checkpoint", "save_network"]

# All of ours is under one key: safetensors writes several in an order that changes from run to run.
_KEY = "zfcuda"
_FORMAT = 1
_MEAN = "preprocess/mean"

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's network, its other tensors (name with prefix -> array) and its other metadata."""

    network: Network
    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]


def save_network(
    network: Network,
    path: PathLike,
    *,
    tensors: Mapping[str, Array] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes the network, and other tensors (named "prefix/name") and metadata with it, atomically."""
    extra = dict(tensors or {})
    unprefixed = [name for name in extra if "/" not in name]
    if unprefixed:
        raise ValueError(f"tensors must be named 'prefix/name', got {', '.join(unprefixed)}")
    header = {
        "format": _FORMAT,
        "architecture": network.architecture.to_dict(),
        "preprocess": None,
        "classes": network.classes,
        "metadata": dict(metadata or {}),
    }
    if network.preprocess is not None:
        extra[_MEAN] = network.preprocess.mean
        header["preprocess"] = {"crop": network.preprocess.crop, "scale": network.preprocess.scale}
    arrays = {name: np.ascontiguousarray(to_host(array)) for name, array in {**network.parameters(), **extra}.items()}
    write_atomically(path, safetensors.numpy.save(arrays, metadata={_KEY: json.dumps(header)}))


def load(path: PathLike) -> Network:
    """The network of a checkpoint, on the CPU.

    FileNotFoundError if there is no such file; CheckpointError, naming the path, if it is damaged, cut short, not
    made by zfcuda, or if its weights are not those of its architecture.
    """
    return read_checkpoint(path).network


def read_checkpoint(path: PathLike) -> Checkpoint:
    """A checkpoint with all that it carries; errors as in `load`."""
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
    network = Network(Architecture.from_dict(header["architecture"]), parameters=parameters)
    if header["classes"] is not None:
        network.classes = tuple(str(name) for name in header["classes"])
    if header["preprocess"] is not None:
        network.preprocess = _preprocess(header["preprocess"], others.pop(_MEAN, None))
    return Checkpoint(network, others, dict(header["metadata"]))


def _preprocess(description: dict[str, Any], mean: np.ndarray | None) -> Preprocess:
    # Only a trained network needs the data package, and Pillow with it.
    from ..data import Preprocess

    if mean is None:
        raise ValueError("it does not say how images become inputs: the mean image is missing")
    height, width = description["crop"]
    return Preprocess(mean, (int(height), int(width)), float(description["scale"]))
