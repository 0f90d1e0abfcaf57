"""A process of its own in which kernels are checked (`zfcuda.kernel_checks`): one that hangs, or that breaks the GPU's
context, does so there.

What has used a GPU cannot be forked. So the process is a fresh Python, which makes its own context: a few seconds and
some hundred MB of the GPU's memory, until all kernels that wait for a verdict have one (`kernel_trial_process`).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import Any

from ._devices import Backend

__all__ = ["Trials"]

_PROGRAM = "from zfcuda.kernel_trial_process import main; main()"
_START_SECONDS = 120.0  # for imports and the GPU's context
_SECONDS = 60.0  # for a check, which takes well below one
_END_SECONDS = 5.0  # for the end of what was killed: a GPU may keep it longer


class Trials:
    """Checks kernels on a backend's current device in a process of their own, which begins with the first check and
    ends with the context. After a fault the next kernel has a new one."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def fault(self, kernel: dict[str, str]) -> str:
        """What `kernel_checks.fault` says of a kernel, by its fields, or that there was no result in time.
        RuntimeError, with why, where it could not be checked."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(kernel).encode() + b"\n")
            process.stdin.flush()
            found = self._answer(process, _SECONDS)["fault"]
        except TimeoutError:
            found = f"it hangs: no result within {_SECONDS:g} s"
        except OSError as error:
            self.close()
            raise RuntimeError(f"the process that checks kernels does not listen: {error}") from error
        if found:
            self.close()
        return str(found)

    def _start(self) -> subprocess.Popen[bytes]:
        number = "" if self._backend.on_host else str(self._backend.xp.cuda.Device().id)
        program = f"import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); {_PROGRAM}"
        command = [sys.executable, "-c", program, json.dumps(sys.path), self._backend.name, number]
        self._process = process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            self._answer(process, _START_SECONDS)
        except TimeoutError as error:
            self.close()
            raise RuntimeError(f"the process that checks kernels was not ready in {_START_SECONDS:g} s") from error
        return process

    def _answer(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        """The next one. TimeoutError; RuntimeError where it says why there is no other, or the process has ended."""
        assert process.stdout is not None
        line, end = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError
            if not (more := os.read(process.stdout.fileno(), 1 << 16)):
                self.close()
                raise RuntimeError(f"the process that checks kernels ended with {process.returncode}")
            line += more
        answer = json.loads(line)
        if "failure" in answer:
            self.close()
            raise RuntimeError(answer["failure"])
        return answer

    def close(self) -> None:
        """Ends the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # of what was not yet written
                assert pipe is not None
                pipe.close()
