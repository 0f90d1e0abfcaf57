"""`zfcuda visualize`: the images that excite each map most, projected to pixels (paper Fig. 2, P4)."""

from __future__ import annotations

import argparse
import sys

from ..data import Dataset
from ..nn.layers import RULES
from ..report import Report
from ..report.sections.sanity import add_sanity_of_rules
from ..report.sections.visualization import add_visualization, without_switches
from ..report.shown import class_names
from ..training import Ranks
from . import common
from .chosen import add_image, image_files, number_of_files
from .common import Commands
from .numbers import BATCH, MANY
from .ranks import check_same, over_ranks


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "visualize",
        run,
        "the images that excite each map most, projected to pixels",
        "Ranks all images by how strongly they excite each map, in one pass, and projects the winners to pixels. "
        "mpirun -n N zfcuda visualize ... shares the images among N processes.",
    )
    common.add_checkpoint(parser)
    common.add_data(parser)
    common.add_split(parser)
    add_image(parser)
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="default: the end of every block with maps")
    parser.add_argument(
        "--maps", type=MANY, default=16, metavar="N", help="show the N strongest maps of a layer (default: 16)"
    )
    parser.add_argument("--top", type=MANY, default=9, metavar="K", help="winners per map (default: 9)")
    parser.add_argument("--rule", choices=RULES, default="deconvnet", help="how ReLUs are undone (default: deconvnet)")
    parser.add_argument("--batch-size", type=BATCH, default=64, metavar="N", help="images at a time (default: 64)")
    parser.add_argument(
        "--no-sanity", action="store_true", help="leave out the check of the rules against a random network"
    )


@over_ranks
def run(arguments: argparse.Namespace, ranks: Ranks) -> int:
    net = common.open_network(arguments)
    if arguments.image and arguments.data is not None:
        raise ValueError("--image and --data exclude each other: either files or a data set are looked at")
    if arguments.image:
        classes = ("",) if net.num_classes == 1 else class_names(net)  # one output calls an image nothing
        dataset: Dataset = image_files(net, arguments.image, classes)
        looked_at = number_of_files(arguments.image)
    else:
        dataset = common.open_half(arguments, net, arguments.images)
        looked_at = arguments.looked_at
    check_same(ranks, [arguments.checkpoint], {"images": dataset})
    directory = common.output(arguments, ranks)
    if arguments.rule == "deconvnet" and not ranks.rank and (hint := without_switches(net, arguments.layers)):
        print(hint, file=sys.stderr)
    report = Report(
        "What excites each map",
        f"What was looked at: {looked_at}; the strongest {arguments.top} for each map, projected with the "
        f"{arguments.rule} rule.",
        common.command_line(arguments),
    )
    stopped = add_visualization(
        report,
        net,
        dataset,
        layers=arguments.layers,
        maps=arguments.maps,
        k=arguments.top,
        rule=arguments.rule,
        batch_size=arguments.batch_size,
        progress=not arguments.quiet,
        ranks=ranks,
    )
    if not (stopped or arguments.no_sanity):
        add_sanity_of_rules(report, net, dataset, progress=not arguments.quiet, ranks=ranks)
    return common.finish(report, directory, ranks)
