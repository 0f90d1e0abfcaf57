"""The kinds of what is measured. A case is a shape, and says in which directions it is measured; `layers`,
`graph_layers` and `networks` make the calls. Nothing here needs PyTorch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

Pair = int | tuple[int, int]


def pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _windows(size: Pair, window: Pair, stride: Pair, padding: Pair) -> tuple[int, int]:
    h, w = (
        (cells + 2 * pad - width) // step + 1
        for cells, width, step, pad in zip(pair(size), pair(window), pair(stride), pair(padding), strict=True)
    )
    return h, w


@dataclass(frozen=True, kw_only=True)
class Case:
    """Of `family`; `n` images at once."""

    directions: ClassVar[tuple[str, ...]]
    layer: str
    family: str = ""
    n: int = 1

    @property
    def label(self) -> str:
        """Of its family, for people."""
        return f"{self.layer}, batch {self.n}"

    def with_batch(self, n: int) -> Any:
        return dataclasses.replace(self, n=n)

    def quick(self) -> Any:
        """The same with less work."""
        return self.with_batch(min(self.n, 4))


# ---- Layers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Convolution(Case):
    size: Pair
    channels: int
    maps: int
    kernel: Pair
    stride: Pair
    padding: Pair
    groups: ClassVar[int] = 1
    dilation: ClassVar[Pair] = 1

    @property
    def directions(self) -> tuple[str, ...]:
        # Of a layer that sees the image, only the deconvnet needs the signal below.
        return ("fprop", "dgrad" if self.channels > 3 else "image dgrad", "wgrad")

    @property
    def output(self) -> tuple[int, int]:
        (r, s), (down, across) = pair(self.kernel), pair(self.dilation)
        return _windows(self.size, ((r - 1) * down + 1, (s - 1) * across + 1), self.stride, self.padding)

    @property
    def flops(self) -> float:
        depth = math.prod(pair(self.kernel)) * (self.channels // self.groups)
        return 2.0 * self.n * math.prod(self.output) * self.maps * depth


@dataclass(frozen=True, kw_only=True)
class Conv(_Convolution):
    """x (n, *size, channels) * w (maps, *kernel, channels)."""

    def as_conv(self) -> Conv:
        return self


@dataclass(frozen=True, kw_only=True)
class Sparse(_Convolution):
    """x (n, *size, channels) * w (maps, *kernel, channels / groups), whose taps may lie apart."""

    groups: int = 1
    dilation: Pair = 1


@dataclass(frozen=True, kw_only=True)
class Depthwise(Case):
    """x (n, *size, channels) * w (channels, kernel, kernel, 1), padded by its half."""

    directions = ("depthwise fprop", "depthwise dgrad", "depthwise wgrad")
    size: int
    channels: int
    stride: int
    kernel: int = 3

    @property
    def output(self) -> tuple[int, int]:
        return _windows(self.size, self.kernel, self.stride, self.kernel // 2)


@dataclass(frozen=True, kw_only=True)
class Pool(Case):
    """Max pooling of x (n, *size, channels)."""

    directions = ("pool", "unpool")
    size: Pair
    channels: int
    window: Pair
    stride: Pair
    padding: Pair

    @property
    def output(self) -> tuple[int, int]:
        return _windows(self.size, self.window, self.stride, self.padding)


@dataclass(frozen=True, kw_only=True)
class Block(Case):
    """conv + bias + ReLU + max pool."""

    directions = ("block", "block grad")
    conv: Conv
    pool: Pool

    def with_batch(self, n: int) -> Block:
        return dataclasses.replace(self, n=n, conv=self.conv.with_batch(n), pool=self.pool.with_batch(n))


@dataclass(frozen=True, kw_only=True)
class Norm(Case):
    """Local response normalisation, as the paper sets it, of x (n, *size, channels)."""

    directions = ("norm", "norm grad")
    size: Pair
    channels: int


class Average(Pool):
    directions = ("average", "average grad")


class BatchNorm(Norm):
    directions = ("batchnorm", "batchnorm training", "batchnorm grad")


class Joint(Norm):
    """Two maps of x's shape that become one."""

    directions = ("add", "concat")


@dataclass(frozen=True, kw_only=True)
class Residual(Case):
    """The end of a residual block: a convolution, the sum of its maps and as many others, and ReLU."""

    directions = ("residual",)
    conv: Conv  # of one image


@dataclass(frozen=True, kw_only=True)
class Dense(Case):
    """A fully connected layer."""

    directions = ("dense fprop", "dense dgrad", "dense wgrad")
    inputs: int
    units: int

    @property
    def flops(self) -> float:
        return 2.0 * self.n * self.inputs * self.units

    def as_conv(self) -> Conv:
        """A convolution of single pixels."""
        one = {"size": 1, "kernel": 1, "stride": 1, "padding": 0}
        return Conv(layer=self.layer, family=self.family, n=self.n, channels=self.inputs, maps=self.units, **one)


# ---- Networks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Net(Case):
    """A whole network of `networks.ARCHITECTURES`, by its family."""

    directions = ("forward", "step")
    layer: str = "net"


@dataclass(frozen=True, kw_only=True)
class Memory(Case):
    """What a training step needs."""

    directions = ("memory MiB",)
    layer: str = "net"


class _WithoutBatch(Case):
    @property
    def label(self) -> str:
        return self.layer

    def with_batch(self, n: int) -> Any:
        return self


@dataclass(frozen=True, kw_only=True)
class Update(_WithoutBatch):
    """SGD on as many parameters as the network has."""

    directions = ("sgd",)
    layer: str = "parameters"


@dataclass(frozen=True, kw_only=True)
class Projection(_WithoutBatch):
    """The top 9 of `maps` maps of a layer among `n` images, each winner alone down to the pixels: what `visualize` does
    after the ranking. The peer does it for `peer_maps` of them, at the same cost a map."""

    directions = ("projection",)
    maps: int
    peer_maps: int

    @property
    def label(self) -> str:
        return f"{self.maps} maps of {self.layer}"

    def quick(self) -> Projection:
        return dataclasses.replace(self, n=16, maps=16, peer_maps=4)


@dataclass(frozen=True, kw_only=True)
class Occlusion(_WithoutBatch):
    """A class's probability by the position of a square on one image."""

    directions = ("occlusion",)
    layer: str = "net"
    square: int
    stride: int

    @property
    def label(self) -> str:
        return f"square {self.square}, stride {self.stride}"

    def quick(self) -> Occlusion:
        return dataclasses.replace(self, stride=48)


@dataclass(frozen=True, kw_only=True)
class Curves(_WithoutBatch):
    """Deletion and insertion curves of one image. The peer makes `peer_steps` of their steps, at the same cost each."""

    directions = ("curves",)
    layer: str = "net"
    patch: int
    peer_steps: int = 64

    @property
    def label(self) -> str:
        return f"patches of {self.patch}"

    def quick(self) -> Curves:
        return dataclasses.replace(self, patch=32, peer_steps=32)


# ---- The list ----------------------------------------------------------------------------------------------------
