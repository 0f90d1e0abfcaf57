"""A training that can go on: the network, and all that its next epoch depends on, in one file.

The file is a checkpoint of the network (`zfcuda.load` reads it) that also carries the optimiser's velocities and, as
JSON, the epochs so far. No generator state is needed: every random draw is a pure function of the seed, the epoch and
the step.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends import Array
from ..brief import Brief
from ..errors import CheckpointError
from ..nn import Network, read_checkpoint
from ..nn.finite import is_finite

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"

_VELOCITY = "velocity/"
_TRAINING_KEY = "zfcuda.training"


@dataclass(frozen=True, repr=False)
class Progress(Brief):
    """How far a training has come. history: one dict of metrics per finished epoch."""

    seed: int
    step: int
    history: list[dict[str, Any]]


def save_training(path: str | os.PathLike[str], net: Network, velocities: dict[str, Array], progress: Progress) -> None:
    """Writes network, velocities and progress, whole or not at all. OSError if it cannot."""
    state = {"seed": progress.seed, "step": progress.step, "history": progress.history}
    net.save(
        path,
        tensors={_VELOCITY + name: array for name, array in velocities.items()},
        metadata={_TRAINING_KEY: json.dumps(state)},
    )


def load_training(path: str | os.PathLike[str], net: Network, velocities: dict[str, Array]) -> Progress:
    """Puts a checkpoint's weights, preprocessing, classes, origin and velocities into `net` and `velocities` and
    returns the progress.

    FileNotFoundError; `CheckpointError` if the file is damaged, is no training's, or is of another architecture: then
    nothing has been changed.
    """
    path = Path(path)
    saved = read_checkpoint(path)
    if saved.architecture != net.architecture:
        raise CheckpointError(f"{path} is of another architecture than the network that is to go on training")
    try:
        state = json.loads(saved.metadata[_TRAINING_KEY])
        progress = Progress(int(state["seed"]), int(state["step"]), list(state["history"]))
        stored = {name: saved.tensors[_VELOCITY + name] for name in velocities}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds a network, but no training that could go on ({error!r})") from error
    for name, array in velocities.items():
        if stored[name].shape != tuple(array.shape) or stored[name].dtype != array.dtype:
            raise CheckpointError(f"{path} is damaged: the velocity of {name} has shape {stored[name].shape}")
    for name, array in {**saved.parameters, **{f"the velocity of {name}": stored[name] for name in stored}}.items():
        if not is_finite(array):
            raise CheckpointError(f"{path} cannot go on training: {name} has values that are not finite")
    for name, array in net.parameters().items():
        fill(array, saved.parameters[name])
        fill(velocities[name], stored[name])
    for name, array in net.state().items():
        fill(array, saved.parameters[name])
    net.preprocess = saved.preprocess
    net.classes = saved.classes
    net.origin = saved.origin
    return progress


def fill(target: Array, source: Array) -> None:
    """Fills a NumPy or CuPy array with a NumPy array's values."""
    if hasattr(target, "set"):
        target.set(source)
    else:
        target[...] = source
