"""`zfcuda invariance`: how far features move when images are shifted, enlarged or turned (paper Fig. 5, P6)."""

from __future__ import annotations

import argparse

import numpy as np

from ..analysis import Invariance, invariance
from ..analysis.invariance import TRANSFORMS, paper_amounts, transformed
from ..data import sample
from ..nn import Network
from ..report import Chart, Picture, Report, Section, Table
from ..report.pictures import enlarge, from_range, tile
from .common import (
    Commands,
    add_checkpoint,
    add_command,
    add_data,
    command_line,
    finish,
    kept,
    open_half,
    open_network,
    output,
    positive,
    preprocess_of,
    short,
)

_SHOWN, _SHOWN_IMAGES = 7, 10  # amounts of each transform, and images, in the pictures


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "invariance",
        run,
        "how far features move when images are shifted, enlarged, turned",
        "Translates, scales and rotates images, and measures how far the features of two layers move and what happens "
        "to the probability of the true class.",
    )
    add_checkpoint(parser)
    add_data(parser)
    parser.add_argument(
        "--split", choices=("train", "test"), default="test", help="which half of the data to look at (default: test)"
    )
    parser.add_argument("--images", type=positive, default=5, metavar="N", help="how many images (default: 5)")
    parser.add_argument(
        "--layers", nargs="+", metavar="LAYER", help="default: the first block and the last hidden layer"
    )
    parser.add_argument("--steps", type=positive, default=31, metavar="N", help="amounts per transform (default: 31)")


def run(arguments: argparse.Namespace) -> int:
    net = open_network(arguments)
    count, arguments.images = arguments.images, None
    chosen = sample(open_half(arguments, net), count)
    raw, labels = chosen.batch(range(len(chosen)))
    images = np.asarray(preprocess_of(net)(raw))
    amounts = {name: paper_amounts(name, net.input_shape[0], arguments.steps).tolist() for name in TRANSFORMS}
    directory = output(arguments)
    report = Report(
        "How invariant the features are",
        f"{len(chosen)} images of {arguments.data}, translated, scaled and rotated.",
        command_line(arguments),
    )
    result, _ = kept(
        report,
        invariance,
        net,
        images,
        labels.tolist(),
        amounts=amounts,
        layers=arguments.layers,
        progress=not arguments.quiet,
    )
    if result is not None:
        names = [f"{short(chosen.identifier(i))}: {chosen.classes[label]}" for i, label in enumerate(result.labels)]
        report.add(section(net, result, images[: len(names)], names))
    return finish(report, directory)


def section(net: Network, result: Invariance, images: np.ndarray, names: list[str]) -> Section:
    """The curves of Fig. 5, the transformed images, and how steady each layer is."""
    rows = [[name, *(curves.steadiness(layer) for layer in result.layers)] for name, curves in result.curves.items()]
    columns = ("transform", *(f"relative distance in {layer}" for layer in result.layers))
    parts: list = [Table(columns, rows, "Mean over images and amounts; 0: the features do not move.", decimals=3)]
    parts.append(Chart("invariance", result.plot(names)))
    for name, curves in result.curves.items():
        shown = curves.amounts[np.linspace(0, len(curves.amounts) - 1, min(_SHOWN, len(curves.amounts))).astype(int)]
        low, high = float(images.min()), float(images.max())
        tiles = [
            from_range(transformed(image, name, amount), low, high)
            for image in images[:_SHOWN_IMAGES]
            for amount in shown
        ]
        caption = f"{name}: {', '.join(f'{amount:.3g}' for amount in shown)}"
        parts.append(Picture(f"invariance-{name}", tile([enlarge(t, 64) for t in tiles], len(shown), gap=2), caption))
    blurb = (
        "Left, the Euclidean distance between the features of the image as it is and transformed, in each layer; "
        "right, the probability of the true class."
    )
    return Section("Invariance", parts, blurb, result.numbers())
