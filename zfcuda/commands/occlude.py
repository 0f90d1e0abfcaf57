"""`zfcuda occlude`: a square slides over images, and the network is asked each time (paper Fig. 7, P8)."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..analysis import Cluttered, pointing
from ..analysis.source import preprocess_of, to_device
from ..data import ArrayDataset, Dataset, Subset, listed, printable, read_image, sample
from ..nn import Network
from ..report import Report
from ..report.sections.occlusion import add_occlusion
from ..report.sections.pointing import pointing_section
from ..report.shown import class_names
from . import common
from .common import Commands
from .numbers import COUNT, SIDE


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "occlude",
        run,
        "where a covered image loses its class",
        "Slides a grey square over images and maps the probability of the class, the prediction and the strongest "
        "feature map by the square's position.",
    )
    common.add_checkpoint(parser)
    common.add_data(parser)
    common.add_split(parser, images=8)
    parser.add_argument(
        "--image",
        nargs="+",
        metavar="FILE",
        default=[],
        help="image files, instead of a data set's; needs no --data",
    )
    parser.add_argument("--label", metavar="CLASS", help="the class of --image (default: what the network says)")
    parser.add_argument(
        "--pointing",
        type=COUNT,
        metavar="N",
        help="with --clutter: how often the lowest probability falls in the object's box, over N images",
    )
    parser.add_argument(
        "--size", type=SIDE, metavar="PIXELS", help="side of the square (default: a quarter of the image)"
    )
    parser.add_argument("--stride", type=SIDE, metavar="PIXELS", help="its steps (default: a quarter of its side)")
    parser.add_argument("--layer", help="whose strongest map is followed (default: the last with maps)")


def run(arguments: argparse.Namespace) -> int:
    net = common.open_network(arguments)
    square = common.square_of(arguments, net)
    if arguments.label is not None and not arguments.image:
        raise ValueError("--label needs --image: images of a data set have labels of their own")
    dataset = None if arguments.image and arguments.data is None else common.open_half(arguments, net)
    if arguments.pointing and not isinstance(dataset, Cluttered):
        raise ValueError("--pointing needs --clutter: only there are the boxes of the objects known")
    known = None if dataset is None else common.labelled(net, dataset)
    if known is None or arguments.image:
        chosen: Dataset = _files(net, arguments.image, class_names(net, known), arguments.label)
    else:
        chosen = sample(known, arguments.images)
    directory = common.output(arguments)
    report = Report(
        "Where the network looks",
        "A grey square slides over each image; what the network says is drawn at the square's place.",
        common.command_line(arguments),
    )
    stopped = add_occlusion(
        report, net, chosen, dataset, square=square, layer=arguments.layer, progress=not arguments.quiet
    )
    if known is not None and isinstance(dataset, Cluttered) and arguments.pointing and not stopped:
        at = np.unique(np.linspace(0, len(dataset) - 1, min(arguments.pointing, len(dataset))).astype(int))
        subset, (size, stride) = Subset(known, at), square
        result, _ = report.kept(
            pointing,
            net,
            subset,
            subset.labels,
            dataset.boxes[at],
            size=size,
            stride=stride,
            progress=not arguments.quiet,
        )
        if result is not None:
            report.add(pointing_section(result))
    return common.finish(report, directory)


def _files(net: Network, paths: Sequence[str], classes: tuple[str, ...], label: str | None) -> ArrayDataset:
    preprocess = preprocess_of(net)
    label = label if label is None or label in classes else printable(label)  # as the names of classes are shown
    if label is not None and label not in classes:
        like = listed(difflib.get_close_matches(label, classes))
        hint = f", which is like {like}" if like else ""
        raise ValueError(f"--label must be one of {listed(classes, most=100)}; got {label!r}{hint}")
    images = np.stack([read_image(Path(path), preprocess.image_shape) for path in paths])
    if label is not None:
        labels = np.full(len(images), classes.index(label), np.int32)
    else:
        probabilities = net.predict(to_device(net, preprocess(images)))
        labels = np.asarray(probabilities.argmax(axis=1).tolist(), np.int32)
    return ArrayDataset(images, labels, classes, list(paths))
