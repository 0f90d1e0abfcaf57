"""The layers of ZFNet and AlexNet one by one, in every direction: ours against PyTorch, checked in float64.

Every part is a generator of cases that live one after the other: it needs the memory of its largest problem only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import peers
import torch
from gpu_setting import Call, Setting, compare, gradient, host, ours
from harness import Case, relative_error
from torch import nn
from torch.nn import functional

from zfcuda import ops
from zfcuda.nn.architecture import ConvSpec, MaxPoolSpec, NormSpec

FLOAT = 4  # bytes
SWITCH = 1


def _both(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _conv_gradient(
    spec: ConvSpec, dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor, *, of_x: bool = False, of_w: bool = False
) -> list[torch.Tensor]:
    """PyTorch's gradients of a convolution: of w and x, those that are asked for, in this order."""
    dx, dw, _ = torch.ops.aten.convolution_backward(
        dy, x, w, None, _both(spec.stride), _both(spec.padding), [1, 1], False, [0, 0], 1, [of_x, of_w, False]
    )
    return [tensor for tensor, asked in ((dw, of_w), (dx, of_x)) if asked]


# ---- Convolutions --------------------------------------------------------------------------------------------------


def conv(setting: Setting) -> Iterator[Case]:
    """Every conv layer in every precision: fprop, dgrad (the deconvnet's filtering) and wgrad."""
    for precision in setting.precisions:
        for name, spec, shape in setting.layers(ConvSpec):
            yield from _conv_layer(setting, precision, name, spec, shape)


def _conv_layer(
    setting: Setting, precision: str, name: str, spec: ConvSpec, shape: tuple[int, int, int]
) -> Iterator[Case]:
    k, r, s, c = spec.weight_shape(shape)
    n, (h, w, _), (p, q, _) = setting.batch, shape, spec.output_shape(shape)
    arithmetic = _Arithmetic(setting, precision)
    x, dy = arithmetic.stored(setting.normal(n, c, h, w)), arithmetic.stored(setting.normal(n, k, p, q))
    filters, b = arithmetic.stored(setting.normal(k, c, r, s, scale=(r * s * c) ** -0.5)), setting.normal(k)
    geometry: dict[str, Any] = {"stride": spec.stride, "padding": spec.padding}
    options = geometry | arithmetic.options
    flops = 2.0 * n * p * q * k * r * s * c
    moved = float(x.nbytes + filters.nbytes + dy.nbytes)

    def case(direction: str, call: Call, peer: Call, reference: Call, tolerance: float) -> Case:
        error, calls = compare(call, reference), {"eager": arithmetic.peer(peer)}
        problem = f"{name} {direction}"
        return Case(f"conv {precision}", problem, flops, moved, call, calls, error, tolerance, precision)

    yield case(
        "fprop",
        lambda: ops.conv2d(ours(x), ours(filters), ours(b), **options),
        lambda: functional.conv2d(x, filters, arithmetic.stored(b), **geometry),
        lambda: functional.conv2d(x.double(), filters.double(), b.double(), **geometry),
        arithmetic.tolerance,
    )
    yield case(
        "dgrad",
        lambda: ops.conv_transpose2d(ours(dy), ours(filters), output_size=(h, w), **options),
        lambda: _conv_gradient(spec, dy, x, filters, of_x=True)[0],
        lambda: _conv_gradient(spec, dy.double(), x.double(), filters.double(), of_x=True)[0],
        arithmetic.tolerance,
    )
    yield case(
        "wgrad",
        lambda: ops.conv2d_weight_grad(ours(x), ours(dy), kernel_size=(r, s), **options),
        lambda: _conv_gradient(spec, dy, x, filters, of_w=True)[0],
        lambda: _conv_gradient(spec, dy.double(), x.double(), filters.double(), of_w=True)[0],
        arithmetic.weight_grad_tolerance,
    )


@dataclass(frozen=True)
class _Arithmetic:
    """How a precision is asked for, of both libraries, and how near it must come to float64."""

    setting: Setting
    precision: str

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of our operations; bfloat16 needs none."""
        return {"precision": "tf32"} if self.precision == "tf32" else {}

    @property
    def tolerance(self) -> float:
        return {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}[self.precision]

    @property
    def weight_grad_tolerance(self) -> float:
        return max(1e-4, self.tolerance)

    def stored(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.bfloat16() if self.precision == "bf16" else tensor

    def peer(self, call: Call) -> Call:
        """PyTorch's call, in this precision."""

        def called() -> Any:
            with peers.precision(self.precision, torch.device(self.setting.device).type):
                return call()

        return called


# ---- What memory bounds ----------------------------------------------------------------------------------------------


def pool(setting: Setting) -> Iterator[Case]:
    """Max pooling with switches (PyTorch: with indices), and unpooling against the gradient of max pooling."""
    for name, spec, shape in setting.layers(MaxPoolSpec):
        yield from _pool_layer(setting, name, spec, shape)


