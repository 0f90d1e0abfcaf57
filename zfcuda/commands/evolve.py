"""`zfcuda evolve`: how features came to be during a training that was tracked (paper Fig. 4, P5)."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..analysis import load_evolution
from ..analysis.evolution import FOLDER
from ..errors import DataError
from ..nn import load
from ..nn.finite import check_weights
from ..report import Report
from ..report.sections.evolution import evolution_section
from . import common
from .common import Commands
from .ranks import alone


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "evolve",
        run,
        "how features came to be during training",
        "Shows what `zfcuda train --track-evolution` saw: the strongest projection of chosen maps, epoch by epoch.",
    )
    common.add_checkpoint(parser)


@alone
def run(arguments: argparse.Namespace) -> int:
    net = load(arguments.checkpoint)
    check_weights(net)
    folder = Path(arguments.checkpoint).parent / FOLDER
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: train with --track-evolution to fill it")
    report = Report(
        "How features evolved", f"Seen while {arguments.checkpoint} was trained.", common.command_line(arguments)
    )
    try:
        seen = load_evolution(folder, net.origin.get("training"))
    except ValueError as error:
        raise DataError(f"{folder} holds no looks at the training of {arguments.checkpoint} ({error})") from error
    report.add(evolution_section(seen))
    return common.finish(report, common.output(arguments))
