"""What the commands that train share: the model and its input, how long and how fast."""

from __future__ import annotations

import argparse
import math
from typing import Any

from ..data import Split, unit_scale
from ..nn import Architecture, models
from ..training import Fixed, Linear, Plateau, Schedule, Step
from .numbers import BATCH, DECAY, EPOCHS, MOMENTUM, RATE, RMS

MODELS = ("zfnet_small", "zfnet", "alexnet")
_FULL_SIZE, _FULL_CROP = 256, 224  # the paper's images and crops
_MOST_PARAMETERS = 2**30  # 4 GiB of weights, and as much again for gradients and for velocities


def add_budget(parser: argparse.ArgumentParser, epochs: int) -> None:
    """How long and how fast to train."""
    parser.add_argument("--epochs", type=EPOCHS, default=epochs, metavar="N", help=f"default: {epochs}")
    parser.add_argument("--batch-size", type=BATCH, default=128, metavar="N", help="default: 128")
    parser.add_argument("--lr", type=RATE, default=1e-2, help="learning rate (default: 0.01)")
    parser.add_argument("--momentum", type=MOMENTUM, default=0.9, help="default: 0.9")
    parser.add_argument("--weight-decay", type=DECAY, default=5e-4, help="default: 5e-4")
    parser.add_argument(
        "--max-filter-rms",
        type=RMS,
        metavar="RMS",
        help="scale filters with a larger root mean square back to this (the paper's 0.1)",
    )
    parser.add_argument(
        "--schedule",
        choices=("linear", "plateau", "step", "fixed"),
        default="linear",
        help="how the learning rate falls: in a line, by ten when the validation error stalls (the paper's way), by "
        "ten after half and three quarters of the epochs, not at all (default: linear)",
    )


def add_flip(parser: argparse.ArgumentParser) -> None:
    """Whether training images are mirrored."""
    parser.add_argument(
        "--no-flip",
        dest="flip",
        action="store_false",
        help="mirror no training images: where left and right tell classes apart (arrows, letters, road signs)",
    )


def schedule_of(arguments: argparse.Namespace) -> Schedule:
    epochs = arguments.epochs
    if arguments.schedule == "step":
        return Step(tuple(sorted({max(1, epochs // 2), max(1, 3 * epochs // 4)})))
    schedules: dict[str, Schedule] = {"linear": Linear(epochs), "plateau": Plateau(), "fixed": Fixed()}
    return schedules[arguments.schedule]


def natural_size(model: str) -> int | None:
    """The size to which a model's images are scaled, None for that of the data."""
    return None if model == "zfnet_small" else _FULL_SIZE


def architecture_of(model: str, split: Split) -> Architecture:
    """The model's architecture for this data set."""
    classes = len(split.train.classes)
    height, width, channels = split.train.image_shape
    if model == "zfnet_small":
        architecture = models.zfnet_small_architecture(classes, split.train.image_shape)
        parameters = sum(math.prod(shape) for shape in architecture.parameter_shapes().values())
        if parameters > _MOST_PARAMETERS:
            raise ValueError(
                f"--model {model} would have {parameters:,} parameters for images of {height} x {width}: a smaller "
                "--image-size or --clutter makes them fewer"
            )
        return architecture
    if min(height, width) < _FULL_CROP or channels != 3:
        raise ValueError(
            f"--model {model} takes colour images of {_FULL_CROP} x {_FULL_CROP} or more, but the data set's are "
            f"{height} x {width} x {channels}; --model zfnet_small takes these"
        )
    build = models.zfnet_architecture if model == "zfnet" else models.alexnet_architecture
    return build(classes, _FULL_CROP)


def input_scale(model: str, split: Split, mean: Any) -> float:
    """The factor on the pixels: the paper's range for the paper's nets, a standard deviation of 1 for the small one."""
    return unit_scale(split.train, mean) if model == "zfnet_small" else 1.0
