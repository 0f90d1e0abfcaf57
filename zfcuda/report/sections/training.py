"""How a training went (paper 3, P2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...analysis.figures import new_figure
from ...nn import Network
from .. import Chart, Facts, Section, Table


def training_section(net: Network, history: Sequence[dict[str, Any]], extra: Sequence[tuple[str, str]] = ()) -> Section:
    """How a training went: its end in numbers, its course as a chart and a table."""
    last = history[-1]
    parameters = sum(math.prod(shape) for shape in net.architecture.parameter_shapes().values())
    seconds = sum(epoch["seconds"] for epoch in history)
    facts = [
        ("test top-1", f"{100 * last['validation_top1']:.2f} %"),
        ("test top-5", f"{100 * last['validation_top5']:.2f} %"),
        *extra,
        ("epochs", f"{last['epoch']}"),
        ("training time", f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"),
        ("images a second", f"{last['images_per_second']:,.0f}"),
        ("parameters", f"{parameters:,}"),
        ("precision", net.precision),
    ]
    columns = (
        "epoch",
        "learning rate",
        "training loss",
        "training top-1 %",
        "test loss",
        "test top-1 %",
        "test top-5 %",
    )
    rows = [
        [
            epoch["epoch"],
            epoch["lr"],
            epoch["train_loss"],
            100 * epoch["train_top1"],
            epoch["validation_loss"],
            100 * epoch["validation_top1"],
            100 * epoch["validation_top5"],
        ]
        for epoch in history
    ]
    parts = [Facts(facts), Chart("training", _chart(history)), Table(columns, rows, decimals=3)]
    blurb = "Training figures are those of the augmented images, under dropout, while the weights were changing."
    return Section("Training", parts, blurb, list(history))


def _chart(history: Sequence[dict[str, Any]]) -> Any:
    figure, axes = new_figure(columns=2, width=9.0, height=3.2)
    epochs = [epoch["epoch"] for epoch in history]
    for axis, (label, train, test) in zip(
        axes[0],
        (("loss", "train_loss", "validation_loss"), ("top-1 error, %", "train_top1", "validation_top1")),
        strict=True,
    ):
        for name, key in (("training", train), ("test", test)):
            values = [epoch[key] for epoch in history]
            error = [100 * (1 - value) for value in values] if key.endswith("top1") else values
            axis.plot(epochs, error, label=name, marker="o", markersize=3)
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.legend(frameon=False)
    return figure
