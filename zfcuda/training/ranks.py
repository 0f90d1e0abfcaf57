"""The processes of work that runs on several (MPI): what they tell each other, and how they end.

MPI starts the processes, numbers them (ranks, from 0) and carries their messages; mpi4py is imported only where there
are several. All waiting is by `Ranks.wait`, which sleeps between looks, so that Ctrl-C is heard and a process that
waits leaves the processor to others.
"""

from __future__ import annotations

import contextlib
import io
import os
import reprlib
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from .. import backends
from ..backends import Array, to_host
from ..errors import BackendError, Interrupted
from .checkpoint import fill

__all__ = ["Ranks", "RanksDiffer", "started", "world"]

_STARTED = {  # by Open MPI, MPICH and its kin, Slurm: how many processes, and which of them this one is
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE": "PMI_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}

_EXPECTED = (ValueError, OSError, ImportError, MemoryError, FloatingPointError, BackendError)  # need no traceback
_LOWER_FIRST = 1.0  # seconds in which a lower rank that fails as well may speak for all
_FAILS, _SPEAKS = 1, 2  # tags of messages
_PATIENCE = 0.02  # seconds for which a process that waits only lets others run
_LONGEST_PAUSE = 1e-3  # seconds between looks after that
_LOOKS = 64  # in a row

Communicator = Any  # mpi4py's, which may not be there


class RanksDiffer(ValueError):
    """The processes of one work have not been given the same; every one of them raises this."""


def started() -> tuple[int, int]:
    """How many processes mpirun or srun has started with this one, and its number among them, without a word to MPI."""
    for size, rank in _STARTED.items():
        if os.environ.get(size, "").isdigit():
            number = os.environ.get(rank, "")
            return int(os.environ[size]), int(number) if number.isdigit() else 0
    return 1, 0


def world() -> Communicator | None:
    """The communicator of all processes that mpirun or srun has started with this one, None if there is no other.

    ImportError where there are and mpi4py is missing, or is made for another MPI than the one that started them.
    """
    size, _ = started()
    if size == 1:
        return None
    remedy = "pip install 'zfcuda[mpi]' has mpi4py, which needs the MPI (MPICH, Open MPI) that starts the processes"
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI
        raise ImportError(f"{size} processes were started, but MPI cannot be used: {error}; {remedy}") from error
    if size != MPI.COMM_WORLD.size:
        version = MPI.Get_library_version().splitlines()[0].strip("\0 ")
        raise ImportError(
            f"{size} processes were started, but mpi4py sees {MPI.COMM_WORLD.size}: its MPI ({version}) is not the "
            f"one that started them; {remedy}"
        )
    return MPI.COMM_WORLD


