"""`zfcuda sanity`: how far pictures depend on what the network has learned (Adebayo et al. 2018)."""

from __future__ import annotations

import argparse

from ..report import Report
from ..report.sections.sanity import add_sanity
from . import common
from .common import Commands
from .numbers import SEED
from .ranks import alone


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "sanity",
        run,
        "whether pictures depend on what the network has learned",
        "Replaces the network's weights by random ones, layer by layer from the top down, and measures how like the "
        "intact network's the projections by each rule and the occlusion maps stay. The checkpoint stays as it is.",
    )
    common.add_checkpoint(parser)
    common.add_data(parser)
    common.add_split(parser, images=10)
    parser.add_argument(
        "--layer",
        help="whose strongest unit is projected (default: the last, so the class that the network names, "
        "or its one output)",
    )
    common.add_square(parser)
    parser.add_argument("--seed", type=SEED, default=0, help="of the random weights (default: 0)")


@alone
def run(arguments: argparse.Namespace) -> int:
    net = common.open_network(arguments)
    size, stride = common.square_of(arguments, net)
    dataset = common.open_half(arguments, net, arguments.images)
    directory = common.output(arguments)
    report = Report(
        "What is left without what was learned",
        f"What was looked at: {arguments.looked_at}; by networks that are more and more random.",
        common.command_line(arguments),
    )
    add_sanity(
        report,
        net,
        dataset,
        layer=arguments.layer,
        size=size,
        stride=stride,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    return common.finish(report, directory)
