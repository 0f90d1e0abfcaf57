"""The exceptions of zfcuda beyond the built-in ones."""


class BackendError(RuntimeError):
    """A backend was asked for that cannot run here; the message says why and what to do."""


class DataError(ValueError):
    """A data set or an image in it cannot be read; the message names its path."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, incomplete or of another architecture; the message names its path."""
