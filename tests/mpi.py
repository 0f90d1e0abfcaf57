"""Tests of several processes: how they are started, and what is left of them."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 600  # seconds until a test takes something for hanging
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")  # where MPIs say how many processes there are


def mpirun():
    """The command, of the environment's MPI, or else of the system's."""
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        pytest.skip("needs mpi4py: pip install -e '.[test]' has it")
    own = Path(sys.executable).parent
    found = shutil.which("mpirun", path=f"{own}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("needs mpirun: pip install mpich, or apt-get install mpich")
    return found


def environment():
    """Open MPI runs as root, and more processes than there are cores, only if it is told to."""
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    allowed |= {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | allowed | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def command(n, *words):
    """Of so many processes; of one without MPI."""
    return [str(word) for word in ([mpirun(), "-n", n] if n > 1 else []) + [sys.executable, "-m", *words]]


def run(words, cwd=ROOT):
    """A command to its end -> the process."""
    return subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=LONGEST)


def ranks_of(line):
    """Process ids, as the first message of a command has them."""
    found = dict(re.findall(r"rank (\d+) is process (\d+) on ", line))
    assert line.startswith(f"{len(found)} processes: "), line
    return {int(rank): int(pid) for rank, pid in found.items()}


class Started:
    """A command of several processes on its way."""

    def __init__(self, n, *words, cwd=ROOT):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command(n, *words), cwd=cwd, env=environment(), **pipes)

    def ranks(self):
        """Process ids, as the first message has them."""
        return ranks_of(self.process.stderr.readline())

    def wait_until(self, done):
        until = time.monotonic() + LONGEST
        while not done():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)

    def end(self):
        stdout, stderr = self.process.communicate(timeout=LONGEST)
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, stdout, stderr)


def spoken(done):
    """What zfcuda says at the end, one line or several."""
    return [line for line in done.stderr.splitlines() if line.startswith("zfcuda")]


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def assert_all_end(pids):
    if not os.path.exists("/proc"):
        pytest.skip("needs /proc, to see which processes have ended")
    until = time.monotonic() + LONGEST
    while not all(map(ended, pids)):
        assert time.monotonic() < until
        time.sleep(0.05)
