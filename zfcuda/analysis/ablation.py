"""Ablation (paper 5.1, Table 3, P10): variants of a network, each trained from scratch under one budget.

Each run (a variant under a seed) leaves its row as JSON in a folder of its own, beside its checkpoint: a study that was
interrupted goes on with the run, and the epoch, that it had reached. A run's folder is that of its data, network,
settings and version of zfcuda: where one differs, the run is made anew.

Over ranks (MPI) each run is trained by one of them, as one process trains it. They are dealt out from the longest to
the shortest, as many at a time as there are ranks: all that a rank waits for others then adds up to no more than the
longest run, which is also the bound for a queue whose next run goes to the next free rank. But a queue has to be
served, for which mpi4py.futures keeps one rank, and errors would need ways of their own to end all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from .._version import __version__
from ..data import Augmentation, Dataset, Preprocess, Scale, digest, mean_image, relabelled, sample
from ..errors import DataError
from ..files import read_json
from ..nn import Architecture, Network
from ..nn.models import VARIANTS
from ..numbers import check_at_least
from ..training import Ranks, RanksDiffer, Schedule, Trainer, evaluate
from .figures import new_figure, plain
from .progress import Steps
from .results import Result, to_plain, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW, _MADE_OF = "row.json", "made-of.json"  # in the folder of a run
_HASHED = 10  # characters of its name


@dataclass(frozen=True)
class Budget:
    """What every variant gets: epochs, and how the trainer is set (see `zfcuda.training.Trainer`)."""

    epochs: int
    batch_size: int = 128
    lr: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    max_filter_rms: float | None = None
    schedule: Schedule | None = None
    augmentation: Augmentation | None = None
    scale: Scale = 1.0


@dataclass(frozen=True)
class Run:
    """One variant, trained with one seed. Errors in %, time in seconds."""

    variant: str
    seed: int
    train_error: float
    validation_error: float
    validation_top5_error: float
    parameters: int
    seconds: float


@dataclass(frozen=True)
class Row:
    """A line of Table 3: means over the seeds, in %, and the validation error's standard deviation (0 for one seed)."""

    variant: str
    train_error: float
    validation_error: float
    validation_top5_error: float
    deviation: float
    parameters: int
    seconds: float
    seeds: int


@dataclass(frozen=True, repr=False)
class Ablation(Result):
    """All runs, in the order of the variants. `rows` is Table 3."""

    runs: tuple[Run, ...]
    epochs: int

    @property
    def rows(self) -> list[Row]:
        """A row for each variant."""
        rows = []
        for variant in dict.fromkeys(run.variant for run in self.runs):
            runs = [run for run in self.runs if run.variant == variant]
            errors = [run.validation_error for run in runs]
            rows.append(
                Row(
                    variant,
                    float(np.mean([run.train_error for run in runs])),
                    float(np.mean(errors)),
                    float(np.mean([run.validation_top5_error for run in runs])),
                    float(np.std(errors, ddof=1)) if len(errors) > 1 else 0.0,
                    runs[0].parameters,
                    float(np.mean([run.seconds for run in runs])),
                    len(runs),
                )
            )
        return rows

    def numbers(self) -> dict[str, Any]:
        """Rows and runs."""
        return {"epochs": self.epochs, "rows": to_plain(self.rows), "runs": to_plain(self.runs)}

    def plot(self) -> Figure:
        """Training and test error of each variant; whiskers are the deviation over seeds."""
        rows = self.rows
        figure, axes = new_figure(width=7.0, height=1.0 + 0.5 * len(rows))
        axis, places = axes[0, 0], np.arange(len(rows))
        whiskers = [row.deviation for row in rows] if any(row.deviation for row in rows) else None
        axis.barh(places - 0.2, [row.train_error for row in rows], 0.38, label="training")
        axis.barh(places + 0.2, [row.validation_error for row in rows], 0.38, xerr=whiskers, label="test")
        axis.set_yticks(places, [plain(row.variant) for row in rows])
        axis.invert_yaxis()
        axis.set_xlabel("top-1 error, %")
        axis.set_ylabel("variant")
        axis.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0.0, 1.0))
        return figure


def table3(architecture: Architecture, names: Sequence[str] | None = None) -> dict[str, Architecture]:
    """Table 3's changes, applied to any network with the paper's layer numbers: name -> architecture.

    names: the changes wanted, as keys of the result ("as it is", "without layers 3,4", ...), all if None; a name of
    Table 3 itself ("K without layers 3,4") stands for its change. ValueError with the names if one is unknown.
    """
    changes = {variant.changes: variant for variant in reversed(VARIANTS.values())}
    if names is None:
        names = list(dict.fromkeys(variant.changes for variant in VARIANTS.values()))
    chosen = {}
    for name in names:
        variant = VARIANTS.get(name) or changes.get(name)
        if variant is None:
            raise ValueError(f"variant must be one of {'; '.join([*changes, *VARIANTS])}; got {name!r}")
        chosen[name] = variant.change(architecture)
    return chosen


