"""What runs in the process that checks kernels (`zfcuda.kernel_trials`). It reads a kernel a line, in JSON, and answers
with its fault, or with why it could not be checked."""

from __future__ import annotations

import importlib
import json
import os
import sys

from . import backends, kernel_checks
from ._devices import Backend, CudaBackend

__all__ = ["main"]


def _backend(name: str, number: str) -> Backend:
    """The CUDA backend without plans: those wait for the checks."""
    if name != "cuda":
        return backends.get(name)
    cupy = importlib.import_module("cupy")
    cupy.cuda.Device(int(number)).use()
    return CudaBackend(importlib.import_module("zfcuda._cuda"), cupy)


def main() -> None:
    """The process, whose arguments are a backend's name and the GPU's number."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print is no answer

    def answer(**contents: str) -> None:
        print(json.dumps(contents), file=answers, flush=True)

    try:
        backend = _backend(*sys.argv[1:])
        answer(ready="")
        for line in sys.stdin:
            answer(fault=kernel_checks.fault(backend, kernel_checks.Kernel(**json.loads(line))))
    except Exception as reason:
        answer(failure=f"{type(reason).__name__}: {reason}")
