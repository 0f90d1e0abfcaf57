"""Where what was found out about a GPU is kept for later processes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from . import _version


def gpu_file(what: str, gpu: str) -> Path:
    """The file of this for a GPU's name and this version of zfcuda, in $XDG_CACHE_HOME/zfcuda (~/.cache/zfcuda).
    FileNotFoundError if there is no place for it."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # as its specification has it
        base = Path(os.path.expanduser("~/.cache"))
    if not base.is_absolute():
        raise FileNotFoundError(f"there is no home directory for the cache of {what}: set XDG_CACHE_HOME")
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu).strip("-").lower()
    return base / "zfcuda" / f"{what}-{name}-{_version.__version__}.json"
