"""What a network says of its training, in `net.origin`: the data, the settings and the version that made it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from .._version import __version__
from ..data import Augmentation, Dataset, digest
from ..errors import CheckpointError
from ..nn import Network

Origin = dict[str, Any]


def data_of(train: Dataset, validation: Dataset | None, *, saved: bool) -> Origin:
    """images: how many are trained on; train, validation: digests of both sets (`zfcuda.data.digest`), or None for a
    training that is not `saved`, with which nobody will compare them."""
    return {
        "images": len(train),
        "train": digest(train) if saved else None,
        "validation": digest(validation) if saved and validation is not None else None,
    }


def describe(
    net: Network, data: Origin, augmentation: Augmentation, settings: Origin, about: Mapping[str, Any]
) -> Origin:
    """The origin of a training that begins: `about`, what `data_of` says, and

    augmentation  the fields of the `Augmentation`
    settings      rates, batch size, schedule and whatever else the result depends on
    version       of zfcuda
    epochs        how many are done, in checkpoints
    training      what stands for all of this and the architecture: trainings that share it give the same network. None
                  where there are no digests
    """
    origin = {**data, "augmentation": vars(augmentation), "settings": settings, "version": __version__}
    made_of = json.dumps([origin, net.architecture.to_dict()])
    training = hashlib.sha256(made_of.encode()).hexdigest() if data["train"] else None
    return {**about, **origin, "training": training}


def augmentation_of(origin: Origin) -> Augmentation | None:
    """How a network's training images were cropped and mirrored, None if it does not say."""
    try:
        return Augmentation(**origin["augmentation"]) if origin.get("augmentation") is not None else None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"what the network says of its augmentation is damaged: {error}") from error


def check_resumable(path: str | os.PathLike, saved: Origin, data: Origin, augmentation: Augmentation | None) -> None:
    """`CheckpointError` where a training would go on with other data or crops than the checkpoint's: it would be
    another training, and what it has measured would not hold."""
    for half, words in (("train", "trained"), ("validation", "tested")):
        if saved.get(half) and data[half] and saved[half] != data[half]:
            raise CheckpointError(
                f"{path} was {words} on other images, labels or classes: resume takes the same, and another folder for "
                "what a new training leaves"
            )
    before = augmentation_of(saved)
    if before and augmentation and before != augmentation:
        raise CheckpointError(f"{path} was trained with {before}: resume takes the same, got {augmentation}")


def changes(saved: Origin, now: Origin) -> list[str]:
    """With what else a training goes on, in words."""
    settings = saved.get("settings")
    before = {**(settings if isinstance(settings, dict) else {}), "version": saved.get("version")}
    after = {**now["settings"], "version": now["version"]}
    return [
        f"{name} {after[name]} instead of {before[name]}"
        for name in after
        if before.get(name) is not None and before[name] != after[name]
    ]
