"""Projection of few activations on windows (paper 2.1, P3): only what they can reach is computed.

One activation of ZFNet's block 5 reaches 3 x 3 cells of 13 x 13 in block 4, 33 x 33 of 55 x 55 after block 2, and 139 x
139 pixels of 224 x 224: a fifth of the multiplications of a dense projection. So a signal is carried as one window per
image, all of one size and each at its own place. The geometry is exact: the transpose of a convolution or pool on a
window is the same operation without padding, from window [t, t + h) to [t * stride - padding, ... + (h - 1) * stride +
kernel), and one-byte switches mean the same wherever the window is. Cells of a window that lie outside its map do not
count. The places are on the device as the signal is, since switches decide them: but for `find`, nothing here
waits for a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import ops
from ..backends import Array, array_module, resolve, to_host
from ..brief import Brief
from .span import Span

__all__ = ["Origin", "Windows", "find"]

# More nonzero activations an image than this are not looked at one by one.
_MOST_NONZERO = 64


@dataclass(frozen=True)
class Origin:
    """Where windows come from: corners that are nowhere kept, `steps` * these - `offsets` being those of the windows.
    What has one start and equal steps lies at distances that are known without a look at the corners."""

    start: object = field(default_factory=object)
    steps: tuple[int, int] = (1, 1)
    offsets: tuple[int, int] = (0, 0)

    def moved(self, down: Span, across: Span) -> Origin:
        (rows, columns), (top, left) = self.steps, self.offsets
        offsets = top * down.stride + down.padding, left * across.stride + across.padding
        return Origin(self.start, (rows * down.stride, columns * across.stride), offsets)


@dataclass(frozen=True, repr=False)
class Windows(Brief):
    """A signal that is zero outside one window per image.

    signal (N, h, w, C), the windows; corners int32 (N, 2), their top and left in maps of (height, width), negative
    where a window begins outside; single: an image has at most one nonzero value, and its window is that one cell;
    origin: of the corners.
    """

    signal: Array
    corners: Array
    height: int
    width: int
    single: bool
    origin: Origin = field(default_factory=Origin)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of a window."""
        return self.signal.shape[1], self.signal.shape[2]

    def reach(self, *layers: tuple[Span, Span]) -> tuple[int, int]:
        """(h, w) of what a window sees through these layers, by their spans from the last to the first."""
        height, width = self.size
        for down, across in layers:
            height, width = down.reach(height), across.reach(width)
        return height, width

    def moved(self, spans: tuple[Span, Span], signal: Array) -> Windows:
        """The windows with this signal, in the coordinates of the input of a layer of these spans."""
        down, across = spans
        corners = array_module(self.corners).empty_like(self.corners)
        for axis, span in enumerate(spans):
            corners[:, axis] = self.corners[:, axis] * span.stride - span.padding
        return Windows(signal, corners, down.size, across.size, False, self.origin.moved(down, across))

    def plus(self, other: Windows) -> Windows | None:
        """The sum of two signals of one map, on the windows that hold both; None if their distance is not known, or too
        far for one window."""
        if self.origin.start is not other.origin.start or self.origin.steps != other.origin.steps:
            return None
        distance = [mine - theirs for mine, theirs in zip(self.origin.offsets, other.origin.offsets, strict=True)]
        first = [min(0, d) for d in distance]
        size = [max(h, d + o) - f for h, d, o, f in zip(self.size, distance, other.size, first, strict=True)]
        if size[0] * size[1] > 2 * max(self.size[0] * self.size[1], other.size[0] * other.size[1]):
            return None
        backend, _ = resolve(signal=self.signal)
        signal = backend.zeros((len(self.signal), *size, self.signal.shape[3]))
        for part, (row, column) in ((self, (0, 0)), (other, distance)):
            top, left = row - first[0], column - first[1]
            signal[:, top : top + part.size[0], left : left + part.size[1]] += ops.cast(part.signal, np.float32)
        corners = self.corners + backend.xp.asarray(first, np.int32)
        top, left = (offset - f for offset, f in zip(self.origin.offsets, first, strict=True))
        return Windows(signal, corners, self.height, self.width, False, replace(self.origin, offsets=(top, left)))

    def paste(self) -> Array:
        """The signal in whole maps, (N, height, width, C)."""
        return ops.cut_windows(self.signal, -self.corners, size=(self.height, self.width))

    def within_maps(self, signal: Array) -> Windows:
        """The windows with this signal, which becomes zero outside its maps, in place."""
        h, w = self.size
        rows, columns = _places(self.corners[:, 0], h), _places(self.corners[:, 1], w)
        inside_rows = (rows >= 0) & (rows < self.height)
        inside_columns = (columns >= 0) & (columns < self.width)
        backend, _ = resolve(signal=signal)
        if backend.on_host:  # which can afford to look: few windows reach beyond their maps, and with few cells
            for i in np.flatnonzero(~(inside_rows.all(axis=1) & inside_columns.all(axis=1))):
                signal[i, ~inside_rows[i]] = 0
                signal[i][:, ~inside_columns[i]] = 0
        else:
            # As bits, so that what is no number becomes zero, too.
            bits = signal.view(f"u{signal.dtype.itemsize}")
            bits *= (inside_rows[:, :, None] & inside_columns[:, None, :])[..., None]
        return replace(self, signal=signal)


def find(activations: Array) -> Windows | None:
    """The windows of activations (N, H, W, C) that hold what is not zero, of the size that the widest image needs; None
    if there is too much of it to look at."""
    xp: Any = array_module(activations)
    n, height, width, channels = activations.shape
    # First the cells: the largest of their bits is found a vector at a time, and few of them are looked at closer.
    cells = activations.reshape(-1, channels)
    (places,) = xp.nonzero(cells.view(np.uint32).max(axis=1))
    if len(places) > _MOST_NONZERO * n:
        return None
    cell, _ = xp.nonzero(xp.take(cells, places, axis=0))
    if len(cell) > _MOST_NONZERO * n:
        return None
    image, row, column = np.unravel_index(to_host(xp.take(places, cell)), (n, height, width))
    # An image in which nothing is looked at keeps a window at the corner.
    top, left, bottom, right = np.full(n, height), np.full(n, width), np.zeros(n, int), np.zeros(n, int)
    for places, first, last in ((row, top, bottom), (column, left, right)):
        np.minimum.at(first, image, places)
        np.maximum.at(last, image, places)
    empty = top == height
    top[empty] = left[empty] = 0
    h, w = int((bottom - top).max()) + 1, int((right - left).max()) + 1
    # A window that would reach out of its map is moved inside.
    top, left = np.minimum(top, height - h), np.minimum(left, width - w)
    corners = xp.asarray(np.stack((top, left), axis=1).astype(np.int32))
    single = len(image) == n - np.count_nonzero(empty)
    return Windows(ops.cut_windows(activations, corners, size=(h, w)), corners, height, width, single)


def _places(first: Array, length: int) -> Array:
    return first[:, None] + array_module(first).arange(length)
