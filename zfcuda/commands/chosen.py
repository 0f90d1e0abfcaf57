"""What the commands share that look at few images: those of the data, or files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..analysis.source import preprocess_of, to_device
from ..data import ArrayDataset, Dataset, printable, read_image, sample
from ..nn import Network
from ..report.shown import class_names
from ..wording import like, listed
from . import common


class Chosen(NamedTuple):
    """The images; and, unless they are files without --data, the half of the data set as it is and with labels that
    count in the network's classes."""

    images: Dataset
    half: Dataset | None
    labelled: Dataset | None


def add_chosen(parser: argparse.ArgumentParser, images: int) -> None:
    """--split, --images, or --image and --label."""
    common.add_split(parser, images=images)
    add_image(parser)
    parser.add_argument("--label", metavar="CLASS", help="the class of --image (default: what the network says)")


def add_image(parser: argparse.ArgumentParser) -> None:
    """--image."""
    parser.add_argument(
        "--image",
        nargs="+",
        metavar="FILE",
        default=[],
        help="image files, instead of a data set's; needs no --data",
    )


def open_chosen(arguments: argparse.Namespace, net: Network) -> Chosen:
    """What the options name; `arguments.looked_at` says for a report what the images are."""
    if arguments.label is not None and not arguments.image:
        raise ValueError("--label needs --image: images of a data set have labels of their own")
    if arguments.image:
        arguments.looked_at = number_of_files(arguments.image)
    if arguments.image and arguments.data is None:
        return Chosen(image_files(net, arguments.image, class_names(net), arguments.label), None, None)
    part = common.open_part(arguments, net)
    half, labelled = part.dataset, common.labelled(net, part.dataset)
    if arguments.image:
        return Chosen(image_files(net, arguments.image, class_names(net, labelled), arguments.label), half, labelled)
    images = sample(labelled, arguments.images)
    arguments.looked_at = part.looked_at(len(images))
    return Chosen(images, half, labelled)


def number_of_files(paths: Sequence[str]) -> str:
    """How many image files were looked at, for a report."""
    return f"{len(paths):,} image file{'s' if len(paths) > 1 else ''}"


def image_files(net: Network, paths: Sequence[str], classes: tuple[str, ...], label: str | None = None) -> ArrayDataset:
    """These files, of the class that is called `label`, or else of those that the network says."""
    preprocess = preprocess_of(net)
    label = label if label is None or label in classes else printable(label)  # as the names of classes are shown
    if label is not None and label not in classes:
        raise ValueError(f"--label must be one of {listed(classes, most=100)}; got {label!r}{like(label, classes)}")
    images = np.stack([read_image(Path(path), preprocess.image_shape) for path in paths])
    if label is not None:
        labels = np.full(len(images), classes.index(label), np.int32)
    else:
        probabilities = net.predict(to_device(net, preprocess(images)))
        labels = np.asarray(probabilities.argmax(axis=1).tolist(), np.int32)
    return ArrayDataset(images, labels, classes, list(paths))
