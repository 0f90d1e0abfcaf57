"""Where and at what size the GPU benchmarks' problems are made, and how results of both libraries are compared.

Nothing here needs a GPU: the tests make the same problems on the CPU, small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zfcuda import models
from zfcuda.interop import torch as interop
from zfcuda.nn.architecture import Architecture
from zfcuda.nn.layers import PRECISIONS

ARCHITECTURES: dict[str, Callable[..., Architecture]] = {
    "zfnet": models.zfnet_architecture,
    "alexnet": models.alexnet_architecture,
}

Call = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    """The device, as PyTorch names it, the problems' size, and the precisions in which whole networks run. `compiled`
    adds torch.compile as a peer."""

    device: str = "cuda"
    batch: int = 128
    networks: tuple[str, ...] = tuple(ARCHITECTURES)
    precisions: tuple[str, ...] = PRECISIONS
    compiled: bool = True
    image_size: int = 224

    def architectures(self) -> Iterator[tuple[str, Architecture]]:
        for name in self.networks:
            yield name, ARCHITECTURES[name](1000, self.image_size)

    def layers(self, kind: type) -> Iterator[tuple[str, Any, tuple[int, int, int]]]:
        """Each layer of a kind: its name with its network's, its specification, and (H, W, C) of one input."""
        for name, architecture in self.architectures():
            shapes = [architecture.input_shape, *architecture.shapes()[:-1]]
            for spec, shape in zip(architecture.layers, shapes, strict=True):
                if isinstance(spec, kind):
                    yield f"{name} {spec.name}", spec, (shape[0], shape[1], shape[2])

    def normal(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        """Normally distributed; channels_last if it has four dimensions."""
        generator = torch.Generator(self.device).manual_seed(sum(shape))
        tensor = scale * torch.randn(shape, device=self.device, generator=generator)
        return tensor.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else tensor

    def peers(self, call: Callable[..., Any], *arguments: Any) -> dict[str, Call]:
        """The call on these arguments, as PyTorch runs it eagerly and compiled."""
        found: dict[str, Call] = {"eager": lambda: call(*arguments)}
        if self.compiled:
            compiled = torch.compile(call, dynamic=False)
            found["compiled"] = lambda: compiled(*arguments)
        return found

    def gradient_peers(
        self, forward: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], dy: torch.Tensor
    ) -> dict[str, Call]:
        """The gradients of forward(*inputs), from a graph that is built before the first timed call."""
        found: dict[str, Call] = {"eager": gradient(forward, inputs, dy)}
        if self.compiled:
            graphs: list[Call] = []

            # Built at the first call, so that a compiler that fails is the failure of this peer alone.
            def compiled() -> Any:
                if not graphs:
                    graphs.append(gradient(torch.compile(forward, dynamic=False), inputs, dy))
                return graphs[0]()

            found["compiled"] = compiled
        return found


def gradient(forward: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], dy: torch.Tensor) -> Call:
    """A call that takes the gradients of a graph which is built here."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    y = forward(*leaves)
    return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)


def host(result: Any) -> np.ndarray:
    """A result of either library on the host, images as NHWC."""
    if isinstance(result, torch.Tensor):
        result = result.detach()
        return (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).cpu().numpy()
    return result if isinstance(result, np.ndarray) else result.get()


def ours(tensor: torch.Tensor) -> Any:
    """The same memory as an array of ours: NCHW images as NHWC, OIHW filters as KRSC."""
    return interop.images_from_torch(tensor) if tensor.ndim == 4 else interop.from_torch(tensor)


def compare(call: Call, reference: Call) -> Callable[[], float]:
    """The relative error of a result, or the greatest of a list of results; NaN where one has a NaN. In float64, where
    the results lie: a copy of the greatest to the host would take longer than all else."""

    def error() -> float:
        results, expected = call(), reference()
        if not isinstance(results, list):
            results, expected = [results], [expected]
        errors = [_distance(a, b) for a, b in zip(results, expected, strict=True)]
        return float(np.max(errors))

    return error


def _distance(result: Any, expected: Any) -> float:
    wanted = _tensor(expected)
    difference = torch.linalg.vector_norm(_tensor(result) - wanted)
    return float(difference / torch.linalg.vector_norm(wanted).clamp(min=1e-300))


def _tensor(result: Any) -> torch.Tensor:
    """A result of either library in float64, images as NHWC."""
    if not isinstance(result, torch.Tensor):
        return interop.to_torch(result).double()
    result = result.detach()
    return (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).double()
