"""`zfcuda train`: a network from scratch on any data set (paper 3, P2)."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

from ..analysis import Tracker
from ..analysis.evolution import PAPER_EPOCHS
from ..analysis.figures import new_figure
from ..data import Preprocess, Split, mean_image, sample, unit_scale
from ..nn import Network, models
from ..nn.layers import PRECISIONS
from ..report import Chart, Facts, Report, Section, Table
from ..training import Fixed, Linear, Plateau, Schedule, Step, Trainer, evaluate
from ..training.trainer import CHECKPOINT
from . import evolve
from .common import (
    Commands,
    add_command,
    add_data,
    command_line,
    device,
    finish,
    fraction,
    open_data,
    output,
    positive,
)

MODELS = ("zfnet_small", "zfnet", "alexnet")
_TRACKED_IMAGES = 2000
_FULL_SIZE, _FULL_CROP = 256, 224  # the paper's images and crops


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "train",
        run,
        "train a network from scratch",
        "Trains a network from scratch, checkpoint by checkpoint. Ctrl-C loses one epoch at most: --resume goes on.",
    )
    add_data(parser)
    parser.add_argument("--model", choices=MODELS, default="zfnet_small", help="default: zfnet_small")
    parser.add_argument(
        "--first-layer",
        type=positive,
        nargs=2,
        metavar=("KERNEL", "STRIDE"),
        help="of the first convolution, such as 11 4 (default: the model's own)",
    )
    add_budget(parser, epochs=20)
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of convolutions and fully connected layers: exact float32, float32 on tensor cores, or bfloat16 "
        "activations, for half the memory; weights are float32 in each (default: fp32)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--ten-crop", action="store_true", help="test with ten crops of each image, as the paper does")
    parser.add_argument(
        "--track-evolution",
        type=positive,
        nargs="*",
        metavar="EPOCH",
        help="project the strongest activation of some maps after these epochs (default: 1 2 5 10 20 30 40 64)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, dropout, crops and order (default: 0)")


def add_budget(parser: argparse.ArgumentParser, epochs: int) -> None:
    """How long and how fast to train."""
    parser.add_argument("--epochs", type=positive, default=epochs, metavar="N", help=f"default: {epochs}")
    parser.add_argument("--batch-size", type=positive, default=128, metavar="N", help="default: 128")
    parser.add_argument("--lr", type=fraction, default=1e-2, help="learning rate (default: 0.01)")
    parser.add_argument("--momentum", type=float, default=0.9, help="default: 0.9")
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="default: 5e-4")
    parser.add_argument(
        "--max-filter-rms",
        type=fraction,
        metavar="RMS",
        help="scale filters with a larger root mean square back to this (the paper's 0.1)",
    )
    parser.add_argument(
        "--schedule",
        choices=("linear", "plateau", "step", "fixed"),
        default="linear",
        help="how the learning rate falls: in a line, by ten when the validation error stalls (the paper's way), by "
        "ten after half and three quarters of the epochs, not at all (default: linear)",
    )


def schedule_of(arguments: argparse.Namespace) -> Schedule:
    epochs = arguments.epochs
    if arguments.schedule == "step":
        return Step(tuple(sorted({max(1, epochs // 2), max(1, 3 * epochs // 4)})))
    schedules: dict[str, Schedule] = {"linear": Linear(epochs), "plateau": Plateau(), "fixed": Fixed()}
    return schedules[arguments.schedule]


def natural_size(model: str) -> int | None:
    """The size to which a model's images are scaled, None for that of the data."""
    return None if model == "zfnet_small" else _FULL_SIZE


def architecture_of(model: str, split: Split) -> Any:
    """The model's architecture for this data set."""
    classes = len(split.train.classes)
    if model == "zfnet_small":
        return models.zfnet_small_architecture(classes, split.train.image_shape)
    height, width, channels = split.train.image_shape
    if min(height, width) < _FULL_CROP or channels != 3:
        raise ValueError(
            f"--model {model} takes colour images of {_FULL_CROP} x {_FULL_CROP} or more, but the data set's are "
            f"{height} x {width} x {channels}; --model zfnet_small takes these"
        )
    build = models.zfnet_architecture if model == "zfnet" else models.alexnet_architecture
    return build(classes, _FULL_CROP)


def input_scale(model: str, split: Split, mean: Any) -> float:
    """The factor on the pixels: the paper's range for the paper's nets, a standard deviation of 1 for the small one."""
    return unit_scale(split.train, mean) if model == "zfnet_small" else 1.0


def run(arguments: argparse.Namespace) -> int:
    place = device(arguments)
    split = open_data(arguments, natural_size(arguments.model))
    architecture = architecture_of(arguments.model, split)
    if arguments.first_layer:
        architecture = models.change_first_layer(architecture, *arguments.first_layer)
    directory = output(arguments)
    net = Network(architecture, seed=arguments.seed).to(place)
    mean = mean_image(split.train)
    trainer = Trainer(
        net,
        arguments.lr,
        arguments.momentum,
        arguments.weight_decay,
        arguments.max_filter_rms,
        precision=arguments.precision,
        seed=arguments.seed,
    )
    tracker = None
    if arguments.track_evolution is not None:
        looked_at = sample(split.train, _TRACKED_IMAGES)
        at = arguments.track_evolution or PAPER_EPOCHS
        tracker = Tracker(net, looked_at, at=at, out_dir=directory / evolve.FOLDER)
    history = trainer.fit(
        split.train,
        split.test,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        schedule=schedule_of(arguments),
        preprocess=Preprocess(mean, architecture.input_shape[:2], input_scale(arguments.model, split, mean)),
        out_dir=directory,
        resume=arguments.resume,
        callbacks=[tracker] if tracker else [],
        progress=not arguments.quiet,
    )
    report = Report(
        f"{arguments.model} on {arguments.data}",
        f"Trained from scratch on {len(split.train):,} images of {len(split.train.classes)} classes.",
        command_line(arguments),
    )
    extra = []
    if arguments.ten_crop:
        extra.append(("test top-1, ten crops", f"{100 * evaluate(net, split.test, ten_crop=True).top1:.2f} %"))
    report.add(section(net, history, extra))
    if tracker is not None:
        report.add(evolve.section(tracker.result()))
    print(f"checkpoint: {(directory / CHECKPOINT).resolve()}")
    return finish(report, directory)


def section(net: Network, history: Sequence[dict[str, Any]], extra: Sequence[tuple[str, str]] = ()) -> Section:
    """How a training went: its end in numbers, its course as a chart and a table."""
    last = history[-1]
    parameters = sum(math.prod(shape) for shape in net.parameter_shapes().values())
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
