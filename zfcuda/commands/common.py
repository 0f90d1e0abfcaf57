"""What the commands share: their options, opening networks and data, and the end."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import backends, data
from ..analysis import Cluttered
from ..analysis.figures import is_signal
from ..analysis.occlusion import Square
from ..analysis.occlusion import square_of as default_square
from ..analysis.source import preprocess_of
from ..data import Dataset
from ..errors import BackendError, CheckpointError, DataError
from ..nn import Network, load
from ..pairs import check_part
from ..report import Report
from ..report.shown import class_names
from ..training import Ranks
from .numbers import CANVAS, COUNT, FILL, SIDE, SIDES

Commands = Any  # argparse's own type of sub-parsers is private


DATA = (
    "fashion-mnist (in the package), cifar10, a folder of class folders, a zip or tar of one, a folder that "
    "`zfcuda pack` made, or tar shards of webdataset ('train-{000..099}.tar')"
)


_PARTS = ("train", "test", "all")  # of the data


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
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a network that `zfcuda train` or `zfcuda import` saved"
    )


def add_data(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """--data and how its images are read; where it is not required, a network's own data stand in (`open_half`)."""
    default = "" if required else " (default: what the network was trained on)"
    parser.add_argument("--data", metavar="DATA", required=required, help=DATA + default)
    parser.add_argument("--image-size", type=SIDE, metavar="N", help="images of a folder are scaled to N x N")
    parser.add_argument("--skip-damaged", action="store_true", help="leave damaged files out instead of stopping")
    parser.add_argument(
        "--clutter", type=CANVAS, metavar="N", help="put each image on a cluttered canvas of N x N pixels"
    )


def add_split(parser: argparse.ArgumentParser, images: int | None = None) -> None:
    """Which part of the data, and how many of its images; all by default, if there is no number."""
    parser.add_argument(
        "--split",
        choices=_PARTS,
        help="which part of the data to look at (default: test; all, where they have no test half and the network was "
        "not trained on them)",
    )
    parser.add_argument(
        "--images",
        type=COUNT,
        default=images,
        metavar="N",
        help=f"at most N images, the same share of each class (default: {images or 'all'})",
    )


def add_fill(parser: argparse.ArgumentParser) -> None:
    """--fill: what parts of images are painted over with."""
    parser.add_argument(
        "--fill",
        type=FILL,
        default=0.0,
        metavar="FILL",
        help="what is painted over: a number (0 is the mean image, where it is subtracted), mean (of the "
        "image), blur (the image, blurred) or noise (with the image's mean and deviation) (default: 0)",
    )


def add_square(parser: argparse.ArgumentParser) -> None:
    """--size and --stride, of the square that occludes; see `square_of`."""
    parser.add_argument(
        "--size",
        type=SIDES,
        metavar="PIXELS",
        help="side of the occluding square, or its height x width, as in 1x16 (default: a quarter of the image)",
    )
    parser.add_argument(
        "--stride", type=SIDES, metavar="PIXELS", help="its steps, likewise (default: a quarter of its sides)"
    )


# ---- What the options open -------------------------------------------------------------------------------------


def command_line(arguments: argparse.Namespace) -> str:
    """The command as it was given, for the report's foot."""
    return shlex.join(["zfcuda", *sys.argv[1:]]) if sys.argv[1:2] == [arguments.command] else arguments.command


