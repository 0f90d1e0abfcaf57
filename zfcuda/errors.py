"""The exceptions of zfcuda beyond the built-in ones."""

from typing import Any


class BackendError(RuntimeError):
    """A backend was asked for that cannot run here; the message says why and what to do."""


class DataError(ValueError):
    """A data set or an image in it cannot be read; the message names its path."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, incomplete or of another architecture; the message names its path."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped an analysis. `result` is what it would have returned, made of what was done by then, or None if
    that was nothing; the message says how much it was."""

    def __init__(self, result: Any, how_far: str):
        super().__init__(how_far)
        self.result = result
