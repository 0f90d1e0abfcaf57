"""`zfcuda occlude`: a square slides over images, and the network is asked each time (paper Fig. 7, P8)."""

from __future__ import annotations

import argparse

import numpy as np

from ..analysis import Cluttered, pointing
from ..analysis.pointing import too_small
from ..analysis.source import preprocess_of
from ..data import Preprocess, Subset
from ..report import Report
from ..report.sections.occlusion import add_occlusion
from ..report.sections.pointing import pointing_section
from ..training import Ranks
from . import common
from .chosen import add_chosen, open_chosen
from .common import Commands
from .numbers import COUNT, SEED
from .ranks import check_same, over_ranks


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "occlude",
        run,
        "where a covered image loses its class",
        "Slides a square over images and maps the probability of the class, the prediction and the strongest "
        "feature map by the square's position. mpirun -n N zfcuda occlude ... shares the images among N processes.",
    )
    common.add_checkpoint(parser)
    common.add_data(parser)
    add_chosen(parser, images=8)
    parser.add_argument(
        "--pointing",
        type=COUNT,
        metavar="N",
        help="with --clutter: how often the lowest probability falls in the object's box, over N images",
    )
    common.add_square(parser)
    common.add_fill(parser)
    parser.add_argument("--seed", type=SEED, default=0, help="of noise (default: 0)")
    parser.add_argument("--layer", help="whose strongest map is followed (default: the last with maps)")


@over_ranks
def run(arguments: argparse.Namespace, ranks: Ranks) -> int:
    net = common.open_network(arguments)
    square = common.square_of(arguments, net)
    clutter_needed = "--pointing needs --clutter: only there are the boxes of the objects known"
    if arguments.pointing and arguments.image and arguments.data is None:
        raise ValueError(clutter_needed)
    chosen, dataset, known = open_chosen(arguments, net)
    if arguments.pointing and not isinstance(dataset, Cluttered):
        raise ValueError(clutter_needed)
    read = {"images": chosen, "data": dataset}
    check_same(ranks, [arguments.checkpoint], {name: one for name, one in read.items() if one is not None})
    directory = common.output(arguments, ranks)
    report = Report(
        "Where the network looks",
        f"What was looked at: {arguments.looked_at}. "
        "A part of each image is covered, place by place; what the network says is drawn at that place.",
        common.command_line(arguments),
    )
    stopped = add_occlusion(
        report,
        net,
        chosen,
        dataset,
        square=square,
        fill=arguments.fill,
        seed=arguments.seed,
        layer=arguments.layer,
        progress=not arguments.quiet,
        ranks=ranks,
    )
    if known is not None and isinstance(dataset, Cluttered) and arguments.pointing and not stopped:
        boxes = _seen(dataset.boxes, preprocess_of(net))
        visible = np.flatnonzero(~too_small(boxes, net.input_shape, square))
        if not len(visible):
            raise ValueError("--stride is so large that no square has its centre in an object that the network sees")
        at = visible[np.unique(np.linspace(0, len(visible) - 1, min(arguments.pointing, len(visible))).astype(int))]
        subset, (size, stride) = Subset(known, at), square
        result, _ = report.kept(
            pointing,
            net,
            subset,
            subset.labels,
            boxes[at],
            size=size,
            stride=stride,
            fill=arguments.fill,
            seed=arguments.seed,
            progress=not arguments.quiet,
            ranks=ranks,
        )
        if result is not None:
            report.add(pointing_section(result))
    return common.finish(report, directory, ranks)


def _seen(boxes: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Boxes (N,4) in pixels of the data's images -> in the network's, what it sees of them; of no size if nothing."""
    corners = [boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]
    first, last = (np.clip(at - preprocess.test_corners[-1], 0, preprocess.crop) for at in corners)
    return np.concatenate([first, last - first], axis=1)
