"""`zfcuda faithfulness`: whether what maps call relevant is what the network needs (Petsiuk et al. 2018)."""

from __future__ import annotations

import argparse

from ..analysis.sanity import METHODS
from ..pairs import check_part
from ..report import Report
from ..report.sections.faithfulness import add_faithfulness
from . import common
from .chosen import add_chosen, open_chosen
from .common import Commands
from .numbers import MANY, SEED, SIDES
from .ranks import alone


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "faithfulness",
        run,
        "whether what maps call relevant is what the network needs",
        "Paints images over patch by patch, the most relevant by a map first, and follows the probability of the class "
        "(deletion); then brings the patches back in that order (insertion). Random orders are measured beside it.",
    )
    common.add_checkpoint(parser)
    common.add_data(parser)
    add_chosen(parser, images=8)
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=["occlusion", "gradient"],
        metavar="METHOD",
        help=f"some of {', '.join(METHODS)}: occlusion, or the class projected to pixels by a rule "
        "(default: occlusion gradient)",
    )
    parser.add_argument(
        "--patch",
        type=SIDES,
        metavar="PIXELS",
        help="side of the patches, or their height x width (default: a sixteenth of the image)",
    )
    common.add_fill(parser)
    parser.add_argument("--orders", type=MANY, default=3, metavar="N", help="random orders beside it (default: 3)")
    parser.add_argument("--seed", type=SEED, default=0, help="of the random orders and of noise (default: 0)")
    common.add_square(parser)


@alone
def run(arguments: argparse.Namespace) -> int:
    net = common.open_network(arguments)
    square = common.square_of(arguments, net)
    if arguments.patch is not None:
        check_part("--patch", arguments.patch, net.input_shape[:2])
    chosen = open_chosen(arguments, net).images
    directory = common.output(arguments)
    report = Report(
        "Do maps show what the network needs?",
        f"What was looked at: {arguments.looked_at}. "
        "Images are painted over patch by patch, in the order in which a map calls them relevant.",
        common.command_line(arguments),
    )
    add_faithfulness(
        report,
        net,
        chosen,
        methods=list(dict.fromkeys(arguments.methods)),
        square=square,
        patch=arguments.patch,
        fill=arguments.fill,
        orders=arguments.orders,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    return common.finish(report, directory)
