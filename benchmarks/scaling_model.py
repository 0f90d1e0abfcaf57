"""What N processes would do: a model of a data-parallel training step, on numbers that somebody else has measured.

    step = max(images / rate of reading, seconds of one process's step + what is exposed of the sums)
    sum of a bucket = 2 (N - 1) / N * bytes / bandwidth + 2 * latency

The buckets are the trainer's (`zfcuda.training.distributed`). One starts to travel when the backward pass has filled it
and the one before has arrived; exposed is what is still on its way when the pass ends.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zfcuda.training.buckets import bucket_names


@dataclass(frozen=True)
class Link:
    """What joins processes: 10^9 bytes a second that each sends while it receives as many, microseconds of an exchange
    without any, the most processes that it joins; hides: carries while they compute."""

    name: str
    gbytes: float
    latency_us: float
    most: int | None = None
    hides: bool = True


# Assumed. Of what the makers promise (450, 32 and Gbit/s / 8), about 80, 60 and 90 %.
LINKS = (
    Link("NVLink 4, one host", 360, 20, 8),
    Link("PCIe 4 x16, one host", 20, 20, 8),
    Link("400 Gbit/s", 45, 50),
    Link("200 Gbit/s", 22.5, 50),
    Link("100 Gbit/s", 11.25, 50),
    Link("25 Gbit/s", 2.8, 50),
)


@dataclass(frozen=True)
class Way:
    """How gradients come together: bytes of a value that travels; columns: every process has some columns of the fully
    connected layers ("one weird trick", Krizhevsky 2014), for which activations travel instead of gradients."""

    name: str
    bytes: int
    columns: bool = False


WAYS = (Way("fp32", 4), Way("bf16", 2), Way("fp32, columns", 4, True), Way("bf16, columns", 2, True))


@dataclass(frozen=True)
class Step:
    """A training step of one process: of how many images, seconds; by parameter, in the order of the backward pass,
    its shape, and how far the step is when its gradient is ready; how far when the pass ends (0..1)."""

    images: int
    seconds: float
    shapes: Mapping[str, tuple[int, ...]]
    ready: Mapping[str, float]
    end: float

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds

    @property
    def values(self) -> int:
        return sum(map(math.prod, self.shapes.values()))

    @property
    def dense(self) -> list[str]:
        """Parameters of the fully connected layers."""
        layers = {name.rpartition(".")[0] for name, shape in self.shapes.items() if len(shape) == 2}
        return [name for name in self.shapes if name.rpartition(".")[0] in layers]

    @property
    def dense_values(self) -> int:
        return sum(math.prod(self.shapes[name]) for name in self.dense)

    @property
    def exchanged(self) -> tuple[int, int]:
        """Of a net whose fully connected layers are split by columns: values that travel for an image from each process
        to each other one, and in how many exchanges. The inputs of each layer on the way up, their gradients (parts, to
        be added) on the way down, and the outputs of the last, as every process has the loss of its own images."""
        weights = [self.shapes[name] for name in self.dense if len(self.shapes[name]) == 2]
        outputs = weights[0][0] if weights else 0
        return 2 * sum(inputs for _, inputs in weights) + outputs, 2 * len(weights) + bool(weights)


@dataclass(frozen=True)
class Prediction:
    """seconds: of a step; sent: bytes that a process sends in it; exposed: seconds for which it waits for them; reads:
    reading takes longest."""

    images_per_second: float
    seconds: float
    sent: float
    exposed: float
    reads: bool


def exposed_s(ready: Sequence[float], seconds: Sequence[float], end: float) -> float:
    """How long after `end` the last of these exchanges is over: each takes its seconds, begins when it is ready and
    the one before is over."""
    now = 0.0
    for begins, takes in zip(ready, seconds, strict=True):
        now = max(now, begins) + takes
    return max(0.0, now - end)


def predict(step: Step, n: int, link: Link, way: Way, reading: float = math.inf) -> Prediction:
    """`n` processes, each with the images of `step`; reading: images a second of one process."""
    alone = set(step.dense) if way.columns else set()
    sizes = {name: math.prod(shape) for name, shape in step.shapes.items() if name not in alone}
    buckets = bucket_names(sizes) if n > 1 and sizes else []
    sent = [2 * (n - 1) / n * way.bytes * sum(sizes[name] for name in bucket) for bucket in buckets]
    seconds = [_seconds(link, one, exchanges=2) for one in sent]
    ready = [step.seconds * max(step.ready[name] for name in bucket) for bucket in buckets]
    exposed = exposed_s(ready, seconds, step.seconds * step.end) if link.hides else sum(seconds)
    if way.columns and n > 1:
        values, exchanges = step.exchanged
        sent.append((n - 1) * step.images * values * way.bytes)
        exposed += _seconds(link, sent[-1], exchanges)
    computing, reads = step.seconds + exposed, step.images / reading
    whole = max(computing, reads)
    return Prediction(n * step.images / whole, whole, sum(sent), exposed, reads > computing)


def _seconds(link: Link, sent: float, exchanges: int) -> float:
    return sent / (1e9 * link.gbytes) + exchanges * link.latency_us / 1e6


def break_even(step: Step) -> float:
    """Images of the whole batch from which on columns send more than the gradients of fully connected layers, however
    many processes there are: 2 (N - 1) / N * weights = (N - 1) * images of one * values."""
    values, _ = step.exchanged
    return 2 * step.dense_values / values if values else 0.0


# ---- The step of a GPU that nobody has measured ------------------------------------------------------------------

# Of ZFNet: what the tables of gpu_static.py call the way up, and the way down to each layer's gradients.
_UP = (
    *(f"zfnet {block} block" for block in ("block1", "block2", "block5")),
    *(f"zfnet {conv} fprop" for conv in ("conv3", "conv4")),
    *(f"zfnet {dense} dense fprop" for dense in ("fc6", "fc7", "fc8")),
)
_DOWN = {
    **{dense: (f"zfnet {dense} dense wgrad", f"zfnet {dense} dense dgrad") for dense in ("fc8", "fc7", "fc6")},
    "conv5": ("zfnet block5 block grad",),
    **{conv: (f"zfnet {conv} wgrad", f"zfnet {conv} dgrad") for conv in ("conv4", "conv3")},
    "conv2": ("zfnet block2 block grad",),
    "conv1": ("zfnet conv1 wgrad",),
}


def bound(path: Path, gpu: str, precision: str, images: int, shapes: Mapping[str, tuple[int, ...]]) -> Step:
    """ZFNet's step by a table of gpu_static.py: no more than its convolutions, blocks and fully connected layers, in
    the time that the machine code allows. True steps are longer. ValueError where the table has no such GPU."""
    table = json.loads(path.read_text())
    ms = {f"{one['layer']} {one['direction']}": one["ms"] for one in table["layers"] if one["precision"] == precision}
    try:
        up = sum(ms[name][gpu] for name in _UP)
        down = [sum(ms[name][gpu] for name in names) for names in _DOWN.values()]
    except KeyError as missing:
        raise ValueError(f"{path.name} has no {missing} in {precision}") from None
    *_, whole = ready = list(itertools.accumulate(down, initial=up))
    shares = {layer: now / whole for layer, now in zip(_DOWN, ready[1:], strict=True)}
    seconds = whole / 1e3 * images / table["facts"]["batch"]
    return Step(images, seconds, shapes, {name: shares[name.rpartition(".")[0]] for name in shapes}, 1.0)


def at_rate(step: Step, images: int, rate: float) -> Step:
    """The same way through another step, of so many images at so many a second."""
    return replace(step, images=images, seconds=images / rate)
