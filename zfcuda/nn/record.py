"""What a forward pass leaves for the way back, and what makes it one of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .. import ops
from ..backends import Array, array_module
from ..brief import Brief

__all__ = ["Part", "Record", "Training"]


class Part(Protocol):
    """A part of a batch whose other parts are with other processes, which make the same pass on them."""

    @property
    def first(self) -> int:
        """How many images of the batch come before this part."""
        ...

    @property
    def size(self) -> int:
        """How many images the whole batch has."""
        ...

    def mean(self, array: Array) -> Array:
        """The mean over the images of the whole batch, from the mean over those of this part. Every process waits here
        for all others."""
        ...

    def ready(self, gradients: Mapping[str, Array]) -> None:
        """Called on the way back as soon as these gradients are what they will be."""
        ...


@dataclass(frozen=True, repr=False)
class Training(Brief):
    """What makes a pass one of training. The same seed and step (a number, or an array of the device, uint64 of shape
    ()) give the same dropout masks; gradients: where those of the parameters go, by names such as "conv1.weight";
    statistics: what the batch says of running averages, by names such as "bn1.running_mean", each with the share of
    the average that it is to replace; part: of which part of a batch the pass is, None if it is of all of it."""

    seed: int
    step: int | Array
    gradients: dict[str, Array]
    statistics: dict[str, tuple[Array, float]] = field(default_factory=dict)
    part: Part | None = None

    def offset(self, layer_index: int) -> int | Array:
        """A Philox offset of its own for every step and layer (up to 2^16 layers, 2^48 steps)."""
        return (self.step << 16) | layer_index


class Record:
    """What one stage's forward pass keeps, by name: its input "x", its output "y", and what its kinds add (a pool:
    "switches").

    A record may be a selection of another one's images, with repetitions, or a window of each; it then copies an array
    when asked for it, and no more than that.
    """

    def __init__(self, arrays: dict[str, Array], images: Array | None = None, windows: dict[str, Any] | None = None):
        self._arrays = arrays
        self._images = images
        self._windows = windows

    def __getitem__(self, name: str) -> Array:
        array = self._arrays[name]
        if self._windows is not None:
            return ops.cut_windows(array, images=self._images, **self._windows)
        return array if self._images is None else array_module(array).take(array, self._images, axis=0)

    @property
    def arrays(self) -> dict[str, Array]:
        """All of them, by name."""
        return {name: self[name] for name in self._arrays}

    def select(self, images: Array) -> Record:
        """The record of these images; `images` index the batch that went forward, not an earlier selection."""
        return Record(self._arrays, images)

    def within(self, corners: Array, size: tuple[int, int]) -> Record:
        """The record of one window per image, as `ops.cut_windows` cuts it."""
        return Record(self._arrays, self._images, {"corners": corners, "size": size})

    def forget(self, name: str) -> None:
        """Lets go of an array, which may then be the memory of something else."""
        self._arrays.pop(name, None)

    @property
    def array_module(self) -> Any:
        """NumPy or CuPy, whichever made the arrays."""
        return array_module(next(iter(self._arrays.values())))
