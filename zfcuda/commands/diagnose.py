"""`zfcuda diagnose`: dead maps, rough filters, aliasing and domineering filters, measured (paper Fig. 6, P7)."""

from __future__ import annotations

import argparse

from ..analysis import Diagnosis, diagnosis
from ..data import Dataset
from ..nn import Network
from ..report import Chart, Note, Report, Section, Table
from . import visualize
from .common import (
    Commands,
    add_command,
    add_data,
    add_split,
    command_line,
    finish,
    kept,
    open_half,
    open_network,
    output,
)


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "diagnose",
        run,
        "dead maps, rough filters and aliasing, layer by layer",
        "Measures every convolution: maps that never fire, the filters' spectra, the response that the stride aliases, "
        "filters that dominate. Several checkpoints are compared.",
    )
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="networks that `zfcuda train` saved")
    add_data(parser)
    add_split(parser)


def run(arguments: argparse.Namespace) -> int:
    directory = output(arguments)
    report = Report("Diagnosis", f"Measured on images of {arguments.data}.", command_line(arguments))
    results: dict[str, Diagnosis] = {}
    for number, path in enumerate(dict.fromkeys(arguments.checkpoints), start=1):
        arguments.checkpoint = path
        net = open_network(arguments)
        dataset = open_half(arguments, net)
        result, stopped = kept(report, diagnosis, net, dataset, progress=not arguments.quiet)
        if result is not None:
            results[path] = result
            report.add(section(net, dataset, result, path if len(arguments.checkpoints) > 1 else "", number))
        if stopped:
            break
    if len(results) > 1:
        report.sections.insert(0, comparison(results))
    return finish(report, directory)


def section(net: Network, dataset: Dataset, result: Diagnosis, name: str = "", number: int = 1) -> Section:
    """A verdict per layer, the measures behind it, and the pictures a person would look at."""
    rows = [
        [
            layer.layer,
            f"{layer.kernel[0]} x {layer.kernel[1]}, stride {layer.stride[0]}",
            len(layer.dead),
            int(layer.dead.sum()),
            100 * float(layer.firing.mean()),
            100 * float(layer.spectrum[:, 2].mean()),
            100 * float(layer.aliased.mean()),
            int(layer.outliers.sum()),
            layer.verdict,
        ]
        for layer in result.layers
    ]
    columns = ("layer", "filters", "maps", "dead", "firing %", "high frequency %", "aliased %", "outliers", "verdict")
    unusual = [f"{layer.layer}: {layer.verdict}" for layer in result.layers if layer.problems]
    note = Note("; ".join(unusual), "warning") if unusual else Note("Nothing unusual in any layer.", "good")
    suffix = f"-{number}" if number > 1 else ""
    parts: list = [note, Table(columns, rows, decimals=1), Chart(f"diagnosis{suffix}", result.plot())]
    parts += visualize.filters(net, suffix)
    blurb = (
        f"Over {result.images:,} images. Dead maps never fire; high frequencies are above 1/4 cycle a pixel; aliased "
        "is what a stride folds back into false patterns; outliers are filters three times as strong as the median."
    )
    return Section(f"Diagnosis of {name}" if name else "Diagnosis", parts, blurb, result.numbers())


def comparison(results: dict[str, Diagnosis]) -> Section:
    """The first layers of several networks side by side: the paper's 11x11 stride 4 against 7x7 stride 2."""
    rows = []
    for path, result in results.items():
        first = result.layers[0]
        rows.append(
            [
                path,
                f"{first.kernel[0]} x {first.kernel[1]}, stride {first.stride[0]}",
                100 * float(first.dead.mean()),
                100 * float(first.spectrum[:, 0].mean()),
                100 * float(first.spectrum[:, 2].mean()),
                100 * float(first.aliased.mean()),
            ]
        )
    columns = ("network", "first layer", "dead %", "low frequency %", "high frequency %", "aliased %")
    return Section("First layers compared", [Table(columns, rows, decimals=1)])
