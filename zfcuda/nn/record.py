"""What a forward pass leaves for the way back, and what makes it one of training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .. import ops
from ..backends import Array, array_module

__all__ = ["Record", "Training"]


@dataclass(frozen=True)
class Training:
    """What makes a pass one of training. The same seed and step (a number, or an array of the device, uint64 of shape
    ()) give the same dropout masks; gradients: where those of the parameters go, by names such as "conv1.weight";
    statistics: what the batch says of running averages, by names such as "bn1.running_mean", each with the share of
    the average that it is to replace."""

    seed: int
    step: int | Array
    gradients: dict[str, Array]
    statistics: dict[str, tuple[Array, float]] = field(default_factory=dict)

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
