"""The CPU backend: the build for the widest instruction set that this processor has.

``ZFCUDA_ISA=avx512|avx2|baseline`` in the environment asks for a certain one; ``sanitized``, where it is built, is for
the project's own tests.
"""

import contextlib
import importlib
import os
from collections.abc import Iterator
from types import ModuleType

from .errors import BackendError

INSTRUCTION_SETS = ("avx512", "avx2", "baseline")  # widest first

# How often a thread looks whether the others are done before it sleeps: 70 us (Zen 5). GCC's own 300,000, 7 ms, keep a
# processor busy and, where another program has one of two, the very thread that is waited for off it: 30 times slower.
_SPINS = "3000"


def load() -> ModuleType:
    """The compiled module; `BackendError` if the one asked for is not built or not usable."""
    wanted = os.environ.get("ZFCUDA_ISA")
    if wanted and wanted not in (*INSTRUCTION_SETS, "sanitized"):
        raise BackendError(f"ZFCUDA_ISA is {wanted!r}; allowed: {', '.join(INSTRUCTION_SETS)}")
    reasons = []
    for isa in [wanted] if wanted else INSTRUCTION_SETS:
        try:
            with _threads_that_sleep():
                module = importlib.import_module(f"zfcuda._cpu_{isa}")
        except ImportError as error:
            reasons.append(f"{isa}: {error}")
            continue
        reason = module.unavailable_reason()
        if not reason:
            return module
        reasons.append(f"{isa}: {reason}")
    raise BackendError("no CPU backend can run: " + "; ".join(reasons))


@contextlib.contextmanager
def _threads_that_sleep() -> Iterator[None]:
    """GCC's OpenMP reads the environment when the first module loads it. What somebody asks for there holds."""
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = _SPINS
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]
