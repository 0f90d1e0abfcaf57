"""`zfcuda ablate`: variants of a network, each trained from scratch under one budget (paper Table 3, P10)."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tqdm import tqdm

from ..analysis import Budget, ablation, table3
from ..analysis.ablation import Run
from ..data import Augmentation, Dataset, Preprocess, mean_image, sample
from ..nn.models import VARIANTS
from ..report import Report
from ..report.sections.ablation import ablation_section
from ..training import Ranks
from . import common
from .budget import add_budget, add_flip, add_model, architecture_of, input_scale, natural_size, schedule_of
from .common import Commands
from .numbers import COUNT, PROCESSES, SEED
from .ranks import over_ranks


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "ablate",
        run,
        "train variants from scratch and compare them",
        "Trains variants of a network from scratch under one budget and measures them as the paper's Table 3 does. "
        "Finished runs stay in --out: the same command goes on where it was interrupted, and what other images, "
        "settings or versions of zfcuda made is made anew. mpirun -n N zfcuda ablate ... trains N at a time.",
    )
    common.add_data(parser, required=True)
    add_model(parser)
    parser.add_argument(
        "--variants", nargs="+", metavar="NAME", help='Table 3\'s changes, such as "without layers 3,4" (default: all)'
    )
    parser.add_argument("--list", action=_List, nargs=0, help="print the names of the variants and stop")
    add_budget(parser, epochs=10)
    add_flip(parser)
    parser.add_argument("--seeds", type=SEED, nargs="+", default=[0], help="train each variant with these (default: 0)")
    parser.add_argument("--processes", type=PROCESSES, default=1, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument("--images", type=COUNT, metavar="N", help="train on at most N images (default: all)")


class _List(argparse.Action):
    """Answers at once, as --help does: no data is needed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print("\n".join(dict.fromkeys(variant.changes for variant in VARIANTS.values())))
        parser.exit()


@over_ranks
def run(arguments: argparse.Namespace, ranks: Ranks) -> int:
    if len(set(arguments.seeds)) < len(arguments.seeds):
        raise ValueError(f"--seeds must be different numbers, got {' '.join(map(str, arguments.seeds))}")
    split = common.open_data(arguments, natural_size(arguments.model))
    architecture = architecture_of(arguments.model, split)
    variants = table3(architecture, arguments.variants)
    directory = common.output(arguments, ranks)
    mean = mean_image(split.train)
    scale = input_scale(architecture, split, mean)
    preprocess = Preprocess(mean, architecture.input_shape[:2], scale)
    augmentation = Augmentation.for_images(preprocess, flip=arguments.flip)
    budget = Budget(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        lr=arguments.lr,
        momentum=arguments.momentum,
        weight_decay=arguments.weight_decay,
        max_filter_rms=arguments.max_filter_rms,
        schedule=schedule_of(arguments),
        augmentation=augmentation,
        scale=scale,
    )
    train: Dataset = sample(split.train, arguments.images) if arguments.images else split.train
    report = Report(
        f"Variants of {arguments.model} on {arguments.data}",
        f"Each trained from scratch for {arguments.epochs} epochs on {len(train):,} images ({augmentation}).",
        common.command_line(arguments),
    )
    result, _ = report.kept(
        ablation,
        variants,
        train,
        split.test,
        budget=budget,
        out_dir=directory / "runs",
        seeds=arguments.seeds,
        device=common.device(arguments),
        processes=arguments.processes,
        progress=not arguments.quiet,
        on_run=_say,
        say=_write,
        about={"data": common.described_data(arguments)},
        ranks=ranks,
    )
    if result is not None:
        report.add(ablation_section(result))
    return common.finish(report, directory, ranks)


def _say(run: Run) -> None:
    _write(f"{run.variant}, seed {run.seed}: test error {run.validation_error:.2f} %")


def _write(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
