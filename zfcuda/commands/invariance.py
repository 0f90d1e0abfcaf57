"""`zfcuda invariance`: how far features move when images are shifted, enlarged or turned (paper Fig. 5, P6)."""

from __future__ import annotations

import argparse

import numpy as np

from ..analysis import invariance
from ..analysis.invariance import amounts_for
from ..analysis.source import preprocess_of
from ..report import Report
from ..report.sections.invariance import invariance_section
from ..report.shown import short
from ..training import Ranks
from . import common
from .common import Commands
from .numbers import MANY
from .ranks import check_same, over_ranks


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "invariance",
        run,
        "how far features move when images are shifted, enlarged, turned",
        "Translates, scales and rotates images (signals: shifts and scales), and measures how far the features of two "
        "layers move and what happens to the probability of the true class. mpirun -n N zfcuda invariance ... shares "
        "the images among N processes.",
    )
    common.add_checkpoint(parser)
    common.add_data(parser)
    common.add_split(parser, images=5)
    parser.add_argument(
        "--layers", nargs="+", metavar="LAYER", help="default: the first block and the last hidden layer"
    )
    parser.add_argument("--steps", type=MANY, default=31, metavar="N", help="amounts per transform (default: 31)")


@over_ranks
def run(arguments: argparse.Namespace, ranks: Ranks) -> int:
    net = common.open_network(arguments)
    chosen = common.labelled(net, common.open_half(arguments, net, arguments.images))
    check_same(ranks, [arguments.checkpoint], {"images": chosen})
    raw, labels = chosen.batch(range(len(chosen)))
    preprocess = preprocess_of(net)
    images = np.asarray(preprocess(raw))
    amounts = amounts_for(net.input_shape, arguments.steps)
    directory = common.output(arguments, ranks)
    report = Report(
        "How invariant the features are",
        f"What was looked at: {arguments.looked_at}, under: {', '.join(amounts)}.",
        common.command_line(arguments),
    )
    result, _ = report.kept(
        invariance,
        net,
        images,
        labels.tolist(),
        amounts=amounts,
        layers=arguments.layers,
        progress=not arguments.quiet,
        ranks=ranks,
    )
    if result is not None:
        names = [short(chosen.identifier(i)) for i in range(len(result.labels))]
        if not result.one_output:
            names = [f"{name}: {chosen.classes[label]}" for name, label in zip(names, result.labels, strict=True)]
        report.add(invariance_section(result, images[: len(names)], names, preprocess))
    return common.finish(report, directory, ranks)
