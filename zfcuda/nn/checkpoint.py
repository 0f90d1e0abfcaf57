"""Networks in files: safetensors with the weights and the mean image, and the architecture, the preprocessing and the
names of the classes as JSON in the metadata. No pickle.

A checkpoint may carry more than the network: tensors whose names start with a prefix and a slash (such as an
optimiser's state, "optimizer/conv1.weight"), and further metadata. `load` ignores them; `read_checkpoint` gives them.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.numpy

from ..backends import Array, to_host
from ..errors import CheckpointError
from .architecture import Architecture
from .network import Network

if TYPE_CHECKING:
    from ..data import Preprocess

__all__ = ["Checkpoint", "load", "read_checkpoint", "save_network", "write_atomically"]

_FORMAT_KEY, _FORMAT = "zfcuda.format", "1"
_ARCHITECTURE_KEY = "zfcuda.architecture"
_PREPROCESS_KEY, _MEAN = "zfcuda.preprocess", "preprocess/mean"
_CLASSES_KEY = "zfcuda.classes"

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's network, its other tensors (name with prefix -> array) and its other metadata."""

    network: Network
    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]


def write_atomically(path: PathLike, data: bytes) -> None:
    """Writes a file whole or not at all: beside, flushed to the disk, then renamed. OSError if it cannot."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
    header = {**(metadata or {}), _FORMAT_KEY: _FORMAT, _ARCHITECTURE_KEY: network.architecture.to_json()}
    if network.preprocess is not None:
        extra[_MEAN] = network.preprocess.mean
        fields = {"crop": network.preprocess.crop, "scale": network.preprocess.scale}
        header[_PREPROCESS_KEY] = json.dumps(fields)
    if network.classes is not None:
        header[_CLASSES_KEY] = json.dumps(network.classes)
    arrays = {name: np.ascontiguousarray(to_host(array)) for name, array in {**network.parameters(), **extra}.items()}
    write_atomically(path, safetensors.numpy.save(arrays, metadata=header))


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
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no dict
    except (safetensors.SafetensorError, ValueError, OSError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged, cut short or not a safetensors file: {error}") from error
    if _ARCHITECTURE_KEY not in metadata:
        raise CheckpointError(f"{path} is a safetensors file, but holds no network of zfcuda")
    if metadata.pop(_FORMAT_KEY, None) != _FORMAT:
        raise CheckpointError(f"{path} was written in another format of zfcuda; this version reads format {_FORMAT}")
    parameters = {name: array for name, array in tensors.items() if "/" not in name}
    try:
        network = Network(Architecture.from_json(metadata.pop(_ARCHITECTURE_KEY)), parameters=parameters)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} does not hold the weights of its architecture: {error}") from error
    others = {name: array for name, array in tensors.items() if "/" in name}
    try:
        if _PREPROCESS_KEY in metadata:
            network.preprocess = _preprocess(metadata.pop(_PREPROCESS_KEY), others.pop(_MEAN))
        if _CLASSES_KEY in metadata:
            network.classes = tuple(str(name) for name in json.loads(metadata.pop(_CLASSES_KEY)))
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} does not say how images become inputs: {error!r}") from error
    return Checkpoint(network, others, metadata)


def _preprocess(fields: str, mean: np.ndarray) -> Preprocess:
    # Only a trained network needs the data package, and Pillow with it.
    from ..data import Preprocess

    described = json.loads(fields)
    height, width = described["crop"]
    return Preprocess(mean, (int(height), int(width)), float(described["scale"]))
