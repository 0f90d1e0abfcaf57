"""Random shapes that look for trouble: odd sizes, one-pixel maps, strides larger than windows, batch 1, channel counts
beside the vector widths, windows that hang over every edge."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from tests import oracles

# The tiles of csrc/kernels/conv/tiles.cuh that several operations have; those of one: test_tma.py.
CONV_TILES = ("128x128", "128x96", "128x64", "64x32", "64x64", "128x32", "96x160", "256x96")
CONV_TILES += ("wgmma 192x256", "wgmma 128x256", "wgmma 128x128")  # of compute capability 9.0
BF16 = ml_dtypes.bfloat16
ELEMENTS = (np.float32, BF16)
GROUPS, GROUP_CHANNELS = (2, 3, 4, 7, 8), (1, 2, 3, 4, 5, 8, 12, 16, 17)
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 96)


@dataclass(frozen=True)
class Conv:
    """x (N,H,W,C) and w (K,R,S,C/groups) with stride, padding of two or four sides, and dilation."""

    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, ...]
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def options(self):
        dense = {"stride": self.stride, "padding": self.padding}
        return dense if self.is_dense else dense | {"dilation": self.dilation, "groups": self.groups}

    @property
    def is_dense(self):
        return self.dilation == (1, 1) and self.groups == 1

    @property
    def output(self):
        spatial = oracles.output_size(self.x[1:3], self.w[1:3], self.stride, self.padding, self.dilation)
        return (self.x[0], *spatial, self.w[0])

    @property
    def work(self):
        return int(np.prod(self.output, dtype=np.int64) * np.prod(self.w[1:], dtype=np.int64))


@dataclass(frozen=True)
class Pool:
    """x (N,H,W,C), with window, stride and padding, of two or four sides."""

    x: tuple[int, int, int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, ...]
    ceil_mode: bool

    @property
    def options(self):
        return {"window": self.window, "stride": self.stride, "padding": self.padding, "ceil_mode": self.ceil_mode}

    @property
    def output(self):
        return (self.x[0], *oracles.output_size(self.x[1:3], **self.options), self.x[3])


def _size(rng, largest):
    """1 now and then, else anything up to `largest`."""
    return 1 if rng.random() < 0.15 else int(rng.integers(1, largest + 1))


def _padding(rng, ends):
    """Below these numbers: of the axes, or one time in three of each side."""
    if rng.random() < 0.33:
        ends = np.repeat(ends, 2)
    return tuple(int(rng.integers(0, end)) for end in ends)


def random_conv(rng, max_work):
    while True:
        kernel = (3, 3) if rng.random() < 0.3 else tuple(int(v) for v in rng.integers(1, 8, 2))
        stride = (1, 1) if rng.random() < 0.4 else tuple(int(v) for v in rng.integers(1, 5, 2))
        padding = _padding(rng, [k + (rng.random() < 0.2) for k in kernel])
        dilation, groups, channels, filters = (1, 1), 1, int(rng.choice(CHANNELS)), int(rng.choice(CHANNELS))
        if rng.random() < 0.25:
            dilation = tuple(int(v) for v in rng.integers(1, 5, 2))
        if rng.random() < 0.3:
            groups = int(rng.choice(GROUPS))
            channels, filters = (int(v) for v in rng.choice(GROUP_CHANNELS, 2))
        elif rng.random() < 0.2:
            groups, channels, filters = channels, 1, int(rng.choice((1, 1, 2, 3)))
        conv = Conv(
            x=(_size(rng, 5), _size(rng, 33), _size(rng, 33), groups * channels),
            w=(groups * filters, *kernel, channels),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        if min(conv.output[1:3]) >= 1 and conv.work <= max_work:
            return conv


def random_pool(rng, max_size):
    while True:
        window = (3, 3) if rng.random() < 0.3 else tuple(int(v) for v in rng.integers(1, 6, 2))
        pool = Pool(
            x=(_size(rng, 4), _size(rng, 23), _size(rng, 23), int(rng.choice(CHANNELS))),
            window=window,
            stride=(2, 2) if rng.random() < 0.3 else tuple(int(v) for v in rng.integers(1, 7, 2)),
            padding=_padding(rng, window),
            ceil_mode=bool(rng.random() < 0.3),
        )
        if min(pool.output[1:3]) >= 1 and np.prod(pool.x) <= max_size:
            return pool


@dataclass(frozen=True)
class AvgPool:
    """x (N,H,W,C), with window, stride and padding (top, bottom, left, right)."""

    x: tuple[int, int, int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    ceil_mode: bool
    count_include_pad: bool

    @property
    def options(self):
        return {key: value for key, value in vars(self).items() if key != "x"}


def random_avg_pool(rng, max_size):
    """Now and then over the whole map, which may be so large that its pixels are summed in several ranges."""
    while True:
        x = (_size(rng, 4), _size(rng, 23), _size(rng, 23), int(rng.choice(CHANNELS)))
        if is_global := rng.random() < 0.3:
            x = (_size(rng, 3), *(int(v) for v in rng.integers(1, 50, 2)), int(rng.choice(CHANNELS)))
        window = x[1:3] if is_global else tuple(int(v) for v in rng.integers(1, 6, 2))
        sides = [int(rng.integers(0, k)) for k in window for _ in range(2)]
        padding = tuple(sides) if rng.random() < (0.2 if is_global else 0.7) else (0, 0, 0, 0)
        stride = tuple(int(v) for v in rng.integers(1, 7, 2))
        fits = all(
            size + before + after >= k
            for size, k, before, after in zip(x[1:3], window, padding[::2], padding[1::2], strict=True)
        )
        if fits and np.prod(x) <= max_size:
            return AvgPool(x, window, stride, padding, bool(rng.random() < 0.5), bool(rng.random() < 0.5))


@dataclass(frozen=True)
class Depthwise:
    """x (N,H,W,C) and w (K,R,S,1) with stride, padding (top, bottom, left, right) and dilation."""

    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def output(self):
        spatial = (
            (a + before + after - (k - 1) * d - 1) // s + 1
            for a, k, s, before, after, d in zip(
                self.x[1:3], self.w[1:3], self.stride, self.padding[::2], self.padding[1::2], self.dilation, strict=True
            )
        )
        return (self.x[0], *spatial, self.w[0])

    @property
    def work(self):
        return int(np.prod(self.output, dtype=np.int64) * np.prod(self.w[1:], dtype=np.int64))


def random_depthwise(rng, max_work):
    """Often the filters that are compiled in: 3 x 3, 5 x 5 and 7 x 7 at stride 1 or 2."""
    while True:
        compiled = rng.random() < 0.5
        kernel = (int(rng.choice((3, 5, 7))),) * 2 if compiled else tuple(int(v) for v in rng.integers(1, 8, 2))
        channels = int(rng.choice(CHANNELS))
        multiplier = 1 if rng.random() < 0.7 else int(rng.integers(2, 4))
        case = Depthwise(
            x=(_size(rng, 4), _size(rng, 23), _size(rng, 23), channels),
            w=(channels * multiplier, *kernel, 1),
            stride=(int(rng.integers(1, 3)),) * 2 if compiled else tuple(int(v) for v in rng.integers(1, 5, 2)),
            padding=tuple(int(rng.integers(0, k + (rng.random() < 0.2))) for k in kernel for _ in range(2)),
            dilation=(1, 1) if compiled or rng.random() < 0.5 else tuple(int(v) for v in rng.integers(1, 4, 2)),
        )
        if min(case.output[1:3]) >= 1 and case.work <= max_work and np.prod(case.x) <= max_work // 4:
            return case


def random_block(rng, max_work):
    """A convolution and the pool that reads its output."""
    while True:
        conv = random_conv(rng, max_work)
        window = (3, 3) if rng.random() < 0.5 else tuple(int(v) for v in rng.integers(1, 5, 2))
        pool = Pool(
            x=conv.output,
            window=window,
            stride=(2, 2) if rng.random() < 0.5 else tuple(int(v) for v in rng.integers(1, 5, 2)),
            padding=_padding(rng, window),
            ceil_mode=bool(rng.random() < 0.3),
        )
        if min(pool.output[1:3]) >= 1:
            return conv, pool


def random_shape(rng, max_size):
    """Any shape of one to four axes, for the element-wise operations."""
    while True:
        shape = tuple(int(v) for v in rng.integers(1, 40, int(rng.integers(1, 5))))
        if np.prod(shape) <= max_size:
            return shape
