"""The layers of cases.py in every direction: ours against PyTorch. Each function makes the calls of one case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases
import numpy as np
import torch
from cases import Pair, pair
from harness import Calls
from setting import GRADIENTS_MAY, PEERS_MAY, Call, Setting, agreement, compare, distance, ours, whole_distance
from torch.nn import functional

from zfcuda import ops
from zfcuda.interop.torch import images_to_torch

SWITCH = 1  # byte

aten = torch.ops.aten


def against(
    setting: Setting, call: Call, theirs: Callable[..., Any], *tensors: torch.Tensor, tolerance: float, **work: float
) -> Calls:
    """Our call against PyTorch's of these tensors, which is the reference too."""
    error = compare(lambda: theirs(*setting.exact(*tensors)))
    may = PEERS_MAY * max(tolerance, setting.tolerance)
    return Calls(call, setting.peers(theirs, *tensors), error, tolerance, distance, may, **work)


# ---- Convolutions ------------------------------------------------------------------------------------------------


class _TheirConvolution:
    """A convolution as PyTorch computes it."""

    groups = 1
    geometry: dict[str, Any]  # stride, padding and dilation

    def forward(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, w, b, groups=self.groups, **self.geometry)

    def dx(self, dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return self._gradients(dy, x, w, [True, False, False])[0]

    def dw(self, dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return self._gradients(dy, x, w, [False, True, False])[1]

    def _gradients(self, dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor, wanted: list[bool]) -> list[torch.Tensor]:
        stride, padding = (pair(self.geometry[name]) for name in ("stride", "padding"))
        geometry = None, stride, padding, pair(self.geometry.get("dilation", 1)), False, [0, 0], self.groups
        return aten.convolution_backward.default(dy, x, w, *geometry, wanted)


class Convolution(_TheirConvolution):
    """The arrays of a convolution, and what is counted."""

    def __init__(self, setting: Setting, case: cases.Conv | cases.Sparse):
        (h, w), (r, s), (p, q) = pair(case.size), pair(case.kernel), case.output
        n, c, k = case.n, case.channels, case.maps
        self.kernel, self.size = (r, s), (h, w)
        self.x, self.dy = setting.normal(n, c, h, w), setting.normal(n, k, p, q)
        self.groups = case.groups
        self.w = setting.normal(k, c // self.groups, r, s, scale=(r * s * c / self.groups) ** -0.5)
        self.b = setting.normal(k)
        self.geometry = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation}
        self.options = self.geometry | {"groups": self.groups} | setting.options
        self.work = {"flops": case.flops, "moved": float(self.x.nbytes + self.w.nbytes + self.dy.nbytes)}


def fprop(setting: Setting, case: cases.Conv | cases.Sparse) -> Calls:
    of = Convolution(setting, case)
    x, w, b = ours(of.x), ours(of.w), ours(of.b.float())

    def call() -> Any:
        return ops.conv2d(x, w, b, **of.options)

    return against(setting, call, of.forward, of.x, of.w, of.b, tolerance=setting.tolerance, **of.work)


def dgrad(setting: Setting, case: cases.Conv | cases.Sparse) -> Calls:
    """The deconvnet's filtering."""
    of = Convolution(setting, case)
    dy, w = ours(of.dy), ours(of.w)

    def call() -> Any:
        return ops.conv_transpose2d(dy, w, output_size=of.size, **of.options)

    return against(setting, call, of.dx, of.dy, of.x, of.w, tolerance=setting.tolerance, **of.work)


def wgrad(setting: Setting, case: cases.Conv | cases.Sparse) -> Calls:
    of = Convolution(setting, case)
    x, dy = ours(of.x), ours(of.dy)

    def call() -> Any:
        return ops.conv2d_weight_grad(x, dy, kernel_size=of.kernel, **of.options)

    tolerance = setting.weight_grad_tolerance
    return against(setting, call, of.dw, of.dy, of.x, of.w, tolerance=tolerance, **of.work)


# ---- Depthwise convolutions ------------------------------------------------------------------------------------------


class _Depthwise(_TheirConvolution):
    def __init__(self, setting: Setting, case: cases.Depthwise):
        self.groups = case.channels
        self.x = setting.normal(case.n, case.channels, case.size, case.size)
        self.dy = setting.normal(case.n, case.channels, *case.output)
        size = case.kernel
        self.w, self.b = setting.normal(case.channels, 1, size, size, scale=1 / size), setting.normal(case.channels)
        self.geometry = {"stride": case.stride, "padding": size // 2}
        self.work = {"flops": 2.0 * size**2 * self.dy.numel(), "moved": float(self.x.nbytes + self.dy.nbytes)}


def depthwise_fprop(setting: Setting, case: cases.Depthwise) -> Calls:
    of = _Depthwise(setting, case)
    x, w, b = ours(of.x), ours(of.w), ours(of.b.float())

    def call() -> Any:
        return ops.depthwise_conv2d(x, w, b, **of.geometry)

    return against(setting, call, of.forward, of.x, of.w, of.b, tolerance=setting.tolerance, **of.work)


def depthwise_dgrad(setting: Setting, case: cases.Depthwise) -> Calls:
    of = _Depthwise(setting, case)
    dy, w = ours(of.dy), ours(of.w)

    def call() -> Any:
        return ops.depthwise_conv2d_data_grad(dy, w, output_size=case.size, **of.geometry)

    return against(setting, call, of.dx, of.dy, of.x, of.w, tolerance=setting.tolerance, **of.work)


def depthwise_wgrad(setting: Setting, case: cases.Depthwise) -> Calls:
    of = _Depthwise(setting, case)
    x, dy = ours(of.x), ours(of.dy)

    def call() -> Any:
        return ops.depthwise_conv2d_weight_grad(x, dy, kernel_size=case.kernel, **of.geometry)

    tolerance = setting.weight_grad_tolerance
    return against(setting, call, of.dw, of.dy, of.x, of.w, tolerance=tolerance, **of.work)


# ---- Fully connected layers: ours are convolutions of one pixel ------------------------------------------------------


class _Dense:
    def __init__(self, setting: Setting, case: cases.Dense):
        self.x, self.dy = setting.normal(case.n, case.inputs), setting.normal(case.n, case.units)
        self.w = setting.normal(case.units, case.inputs, scale=case.inputs**-0.5)
        self.b = setting.normal(case.units)
        self.work = {"flops": case.flops, "moved": float(self.x.nbytes + self.w.nbytes + self.dy.nbytes)}


def _pixels(matrix: torch.Tensor) -> Any:
    array = ours(matrix)
    return array.reshape(array.shape[0], 1, 1, array.shape[1])


def dense_fprop(setting: Setting, case: cases.Dense) -> Calls:
    of = _Dense(setting, case)
    x, w, b = _pixels(of.x), _pixels(of.w), ours(of.b.float())

    def call() -> Any:
        return ops.conv2d(x, w, b, **setting.options).reshape(case.n, case.units)

    return against(setting, call, functional.linear, of.x, of.w, of.b, tolerance=setting.tolerance, **of.work)


def dense_dgrad(setting: Setting, case: cases.Dense) -> Calls:
    of = _Dense(setting, case)
    dy, w = _pixels(of.dy), _pixels(of.w)

    def call() -> Any:
        return ops.conv_transpose2d(dy, w, output_size=1, **setting.options).reshape(case.n, case.inputs)

    return against(setting, call, torch.mm, of.dy, of.w, tolerance=setting.tolerance, **of.work)


def dense_wgrad(setting: Setting, case: cases.Dense) -> Calls:
    of = _Dense(setting, case)
    x, dy = _pixels(of.x), _pixels(of.dy)

    def call() -> Any:
        return ops.conv2d_weight_grad(x, dy, kernel_size=1, **setting.options).reshape(case.units, case.inputs)

    def theirs(dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return dy.T @ x

    return against(setting, call, theirs, of.dy, of.x, tolerance=setting.weight_grad_tolerance, **of.work)


# ---- Pooling, normalisation ------------------------------------------------------------------------------------------


class _Pool:
    def __init__(self, setting: Setting, case: cases.Pool):
        self.case, self.size = case, pair(case.size)
        self.geometry: dict[str, Any] = {"window": case.window, "stride": case.stride, "padding": case.padding}
        self.x = setting.normal(case.n, case.channels, *self.size)
        self.dy = setting.normal(case.n, case.channels, *case.output)
        self.moved = float(self.x.nbytes + self.dy.nbytes + SWITCH * self.dy.numel())


def _max_pool(case: cases.Pool, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return functional.max_pool2d(x, case.window, case.stride, case.padding, return_indices=True)


def _max_pool_backward(case: cases.Pool) -> Callable[..., torch.Tensor]:
    """The gradient of max pooling, of (dy, x, indices)."""
    geometry = pair(case.window), pair(case.stride), pair(case.padding), [1, 1], False
    return lambda dy, x, indices: aten.max_pool2d_with_indices_backward.default(dy, x, *geometry, indices)


def indices_of(pool: Any, size: Pair, switches: Any) -> torch.Tensor:
    """Switches (N,P,Q,C) of a pool (a case or a layer) as PyTorch's indices into the map of this size, (N,C,P,Q)."""
    offsets = images_to_torch(switches).long()
    (stride_h, stride_w), (pad_h, pad_w) = pair(pool.stride), pair(pool.padding)
    width = pair(pool.window)[1]
    p = torch.arange(offsets.shape[2], device=offsets.device)[:, None]
    q = torch.arange(offsets.shape[3], device=offsets.device)
    rows, columns = p * stride_h - pad_h + offsets // width, q * stride_w - pad_w + offsets % width
    return rows * pair(size)[1] + columns


def pool(setting: Setting, case: cases.Pool) -> Calls:
    """With switches; PyTorch's with indices."""
    of = _Pool(setting, case)
    x = ours(of.x)

    def call() -> Any:
        return ops.max_pool2d(x, **of.geometry)

    def elsewhere(theirs: tuple[torch.Tensor, torch.Tensor], mine: tuple[Any, Any]) -> float:
        """The share of maxima that are not where ours are."""
        return float((indices_of(case, case.size, mine[1]) != theirs[1]).double().mean())

    def error(result: tuple[Any, Any]) -> float:
        expected = _max_pool(case, of.x)
        return max(distance(result[0], expected[0]), elsewhere(expected, result))

    def alike(theirs: tuple[torch.Tensor, torch.Tensor], mine: tuple[Any, Any]) -> float:
        """Of equal values, which bfloat16 has often, a compiler may take another."""
        share = elsewhere(theirs, mine)
        return distance(theirs[0], mine[0]) if share < 0.1 else share

    return Calls(call, setting.peers(lambda x: _max_pool(case, x), of.x), error, 0.0, alike, 0.0, moved=of.moved)


def unpool(setting: Setting, case: cases.Pool) -> Calls:
    """PyTorch's is the gradient of max pooling: its own unpooling does not add where windows overlap."""
    of = _Pool(setting, case)
    dy, (_, switches) = ours(of.dy), ops.max_pool2d(ours(of.x), **of.geometry)
    tensors = of.dy, of.x, _max_pool(case, of.x)[1]

    def call() -> Any:
        return ops.max_unpool2d(dy, switches, output_size=of.size, **of.geometry)

    theirs = _max_pool_backward(case)
    error = compare(lambda: theirs(*setting.exact(*tensors[:2]), tensors[2]))
    may = PEERS_MAY * setting.tolerance
    return Calls(call, setting.peers(theirs, *tensors), error, setting.tolerance, distance, may, moved=of.moved)


def _norm_arrays(setting: Setting, case: cases.Norm) -> tuple[torch.Tensor, torch.Tensor]:
    """x, so large that the sum of squares counts, and dy."""
    shape = case.n, case.channels, *pair(case.size)
    return setting.normal(*shape, scale=100), setting.normal(*shape)


def _their_norm(x: torch.Tensor) -> torch.Tensor:
    return functional.local_response_norm(x, 5, 5e-4, 0.75, 2.0)  # PyTorch divides alpha by the size


def norm(setting: Setting, case: cases.Norm) -> Calls:
    tensor, _ = _norm_arrays(setting, case)
    x = ours(tensor)

    def call() -> Any:
        return ops.local_response_norm(x)

    return against(setting, call, _their_norm, tensor, tolerance=setting.tolerance, moved=2.0 * tensor.nbytes)


def norm_grad(setting: Setting, case: cases.Norm) -> Calls:
    tensors = _norm_arrays(setting, case)
    x, dy = (ours(tensor) for tensor in tensors)

    def call() -> Any:
        return ops.local_response_norm_grad(dy, x)

    def reference() -> torch.Tensor:
        x, dy = (tensor.detach() for tensor in setting.exact(*tensors))
        return torch.autograd.grad(_their_norm(x.requires_grad_()), x, dy)[0]

    peers = setting.gradient_peers(_their_norm, tensors[:1], tensors[1])
    may, moved = PEERS_MAY * setting.tolerance, 3.0 * tensors[0].nbytes
    return Calls(call, peers, compare(reference), setting.tolerance, agreement(), may, moved=moved)


# ---- Blocks ----------------------------------------------------------------------------------------------------------


class _Block:
    """conv + bias + ReLU + max pool, ours as one operation."""

    def __init__(self, setting: Setting, case: cases.Block):
        self.conv, self.pool, pool = Convolution(setting, case.conv), case.pool, case.pool
        self.dy = setting.normal(case.n, pool.channels, *pool.output)
        own = {"window": pool.window, "pool_stride": pool.stride, "pool_padding": pool.padding}
        self.options = self.conv.options | own
        self.x, self.w, self.b = self.conv.x, self.conv.w, self.conv.b
        self.moved = float(self.x.nbytes + self.w.nbytes + self.dy.nbytes + SWITCH * self.dy.numel())

    def forward(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _max_pool(self.pool, functional.relu(self.conv.forward(x, w, b)))

    def ours(self) -> Callable[[], tuple[Any, Any]]:
        x, w, b = ours(self.x), ours(self.w), ours(self.b.float())
        return lambda: ops.conv2d_relu_pool(x, w, b, **self.options)


def block(setting: Setting, case: cases.Block) -> Calls:
    of = _Block(setting, case)
    call = of.ours()
    pooled = compare(lambda: of.forward(*setting.exact(of.x, of.w, of.b))[0])
    peers = setting.peers(of.forward, of.x, of.w, of.b)
    return Calls(
        call,
        peers,
        error=lambda result: pooled(result[0]),
        tolerance=setting.tolerance,
        alike=lambda theirs, mine: distance(theirs[0], mine[0]),
        peers_may=PEERS_MAY * setting.tolerance,
        flops=case.conv.flops,
        moved=of.moved,
    )


def block_grad(setting: Setting, case: cases.Block) -> Calls:
    """The gradients of filters, bias and input."""
    of = _Block(setting, case)
    x, w, dy, (y, switches) = ours(of.x), ours(of.w), ours(of.dy), of.ours()()

    def call() -> list[Any]:
        signal = ops.relu_grad(dy, y)
        return [
            ops.unpool_conv2d_weight_grad(x, signal, switches, kernel_size=of.conv.kernel, **of.options),
            ops.conv2d_bias_grad(signal),
            ops.unpool_conv_transpose2d(signal, switches, w, output_size=of.conv.size, **of.options),
        ]

    def reference() -> list[torch.Tensor]:
        """Through our own switches: PyTorch's differ where rounding orders two neighbours otherwise. In bfloat16 the
        unpooled map, which the block does not store, is still what its two operations would: sums are rounded."""
        dy, x, w = setting.exact(of.dy, of.x, of.w)
        signal = dy * (images_to_torch(y) > 0)
        of_map = torch.empty_like(of.conv.dy, dtype=signal.dtype)
        dz = _max_pool_backward(case.pool)(signal, of_map, indices_of(case.pool, case.pool.size, switches))
        dz = dz.to(of.dy.dtype).to(dz.dtype)
        return [of.conv.dw(dz, x, w), signal.sum((0, 2, 3)), of.conv.dx(dz, x, w)]

    peers = setting.gradient_peers(lambda w, b, x: of.forward(x, w, b)[0], [of.w, of.b, of.x], of.dy)
    tolerances = [setting.weight_grad_tolerance, setting.weight_grad_tolerance, setting.tolerance]

    def apart(theirs: tuple[torch.Tensor, ...], mine: list[Any]) -> float:
        return float(np.max([whole_distance(a, b) for a, b in zip(theirs, mine, strict=True)]))

    error, flops = compare(reference, tolerances), 2 * case.conv.flops
    moved = 2 * of.moved + of.dy.nbytes  # the pooled map too, whose sign is the ReLU's mask
    return Calls(call, peers, error, max(tolerances), apart, GRADIENTS_MAY[setting.precision], flops, moved)


MAKERS = {
    "fprop": fprop,
    "dgrad": dgrad,
    "image dgrad": dgrad,
    "wgrad": wgrad,
    "depthwise fprop": depthwise_fprop,
    "depthwise dgrad": depthwise_dgrad,
    "depthwise wgrad": depthwise_wgrad,
    "dense fprop": dense_fprop,
    "dense dgrad": dense_dgrad,
    "dense wgrad": dense_wgrad,
    "pool": pool,
    "unpool": unpool,
    "norm": norm,
    "norm grad": norm_grad,
    "block": block,
    "block grad": block_grad,
}
