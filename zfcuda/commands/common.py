"""What the commands share: their options, opening networks and data, and images as people see them."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from .. import backends, data
from ..analysis import Cluttered
from ..data import Dataset, Preprocess
from ..errors import BackendError, CheckpointError, Interrupted
from ..nn import Network, load
from ..report import Report, Shown
from ..report.page import check_directory
from ..report.pictures import from_range

Commands = Any  # argparse's own type of sub-parsers is private
Found = TypeVar("Found")
Parameters = ParamSpec("Parameters")


# ---- Options ---------------------------------------------------------------------------------------------


def add_command(commands: Commands, name: str, run: Any, summary: str, description: str) -> argparse.ArgumentParser:
    """A sub-parser with --out, --device and --quiet."""
    parser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--out", metavar="DIR", default=f"zfcuda-{name}", help="where the report goes (default: %(default)s)"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to compute; auto is the GPU if the CUDA backend can run, else the CPU",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a network that `zfcuda train` saved")


def add_data(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """--data and how its images are read."""
    parser.add_argument(
        "--data",
        metavar="DATA",
        default=default,
        required=default is None,
        help="fashion-mnist (in the package), cifar10, a folder of class folders, or a zip or tar of one",
    )
    parser.add_argument("--image-size", type=positive, metavar="N", help="images of a folder are scaled to N x N")
    parser.add_argument("--skip-damaged", action="store_true", help="leave damaged files out instead of stopping")
    parser.add_argument(
        "--clutter", type=positive, metavar="N", help="put each image on a cluttered canvas of N x N pixels"
    )


def add_split(parser: argparse.ArgumentParser) -> None:
    """Which half of the data, and how much of it."""
    parser.add_argument(
        "--split", choices=("train", "test"), default="test", help="which half of the data to look at (default: test)"
    )
    parser.add_argument(
        "--images", type=positive, metavar="N", help="at most N images, the same share of each class (default: all)"
    )


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def fraction(text: str) -> float:
    """An argument that is a positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return value


# ---- What the options open -------------------------------------------------------------------------------------


def command_line(arguments: argparse.Namespace) -> str:
    """The command as it was given, for the report's foot."""
    return shlex.join(["zfcuda", *sys.argv[1:]]) if sys.argv[1:2] == [arguments.command] else arguments.command


def output(arguments: argparse.Namespace) -> Path:
    """The directory of --out, made and writable."""
    return check_directory(arguments.out)


def device(arguments: argparse.Namespace) -> str:
    """ "cpu" or "cuda"; BackendError if CUDA is asked for and cannot run."""
    wanted = "cuda" if arguments.device == "auto" else arguments.device
    try:
        backends.get(wanted)
    except BackendError:
        if arguments.device != "auto":
            raise
        return "cpu"
    return wanted


def open_network(arguments: argparse.Namespace) -> Network:
    """The network of CHECKPOINT on the device; CheckpointError if it does not know how images become its inputs."""
    net = load(arguments.checkpoint).to(device(arguments))
    if net.preprocess is None:
        raise CheckpointError(f"{arguments.checkpoint} has no preprocessing: it was not saved by a training")
    return net


def open_data(arguments: argparse.Namespace, image_size: int | None = None, *, in_memory: bool = True) -> data.Split:
    """Both halves of --data, decoded now or when they are looked at; tells about files that were left out."""
    split = data.open(
        arguments.data,
        image_size=arguments.image_size or (None if arguments.clutter else image_size),
        on_error="skip" if arguments.skip_damaged else "raise",
        in_memory=in_memory,
    )
    for skipped in (*split.train.skipped, *split.test.skipped):
        print(f"left out {skipped.path}: {skipped.reason}", file=sys.stderr)
    if arguments.clutter:
        return data.Split(*(Cluttered(half, arguments.clutter, seed) for seed, half in enumerate(split)))
    return split


def open_half(arguments: argparse.Namespace, net: Network) -> Dataset:
    """The half of --data that --split names, at most --images of it, in the size that the network was trained on."""
    preprocess = preprocess_of(net)
    size = preprocess.image_shape[0] if square(preprocess) else None
    # One look at one half: what is not looked at need not be decoded. A canvas looks at ten images and more.
    split = open_data(arguments, size, in_memory=arguments.clutter is not None)
    dataset = split.test if arguments.split == "test" else split.train
    return data.sample(dataset, arguments.images) if arguments.images else dataset


def square(preprocess: Preprocess) -> bool:
    return preprocess.image_shape[0] == preprocess.image_shape[1]


def preprocess_of(net: Network) -> Preprocess:
    """The network's preprocessing, which `open_network` has seen to be there."""
    assert net.preprocess is not None
    return net.preprocess


def class_names(net: Network, dataset: Dataset | None = None) -> tuple[str, ...]:
    """The names of the network's classes, from the network or the data set."""
    names = net.classes or (dataset.classes if dataset is not None else ())
    return tuple(names) if names else tuple(f"class {label}" for label in range(net.num_classes))


# ---- Images as people see them -------------------------------------------------------------------------------------


def seen(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The part of uint8 images (N,H,W,C) that the network sees: (N,h,w,C)."""
    (top, left), (height, width) = preprocess.test_corners[-1], preprocess.crop
    return images[:, top : top + height, left : left + width]


def show(dataset: Dataset, indices: Iterable[int], preprocess: Preprocess, chunk: int = 256) -> dict[int, Shown]:
    """These images of a data set: index -> picture, where it is from, class."""
    wanted = sorted({int(index) for index in indices})
    shown = {}
    for start in range(0, len(wanted), chunk):
        part = wanted[start : start + chunk]
        images, labels = dataset.batch(part)
        for index, image, label in zip(part, seen(images, preprocess), labels, strict=True):
            shown[index] = Shown(from_range(image), short(dataset.identifier(index)), dataset.classes[label])
    return shown


def short(name: str) -> str:
    """The last two parts of a path, which tell an image from the others of its data set."""
    return "/".join(name.replace("\\", "/").split("/")[-2:])


# ---- Measuring, and the end ----------------------------------------------------------------------------------------


def kept(
    report: Report, analysis: Callable[Parameters, Found], *arguments: Parameters.args, **options: Parameters.kwargs
) -> tuple[Found | None, bool]:
    """(what the analysis found, whether Ctrl-C stopped it). Of one that was stopped it is what it had found by then,
    None if that is nothing, and the report says how much it is."""
    try:
        return analysis(*arguments, **options), False
    except Interrupted as stop:
        found, how_far = stop.result, str(stop)
    report.partial.append(how_far)
    print(f"interrupted: {how_far}", file=sys.stderr)
    return found, True


def finish(report: Report, directory: Path) -> int:
    """Saves the report and says where it is -> the exit status, that of Ctrl-C if the report is partial."""
    if not report.sections:  # Ctrl-C came before there was anything to keep
        raise KeyboardInterrupt
    print(f"report: {report.save(directory).resolve()}")
    return 130 if report.partial else 0
