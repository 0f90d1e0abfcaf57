"""`zfcuda demo`: the main job on the images in the package, in a few minutes on a laptop's processor."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

from tqdm import tqdm

from .. import data
from ..analysis import Budget, ablation, block_layers, table3
from ..analysis.occlusion import square_of
from ..data import Augmentation, Dataset, Preprocess, mean_image, sample, unit_scale
from ..nn import Network, models
from ..report import Report, Section
from ..report.sections.ablation import ablation_section
from ..report.sections.occlusion import add_occlusion
from ..report.sections.sanity import add_sanity_of_rules
from ..report.sections.training import training_section
from ..report.sections.visualization import add_visualization
from ..training import Linear, Trainer
from ..training.checkpoint import CHECKPOINT
from ..training.trainer import Metrics
from . import common
from .budget import add_flip
from .common import Commands
from .numbers import EPOCHS, SEED
from .ranks import alone

_ABLATED = ("as it is", "without layers 3,4", "without layers 3,4,6,7")
_ABLATION_IMAGES, _ABLATION_EPOCHS = 4000, 3
_BATCH, _LEARNING_RATE = 64, 2e-2
_FIRST_IMAGES, _FIRST_MAPS = 500, 8  # of the look at the net after one epoch

# The parts, each with the time it takes, in epochs of the training, which is the first. Measured with one thread.
_PARTS = (
    ("training zfnet_small from scratch on 12,000 images of Fashion-MNIST", 0.0),
    ("ranking and projecting what excites each map", 0.3),
    ("occluding test images", 0.3),
    ("training three variants with a smaller budget", 3.0),
)
_EPOCH = 8.0  # seconds, as on two cores, until one has been timed


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "demo",
        run,
        "the main job, on the images in the package",
        "Trains zfnet_small from scratch on a subset of Fashion-MNIST, projects what excites every block, occludes "
        "test images, and compares three variants. One to three minutes on two processor cores; the first pictures are "
        "in the report after ten to twenty seconds.",
    )
    parser.add_argument("--epochs", type=EPOCHS, default=8, metavar="N", help="of the main training (default: 8)")
    parser.add_argument("--seed", type=SEED, default=0, help="default: 0")
    add_flip(parser)


@alone
def run(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    directory, epochs = common.output(arguments), arguments.epochs
    progress, place = not arguments.quiet, common.device(arguments)
    report = Report("What a convnet learned from Fashion-MNIST", command=common.command_line(arguments))
    growing = _Growing(report, directory, epochs)
    growing.begin(0)
    split = data.open(data.FASHION_MNIST)
    architecture = models.zfnet_small_architecture(len(split.train.classes), split.train.image_shape)
    mean = mean_image(split.train)
    preprocess = Preprocess(mean, architecture.input_shape[:2], unit_scale(split.train, mean))
    augmentation = Augmentation.for_images(preprocess, flip=arguments.flip)
    net = Network(architecture, seed=arguments.seed).to(place)

    def course(trainer: Trainer) -> list[Section]:
        return [training_section(net, trainer.history, [("augmentation", str(augmentation))])]

    def look(trainer: Trainer, metrics: Metrics) -> None:
        """After every epoch: how far the training is, after 1, 2, 4, ... how it goes; after the first what the net has
        learned by then."""
        epoch = metrics["epoch"]
        if epoch & (epoch - 1) == 0:
            report.sections = course(trainer)
        if epoch == 1:
            growing.look(net, sample(split.test, _FIRST_IMAGES))
        growing.trained(metrics)

    trainer, stopped = Trainer(net, lr=_LEARNING_RATE, seed=arguments.seed), False
    try:
        trainer.fit(
            split.train,
            split.test,
            epochs=epochs,
            batch_size=_BATCH,
            schedule=Linear(epochs),
            augmentation=augmentation,
            preprocess=preprocess,
            out_dir=directory,
            callbacks=[look],
            about={"data": {"name": data.FASHION_MNIST}},
            progress=progress,
        )
    except KeyboardInterrupt:
        stopped = True
        report.partial.append(f"{len(trainer.history)} of {epochs} epochs trained")
    if trainer.history:
        report.sections = course(trainer)
    if stopped:
        report.sections += growing.first
        report.write_page(directory)  # which says so even if there is nothing to save

    if not stopped:
        growing.begin(1)
        stopped = add_visualization(report, net, split.test, progress=progress)
        growing.first = []
    if not stopped:
        stopped = add_sanity_of_rules(report, net, split.test, progress=progress)

    if not stopped:
        growing.begin(2)
        square = square_of(net)
        stopped = add_occlusion(report, net, sample(split.test, 10), split.test, square=square, progress=progress)

    if not stopped:
        growing.begin(3)
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

    if report.sections:
        accuracy, minutes = 100 * trainer.history[-1]["validation_top1"], (time.perf_counter() - started) / 60
        report.subtitle = (
            f"zfnet_small, trained from scratch to {accuracy:.1f} % test accuracy, and looked at with a deconvnet; "
            f"{minutes:.1f} minutes in all."
        )
        print(f"test accuracy: {accuracy:.2f} %")
        print(f"checkpoint: {(directory / CHECKPOINT).resolve()}")
    return common.finish(report, directory)


class _Growing:
    """The report while it is made: its page has the parts that are done, and says, as the terminal does, what is being
    done and for how long. `first`: what is shown of the net after one epoch until all of it can be looked at."""

    def __init__(self, report: Report, directory: Path, epochs: int):
        self.first: list[Section] = []
        self._report, self._directory, self._epochs = report, directory, epochs
        self._part, self._trained, self._epoch = 0, 0, _EPOCH

    def begin(self, part: int) -> None:
        """Says that a part begins."""
        self._part = part
        doing = f"{part + 1}/{len(_PARTS)} {_PARTS[part][0]}"
        page = self._write(doing)
        if part == 0:
            first = _about(1.2 * self._epoch)
            print(f"report: {page.resolve()} (first pictures after an epoch, {first}; then it grows)")
        print(f"{doing} ({self._left()} to go)", flush=True)

    def trained(self, metrics: Metrics) -> None:
        """Says that an epoch has been trained."""
        self._trained, self._epoch = metrics["epoch"], metrics["seconds"]
        if self._trained == self._epochs:  # the next part is about to begin
            return
        self._write(f"{_PARTS[0][0]}, {self._trained} of {self._epochs} epochs done")
        if self._trained == 1:
            tqdm.write(f"the first pictures are in the report ({self._left()} to go)")

    def look(self, net: Network, dataset: Dataset) -> None:
        """Looks at some maps of a net that has been trained for one epoch."""
        layers, found = block_layers(net), Report("")
        chosen = (*layers[:2], layers[-1])
        if add_visualization(found, net, dataset, layers=chosen, maps=_FIRST_MAPS, progress=False):
            raise KeyboardInterrupt
        titled = [dataclasses.replace(one, title=f"{one.title} after one epoch") for one in found.sections]
        self.first = titled[1:]  # without the drawing of the network

    def _write(self, doing: str) -> Path:
        unfinished = (
            f"Unfinished at {time.strftime('%H:%M:%S')}: {doing}, {self._left()} to go. This page reads itself again "
            "every few seconds as it grows. If zfcuda has been ended, this is what it left."
        )
        now = dataclasses.replace(self._report, sections=[*self._report.sections, *self.first])
        return now.write_page(self._directory, unfinished=unfinished)

    def _left(self) -> str:
        """How long all takes that is still to do."""
        later = sum(epochs for _, epochs in _PARTS[max(self._part, 1) :])
        training = self._epochs - self._trained if self._part == 0 else 0
        return _about((training + later) * self._epoch)


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(10, 10 * round(seconds / 10))} seconds"
    return f"about {round(seconds / 60)} minutes"
