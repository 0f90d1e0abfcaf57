"""A network trained by zfcuda and by PyTorch, from the same weights on the same batches: losses, accuracy, time.

    python benchmarks/training.py cifar10                          ResNet-18, five epochs
    python benchmarks/training.py DATA --epochs 1 --steps 20       the first 20 steps of a training of one epoch

Both make every step in turn, in one process with the same threads, so that wherever it is stopped both have seen the
same images. The rate rises over the first fifth of the steps and falls along half a cosine to zero; images are shifted
by up to four pixels and mirrored. PyTorch's module is made by `to_module`, in channels_last, and its momentum holds the
rate as ours does. Times are those of steps alone: medians, and whole.

Exit status: 0; 1, the first losses are not the same; 2, wrong arguments or data.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

from zfcuda import data, models
from zfcuda.errors import DataError
from zfcuda.files import write_atomically
from zfcuda.interop import torch as interop
from zfcuda.nn import Network
from zfcuda.training import Trainer

Step = Callable[[np.ndarray, np.ndarray, float], float]
Scores = Callable[[np.ndarray], np.ndarray]

MOMENTUM, WEIGHT_DECAY, WARMUP = 0.9, 5e-4, 0.2
# Losses of the first steps, relatively: later ones drift apart as roundings grow. With 8 images, one ReLU whose sign
# rounding decides makes 2e-3.
SAME, COMPARED = 5e-3, 3


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="square colour images of one size")
    parser.add_argument("--net", choices=("resnet18", "resnet50", "vgg16"), default="resnet18")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, help="stop after so many")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.1, help="the highest (default: 0.1)")
    parser.add_argument("--out", type=Path, metavar="PATH", help="write PATH, JSON, after every epoch")
    options = parser.parse_args(arguments)
    record.refuse_unwritable(parser, options.out and options.out.parent)
    return options


def rate(step: int, steps: int, highest: float) -> float:
    warmup = WARMUP * steps
    if step < warmup:
        return highest * (step + 1) / warmup
    return highest * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


@dataclass
class Side:
    """One of the two libraries: how it makes a step and classifies images, and what came of it."""

    step: Step
    scores: Scores
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    def train(self, x: np.ndarray, labels: np.ndarray, lr: float) -> None:
        begin = time.perf_counter()
        self.losses.append(self.step(x, labels, lr))
        self.seconds.append(time.perf_counter() - begin)

    def test(self, images: data.Dataset, preprocess: data.Preprocess) -> None:
        right = 0
        for indices in np.array_split(np.arange(len(images)), math.ceil(len(images) / 250)):
            pixels, labels = images.batch(indices)
            right += int((self.scores(preprocess(pixels)).argmax(1) == labels).sum())
        self.accuracy.append(right / len(images))


def our_step(net: Network, lr: float) -> Step:
    trainer = Trainer(net, lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def step(x: np.ndarray, labels: np.ndarray, lr: float) -> float:
        trainer.lr = lr
        return float(trainer.step(x, labels))

    return step


def their_step(module: torch.nn.Module) -> Step:
    # As ours: biases and factors of normalisation do not decay.
    weights = [(p, WEIGHT_DECAY if p.ndim > 1 else 0.0) for p in module.parameters()]
    velocities = [torch.zeros_like(p) for p, _ in weights]

    def step(x: np.ndarray, labels: np.ndarray, lr: float) -> float:
        for p, _ in weights:
            p.grad = None
        scores = module(torch.from_numpy(x).permute(0, 3, 1, 2))
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels).long())
        loss.backward()
        with torch.no_grad():
            for (p, decay), v in zip(weights, velocities, strict=True):
                v.mul_(MOMENTUM).sub_(p.grad + decay * p, alpha=lr)
                p.add_(v)
        return loss.item()

    return step


def their_scores(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    module.eval()
    with torch.no_grad():
        scores = module(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    module.train()
    return scores


def by_channel(images: data.Dataset) -> data.Preprocess:
    """To a mean of 0 and a standard deviation of 1."""
    height, width, channels = images.image_shape
    looked_at, _ = images.batch(np.arange(0, len(images), max(1, len(images) // 5000)))
    pixels = looked_at.reshape(-1, channels).astype(np.float64)
    mean, std = pixels.mean(0).tolist(), pixels.std(0).tolist()
    return data.Preprocess.by_channel((height, width), channels=channels, scale=1.0, mean=mean, std=std)


def train(options: argparse.Namespace, split: data.Split, sides: dict[str, Side]) -> bool:
    """Whether the first losses were the same."""
    images, preprocess, augmentation = split.train, by_channel(split.train), data.Augmentation(padding=4)
    rng = np.random.default_rng(0)
    per_epoch = len(images) // options.batch_size
    steps = options.epochs * per_epoch
    order = np.empty(0, np.int64)
    for step in range(steps if options.steps is None else min(steps, options.steps)):
        if step % per_epoch == 0:
            order = data.shuffled(images, rng)
        at = step % per_epoch * options.batch_size
        pixels, labels = images.batch(order[at : at + options.batch_size])
        x = preprocess.crops(pixels, *augmentation.draw(rng, len(pixels), preprocess))
        for side in sides.values():
            side.train(x, labels, rate(step, steps, options.lr))
        if step + 1 == COMPARED and not np.allclose(*(side.losses for side in sides.values()), rtol=SAME, atol=0):
            return False
        if (step + 1) % 50 == 0:
            means = ", ".join(f"{name} {np.mean(side.losses[-50:]):.4f}" for name, side in sides.items())
            print(f"step {step + 1}: loss {means}", flush=True)
        if (step + 1) % per_epoch == 0:
            for side in sides.values():
                side.test(split.test, preprocess)
            print(f"epoch {(step + 1) // per_epoch}: accuracy {accuracies(sides)}", flush=True)
            if options.out:
                write_atomically(options.out, written(results(options, sides)).encode())
    return True


def accuracies(sides: dict[str, Side]) -> str:
    return ", ".join(f"{name} {side.accuracy[-1]:.2%}" for name, side in sides.items())


def written(found: Mapping[str, Any]) -> str:
    """JSON, a line for each result."""
    return "{" + ",\n ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()) + "}\n"


def results(options: argparse.Namespace, sides: dict[str, Side]) -> dict[str, Any]:
    medians = {name: 1e3 * statistics.median(side.seconds) for name, side in sides.items()}
    return {
        "environment": record.environment(),
        "net": options.net,
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "lr": options.lr,
        "threads": torch.get_num_threads(),
        "median_step_ms": medians,
        "times_as_fast": medians["torch"] / medians["zfcuda"],
        "seconds_in_steps": {name: sum(side.seconds) for name, side in sides.items()},
        "accuracy": {name: side.accuracy for name, side in sides.items()},
        "loss": {name: [round(loss, 4) for loss in side.losses] for name, side in sides.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        split = data.open(options.data)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    height, width, channels = split.train.image_shape
    if height != width or channels != 3:
        print(f"error: images must be square and coloured, not {height} x {width} x {channels}", file=sys.stderr)
        return 2
    net = getattr(models, options.net)(len(split.train.classes), height)
    module = interop.to_module(net).to(memory_format=torch.channels_last).train()
    sides = {
        "zfcuda": Side(our_step(net, options.lr), net.predict),
        "torch": Side(their_step(module), lambda x: their_scores(module, x)),
    }
    if not train(options, split, sides):
        first = {name: side.losses for name, side in sides.items()}
        print(f"error: the first losses are not the same: {first}", file=sys.stderr)
        return 1
    for name, ms in results(options, sides)["median_step_ms"].items():
        print(f"{name}: {ms:.0f} ms a step, the median of {len(sides[name].seconds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