class Ranks:
    """The processes of a communicator, this one being `rank` of `size`; without a communicator it is alone, 0 of 1.

    Every method but `share` and `end` is one that all ranks call, in the same order.
    """

    def __init__(self, communicator: Communicator | None = None):
        self.rank, self.size = 0, 1
        self.communicator: Communicator = None
        self.sums: Communicator = None
        if communicator is None or communicator.Get_size() == 1:
            return
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()
        # Of its own: no message meets another of the caller's. The order of what is started is one for each.
        self.communicator, self.sums = communicator.Dup(), communicator.Dup()

    def share(self, count: int) -> slice:
        """Which of so many things are this rank's: all ranks have nearly as many, in the order of the ranks."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def take_gpu(self) -> None:
        """Makes a GPU CuPy's current one, before a network moves there: each rank of a host takes the next of those
        that it sees, from the first again where there are fewer. `BackendError` where the CUDA backend cannot run."""
        hosts = self.gather(os.uname().nodename)
        cuda = backends.get("cuda").xp.cuda
        cuda.Device(hosts[: self.rank].count(hosts[self.rank]) % cuda.runtime.getDeviceCount()).use()

    # ---- Messages ------------------------------------------------------------------------------------------

    def wait(self, request: Any) -> None:
        """Some MPIs carry an array cell by cell, one at each look: many looks stand between two pauses, which are short
        beside what was waited before. (Of 249 MB between two processes of one busy host, one look at a time took 14 to
        70 s, 64 took 0.4 to 0.7 s.)"""
        began = time.monotonic()
        while not any(request.Test() for _ in range(_LOOKS)):
            waited = time.monotonic() - began
            time.sleep(0 if waited < _PATIENCE else min(waited / 1000, _LONGEST_PAUSE))

    def meet(self) -> None:
        """Returns when every rank is here."""
        if self.size > 1:
            self.wait(self.communicator.Ibarrier())

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order."""
        if self.size == 1:
            return [value]
        self.meet()
        return self.communicator.allgather(value)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value."""
        if self.size == 1:
            return value
        self.meet()
        return self.communicator.bcast(value, 0)

    def gather_array(self, array: np.ndarray) -> np.ndarray:
        """Arrays of one shape and dtype -> (size, ...)."""
        found = np.empty((self.size, *array.shape), array.dtype)
        self.wait(self.communicator.Iallgather(np.ascontiguousarray(array), found))
        return found

    def broadcast_array(self, array: Array) -> None:
        """Fills it with rank 0's, which has its shape and dtype."""
        if self.size > 1:
            found = np.ascontiguousarray(to_host(array))
            self.wait(self.communicator.Ibcast(found, 0))
            fill(array, found)

    def check_same(self, what: Mapping[str, Any]) -> None:
        """`RanksDiffer` that names the first rank which has other values than rank 0."""
        found = self.gather(dict(what))
        for rank, other in enumerate(found):
            differing = [name for name in found[0] if other.get(name) != found[0][name]]
            if differing:
                words = ", ".join(f"{name} {_difference(other.get(name), found[0][name])}" for name in differing)
                raise RanksDiffer(f"rank {rank} differs from rank 0: {words}")

    # ---- The end ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def ending_together(self, *, but: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
        """What one rank raises here ends all of them, after one message that names it; what is in `but`, which all
        ranks raise alike, is raised. Alone, everything is."""
        try:
            yield
        except BaseException as error:
            if self.size == 1 or isinstance(error, but):
                raise
            self.end(error)

    def end(self, error: BaseException) -> NoReturn:
        """Says what this rank has raised, unless a lower one has something to say, and ends the processes of all."""
        try:
            if not self._another_speaks():
                self._say(error)
        finally:
            interrupted = isinstance(error, KeyboardInterrupt)
            self.communicator.Abort(130 if interrupted else 1 if isinstance(error, FloatingPointError) else 2)
        raise AssertionError("MPI_Abort has returned")

    def _say(self, error: BaseException) -> None:
        errors: Any = sys.__stderr__
        if not isinstance(error, (*_EXPECTED, KeyboardInterrupt)):
            traceback.print_exception(error, file=errors)
        said = " ".join(str(error).split())
        if isinstance(error, KeyboardInterrupt):
            said = "interrupted" if isinstance(error, Interrupted) or not said else said
        elif not isinstance(error, _EXPECTED) or not said:
            said = f"{type(error).__name__}: {said}".removesuffix(": ")
        speaker = "" if isinstance(error, RanksDiffer) else f"rank {self.rank}: "
        print(f"zfcuda: {speaker}{said}", file=errors, flush=True)

    def _another_speaks(self) -> bool:
        """Whether another rank says why all end: one that has ended them already (mpirun then tells the others so, by a
        signal), or a lower one that fails at about the same time."""
        if self._heard(_SPEAKS, range(self.size)):
            return True
        self._tell(_FAILS)
        until = time.monotonic() + (_LOWER_FIRST if self.rank else 0)
        while time.monotonic() < until:
            if self._heard(_FAILS, range(self.rank)):
                time.sleep(10 * _LOWER_FIRST)  # it ends this process before
                return True
            time.sleep(0.01)
        self._tell(_SPEAKS)
        return False

    def _tell(self, word: int) -> None:
        """A message of no bytes to all others, which nobody need wait for."""
        for rank in range(self.size):
            if rank != self.rank:
                self.communicator.Isend(bytearray(), rank, word)

    def _heard(self, word: int, ranks: Iterable[int]) -> bool:
        return any(self.communicator.Iprobe(rank, word) for rank in ranks if rank != self.rank)

    @contextlib.contextmanager
    def speaking_once(self) -> Iterator[None]:
        """Within this context only rank 0 prints."""
        if self.rank == 0:
            yield
            return
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield

    def places(self) -> str:
        """Which process every rank is, for messages of mpirun that name no ranks."""
        found = self.gather((os.getpid(), os.uname().nodename))
        return ", ".join(f"rank {rank} is process {pid} on {host}" for rank, (pid, host) in enumerate(found))


def _difference(value: Any, expected: Any) -> str:
    short, wanted = reprlib.repr(value), reprlib.repr(expected)
    return f"{short} instead of {wanted}" if short != wanted else "of other values"
