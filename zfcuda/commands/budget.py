"""What the commands that train share: the model and its input, how long and how fast."""

from __future__ import annotations

import argparse
import math
from typing import Any

from ..data import Split, unit_scale
from ..files import read_json
from ..nn import Architecture, models
from ..training import Cosine, Fixed, Linear, Plateau, Schedule, Step, Warmup
from .numbers import BATCH, DECAY, EPOCHS, MOMENTUM, RATE, RMS, WARMUP, short

_FULL_SIZE, _FULL_CROP = 256, 224  # the paper's images and crops
_MOST_PARAMETERS = 2**30  # 4 GiB of weights, and as much again for gradients and for velocities
_FULL = {
    "zfnet": models.zfnet_architecture,
    "alexnet": models.alexnet_architecture,
    "vgg16": models.vgg16_architecture,
    "resnet18": models.resnet18_architecture,
    "resnet50": models.resnet50_architecture,
}
MODELS = ("zfnet_small", *_FULL)
_ANY_SIZE = ("vgg16", "resnet18", "resnet50")  # these take small images, too, from `_LEAST_SIZE` on
_LEAST_SIZE = 32


def add_model(parser: argparse.ArgumentParser) -> None:
    """What to train: one of `MODELS` or a file."""
    parser.add_argument(
        "--model",
        type=_model,
        default="zfnet_small",
        metavar="MODEL",
        help=f"{', '.join(MODELS)}, or a network of your own described in a JSON file (default: zfnet_small)",
    )


def _model(text: str) -> str:
    if text in MODELS:
        return text
    if not text.endswith(".json"):
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(MODELS)} or a .json file, got {short(text)}")
    try:
        _described(text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    return text


def _described(path: str) -> Architecture:
    """The architecture in a JSON file, as `Architecture.to_dict` writes it. OSError, ValueError."""
    description = read_json(path)
    if not isinstance(description, dict):
        raise ValueError(f"not the description of a network, but of type {type(description).__name__}")
    return Architecture.from_dict({"initial": "he", **description})


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
        choices=("linear", "cosine", "plateau", "step", "fixed"),
        default="linear",
        help="how the learning rate falls: in a line, along a cosine, by ten when the validation error stalls (the "
        "paper's way), by ten after half and three quarters of the epochs, not at all (default: linear)",
    )
    parser.add_argument(
        "--warmup",
        type=WARMUP,
        default=0,
        metavar="N",
        help="epochs in which the learning rate rises to that, for large batches (default: 0)",
    )


def add_flip(parser: argparse.ArgumentParser) -> None:
    """Whether training images are mirrored."""
    parser.add_argument(
        "--no-flip",
        dest="flip",
        action="store_false",
        help="mirror no training images: where left and right tell classes apart (arrows, letters); signals never are",
    )


def schedule_of(arguments: argparse.Namespace) -> Schedule:
    epochs = arguments.epochs
    schedules: dict[str, Schedule] = {
        "linear": Linear(epochs),
        "cosine": Cosine(epochs),
        "plateau": Plateau(),
        "step": Step(tuple(sorted({max(1, epochs // 2), max(1, 3 * epochs // 4)}))),
        "fixed": Fixed(),
    }
    schedule = schedules[arguments.schedule]
    return Warmup(schedule, arguments.warmup) if arguments.warmup else schedule


def natural_size(model: str) -> int | None:
    """The size to which a model's images are scaled, None for that of the data."""
    if model in MODELS:
        return None if model == "zfnet_small" else _FULL_SIZE
    height, width, _ = _described(model).input_shape
    return height if height == width else None


def architecture_of(model: str, split: Split) -> Architecture:
    """The model's architecture for this data set. ValueError where it does not take it."""
    classes = len(split.train.classes)
    height, width, channels = split.train.image_shape
    if model == "zfnet_small":
        return _of_bounded_size(model, models.zfnet_small_architecture(classes, split.train.image_shape))
    if model not in MODELS:
        described = _described(model)
        _check_fit(model, described, classes, split.train.image_shape)
        return _of_bounded_size(model, described)
    least = _LEAST_SIZE if model in _ANY_SIZE else _FULL_CROP
    if min(height, width) < least or channels != 3:
        raise ValueError(
            f"--model {model} takes colour images of {least} x {least} or more, but the data set's are "
            f"{height} x {width} x {channels}; --model zfnet_small takes these"
        )
    return _FULL[model](classes, min(height, width, _FULL_CROP))


def _of_bounded_size(model: str, architecture: Architecture) -> Architecture:
    parameters = sum(math.prod(shape) for shape in architecture.parameter_shapes().values())
    if parameters > _MOST_PARAMETERS:
        height, width, _ = architecture.input_shape
        raise ValueError(
            f"--model {model} would have {parameters:,} parameters for images of {height} x {width}: a smaller "
            "--image-size or --clutter makes them fewer"
        )
    return architecture


def _check_fit(model: str, architecture: Architecture, classes: int, image: tuple[int, int, int]) -> None:
    shape = architecture.input_shape
    if image[0] < shape[0] or image[1] < shape[1] or image[2] != shape[2]:
        expected, found = (" x ".join(map(str, sizes)) for sizes in (shape, image))
        hint = "; signals are arrays (1, W, C)" if shape[0] == 1 < shape[1] else ""
        raise ValueError(f"--model {model} takes images of {expected} or larger, but the data set's are {found}{hint}")
    outputs = math.prod(architecture.shapes()[-1])
    if outputs != classes:
        counted = f"{outputs} output{'s' if outputs > 1 else ''}"
        hint = "; a yes or no has two classes, and an output for each" if outputs == 1 else ""
        raise ValueError(f"--model {model} has {counted}, but the data set has {classes} classes{hint}")


def input_scale(architecture: Architecture, split: Split, mean: Any) -> float:
    """The factor on the pixels: the paper's range for the paper's nets, a standard deviation of 1 for the others."""
    return 1.0 if architecture.initial == "gaussian" else unit_scale(split.train, mean)