def output(arguments: argparse.Namespace, ranks: Ranks | None = None) -> Path:
    """The directory of --out, made if it is not there; ValueError if it is something else or not writable, or if what
    is written there would become a part of --data. Of several ranks the first alone looks."""
    directory = Path(arguments.out)
    if ranks is not None and ranks.rank:
        return directory
    if not str(arguments.out):
        raise ValueError("--out must not be empty")
    if (named := getattr(arguments, "data", None)) is not None and data.would_hold(named, directory):
        raise ValueError(
            f"--out {directory} is among the class folders of --data {named}: its pictures would be a class"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"--out {directory} is not a directory") from error
    except OSError as error:
        raise ValueError(f"--out {directory} cannot be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK):
        raise ValueError(f"--out {directory} is not writable")
    if shutil.disk_usage(directory).free < 1 << 20:
        raise ValueError(f"--out {directory} is on a full disk")
    return directory


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
    """The network of CHECKPOINT on the device; CheckpointError if it does not know how images become its inputs,
    ValueError if it has no layer that --layer or --layers names."""
    net = load(arguments.checkpoint).to(device(arguments))
    if net.preprocess is None:
        raise CheckpointError(
            f"{arguments.checkpoint} has no preprocessing, by which images become inputs: training saves it, `zfcuda "
            "import` does, and from_module takes it, as preprocess=zfcuda.data.Preprocess.by_channel(...)"
        )
    for layer in getattr(arguments, "layers", None) or filter(None, [getattr(arguments, "layer", None)]):
        net.locate(layer)
    return net


def described_data(arguments: argparse.Namespace) -> dict[str, Any]:
    """--data and how it is read, for the `origin` of a network that is trained on it."""
    named = arguments.data in (data.FASHION_MNIST, data.CIFAR10)
    return {
        "name": arguments.data if named else os.path.abspath(arguments.data),
        "clutter": arguments.clutter,
        "skip_damaged": arguments.skip_damaged,
    }


def choose_data(arguments: argparse.Namespace, net: Network) -> None:
    """Where there is no --data, makes it what the network was trained on, read as it was then. ValueError where the
    network does not say, FileNotFoundError where that is no longer there."""
    if arguments.data is not None:
        return
    own = net.origin.get("data")
    if not isinstance(own, dict) or not isinstance(own.get("name"), str):
        raise ValueError(f"--data is needed: {arguments.checkpoint} does not say what it was trained on")
    if not data.is_there(own["name"]):
        raise FileNotFoundError(
            f"--data is needed: {arguments.checkpoint} was trained on {data.printable(own['name'])}, which is not there"
        )
    arguments.data = own["name"]
    arguments.skip_damaged = arguments.skip_damaged or own.get("skip_damaged") is True
    if arguments.clutter is None and isinstance(own.get("clutter"), int):
        arguments.clutter = own["clutter"]


def open_data(
    arguments: argparse.Namespace,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    in_memory: bool = True,
) -> data.Split:
    """Both halves of --data, decoded now or when they are looked at; tells about files that were left out."""
    split = _opened(arguments, image_size, channels, in_memory)
    return type(split)(*(_cluttered(arguments, half, seed) for seed, half in enumerate(split)))


def _opened(
    arguments: argparse.Namespace,
    image_size: int | tuple[int, int] | None,
    channels: int | None,
    in_memory: bool,
) -> data.Split:
    """As they are, without clutter."""
    try:
        split = data.open(
            arguments.data,
            image_size=arguments.image_size or (None if arguments.clutter else image_size),
            channels=channels,
            on_error="skip" if arguments.skip_damaged else "raise",
            in_memory=in_memory,
        )
    except data.DamagedFiles as error:
        raise error.advising("--skip-damaged") from None
    except data.NoClassFolders as error:
        if not hasattr(arguments, "image"):
            raise
        raise DataError(f"{error}; or pass image files to --image, which needs no classes") from None
    _tell(arguments, (*split.train.skipped, *split.test.skipped))
    return split


def _tell(arguments: argparse.Namespace, left_out: Sequence[data.Skipped]) -> None:
    """About files that were left out, once."""
    told = vars(arguments).setdefault("told", set())
    for skipped in left_out:
        if skipped not in told:
            print(f"left out {skipped.path}: {skipped.reason}", file=sys.stderr)
            told.add(skipped)


def _cluttered(arguments: argparse.Namespace, dataset: Dataset, seed: int) -> Dataset:
    if not arguments.clutter:
        return dataset
    height, width, channels = dataset.image_shape
    if is_signal(height, width):
        raise ValueError(f"--clutter is for images: signals, as of {height} x {width} x {channels}, have no canvas")
    if arguments.clutter <= max(height, width):
        raise ValueError(f"--clutter must be larger than the images of {height} x {width}, got {arguments.clutter}")
    return Cluttered(dataset, arguments.clutter, seed)


class Part(NamedTuple):
    """A part of --data, and what a report calls it: "test images of fruit"."""

    dataset: Dataset
    words: str

    def looked_at(self, count: int) -> str:
        """What was looked at, for a report, where that are so many of its images."""
        total = len(self.dataset)
        return f"{f'all {total:,}' if count == total else f'{count:,} of {total:,}'} {self.words}"


def open_half(arguments: argparse.Namespace, net: Network, images: int | None = None) -> Dataset:
    """The `open_part`; at most so many images, of which `arguments.looked_at` says for a report what they are."""
    part = open_part(arguments, net)
    chosen = data.sample(part.dataset, images) if images else part.dataset
    arguments.looked_at = part.looked_at(len(chosen))
    return chosen


def open_part(arguments: argparse.Namespace, net: Network) -> Part:
    """The part of --data that --split names, in the size that the network takes."""
    choose_data(arguments, net)
    preprocess = preprocess_of(net)
    # One look at one half: what is not looked at need not be decoded. A canvas looks at ten images and more.
    height, width, channels = preprocess.image_shape
    split: data.Split | None = None
    try:
        split = _opened(arguments, (height, width), channels, arguments.clutter is not None)
        part = arguments.split or _default_part(arguments, net, split)
        half = data.Together(split) if part == "all" else split.test if part == "test" else split.train
    except data.NothingHeldOut as error:  # nobody can have been trained on it
        if arguments.split not in (None, "all"):
            raise
        part, half = "all", error.dataset
        _tell(arguments, half.skipped)
    dataset = _cluttered(arguments, half, _PARTS.index(part))
    if dataset.image_shape != preprocess.image_shape:
        has, takes = (" x ".join(map(str, shape)) for shape in (dataset.image_shape, preprocess.image_shape))
        hint = "; signals are arrays (1, W, C)" if preprocess.image_shape[0] == 1 else ""
        raise ValueError(f"--data {arguments.data} has images of {has}, but the network takes {takes}{hint}")
    return Part(dataset, _in_words(arguments, split, part))


def _default_part(arguments: argparse.Namespace, net: Network, split: data.Split) -> str:
    """What is held out counts where the rest has been learned from; else nothing tells it from the rest."""
    own = net.origin.get("data")
    learned = isinstance(own, dict) and own.get("name") == described_data(arguments)["name"]
    return "all" if isinstance(split, data.HeldOut) and not learned else "test"


def _in_words(arguments: argparse.Namespace, split: data.Split | None, part: str) -> str:
    """Which part of the data it is."""
    kind = {"train": "training images", "test": "test images", "all": "images"}[part]
    words = f"{kind} of {arguments.data}"
    if part == "all" or not isinstance(split, data.HeldOut):
        return words
    total = len(split.train) + len(split.test)
    return f"{words} (of its {total:,} images, as it has no test half, {len(split.test):,} are held out for testing)"


def labelled(net: Network, dataset: Dataset) -> Dataset:
    """The data set with labels that count in the network's classes, which are matched by name. Of a network with one
    output (a regression, a yes or no), that is what is followed for every image."""
    if net.num_classes == 1:
        return data.of_one_class(dataset, *class_names(net))
    return data.relabelled(dataset, net.classes, net.num_classes)


def square_of(arguments: argparse.Namespace, net: Network) -> Square:
    """The square that occludes, and its steps: --size and --stride, or what stands for them."""
    if arguments.size is not None:
        check_part("--size", arguments.size, net.input_shape[:2])
    return default_square(net, arguments.size, arguments.stride)


def finish(report: Report, directory: Path, ranks: Ranks | None = None) -> int:
    """Saves the report and says where it is -> the exit status, that of Ctrl-C if the report is partial. Of several
    ranks the first alone does."""
    if ranks is not None and ranks.rank:
        return 0
    if not report.sections:  # Ctrl-C came before there was anything to keep
        raise KeyboardInterrupt
    print(f"report: {report.save(directory).resolve()}")
    return 130 if report.partial else 0
