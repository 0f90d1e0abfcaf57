"""Commands and the processes that mpirun has started: those that share the work among them, of which rank 0 speaks and
writes, and those that do not."""

from __future__ import annotations

import argparse
import functools
import hashlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .._version import __version__
from ..data import Dataset, digest
from ..training import Ranks, world
from ..training.ranks import started
from . import common


def over_ranks(run: Callable[[argparse.Namespace, Ranks], int]) -> Callable[[argparse.Namespace], int]:
    """The command that every process runs, alone or as one of several ranks. Of several all get the same options, each
    rank of a host takes the next of its GPUs, and what goes wrong on one of them ends all, with one message that names
    it."""

    @functools.wraps(run)
    def together(arguments: argparse.Namespace) -> int:
        ranks = Ranks(world())
        with ranks.ending_together(), ranks.speaking_once():
            if ranks.size > 1:
                signal.signal(signal.SIGTERM, signal.default_int_handler)  # what mpirun makes of Ctrl-C, Slurm's first
                print(f"{ranks.size} processes: {ranks.places()}", file=sys.stderr)
                options = {name: value for name, value in vars(arguments).items() if name != "run"}
                ranks.check_same({"version": __version__, **options})
                if common.device(arguments) == "cuda":
                    ranks.take_gpu()
            status = run(arguments, ranks)
            ranks.meet()
        return status

    return together


def alone(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The command that does not share its work: where several processes are to run it, the first says so, with a
    `ValueError`, and none does anything. The others end well: mpirun ends all at the first that does not."""

    @functools.wraps(run)
    def refusing(arguments: argparse.Namespace) -> int:
        size, rank = started()
        if size > 1 and rank == 0:
            raise ValueError(
                f"{size} processes were started, but this command does not share its work: start one, without mpirun"
            )
        return 0 if size > 1 else run(arguments)

    return refusing


def check_same(ranks: Ranks, checkpoints: Sequence[str], datasets: Mapping[str, Dataset]) -> None:
    """`RanksDiffer` where these files or images are not the same on all ranks. Every one reads all of them once."""
    if ranks.size > 1:
        files = {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in checkpoints}
        ranks.check_same(files | {name: digest(dataset) for name, dataset in datasets.items()})
