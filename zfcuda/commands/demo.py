"""`zfcuda demo`: the main job on the images in the package, in a few minutes on a laptop's processor."""

from __future__ import annotations

import argparse
import time

from .. import data
from ..analysis import Budget, ablation, table3
from ..analysis.occlusion import square_of
from ..data import Augmentation, Preprocess, mean_image, sample, unit_scale
from ..nn import Network, models
from ..report import Report
from ..report.sections.ablation import ablation_section
from ..report.sections.occlusion import add_occlusion
from ..report.sections.sanity import add_sanity_of_rules
from ..report.sections.training import training_section
from ..report.sections.visualization import add_visualization
from ..training import Linear, Trainer
from ..training.trainer import CHECKPOINT
from . import common
from .budget import add_flip
from .common import Commands
from .numbers import EPOCHS, SEED

_ABLATED = ("as it is", "without layers 3,4", "without layers 3,4,6,7")
_ABLATION_IMAGES, _ABLATION_EPOCHS = 4000, 3
_BATCH, _LEARNING_RATE = 64, 2e-2


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "demo",
        run,
        "the main job, on the images in the package",
        "Trains zfnet_small from scratch on a subset of Fashion-MNIST, projects what excites every block, occludes "
        "test images, and compares three variants. About three minutes on two processor cores.",
    )
    parser.add_argument("--epochs", type=EPOCHS, default=8, metavar="N", help="of the main training (default: 8)")
    parser.add_argument("--seed", type=SEED, default=0, help="default: 0")
    add_flip(parser)


def run(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    directory = common.output(arguments)
    print(f"report: {(directory / 'report.html').resolve()} (when it is done)")
    progress, place = not arguments.quiet, common.device(arguments)
    split = data.open(data.FASHION_MNIST)
    architecture = models.zfnet_small_architecture(len(split.train.classes), split.train.image_shape)
    mean = mean_image(split.train)
    preprocess = Preprocess(mean, architecture.input_shape[:2], unit_scale(split.train, mean))
    augmentation = Augmentation.for_images(preprocess, flip=arguments.flip)

    _say("1/4 training zfnet_small from scratch on 12,000 images of Fashion-MNIST")
    net = Network(architecture, seed=arguments.seed).to(place)
    history = Trainer(net, lr=_LEARNING_RATE, seed=arguments.seed).fit(
        split.train,
        split.test,
        epochs=arguments.epochs,
        batch_size=_BATCH,
        schedule=Linear(arguments.epochs),
        augmentation=augmentation,
        preprocess=preprocess,
        out_dir=directory,
        about={"data": {"name": data.FASHION_MNIST}},
        progress=progress,
    )
    accuracy = 100 * history[-1]["validation_top1"]
    report = Report("What a convnet learned from Fashion-MNIST", command=common.command_line(arguments))
    report.add(training_section(net, history, [("augmentation", str(augmentation))]))

    _say("2/4 ranking and projecting what excites each map")
    stopped = add_visualization(report, net, split.test, progress=progress)
    if not stopped:
        stopped = add_sanity_of_rules(report, net, split.test, progress=progress)

    if not stopped:
        _say("3/4 occluding test images")
        square = square_of(net)
        stopped = add_occlusion(report, net, sample(split.test, 10), split.test, square=square, progress=progress)

    if not stopped:
        _say("4/4 training three variants with a smaller budget")
        compared, _ = report.kept(
            ablation,
            table3(architecture, _ABLATED),
            sample(split.train, _ABLATION_IMAGES),
            split.test,
            budget=Budget(
                _ABLATION_EPOCHS,
                _BATCH,
                _LEARNING_RATE,
                schedule=Linear(_ABLATION_EPOCHS),
                augmentation=augmentation,
                scale=preprocess.scale,
            ),
            device=place,
            progress=progress,
        )
        if compared is not None:
            report.add(ablation_section(compared))

    minutes = (time.perf_counter() - started) / 60
    report.subtitle = (
        f"zfnet_small, trained from scratch to {accuracy:.1f} % test accuracy, and looked at with a deconvnet; "
        f"{minutes:.1f} minutes in all."
    )
    print(f"test accuracy: {accuracy:.2f} %")
    print(f"checkpoint: {(directory / CHECKPOINT).resolve()}")
    return common.finish(report, directory)


def _say(words: str) -> None:
    print(words, flush=True)
