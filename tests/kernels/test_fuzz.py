"""Random calls of every operation with extreme sizes (tests/fuzz), in a process that may crash alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from zfcuda import backends

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("backend", "calls"), [("cpu", 300), ("emulated", 40)])
def test_random_calls(backend, calls):
    if reason := backends.status()[backend]:
        pytest.skip(f"{backend}: {reason}")
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", backend, "--calls", str(calls)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, f"exit status {run.returncode}\n{run.stdout[-1000:]}{run.stderr[-3000:]}"
