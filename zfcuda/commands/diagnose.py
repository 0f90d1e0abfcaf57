"""`zfcuda diagnose`: dead maps, rough filters, aliasing and domineering filters, measured (paper Fig. 6, P7)."""

from __future__ import annotations

import argparse

from ..analysis import Diagnosis, diagnosis
from ..report import Report
from ..report.sections.diagnosis import comparison_section, diagnosis_section
from . import common
from .common import Commands


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "diagnose",
        run,
        "dead maps, rough filters and aliasing, layer by layer",
        "Measures every convolution: maps that never fire, the filters' spectra, the response that the stride aliases, "
        "filters that dominate. Several checkpoints are compared.",
    )
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="networks that `zfcuda train` saved")
    common.add_data(parser)
    common.add_split(parser)


def run(arguments: argparse.Namespace) -> int:
    directory = common.output(arguments)
    report = Report("Diagnosis", f"Measured on images of {arguments.data}.", common.command_line(arguments))
    results: dict[str, Diagnosis] = {}
    for number, path in enumerate(dict.fromkeys(arguments.checkpoints), start=1):
        arguments.checkpoint = path
        net = common.open_network(arguments)
        dataset = common.open_half(arguments, net, arguments.images)
        result, stopped = report.kept(diagnosis, net, dataset, progress=not arguments.quiet)
        if result is not None:
            results[path] = result
            report.add(diagnosis_section(net, result, path if len(arguments.checkpoints) > 1 else "", number))
        if stopped:
            break
    if len(results) > 1:
        report.sections.insert(0, comparison_section(results))
    return common.finish(report, directory)
