"""What is measured: layers of well-known networks, whole networks and analyses, one list for the CPU and the GPU.

A family is a network, or what its shapes have in common: `small` (images of 28 to 64 pixels), `odd` (counts that no
vector divides, maps that are not square), `single` (one image), `others` (a layer each). Nothing here needs PyTorch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from case_kinds import (
    Average,
    BatchNorm,
    Block,
    Case,
    Conv,
    Curves,
    Dense,
    Depthwise,
    Joint,
    Memory,
    Net,
    Norm,
    Occlusion,
    Pair,
    Pool,
    Projection,
    Residual,
    Sparse,
    Update,
    _WithoutBatch,
    pair,
)

__all__ = [
    "CASES",
    "FAMILIES",
    "Average",
    "BatchNorm",
    "Block",
    "Case",
    "Conv",
    "Curves",
    "Dense",
    "Depthwise",
    "Joint",
    "Memory",
    "Net",
    "Norm",
    "Occlusion",
    "Pair",
    "Pool",
    "Problem",
    "Projection",
    "Residual",
    "Sparse",
    "Update",
    "_WithoutBatch",
    "pair",
    "problems",
    "select",
]


def _conv(layer: str, size: Pair, channels: int, maps: int, kernel: Pair, stride: Pair = 1, padding: Pair = 0) -> Conv:
    of = {"size": size, "channels": channels, "maps": maps, "kernel": kernel, "stride": stride, "padding": padding}
    return Conv(layer=layer, **of)


def _pool(layer: str, size: Pair, channels: int, window: Pair = 3, stride: Pair = 2, padding: Pair = 0) -> Pool:
    return Pool(layer=layer, size=size, channels=channels, window=window, stride=stride, padding=padding)


def _norm(layer: str, size: Pair, channels: int) -> Norm:
    return Norm(layer=layer, size=size, channels=channels)


def _dense(layer: str, inputs: int, units: int) -> Dense:
    return Dense(layer=layer, inputs=inputs, units=units)


def _family(family: str, n: int, *layers: Case) -> list[Case]:
    """The layers with this batch, and the blocks that they make: a convolution, and the pool of its map after it."""
    cases = [dataclasses.replace(layer, family=family, n=n) for layer in layers]
    blocks = [
        Block(family=family, layer=conv.layer.replace("conv", "block"), n=n, conv=conv, pool=pool)
        for conv, pool in itertools.pairwise(cases)
        if isinstance(conv, Conv) and isinstance(pool, Pool)
        if (*conv.output, conv.maps) == (*pair(pool.size), pool.channels)
    ]
    return cases + blocks


def _residual(layer: str, size: Pair, channels: int, maps: int, kernel: Pair, padding: Pair = 0) -> Residual:
    return Residual(layer=layer, conv=_conv(layer, size, channels, maps, kernel, 1, padding))


def _nets(family: str, *batches: int) -> list[Case]:
    return [Net(family=family, n=n) for n in batches]


CASES: list[Case] = [
    # A convolution: size, channels, maps, kernel, stride, padding. A pool: size, channels, window, stride, padding.
    *_family(
        "zfnet",
        16,
        _conv("conv1", 224, 3, 96, 7, 2, 1),
        _pool("pool1", 110, 96, 3, 2, 1),
        _norm("norm1", 55, 96),
        _conv("conv2", 55, 96, 256, 5, 2),
        _pool("pool2", 26, 256, 3, 2, 1),
        _norm("norm2", 13, 256),
        _conv("conv3", 13, 256, 384, 3, 1, 1),
        _conv("conv4", 13, 384, 384, 3, 1, 1),
        _conv("conv5", 13, 384, 256, 3, 1, 1),
        _pool("pool5", 13, 256),
        _dense("fc6", 9216, 4096),
        _dense("fc7", 4096, 4096),
        _dense("fc8", 4096, 1000),
    ),
    *_nets("zfnet", 1, 8, 32),
    Update(family="zfnet"),
    Projection(family="zfnet", layer="pool5", n=128, maps=256, peer_maps=16),
    Occlusion(family="zfnet", square=50, stride=16),
    Curves(family="zfnet", patch=14),
    Memory(family="zfnet", n=32),
    *_family(  # where it differs from zfnet
        "alexnet",
        16,
        _conv("conv1", 224, 3, 96, 11, 4, 2),
        _pool("pool1", 55, 96),
        _norm("norm1", 27, 96),
        _conv("conv2", 27, 96, 256, 5, 1, 2),
        _pool("pool2", 27, 256),
    ),
    *_nets("alexnet", 1, 8, 32),
    *_family(
        "vgg16",
        8,
        _conv("conv1_1", 224, 3, 64, 3, 1, 1),
        _conv("conv1_2", 224, 64, 64, 3, 1, 1),
        _pool("pool1", 224, 64, 2, 2),
        _conv("conv2_1", 112, 64, 128, 3, 1, 1),
        _conv("conv3_1", 56, 128, 256, 3, 1, 1),
        _conv("conv3_3", 56, 256, 256, 3, 1, 1),
        _pool("pool3", 56, 256, 2, 2),
        _conv("conv4_3", 28, 512, 512, 3, 1, 1),
        _conv("conv5_3", 14, 512, 512, 3, 1, 1),
        _pool("pool5", 14, 512, 2, 2),
        _dense("fc6", 25088, 4096),
    ),
    *_nets("vgg16", 1, 8, 32),
    Projection(family="vgg16", layer="pool5", n=32, maps=64, peer_maps=4),
    Occlusion(family="vgg16", square=50, stride=16),
    Curves(family="vgg16", patch=28),
    Memory(family="vgg16", n=8),
    *_family(
        "resnet18",
        16,
        _conv("conv1", 224, 3, 64, 7, 2, 3),
        _pool("pool1", 112, 64, 3, 2, 1),
        _conv("layer1", 56, 64, 64, 3, 1, 1),
        _conv("layer2.0", 56, 64, 128, 3, 2, 1),
        _conv("layer2.0.down", 56, 64, 128, 1, 2),
        _conv("layer2", 28, 128, 128, 3, 1, 1),
        _conv("layer3.0", 28, 128, 256, 3, 2, 1),
        _conv("layer3", 14, 256, 256, 3, 1, 1),
        _conv("layer4.0", 14, 256, 512, 3, 2, 1),
        _conv("layer4", 7, 512, 512, 3, 1, 1),
        BatchNorm(layer="bn1", size=112, channels=64),
        BatchNorm(layer="layer1.bn", size=56, channels=64),
        BatchNorm(layer="layer4.bn", size=7, channels=512),
        Joint(layer="layer1.sum", size=56, channels=64),
        _residual("layer1.end", 56, 64, 64, 3, 1),
        Average(layer="avgpool", size=7, channels=512, window=7, stride=1, padding=0),
        _dense("fc", 512, 1000),
    ),
    *_nets("resnet18", 1, 8, 32),
    Occlusion(family="resnet18", square=50, stride=16),
    Curves(family="resnet18", patch=14),
    Memory(family="resnet18", n=16),
    *_family(
        "resnet50",
        16,
        _conv("layer1.reduce", 56, 256, 64, 1),
        _conv("layer1.expand", 56, 64, 256, 1),
        _conv("layer2.0.down", 56, 256, 512, 1, 2),
        _conv("layer2.0", 56, 128, 128, 3, 2, 1),
        _conv("layer3.reduce", 14, 1024, 256, 1),
        _conv("layer3.expand", 14, 256, 1024, 1),
        _conv("layer4.0", 14, 512, 512, 3, 2, 1),
        _conv("layer4.expand", 7, 512, 2048, 1),
        _residual("layer1.end", 56, 64, 256, 1),
    ),
    *_nets("resnet50", 1, 8, 32),
    Projection(family="resnet50", layer="layer3.5.relu3", n=32, maps=64, peer_maps=4),
    Occlusion(family="resnet50", square=50, stride=16),
    Memory(family="resnet50", n=8),
    *_family(
        "googlenet",
        16,
        _conv("conv2.reduce", 56, 64, 64, 1),
        _conv("conv2", 56, 64, 192, 3, 1, 1),
        _pool("pool2", 56, 192, 3, 2, 1),
        _conv("3a.reduce", 28, 192, 16, 1),
        _conv("3a.conv3", 28, 96, 128, 3, 1, 1),
        _conv("3a.conv5", 28, 16, 32, 5, 1, 2),
        _pool("3a.pool", 28, 192, 3, 1, 1),
        Joint(layer="3b.join", size=28, channels=240),
        Average(layer="aux.pool", size=14, channels=512, window=5, stride=3, padding=0),
        _conv("4b.conv1", 14, 512, 160, 1),
        _conv("4d.conv3", 14, 144, 288, 3, 1, 1),
        _pool("4e.pool", 14, 528, 3, 1, 1),
        _conv("5b.conv5", 7, 48, 128, 5, 1, 2),
        _dense("fc", 1024, 1000),
    ),
    *_family(
        "mobilenet",
        16,
        *(
            Depthwise(layer=f"depthwise{size}.{stride}", size=size, channels=channels, stride=stride)
            for size, channels, stride in zip(
                (112, 112, 56, 56, 28, 28, 14, 14, 7),
                (32, 64, 128, 128, 256, 256, 512, 512, 1024),
                (1, 2, 1, 2, 1, 2, 1, 2, 1),
                strict=True,
            )
        ),
        Average(layer="avgpool", size=7, channels=1024, window=7, stride=1, padding=0),
    ),
    *_family(
        "squeezenet",
        16,
        _conv("conv1", 224, 3, 64, 3, 2),
        _pool("pool1", 111, 64),
        _conv("fire2.squeeze", 55, 64, 16, 1),
        _conv("fire2.expand1", 55, 16, 64, 1),
        _conv("fire2.expand3", 55, 16, 64, 3, 1, 1),
        _conv("fire9.squeeze", 13, 512, 64, 1),
        _conv("fire9.expand3", 13, 64, 256, 3, 1, 1),
    ),
    *_family(
        "resnext50",
        8,
        *(
            Sparse(layer=f"layer{part}", size=size, channels=c, maps=c, kernel=3, stride=stride, padding=1, groups=32)
            for part, size, c, stride in (
                *(("1", 56, 128, 1), ("2.0", 56, 256, 2), ("2", 28, 256, 1)),
                *(("3", 14, 512, 1), ("4", 7, 1024, 1)),
            )
        ),
    ),
    *_family(
        "efficientnet",
        8,
        *(
            Depthwise(layer=f"depthwise{size}.{kernel}.{stride}", size=size, channels=c, stride=stride, kernel=kernel)
            for size, c, kernel, stride in (
                *((112, 96, 3, 2), (56, 144, 5, 2), (28, 240, 5, 1)),
                *((14, 480, 5, 1), (14, 672, 5, 2), (7, 1152, 5, 1)),
            )
        ),
        _conv("expand56", 56, 24, 144, 1),
        _conv("project14", 14, 672, 112, 1),
        _conv("expand7", 7, 192, 1152, 1),
    ),
    *_family(
        "convnext",
        8,
        *(
            Depthwise(layer=f"depthwise{size}", size=size, channels=c, stride=1, kernel=7)
            for size, c in ((56, 96), (28, 192), (14, 384), (7, 768))
        ),
        _conv("down2", 56, 96, 192, 2, 2),
    ),
    *_family(
        "densenet",
        8,
        _conv("reduce28", 28, 320, 128, 1),
        *(_conv(f"grow{size}", size, 128, 32, 3, 1, 1) for size in (56, 28, 14, 7)),
    ),
    *_family(
        "inception",
        8,
        _conv("stem3", 147, 32, 64, 3, 1, 1),
        _conv("mixed5", 35, 48, 64, 5, 1, 2),
        _conv("row17", 17, 128, 128, (1, 7), 1, (0, 3)),
        _conv("column17", 17, 192, 192, (7, 1), 1, (3, 0)),
        _conv("reduce35", 35, 288, 384, 3, 2),
    ),
    *_family(
        "others",
        8,
        Sparse(layer="dilated2", size=28, channels=256, maps=256, kernel=3, stride=1, padding=2, dilation=2),  # DeepLab
        Sparse(layer="dilated12", size=28, channels=256, maps=256, kernel=3, stride=1, padding=12, dilation=12),
        Sparse(layer="alexnet.conv2", size=27, channels=96, maps=256, kernel=5, stride=1, padding=2, groups=2),
        _conv("dcgan", 16, 128, 256, 4, 2, 1),
        _conv("unet", 16, 512, 1024, 3, 1, 1),
        _conv("vit.patches", 224, 3, 768, 16, 16),
        _conv("tiny", 2, 512, 512, 3, 1, 1),
    ),
    *_family(
        "lenet",
        64,
        _conv("conv1", 28, 1, 6, 5, 1, 2),
        _pool("pool1", 28, 6, 2, 2),
        _conv("conv2", 14, 6, 16, 5),
        _pool("pool2", 10, 16, 2, 2),
        _conv("conv2.wide", 12, 20, 50, 5),
        _dense("fc1", 400, 120),
        _dense("fc2", 120, 84),
    ),
    *_family(
        "small",
        64,
        _conv("conv1.28", 28, 1, 32, 5, 1, 2),
        _conv("conv1", 32, 3, 32, 5, 1, 2),
        _pool("pool1", 32, 32, 3, 2, 1),
        _conv("conv2", 16, 32, 64, 5, 1, 2),
        _pool("pool2", 16, 64, 3, 2, 1),
        _norm("norm2", 8, 64),
        _conv("conv5", 8, 128, 128, 3, 1, 1),
        _pool("pool5", 8, 128, 3, 2, 1),
        _dense("fc6", 2048, 512),
        _dense("fc7", 512, 512),
        _conv("conv1.64", 64, 3, 32, 5, 2, 2),
        _conv("narrow", 32, 16, 16, 3, 1, 1),
        _conv("wide", 64, 64, 64, 3, 1, 1),
        _pool("wide.pool", 64, 64, 2, 2),
    ),
    *_nets("zfnet_small", 1, 8, 32, 128),
    *_nets("zfnet_small.28", 128),
    *_family(
        "odd",
        8,
        _conv("primes", (53, 47), 37, 43, 3, 1, 1),
        _conv("few", 61, 7, 13, 5, 2, 2),
        _conv("prime.maps", 61, 13, 29, 3, 1, 1),
        Depthwise(layer="depthwise", size=28, channels=29, stride=1),
        Depthwise(layer="depthwise.2", size=56, channels=33, stride=2),
        _conv("even", 32, 66, 34, 4, 2, 1),
        _conv("row", 17, 100, 60, (1, 7), 1, (0, 3)),
        _conv("wide.1x1", (31, 45), 129, 65, 1),
        _pool("channels", (53, 47), 43),
        Average(layer="map", size=(121, 97), channels=43, window=(121, 97), stride=1, padding=0),
        BatchNorm(layer="bn", size=(53, 47), channels=43),
        _pool("square4", 60, 21, 4, 4),
        _pool("dense5", 28, 50, 5, 1, 2),
        _dense("primes", 1021, 509),
    ),
    *_family(
        "single",
        1,
        _conv("zfnet.conv1", 224, 3, 96, 7, 2, 1),
        _pool("zfnet.pool1", 110, 96, 3, 2, 1),
        _conv("zfnet.conv2", 55, 96, 256, 5, 2),
        _conv("zfnet.conv4", 13, 384, 384, 3, 1, 1),
        _conv("vgg16.conv1_2", 224, 64, 64, 3, 1, 1),
        _pool("vgg16.pool1", 224, 64, 2, 2),
        _conv("vgg16.conv5_3", 14, 512, 512, 3, 1, 1),
        _conv("resnet18.layer4", 7, 512, 512, 3, 1, 1),
        _conv("resnet50.layer1.expand", 56, 64, 256, 1),
        _conv("resnet50.layer3.reduce", 14, 1024, 256, 1),
        _conv("mobilenet.pointwise7", 7, 1024, 1024, 1),
        Depthwise(layer="mobilenet.depthwise14", size=14, channels=512, stride=1),
        Average(layer="mobilenet.avgpool", size=7, channels=1024, window=7, stride=1, padding=0),
        _dense("zfnet.fc6", 9216, 4096),
        _dense("zfnet.fc8", 4096, 1000),
    ),
]

FAMILIES = tuple(dict.fromkeys(case.family for case in CASES))


class Problem(NamedTuple):
    """A case in one direction."""

    case: Case
    direction: str

    def __str__(self) -> str:
        """ "zfnet conv1 fprop 16", the batch at its end."""
        return f"{self.case.family} {self.case.layer} {self.direction} {self.case.n}"


def problems(cases: Sequence[Case]) -> list[Problem]:
    """In every direction; cases that have become the same once."""
    return [Problem(case, direction) for case in dict.fromkeys(cases) for direction in case.directions]


def select(problems: Sequence[Problem], only: Sequence[Sequence[str]]) -> list[Problem]:
    """Those whose name has all words of one of these lists; all where there is no list."""
    return [one for one in problems if not only or any(set(words) <= set(str(one).split()) for words in only)]
