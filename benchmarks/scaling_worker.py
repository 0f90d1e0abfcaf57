"""What each process of scaling.py does: `mpirun -n N python benchmarks/scaling_worker.py JOB`.

JOB: the fields of `Job` as JSON. Rank 0 prints what was found (`alone` or `together`) as JSON, on its last line.
"""

from __future__ import annotations

import contextlib
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zfcuda import backends, models
from zfcuda.errors import BackendError
from zfcuda.nn import Network
from zfcuda.training import Ranks, Trainer, world
from zfcuda.training.distributed import GRADIENTS, SharedStep

Array = Any

ARCHITECTURES = {
    "zfnet": models.zfnet_architecture,
    "zfnet_small": lambda: models.zfnet_small_architecture(10, (32, 32, 3)),
}
_RATE = 1e-6  # so small that weights stay what they are, and finite


@dataclass(frozen=True)
class Job:
    """What is measured: steps of a network (one of ARCHITECTURES) on so many images a process, so many times each."""

    net: str
    batches: tuple[int, ...]
    rounds: int
    device: str = "cpu"
    precision: str = "fp32"


class Instant:
    """A network whose gradients are there at once. A step of it is what several processes add to that of one."""

    def __init__(self, net: Network, gradients: Mapping[str, Array]):
        self.stages, self.parameters, self.gradients = net.stages, net.parameters, gradients

    def loss_and_gradients(self, images: Array, labels: Array, *, part: Any, **_: Any) -> tuple[Array, Array, Any]:
        for stage in reversed(self.stages):
            part.ready({name: self.gradients[name] for name in stage.parameter_names})
        return backends.array_module(labels).zeros((), np.float32), labels, self.gradients


class Watch:
    """A `zfcuda.nn.record.Part` that is the whole batch, and notes when gradients are what they will be."""

    first = 0

    def __init__(self, size: int, wait: Callable[[], None]):
        self.size, self._wait, self.began = size, wait, time.perf_counter()
        self.ready_s: dict[str, float] = {}

    def mean(self, array: Array) -> Array:
        return array

    def ready(self, gradients: Mapping[str, Array]) -> None:
        self._wait()
        self.ready_s |= dict.fromkeys(gradients, time.perf_counter() - self.began)