def ablation(
    variants: Mapping[str, Architecture],
    train: Dataset,
    validation: Dataset,
    *,
    budget: Budget,
    out_dir: str | os.PathLike | None = None,
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
    processes: int = 1,
    progress: bool = True,
    on_run: Callable[[Run], None] | None = None,
    say: Callable[[str], None] | None = None,
    about: Mapping[str, Any] | None = None,
    ranks: Ranks | None = None,
) -> Ablation:
    """Trains every variant from scratch with the same budget and measures it: Table 3's form (P10).

    variants: name -> architecture (see `table3`), each trained once for every one of `seeds`: of weights, dropout and
    the order of images. progress: whether each training shows how far it is; on_run is called with each run as it ends.
    The training error is that of the trained net on as many training images as there are validation images.
    device: "cpu" or "cuda". processes: how many runs are trained at a time, each in a process of its own with its share
    of the processor's cores. out_dir: where each run keeps its checkpoint and row; a run that is there, of the same
    images, network, budget, device and version, is taken as it is, one that was interrupted goes on; `say` gets a
    sentence about each run that is there, the same or not. Classes of `validation` are matched by name. about: as in
    `Trainer.fit`. ranks: of processes that share the runs, all with the same arguments (`RanksDiffer` if not) and one
    `out_dir`; their number may change from one call to the next. `DataError` if a row there is damaged; `Interrupted`
    by Ctrl-C, with the runs that were finished by then.
    """
    ranks = ranks or Ranks()
    if not variants:
        raise ValueError("variants is empty: there is nothing to train")
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be different numbers, one or more, got {seeds!r}")
    processes = check_at_least("processes", processes, 1)
    if processes > 1 and ranks.size > 1:
        raise ValueError(f"processes must be 1 where {ranks.size} ranks share the runs, got {processes}")
    validation = relabelled(validation, train.classes, len(train.classes))
    mean = mean_image(train)
    shared = {
        "training images": digest(train),
        "test images": digest(validation),
        "settings": repr(budget),
        "device": device,
        "version of zfcuda": __version__,
    }
    networks = {name: architecture.to_dict() for name, architecture in variants.items()}
    ranks.check_same({**shared, "variants": networks, "seeds": list(seeds)})
    if out_dir is not None:
        _check_shared(ranks, Path(out_dir))
    alone = processes == ranks.size == 1
    jobs = []
    for name, architecture in variants.items():
        preprocess = Preprocess(mean, architecture.input_shape[:2], budget.scale)
        made_of = {**shared, "network": networks[name]}
        for seed in seeds:
            place = None if out_dir is None else _place(Path(out_dir), name, seed, made_of)
            job = _Job(name, architecture, seed, preprocess, made_of, about, place, device, progress and alone)
            jobs.append(job)
            if place is not None and say is not None and (sentence := _what_is_there(job, place)):
                say(sentence)
    order = range(len(jobs)) if ranks.size == 1 else ranks.broadcast(_longest_first(jobs))
    runs: dict[int, Run] = {}
    label = "" if alone or not progress else "variants"  # a single process shows the bar of its training
    with (
        Steps(len(jobs), unit="runs finished", label=label, ranks=ranks) as steps,
        contextlib.closing(_trained(steps, [jobs[n] for n in order], train, validation, budget, processes)) as trained,
    ):
        for number, run in zip(order, trained, strict=True):
            runs[number] = run
            if on_run is not None:
                on_run(run)
    return steps.finish(Ablation(tuple(runs[number] for number in sorted(runs)), budget.epochs))


class _Job(NamedTuple):
    """One run, before it is done."""

    variant: str
    architecture: Architecture
    seed: int
    preprocess: Preprocess
    made_of: dict[str, Any]
    about: Mapping[str, Any] | None
    place: Path | None
    device: str
    progress: bool


def _check_shared(ranks: Ranks, folder: Path) -> None:
    """`RanksDiffer` on all ranks if one does not see what rank 0 writes to the folder."""
    if ranks.size == 1:
        return
    with contextlib.ExitStack() as stack:
        name = ""
        if ranks.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            name = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".ranks-", dir=folder))).name
        sees = ranks.gather((folder / ranks.broadcast(name)).is_dir())
    if not all(sees):
        raise RanksDiffer(f"rank {sees.index(False)} does not see what rank 0 writes to {folder}, where all keep runs")


def _longest_first(jobs: Sequence[_Job]) -> list[int]:
    """The numbers of the jobs, those with the most multiplications first, and those that are done last."""

    def length(number: int) -> int:
        job = jobs[number]
        done = job.place is not None and (job.place / _ROW).exists()
        return 0 if done else _multiplications(job.architecture)

    return sorted(range(len(jobs)), key=length, reverse=True)


