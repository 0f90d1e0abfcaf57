"""The CPU backend: the build for the widest instruction set that this processor has.

``ZFCUDA_ISA=avx512|avx2|baseline`` in the environment asks for a certain one; ``sanitized``, where it is built, is for
the project's own tests.
"""

import importlib
import os
from types import ModuleType

from .errors import BackendError

INSTRUCTION_SETS = ("avx512", "avx2", "baseline")  # widest first


def load() -> ModuleType:
    """The compiled module; `BackendError` if the one asked for is not built or not usable."""
    wanted = os.environ.get("ZFCUDA_ISA")
    if wanted and wanted not in (*INSTRUCTION_SETS, "sanitized"):
        raise BackendError(f"ZFCUDA_ISA is {wanted!r}; allowed: {', '.join(INSTRUCTION_SETS)}")
    reasons = []
    for isa in [wanted] if wanted else INSTRUCTION_SETS:
        try:
            module = importlib.import_module(f"zfcuda._cpu_{isa}")
        except ImportError as error:
            reasons.append(f"{isa}: {error}")
            continue
        reason = module.unavailable_reason()
        if not reason:
            return module
        reasons.append(f"{isa}: {reason}")
    raise BackendError("no CPU backend can run: " + "; ".join(reasons))