class Process:
    """One of the processes, and its network."""

    def __init__(self, job: Job, ranks: Ranks):
        self.job, self.ranks = job, ranks
        self.net = Network(ARCHITECTURES[job.net](), seed=0).to(job.device)
        self.net.precision = job.precision
        xp = backends.array_module(next(iter(self.net.parameters().values())))
        self.asarray = xp.asarray
        self.wait: Callable[[], None] = (
            (lambda: None) if xp is np else lambda: xp.cuda.get_current_stream().synchronize()
        )

    def batch(self, n: int) -> tuple[Array, Array]:
        """Noise."""
        rng = np.random.default_rng(self.ranks.rank)
        images = rng.standard_normal((n, *self.net.input_shape), np.float32)
        return self.asarray(images), self.asarray(rng.integers(0, self.net.num_classes, n, np.int32))

    def seconds(self, call: Callable[[], Any]) -> float:
        """Of a call that all ranks begin together: until the last one has ended it."""
        if self.ranks.size > 1:
            self.ranks.meet()
        began = time.perf_counter()
        call()
        self.wait()
        return max(self.ranks.gather(time.perf_counter() - began))

    def taking_turns(self, calls: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
        """Seconds of each call in each round, after one that does not count."""
        found: dict[str, list[float]] = {name: [] for name in calls}
        for counts in [False] + [True] * self.job.rounds:
            for name, call in calls.items():
                seconds = self.seconds(call)
                if counts:
                    found[name].append(seconds)
        return found


def alone(process: Process) -> dict[str, Any]:
    """Of one process: seconds of a step by its number of images; of the largest batch, when each gradient is ready and
    when the pass ends; and the shapes of parameters, in the order of the backward pass."""
    trainer = Trainer(process.net, lr=_RATE)
    steps = {str(n): functools.partial(trainer.step, *process.batch(n)) for n in process.job.batches}
    samples = process.taking_turns(steps)
    images, labels = process.batch(process.job.batches[-1])
    passes = []
    for _ in range(process.job.rounds):
        watch = Watch(len(images), process.wait)
        process.net.loss_and_gradients(images, labels, part=watch)
        process.wait()
        passes.append({"ready_s": watch.ready_s, "pass_s": time.perf_counter() - watch.began})
    middle = sorted(passes, key=lambda one: one["pass_s"])[len(passes) // 2]
    order = [name for stage in reversed(process.net.stages) for name in stage.parameter_names]
    shapes = {name: process.net.parameters()[name].shape for name in order}
    return {"steps_s": samples, "shapes": shapes, **middle}


def together(process: Process) -> dict[str, Any]:
    """Of several processes: seconds of what they exchange in a step by MPI and, where it can run, by NCCL (each by how
    gradients travel), of small messages, and by the number of images of each: of a step that each makes for itself
    while the others do, and of one that they make together, by NCCL where it can run."""
    ranks = process.ranks
    images, labels = process.batch(1)
    _, _, gradients = process.net.loss_and_gradients(images, labels)
    found: dict[str, Any] = {"exchange_s": exchanged(process, images, labels, gradients, "mpi")}
    by = "mpi"
    if process.job.device == "cuda":
        with contextlib.suppress(BackendError):  # which all ranks raise: two have one GPU, or there is no NCCL
            found["nccl_s"] = exchanged(process, images, labels, gradients, "nccl")
            by = "nccl"
    found["message_s"] = statistics.median(
        process.seconds(lambda: ranks.gather_array(np.zeros(1, np.float32))) for _ in range(20)
    )
    apart = Trainer(process.net, lr=_RATE)
    joined = Trainer(process.net, lr=_RATE, communicator=ranks.communicator, exchange=by)
    found |= {"beside_s": {}, "together_s": {}}
    for n in process.job.batches:
        batch = process.batch(n)
        samples = process.taking_turns(
            {"beside_s": functools.partial(apart.step, *batch), "together_s": functools.partial(joined.step, *batch)}
        )
        for name, seconds in samples.items():
            found[name][str(n)] = seconds
    return found


def exchanged(
    process: Process, images: Array, labels: Array, gradients: Mapping[str, Array], exchange: str
) -> dict[str, list[float]]:
    """Seconds of the exchange of gradients that are there at once, by how they travel."""
    exchanges = {}
    for name in GRADIENTS:
        shared = SharedStep(process.ranks, Instant(process.net, gradients), name, exchange)  # type: ignore[arg-type]
        exchanges[name] = functools.partial(shared.loss_and_gradients, images, labels, dropout_seed=0, step=0)
        _check(process, exchanges[name], gradients)
    return process.taking_turns(exchanges)


def _check(process: Process, exchange: Callable[[], Any], gradients: Mapping[str, Array]) -> None:
    """What is timed is right: ranks that bring 1, 2, ... get the mean."""
    for gradient in gradients.values():
        gradient.fill(1 + process.ranks.rank)
    exchange()
    mean = (1 + process.ranks.size) / 2
    wrong = [name for name, one in gradients.items() if not np.allclose(backends.to_host(one), mean)]
    if wrong:
        raise AssertionError(f"the sum of {', '.join(wrong)} is wrong")


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    ranks = Ranks(world())
    with ranks.ending_together():
        if job.device == "cuda":
            ranks.take_gpu()
        process = Process(job, ranks)
        found = together(process) if ranks.size > 1 else alone(process)
        if ranks.rank == 0:
            print(json.dumps(found))
        ranks.meet()


if __name__ == "__main__":
    main()
