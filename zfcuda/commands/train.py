"""`zfcuda train`: a network from scratch on any data set (paper 3, P2)."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..analysis import Tracker
from ..analysis.evolution import FOLDER, PAPER_EPOCHS
from ..data import Augmentation, Preprocess, mean_image, sample
from ..nn import Architecture, Network, models, read_checkpoint
from ..nn.layers import PRECISIONS
from ..report import Report
from ..report.sections.evolution import evolution_section
from ..report.sections.training import training_section
from ..training import Ranks, Trainer, evaluate
from ..training.checkpoint import CHECKPOINT
from ..training.distributed import EXCHANGES, GRADIENTS
from ..training.origin import augmentation_of
from . import common
from .budget import add_budget, add_flip, add_model, architecture_of, input_scale, natural_size, schedule_of
from .common import Commands
from .numbers import EPOCHS, SEED, SIDE
from .ranks import over_ranks

_TRACKED_IMAGES = 2000


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "train",
        run,
        "train a network from scratch",
        "Trains a network from scratch, checkpoint by checkpoint. Ctrl-C loses one epoch at most: --resume goes on. "
        "mpirun -n N zfcuda train ... trains on N processes, each of which computes its share of every batch.",
    )
    common.add_data(parser, required=True)
    add_model(parser)
    parser.add_argument(
        "--first-layer",
        type=SIDE,
        nargs=2,
        metavar=("KERNEL", "STRIDE"),
        help="of the first convolution, such as 11 4 (default: the model's own)",
    )
    add_budget(parser, epochs=20)
    add_flip(parser)
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of convolutions and fully connected layers: exact float32, float32 on tensor cores, or bfloat16 "
        "activations, for half the memory; weights are float32 in each (default: fp32)",
    )
    parser.add_argument(
        "--gradients",
        choices=tuple(GRADIENTS),
        default="fp32",
        help="as what they travel between processes: exact, or rounded to bfloat16, half as much (default: fp32)",
    )
    parser.add_argument(
        "--exchange",
        choices=EXCHANGES,
        default="auto",
        help="how gradients travel between processes: from GPU to GPU by NCCL, or through the host's memory by MPI "
        "(default: nccl on GPUs, mpi on CPUs)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--ten-crop", action="store_true", help="test with ten crops of each image, as the paper does")
    parser.add_argument(
        "--track-evolution",
        type=EPOCHS,
        nargs="*",
        metavar="EPOCH",
        help="project the strongest activation of some maps after these epochs (default: 1 2 5 10 20 30 40 64)",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of weights, dropout, crops and order (default: 0)")


@over_ranks
def run(arguments: argparse.Namespace, ranks: Ranks) -> int:
    writes = ranks.rank == 0
    if writes and arguments.track_evolution is not None:
        _check_tracked(arguments)
    place = common.device(arguments)
    split = common.open_data(arguments, natural_size(arguments.model))
    architecture = architecture_of(arguments.model, split)
    if arguments.first_layer:
        architecture = _with_first_layer(architecture, *arguments.first_layer)
    directory = common.output(arguments, ranks)
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
        communicator=ranks.communicator,
        gradients=arguments.gradients,
        exchange=arguments.exchange,
    )
    tracker = None
    if writes and arguments.track_evolution is not None:
        looked_at = sample(split.train, _TRACKED_IMAGES)
        at = arguments.track_evolution or PAPER_EPOCHS
        tracker = Tracker(net, looked_at, at=at, out_dir=directory / FOLDER)
    preprocess = Preprocess(mean, architecture.input_shape[:2], input_scale(architecture, split, mean))
    history = trainer.fit(
        split.train,
        split.test,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        schedule=schedule_of(arguments),
        augmentation=None if arguments.flip else Augmentation.for_images(preprocess, flip=False),
        preprocess=preprocess,
        out_dir=directory,
        resume=arguments.resume,
        callbacks=[tracker] if tracker else [],
        about={"data": common.described_data(arguments)},
        progress=not arguments.quiet,
    )
    extra = [("augmentation", str(augmentation_of(net.origin)))]
    if arguments.ten_crop:
        result = evaluate(net, split.test, ten_crop=True, ranks=trainer.ranks)
        extra.append(("test top-1, ten crops", f"{100 * result.top1:.2f} %"))
    if not writes:
        return 0
    report = Report(
        f"{arguments.model} on {arguments.data}",
        f"Trained from scratch on {len(split.train):,} images of {len(split.train.classes)} classes.",
        common.command_line(arguments),
    )
    report.add(training_section(net, history, extra))
    if tracker is not None:
        report.add(evolution_section(tracker.result()))
    print(f"checkpoint: {(directory / CHECKPOINT).resolve()}")
    return common.finish(report, directory)


def _with_first_layer(architecture: Architecture, kernel: int, stride: int) -> Architecture:
    most = min(architecture.input_shape[:2])
    if max(kernel, stride) > most:
        raise ValueError(f"--first-layer must be numbers up to {most}, the image's side; got {kernel} {stride}")
    try:
        return models.change_first_layer(architecture, kernel, stride)
    except ValueError as error:
        raise ValueError(f"--first-layer {kernel} {stride} does not fit: {error}") from error


def _check_tracked(arguments: argparse.Namespace) -> None:
    """ValueError where there would be nothing to see after the epochs of --track-evolution."""
    last = max(arguments.track_evolution or (epoch for epoch in PAPER_EPOCHS if epoch <= arguments.epochs))
    if last > arguments.epochs:
        raise ValueError(f"--track-evolution must be epochs up to {arguments.epochs}, the last, got {last}")
    checkpoint, looks = Path(arguments.out) / CHECKPOINT, Path(arguments.out) / FOLDER
    if not arguments.resume or not checkpoint.exists() or looks.exists():
        return
    done = read_checkpoint(checkpoint, others=False).origin.get("epochs", 0)
    if last <= done:
        raise ValueError(f"--track-evolution must have an epoch after {done}, where the checkpoint is, got {last}")
