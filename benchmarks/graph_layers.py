"""The layers of cases.py that graphs have besides those of `layers`: averages, batch normalisation and joints."""

from __future__ import annotations

from typing import Any

import cases
import torch
from cases import pair
from harness import Calls
from layers import Convolution, against
from setting import PEERS_MAY, Setting, agreement, compare, ours
from torch.nn import functional

from zfcuda import ops

aten = torch.ops.aten


class _Average:
    def __init__(self, setting: Setting, case: cases.Average):
        self.size = pair(case.size)
        self.geometry: dict[str, Any] = {"window": case.window, "stride": case.stride, "padding": case.padding}
        self.x = setting.normal(case.n, case.channels, *self.size)
        self.dy = setting.normal(case.n, case.channels, *case.output)
        self.moved = float(self.x.nbytes + self.dy.nbytes)


def average(setting: Setting, case: cases.Average) -> Calls:
    of = _Average(setting, case)
    x = ours(of.x)

    def call() -> Any:
        return ops.avg_pool2d(x, **of.geometry)

    def theirs(x: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(x, case.window, case.stride, case.padding)

    return against(setting, call, theirs, of.x, tolerance=setting.tolerance, moved=of.moved)


def average_grad(setting: Setting, case: cases.Average) -> Calls:
    of = _Average(setting, case)
    dy = ours(of.dy)

    def call() -> Any:
        return ops.avg_pool2d_grad(dy, output_size=of.size, **of.geometry)

    geometry = pair(case.window), pair(case.stride), pair(case.padding), False, True, None

    def theirs(dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return aten.avg_pool2d_backward.default(dy, x, *geometry)

    return against(setting, call, theirs, of.dy, of.x, tolerance=setting.tolerance, moved=of.moved)


class _BatchNorm:
    """The arrays; mean and variance are not those of x, so that a result that used its own would be wrong."""

    def __init__(self, setting: Setting, case: cases.BatchNorm):
        shape = case.n, case.channels, *pair(case.size)
        self.x, self.dy = setting.normal(*shape), setting.normal(*shape)
        self.of_channels = [setting.normal(case.channels).float().abs() + 0.5 for _ in range(4)]

    def statistics_and_norm(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(x, None, None, weight, bias, training=True)


def batchnorm(setting: Setting, case: cases.BatchNorm) -> Calls:
    """As at test time."""
    of = _BatchNorm(setting, case)
    x, of_channels = ours(of.x), [ours(tensor) for tensor in of.of_channels]

    def call() -> Any:
        return ops.batch_norm(x, *of_channels)

    moved = 2.0 * of.x.nbytes
    tensors = of.x, *of.of_channels
    return against(setting, call, functional.batch_norm, *tensors, tolerance=setting.tolerance, moved=moved)


def batchnorm_training(setting: Setting, case: cases.BatchNorm) -> Calls:
    of = _BatchNorm(setting, case)
    x, weight, bias = ours(of.x), *(ours(tensor) for tensor in of.of_channels[2:])

    def call() -> Any:
        return ops.batch_norm(x, *ops.batch_norm_statistics(x), weight, bias)

    moved = 3.0 * of.x.nbytes
    tensors = of.x, *of.of_channels[2:]
    return against(setting, call, of.statistics_and_norm, *tensors, tolerance=setting.tolerance, moved=moved)


def batchnorm_grad(setting: Setting, case: cases.BatchNorm) -> Calls:
    of = _BatchNorm(setting, case)
    x, dy, weight = ours(of.x), ours(of.dy), ours(of.of_channels[2])
    statistics = ops.batch_norm_statistics(x)

    def call() -> list[Any]:
        return list(ops.batch_norm_grad(dy, x, *statistics, weight))

    def reference() -> list[torch.Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in setting.exact(of.x, *of.of_channels[2:])]
        return list(torch.autograd.grad(of.statistics_and_norm(*leaves), leaves, *setting.exact(of.dy)))

    peers = setting.gradient_peers(of.statistics_and_norm, [of.x, *of.of_channels[2:]], of.dy)
    tolerances = [setting.tolerance, setting.weight_grad_tolerance, setting.weight_grad_tolerance]
    error, may = compare(reference, tolerances), PEERS_MAY * max(tolerances)
    return Calls(call, peers, error, max(tolerances), agreement(tolerances), may, moved=5.0 * of.x.nbytes)


# ---- Joints of graphs ------------------------------------------------------------------------------------------------


def _joint(setting: Setting, case: cases.Joint) -> tuple[torch.Tensor, torch.Tensor]:
    shape = case.n, case.channels, *pair(case.size)
    return setting.normal(*shape), setting.normal(*shape)


def add(setting: Setting, case: cases.Joint) -> Calls:
    """And ReLU, as at the end of a residual block."""
    tensors = _joint(setting, case)
    a, b = (ours(tensor) for tensor in tensors)

    def call() -> Any:
        return ops.add(a, b, relu=True)

    def theirs(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return functional.relu_(a + b)

    return against(setting, call, theirs, *tensors, tolerance=setting.tolerance, moved=3.0 * tensors[0].nbytes)


def residual(setting: Setting, case: cases.Residual) -> Calls:
    of = Convolution(setting, case.conv.with_batch(case.n))
    x, w, b, shortcut = ours(of.x), ours(of.w), ours(of.b.float()), ours(of.dy)

    def call() -> Any:
        return ops.conv2d(x, w, b, add=shortcut, relu=True, **of.options)

    def theirs(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        return functional.relu_(of.forward(x, w, b) + shortcut)

    work = of.work | {"moved": of.work["moved"] + float(of.dy.nbytes)}
    return against(setting, call, theirs, of.x, of.w, of.b, of.dy, tolerance=setting.tolerance, **work)


def concat(setting: Setting, case: cases.Joint) -> Calls:
    tensors = _joint(setting, case)
    a, b = (ours(tensor) for tensor in tensors)
    out = ours(torch.cat(tensors, 1).zero_())  # which stays wrong where nothing is copied

    def call() -> Any:
        return ops.copy_channels(b, ops.copy_channels(a, out), target=case.channels)

    def theirs(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cat((a, b), 1)

    return against(setting, call, theirs, *tensors, tolerance=0.0, moved=4.0 * tensors[0].nbytes)


MAKERS = {
    "average": average,
    "average grad": average_grad,
    "batchnorm": batchnorm,
    "batchnorm training": batchnorm_training,
    "batchnorm grad": batchnorm_grad,
    "add": add,
    "residual": residual,
    "concat": concat,
}
