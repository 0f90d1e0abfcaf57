"""`zfcuda features`: what each layer's frozen features are worth on another data set (paper Table 7, P11 and P12)."""

from __future__ import annotations

import argparse

from .. import data
from ..analysis import Budget, feature_analysis
from ..analysis.classifier import KINDS
from ..analysis.features import Fitted
from ..analysis.source import preprocess_of
from ..data import Augmentation, Dataset
from ..report import Report
from ..report.sections.features import features_section
from ..training import Linear, Ranks
from . import common
from .budget import add_flip
from .common import Commands
from .numbers import COUNT, EPOCHS, MANY, RATE, SEED
from .ranks import check_same, over_ranks


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "features",
        run,
        "what each layer's features are worth on another data set",
        "Trains linear classifiers on the frozen features of each layer, on another data set, with more and more "
        "images per class; with --scratch-epochs also the same network from scratch on those images. mpirun -n N "
        "zfcuda features ... shares the draws of training images among N processes.",
    )
    common.add_checkpoint(parser)
    common.add_data(parser)
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="default: the end of every block but the last")
    parser.add_argument(
        "--per-class",
        type=COUNT,
        nargs="+",
        default=[5, 15, 30, 60],
        metavar="N",
        help="training images per class (default: 5 15 30 60)",
    )
    parser.add_argument("--draws", type=MANY, default=3, metavar="N", help="of the training images (default: 3)")
    parser.add_argument(
        "--classifier", choices=KINDS, nargs="+", default=["softmax"], help="one or both (default: softmax)"
    )
    parser.add_argument("--test-images", type=COUNT, metavar="N", help="test on at most N images (default: all)")
    parser.add_argument("--scratch-epochs", type=EPOCHS, metavar="N", help="train the network from scratch as well")
    parser.add_argument("--lr", type=RATE, default=1e-2, help="of the network from scratch (default: 0.01)")
    add_flip(parser)
    parser.add_argument("--seed", type=SEED, default=0, help="of the draws (default: 0)")


@over_ranks
def run(arguments: argparse.Namespace, ranks: Ranks) -> int:
    net = common.open_network(arguments)
    preprocess = preprocess_of(net)
    common.choose_data(arguments, net)
    split = common.open_data(arguments, preprocess.image_shape[:2])
    check_same(ranks, [arguments.checkpoint], {"training images": split.train, "test images": split.test})
    train, test = (_fit(half, preprocess.image_shape) for half in split)
    if arguments.test_images:
        test = data.sample(test, arguments.test_images)
    augmentation = Augmentation.for_images(preprocess, flip=arguments.flip)
    budget = None
    if arguments.scratch_epochs:
        epochs = arguments.scratch_epochs
        budget = Budget(
            epochs,
            batch_size=32,
            lr=arguments.lr,
            schedule=Linear(epochs),
            augmentation=augmentation,
            scale=preprocess.scale,
        )
    directory = common.output(arguments, ranks)
    report = Report(
        f"Frozen features on {arguments.data}",
        f"The network of {arguments.checkpoint}, {len(test.classes)} classes, {len(test):,} test images."
        + (f" From scratch: {arguments.scratch_epochs} epochs, {augmentation}." if budget else ""),
        common.command_line(arguments),
    )
    for kind in dict.fromkeys(arguments.classifier):
        result, stopped = report.kept(
            feature_analysis,
            net,
            train,
            test,
            layers=arguments.layers,
            per_class=arguments.per_class,
            draws=arguments.draws,
            kind=kind,
            scratch=budget if kind == arguments.classifier[0] else None,  # it has a softmax of its own
            seed=arguments.seed,
            progress=not arguments.quiet,
            ranks=ranks,
        )
        if result is not None:
            report.add(features_section(result))
        if stopped:
            break
    return common.finish(report, directory, ranks)


def _fit(dataset: Dataset, image_shape: tuple[int, int, int]) -> Dataset:
    return dataset if dataset.image_shape == image_shape else Fitted(dataset, image_shape)