def _pool_layer(setting: Setting, name: str, spec: MaxPoolSpec, shape: tuple[int, int, int]) -> Iterator[Case]:
    n, (h, w, c), (p, q, _) = setting.batch, shape, spec.output_shape(shape)
    x, dy = setting.normal(n, c, h, w), setting.normal(n, c, p, q)
    window: dict[str, Any] = {"window": spec.window, "stride": spec.stride, "padding": spec.padding}
    _, switches = ops.max_pool2d(ours(x), **window)
    moved = float(FLOAT * x.numel() + (FLOAT + SWITCH) * dy.numel())

    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return functional.max_pool2d(x, spec.window, spec.stride, spec.padding, return_indices=True)

    def ours_forward() -> Any:
        return ops.max_pool2d(ours(x), **window)

    def forward_error() -> float:
        y, found = ours_forward()
        expected, indices = forward(x)
        wrong = (host(_indices(found, spec, shape)) != host(indices)).mean()
        return max(relative_error(host(y), host(expected)), float(wrong))

    def ours_backward() -> Any:
        return ops.max_unpool2d(ours(dy), switches, output_size=(h, w), **window)

    _, indices = forward(x)

    def backward() -> torch.Tensor:
        return _unpool(spec, dy, x, indices)

    yield Case("pool", name, 0.0, moved, ours_forward, setting.peers(forward, x), forward_error, 0.0)
    error = compare(ours_backward, backward)
    yield Case("pool", f"{name} unpool", 0.0, moved, ours_backward, {"eager": backward}, error, 1e-6)


