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

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import ops
from ..backends import Array, array_module, resolve, to_host
from ..pairs import as_pair
from .layers import Conv, MaxPool, Norm, ReLU
from .stages import BlockStage, Record, Stage

__all__ = ["Windows", "find"]

# Where a convolution's window has more than this share of its map's cells, moving windows costs more than it saves.
_LARGEST_SHARE = 0.8

# More nonzero activations an image than this are not looked at one by one.
_MOST_NONZERO = 64


@dataclass(frozen=True)
class Windows:
    """A signal that is zero outside one window per image.

    signal (N, h, w, C), the windows; corners int32 (N, 2), their top and left in maps of (height, width), negative
    where a window begins outside; single: an image has at most one nonzero value, and its window is that one cell.
    """

    signal: Array
    corners: Array
    height: int
    width: int
    single: bool

    def pays_at(self, stage: Stage, position: int) -> bool:
        """Whether undoing this stage's layers from `position` on windows saves enough of the work."""
        height, width = self.size
        for layer in reversed(stage.layers[: position + 1]):
            if isinstance(layer, MaxPool) and not self.single:
                height, width = _reach((height, width), layer.window, layer.stride)
        map_height, map_width = stage.layers[0].output_shape[:2]
        return height * width <= _LARGEST_SHARE * map_height * map_width

    def project(self, stage: Stage, position: int, record: Record, rule: str) -> Windows:
        """As `Stage.project`, with windows in any dtype: from the output of the layer at `position` down."""
        windows = replace(self, signal=stage.enter(self.signal))
        windows._zero_outside()
        if isinstance(stage, BlockStage) and position == 2:
            return windows._undo_block(stage, record, rule)
        for i in range(position, -1, -1):
            layer = stage.layers[i]
            if isinstance(layer, Conv):
                windows = windows._undo_conv(layer)
            elif isinstance(layer, ReLU):
                windows = windows._undo_relu(layer, stage, i, record, rule)
            elif isinstance(layer, MaxPool):
                windows = windows._undo_pool(layer, record)
            elif isinstance(layer, Norm) and rule != "deconvnet":
                undone = layer.undo(windows.signal, rule, windows._of(record, "x"))
                windows = replace(windows, signal=undone, single=False)
        return windows

    def paste(self) -> Array:
        """The signal in whole maps, (N, height, width, C)."""
        return ops.cut_windows(self.signal, -self.corners, size=(self.height, self.width))

    # ---- Layers ---------------------------------------------------------------------------------------------

    def _undo_conv(self, conv: Conv) -> Windows:
        size = _reach(self.size, conv.kernel_size, conv.stride)
        signal = ops.conv_transpose2d(
            self.signal, conv.filters, stride=conv.stride, output_size=size, **conv.arithmetic
        )
        return self._moved(signal, conv)

    def _undo_relu(self, layer: ReLU, stage: Stage, position: int, record: Record, rule: str) -> Windows:
        if rule == "deconvnet":
            return replace(self, signal=ops.relu(self.signal))
        if position == len(stage.layers) - 1:
            y = self._of(record, "y")
        else:
            y = ops.cut_windows(stage.activation(position, record), self.corners, size=self.size)
        return replace(self, signal=layer.undo(self.signal, rule, y))

    def _undo_pool(self, pool: MaxPool, record: Record) -> Windows:
        switches = self._of(record, "switches")
        if self.single:
            return self._follow(pool, switches)
        size = _reach(self.size, pool.window, pool.stride)
        signal = ops.max_unpool2d(self.signal, switches, window=pool.window, stride=pool.stride, output_size=size)
        return self._moved(signal, pool)

    def _undo_block(self, stage: BlockStage, record: Record, rule: str) -> Windows:
        conv, _, pool = stage.parts()
        masked = self
        if rule != "deconvnet":
            masked = replace(self, signal=ops.relu_grad(self.signal, self._of(record, "y")))
        switches = self._of(record, "switches")
        rectify = rule != "gradient"
        if self.single:
            followed = masked._follow(pool, switches)
            return (replace(followed, signal=ops.relu(followed.signal)) if rectify else followed)._undo_conv(conv)
        unpooled = _reach(masked.size, pool.window, pool.stride)
        signal = ops.unpool_conv_transpose2d(
            masked.signal,
            switches,
            conv.filters,
            stride=conv.stride,
            padding=0,
            window=pool.window,
            pool_stride=pool.stride,
            output_size=_reach(unpooled, conv.kernel_size, conv.stride),
            rectify=rectify,
            **conv.arithmetic,
        )
        return self._moved(self.signal, pool)._moved(signal, conv)

    def _follow(self, pool: MaxPool, switches: Array) -> Windows:
        """Unpools one value an image: it stays one value, at the cell that its switch names."""
        n, channels = len(self.corners), self.signal.shape[3]
        xp: Any = array_module(self.signal)
        looked_at = xp.abs(ops.cast(self.signal, np.float32).reshape(n, channels)).argmax(axis=1)
        offsets = xp.take(switches.reshape(-1), xp.arange(n) * channels + looked_at)
        moved = self._moved(self.signal, pool)
        moved.corners[:, 0] += offsets // as_pair(pool.window)[1]
        moved.corners[:, 1] += offsets % as_pair(pool.window)[1]
        return replace(moved, single=True)

    # ---- Geometry -------------------------------------------------------------------------------------------

    def _moved(self, signal: Array, layer: Conv | MaxPool) -> Windows:
        """The windows with this signal, in the coordinates of the layer's input."""
        height, width = layer.input_size
        corners = array_module(self.corners).empty_like(self.corners)
        for axis, (stride, padding) in enumerate(zip(as_pair(layer.stride), as_pair(layer.padding), strict=True)):
            corners[:, axis] = self.corners[:, axis] * stride - padding
        return Windows(signal, corners, height, width, False)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of a window."""
        return self.signal.shape[1], self.signal.shape[2]

    def _of(self, record: Record, array: str) -> Array:
        """What the forward pass left in the windows."""
        return record.windows(array, self.corners, self.size)

    def _zero_outside(self) -> None:
        h, w = self.size
        rows, columns = _places(self.corners[:, 0], h), _places(self.corners[:, 1], w)
        inside_rows = (rows >= 0) & (rows < self.height)
        inside_columns = (columns >= 0) & (columns < self.width)
        backend, _ = resolve(signal=self.signal)
        # A look that spares the host the work, and that on a GPU would have to be waited for.
        if backend.on_host and inside_rows.all() and inside_columns.all():
            return
        # As bits, so that what is no number becomes zero, too.
        bits = self.signal.view(f"u{self.signal.dtype.itemsize}")
        bits *= (inside_rows[:, :, None] & inside_columns[:, None, :])[..., None]


def find(activations: Array) -> Windows | None:
    """The windows of activations (N, H, W, C) that hold what is not zero, of the size that the widest image needs; None
    if there is too much of it to look at."""
    xp: Any = array_module(activations)
    n, height, width, _ = activations.shape
    if int(xp.count_nonzero(activations)) > _MOST_NONZERO * n:
        return None
    image, row, column, _ = (to_host(index) for index in xp.nonzero(activations))
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


def _reach(size: tuple[int, ...], kernel: Any, stride: Any) -> tuple[int, int]:
    """How far the transpose of a window operation carries (h, w) cells."""
    (kernel_h, kernel_w), (stride_h, stride_w) = as_pair(kernel), as_pair(stride)
    return (size[0] - 1) * stride_h + kernel_h, (size[1] - 1) * stride_w + kernel_w