def _multiplications(architecture: Architecture) -> int:
    """Of the layers with weights, for one image: every weight meets each position of the layer's maps."""
    names = [layer.name for layer in architecture.layers]
    positions = {name: math.prod(shape[:-1]) for name, shape in zip(names, architecture.shapes(), strict=True)}
    shapes = architecture.parameter_shapes()
    return sum(math.prod(shape) * positions[name.rpartition(".")[0]] for name, shape in shapes.items())


def _trained(
    steps: Steps, jobs: Sequence[_Job], train: Dataset, validation: Dataset, budget: Budget, processes: int
) -> Generator[Run]:
    """The runs in the order of the jobs, each as soon as it and those before it are done."""
    processes = min(processes, len(jobs))
    if processes == 1:
        for _, run in steps.map(lambda step: _run(jobs[step[0]], train, validation, budget)):
            yield run
        return
    # Fresh processes: in a fork of one that has used a GPU, CUDA does not run.
    context = multiprocessing.get_context("spawn")
    waits, lives = context.Pipe(duplex=False)
    with waits, ProcessPoolExecutor(processes, context, _end_with_parent, (waits,)) as pool:
        try:
            with _threads_of_children(max(1, (os.cpu_count() or 1) // processes)):
                futures = [pool.submit(_run, job, train, validation, budget) for job in jobs]
            for _, future in zip(steps, futures, strict=True):
                yield future.result()
        except BaseException:
            lives.close()
            raise
    lives.close()


def _end_with_parent(waits: Connection) -> None:
    """In a child: Ctrl-C is the parent's. When that closes its end of the pipe, or ends in whatever way, this process
    ends at once: what it has written is whole, and a later one goes on with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())  # the bars here are not shown; tqdm's own lock would be left in the system

    def wait() -> None:
        with contextlib.suppress(EOFError, OSError):
            waits.recv_bytes()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _threads_of_children(count: int) -> Iterator[None]:
    """Processes that are started in this context compute with so many threads, unless the user has said otherwise."""
    names = [name for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name not in os.environ]
    os.environ.update(dict.fromkeys(names, str(count)))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


def _run(job: _Job, train: Dataset, validation: Dataset, budget: Budget) -> Run:
    """The finished run of the job's folder, or a new one."""
    run = _finished(job.place) if job.place else None
    if run is None:
        if job.place:
            write_json(job.place / _MADE_OF, job.made_of)
        run = _train(job, train, validation, budget)
        if job.place:
            write_json(job.place / _ROW, run)
    return run


def _train(job: _Job, train: Dataset, validation: Dataset, budget: Budget) -> Run:
    net = Network(job.architecture, seed=job.seed).to(job.device)
    trainer = Trainer(net, budget.lr, budget.momentum, budget.weight_decay, budget.max_filter_rms, seed=job.seed)
    history = trainer.fit(
        train,
        epochs=budget.epochs,
        batch_size=budget.batch_size,
        schedule=budget.schedule,
        augmentation=budget.augmentation,
        preprocess=job.preprocess,
        out_dir=job.place,
        resume=job.place is not None,
        about=job.about,
        progress=job.progress,
    )
    seen = evaluate(net, sample(train, len(validation)))
    unseen = evaluate(net, validation)
    return Run(
        variant=job.variant,
        seed=job.seed,
        train_error=100 * (1 - seen.top1),
        validation_error=100 * (1 - unseen.top1),
        validation_top5_error=100 * (1 - unseen.top5),
        parameters=sum(math.prod(shape) for shape in net.architecture.parameter_shapes().values()),
        seconds=round(sum(epoch["seconds"] for epoch in history), 3),
    )


def _place(out_dir: Path, name: str, seed: int, made_of: Mapping[str, Any]) -> Path:
    """The folder of a run: with a readable name, and another one for other contents."""
    text = json.dumps([name, made_of])
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return out_dir / f"{readable}-seed{seed}-{hashlib.sha256(text.encode()).hexdigest()[:_HASHED]}"


def _what_is_there(job: _Job, place: Path) -> str:
    """What is done about a run that is there, in words; "" if there is none."""
    run = f"{job.variant}, seed {job.seed}"
    if (place / _ROW).exists():
        return f"{run}: taken from {place}"
    if place.exists():
        return f"{run}: goes on in {place}"
    for other in sorted(place.parent.glob(f"{place.name[:-_HASHED]}*/{_MADE_OF}")):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            then = read_json(other)
            differing = [words for words, value in to_plain(job.made_of).items() if then.get(words) != value]
            return f"{run}: trained anew, {other.parent} differs in {' and '.join(differing)}"
    return ""


def _finished(place: Path) -> Run | None:
    path = place / _ROW
    if not path.exists():
        return None
    try:
        return Run(**read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); remove it to train this variant again") from error
