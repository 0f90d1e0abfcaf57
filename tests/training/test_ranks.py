"""One process without MPI, and what is found out about several before they talk."""

import sys
import time
import types

import pytest

from tests import mpi
from zfcuda import cli
from zfcuda.training import Ranks, world
from zfcuda.training.ranks import started


@pytest.fixture
def alone(monkeypatch):
    for name in mpi.SIZES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("rank", "number"), [(1, 1), (2, 0), (5, 1)])
def test_the_ranks_of_a_host_take_its_gpus_in_turn(rank, number, gpu, monkeypatch):
    ranks = Ranks()
    ranks.rank = rank
    monkeypatch.setattr(ranks, "gather", lambda here: ["one", "one", "two", "two", "two", "two"])
    gpu.cuda.runtime.getDeviceCount = lambda: 2
    ranks.take_gpu()
    assert gpu.gpu == number


@pytest.mark.usefixtures("alone")
def test_one_process_needs_no_mpi(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert world() is None
    monkeypatch.setenv("PMI_SIZE", "1")
    assert world() is None
    for ranks in (Ranks(), Ranks(types.SimpleNamespace(Get_size=lambda: 1))):
        assert (ranks.rank, ranks.size, ranks.share(7)) == (0, 1, slice(0, 7))
        assert ranks.gather("x") == ["x"]
    with pytest.raises(OSError, match="as it is"), ranks.ending_together():
        raise OSError("as it is")


def test_a_process_that_waits_looks_often_between_pauses(monkeypatch):
    """What comes at the thousandth look only has not cost a thousand pauses."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    looks = iter([False] * 999 + [True])
    Ranks().wait(types.SimpleNamespace(Test=lambda: next(looks)))
    assert len(pauses) == 999 // 64
    assert next(looks, None) is None


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("size", "rank"),
    [
        ("PMI_SIZE", "PMI_RANK"),
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
        ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ],
)
def test_which_of_the_started_processes_this_one_is(size, rank, monkeypatch):
    for other in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(other, raising=False)
    assert started() == (1, 0)
    monkeypatch.setenv(size, "4")
    assert started() == (4, 0)
    monkeypatch.setenv(rank, "2")
    assert started() == (4, 2)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", mpi.SIZES)
def test_several_processes_without_mpi4py(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv(name, "4")
    assert cli.main(["train", "--data", "fashion-mnist", "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("zfcuda train: 4 processes were started, but MPI cannot be used: ")
    assert "pip install 'zfcuda[mpi]'" in line


@pytest.mark.usefixtures("alone")
def test_an_mpi_that_is_not_the_one_of_mpirun(monkeypatch):
    comm = types.SimpleNamespace(size=1)
    mpi = types.SimpleNamespace(COMM_WORLD=comm, Get_library_version=lambda: "MPICH Version:\t5\nand more")
    monkeypatch.setitem(sys.modules, "mpi4py", types.SimpleNamespace(MPI=mpi))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(
        ImportError, match=r"4 processes were started, but mpi4py sees 1: its MPI \(MPICH Version:\t5\)"
    ):
        world()