def _indices(switches: Any, spec: MaxPoolSpec, shape: tuple[int, int, int]) -> torch.Tensor:
    """Switches (N,P,Q,C) as PyTorch's indices into the map, (N,C,P,Q)."""
    from zfcuda.interop.torch import images_to_torch

    offsets = images_to_torch(switches).long()
    (stride_h, stride_w), (pad_h, pad_w) = _both(spec.stride), _both(spec.padding)
    width = _both(spec.window)[1]
    p = torch.arange(offsets.shape[2], device=offsets.device)[:, None]
    q = torch.arange(offsets.shape[3], device=offsets.device)
    return (p * stride_h - pad_h + offsets // width) * shape[1] + q * stride_w - pad_w + offsets % width


def _unpool(spec: MaxPoolSpec, dy: torch.Tensor, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    window, stride, padding = _both(spec.window), _both(spec.stride), _both(spec.padding)
    return torch.ops.aten.max_pool2d_with_indices_backward(dy, x, window, stride, padding, [1, 1], False, indices)


def norm(setting: Setting) -> Iterator[Case]:
    """Local response normalisation and its gradient."""
    for name, spec, shape in setting.layers(NormSpec):
        yield from _norm_layer(setting, name, spec, shape)


def _norm_layer(setting: Setting, name: str, spec: NormSpec, shape: tuple[int, int, int]) -> Iterator[Case]:
    h, w, c = shape
    x = setting.normal(setting.batch, c, h, w, scale=100)  # where the sum of squares counts
    dy = setting.normal(setting.batch, c, h, w)
    parameters: dict[str, Any] = {"size": spec.size, "alpha": spec.alpha, "beta": spec.beta, "k": spec.k}
    size = float(FLOAT * x.numel())

    def forward(x: torch.Tensor) -> torch.Tensor:
        return functional.local_response_norm(x, spec.size, spec.alpha * spec.size, spec.beta, spec.k)

    def ours_forward() -> Any:
        return ops.local_response_norm(ours(x), **parameters)

    def ours_gradient() -> Any:
        return ops.local_response_norm_grad(ours(dy), ours(x), **parameters)

    error = compare(ours_forward, lambda: forward(x.double()))
    yield Case("norm", name, 0.0, 2 * size, ours_forward, setting.peers(forward, x), error, 1e-5)
    error = compare(ours_gradient, lambda: gradient(forward, [x.double()], dy.double())()[0])
    calls = setting.gradient_peers(forward, [x], dy)
    yield Case("norm", f"{name} gradient", 0.0, 3 * size, ours_gradient, calls, error, 1e-5)


def optimizer(setting: Setting) -> Iterator[Case]:
    """SGD with momentum and weight decay on as many parameters as a network has, in one array."""
    for name, architecture in setting.architectures():
        shapes = [architecture.input_shape, *architecture.shapes()[:-1]]
        weights = [
            spec.weight_shape(shape)
            for spec, shape in zip(architecture.layers, shapes, strict=True)
            if hasattr(spec, "weight_shape")
        ]
        yield _sgd(setting, name, sum(int(np.prod(shape)) + shape[0] for shape in weights))


def _sgd(setting: Setting, name: str, count: int) -> Case:
    options = {"lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4}
    w, g = setting.normal(count), setting.normal(count) + 1
    weight, gradients, velocity = ours(w.clone()), ours(g), ours(torch.zeros_like(w))

    def step() -> Any:
        ops.sgd_step(weight, gradients, velocity, **options)
        return weight

    def peer(**implementation: bool) -> Call:
        parameter = nn.Parameter(w.clone())
        parameter.grad = g
        return torch.optim.SGD([parameter], **options, **implementation).step

    def first_step() -> torch.Tensor:
        return w - options["lr"] * (g.double() + options["weight_decay"] * w.double())

    peers = {"foreach": peer(foreach=True), "fused": peer(fused=True)}
    problem = f"{name} sgd, {count / 1e6:.1f} M parameters"
    return Case("optimizer", problem, 0.0, 5.0 * FLOAT * count, step, peers, compare(step, first_step), 1e-6)


# ---- Blocks ------------------------------------------------------------


def block(setting: Setting) -> Iterator[Case]:
    """conv + bias + ReLU + max pool as one operation, and its gradients: of filters, bias and, but for the first block,
    input. In every precision."""
    for precision in setting.precisions:
        yield from _blocks(setting, precision)


def _blocks(setting: Setting, precision: str) -> Iterator[Case]:
    pools = {name.replace("pool", "block"): spec for name, spec, _ in setting.layers(MaxPoolSpec)}
    for name, spec, shape in setting.layers(ConvSpec):
        name = name.replace("conv", "block")
        if name in pools:
            yield from _block(setting, precision, name, spec, pools[name], shape)


def _block(
    setting: Setting, precision: str, name: str, conv: ConvSpec, pool: MaxPoolSpec, shape: tuple[int, int, int]
) -> Iterator[Case]:
    k, r, s, c = conv.weight_shape(shape)
    n, (h, w, _), map_shape = setting.batch, shape, conv.output_shape(shape)
    p, q, _ = map_shape
    is_first = name.endswith("block1")
    arithmetic = _Arithmetic(setting, precision)
    x, b = arithmetic.stored(setting.normal(n, c, h, w)), setting.normal(k)
    filters = arithmetic.stored(setting.normal(k, c, r, s, scale=(r * s * c) ** -0.5))
    dy = arithmetic.stored(setting.normal(n, k, *pool.output_shape(map_shape)[:2]))
    peer_b = arithmetic.stored(b)
    geometry: dict[str, Any] = {
        "stride": conv.stride,
        "padding": conv.padding,
        "window": pool.window,
        "pool_stride": pool.stride,
        "pool_padding": pool.padding,
    }
    options = geometry | arithmetic.options

    def forward(x: torch.Tensor, filters: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        relu = functional.relu(functional.conv2d(x, filters, b, conv.stride, conv.padding))
        return functional.max_pool2d(relu, pool.window, pool.stride, pool.padding, return_indices=True)

    def ours_forward() -> Any:
        return ops.conv2d_relu_pool(ours(x), ours(filters), ours(b), **options)

    y, switches = ours_forward()

    def ours_backward() -> list[Any]:
        signal = ops.relu_grad(ours(dy), y)
        gradients = [
            ops.unpool_conv2d_weight_grad(ours(x), signal, switches, kernel_size=(r, s), **options),
            ops.conv2d_bias_grad(signal),
        ]
        if not is_first:
            gradients.append(
                ops.unpool_conv_transpose2d(signal, switches, ours(filters), output_size=(h, w), **options)
            )
        return gradients

    def backward_reference() -> list[torch.Tensor]:
        """In float64 through our own switches: PyTorch's differ where rounding orders two neighbours otherwise."""
        from zfcuda.interop.torch import images_to_torch

        signal = dy.double() * (images_to_torch(y) > 0)
        map_like = signal.new_empty(n, k, p, q).contiguous(memory_format=torch.channels_last)
        unpooled = _unpool(pool, signal, map_like, _indices(switches, pool, map_shape))
        dw, dx = _conv_gradient(conv, unpooled, x.double(), filters.double(), of_x=True, of_w=True)
        return [dw, signal.sum((0, 2, 3))] + ([] if is_first else [dx])

    flops = 2.0 * n * p * q * k * r * s * c
    moved = float(x.nbytes + filters.nbytes + dy.nbytes + SWITCH * dy.numel())
    error = compare(lambda: ours_forward()[0], lambda: forward(x.double(), filters.double(), b.double())[0])
    part = f"block {precision}"

    def case(problem: str, call: Call, calls: dict[str, Call], error: Callable[[], float], tolerance: float) -> Case:
        calls = {peer: arithmetic.peer(theirs) for peer, theirs in calls.items()}
        return Case(part, f"{name} {problem}", flops, moved, call, calls, error, tolerance, precision)

    yield case("forward", ours_forward, setting.peers(forward, x, filters, peer_b), error, arithmetic.tolerance)

    if is_first:
        calls = setting.gradient_peers(lambda filters, b: forward(x, filters, b)[0], [filters, peer_b], dy)
    else:
        calls = setting.gradient_peers(lambda filters, b, x: forward(x, filters, b)[0], [filters, peer_b, x], dy)
        flops *= 2
        moved += x.nbytes + filters.nbytes
    moved += dy.nbytes  # the pooled map too, whose sign is the ReLU's mask
    error = compare(ours_backward, backward_reference)
    yield case("backward", ours_backward, calls, error, arithmetic.weight_grad_tolerance)
