"""`zfcuda diagnose`: dead maps, rough filters, aliasing and domineering filters, measured (paper Fig. 6, P7)."""

from __future__ import annotations

import argparse

from ..analysis import Diagnosis, diagnosis
from ..report import Report
from ..report.sections.diagnosis import comparison_section, diagnosis_section
from ..training import Ranks
from . import common
from .common import Commands
from .ranks import check_same, over_ranks


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "diagnose",
        run,
        "dead maps, rough filters and aliasing, layer by layer",
        "Measures every convolution: maps that never fire, the filters' spectra, the response that the stride aliases, "
        "filters that dominate. Several checkpoints are compared. mpirun -n N zfcuda diagnose ... shares the images "
        "among N processes.",
    )
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="networks that `zfcuda train` saved")
    common.add_data(parser)
    common.add_split(parser)


@over_ranks
def run(arguments: argparse.Namespace, ranks: Ranks) -> int:
    opened, looked_at = {}, []
    arguments.told = set()  # of files that are left out, once for all networks
    for path in dict.fromkeys(arguments.checkpoints):
        of_one = argparse.Namespace(**vars(arguments) | {"checkpoint": path})
        net = common.open_network(of_one)
        opened[path] = (net, common.open_half(of_one, net, arguments.images))
        looked_at.append(of_one.looked_at)
    check_same(ranks, list(opened), {f"images for {path}": dataset for path, (_, dataset) in opened.items()})
    directory = common.output(arguments, ranks)
    measured = f"What was looked at: {'; '.join(dict.fromkeys(looked_at))}."
    report = Report("Diagnosis", measured, common.command_line(arguments))
    results: dict[str, Diagnosis] = {}
    for number, (path, (net, dataset)) in enumerate(opened.items(), start=1):
        result, stopped = report.kept(diagnosis, net, dataset, progress=not arguments.quiet, ranks=ranks)
        if result is not None:
            results[path] = result
            report.add(diagnosis_section(net, result, path if len(opened) > 1 else "", number))
        if stopped:
            break
    if len(results) > 1:
        report.sections.insert(0, comparison_section(results))
    return common.finish(report, directory, ranks)
