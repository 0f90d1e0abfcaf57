"""Where a case is computed and in which precision, how PyTorch computes it, and how results of both are compared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import peers
import torch
from harness import check_shapes

from zfcuda.interop import torch as interop

Call = Callable[[], Any]

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

# torch.compile's modes "reduce-overhead" and "max-autotune", but for their CUDA graphs, which would copy every input:
# all peers are captured in the same way as ours.
COMPILED: dict[str, dict[str, Any]] = {
    "compiled": {},
    "compiled, max-autotune": {"mode": "max-autotune-no-cudagraphs"},
}

# As tests/accuracy.py has them: relative errors, and of bfloat16 what each element may be off, as a share of itself and
# of the RMS.
FP32, WEIGHT_GRAD, TF32 = 1e-5, 1e-4, 2e-3
ROUNDING, OF_RMS = 2.0**-8, 1e-3

# PyTorch's results may be off by so many tolerances: it stores weight gradients in bfloat16 and may add up in it.
PEERS_MAY = 10.0

# How far our gradients and a peer's, as a whole, may be apart below max pools and rectifiers: where rounding orders two
# neighbours otherwise a gradient goes to another pixel, and neither is wrong; of ResNet-50 in float32 0.04 (Zen 5,
# AVX-512). Gradients of something else are 1 apart.
GRADIENTS_MAY = {"fp32": 0.1, "tf32": 0.2, "bf16": 0.5}


@dataclass(frozen=True)
class Setting:
    """The device, as PyTorch names it; PyTorch is a peer in each memory format, and by torch.compile in the first
    `compiled` of its modes.

    `reference`: the type in which that is computed with which results are compared, but for training steps: theirs is
    float64.
    """

    device: str = "cuda"
    formats: tuple[str, ...] = ("channels_last",)
    compiled: int = 0
    reference: torch.dtype = torch.float64
    precision: str = "fp32"

    # ---- Arrays

    def normal(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        """Normally distributed, as arrays of this precision are stored; channels_last if it has four dimensions."""
        tensor = scale * torch.randn(shape, device=self.device)
        tensor = tensor.bfloat16() if self.precision == "bf16" else tensor
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def exact(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        return [tensor.to(self.reference) for tensor in tensors]

    # ---- Precision

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of our operations; bfloat16 needs none."""
        return {"precision": "tf32"} if self.precision == "tf32" else {}

    @property
    def tolerance(self) -> float:
        """Twice that of float32 where the reference is no better. Of bfloat16: see `compare`."""
        fp32 = FP32 if self.reference == torch.float64 else 2 * FP32
        return {"fp32": fp32, "tf32": TF32, "bf16": ROUNDING}[self.precision]

    @property
    def weight_grad_tolerance(self) -> float:
        """Those of bfloat16 arrays are float32."""
        return TF32 if self.precision == "tf32" else WEIGHT_GRAD

    def in_precision(self, call: Call) -> Call:
        """PyTorch's call in this precision. bfloat16 is what its tensors are; on the CPU, where some of its operations
        do not exist in it, autocast widens for those."""
        device = torch.device(self.device).type
        if self.precision == "fp32" or (self.precision, device) == ("bf16", "cuda"):
            return call

        def called() -> Any:
            with peers.precision(self.precision, device):
                return call()

        return called

    # ---- Peers

    def modes(self) -> list[tuple[str, dict[str, Any]]]:
        """Of torch.compile: names and options."""
        return list(COMPILED.items())[: self.compiled]

    def peers(self, call: Callable[..., Any], *tensors: torch.Tensor) -> dict[str, Call]:
        """The call on these tensors, which want no gradients."""
        return self._peers(functools.partial, call, tensors)

    def gradient_peers(
        self, forward: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], dy: torch.Tensor
    ) -> dict[str, Call]:
        """The gradients of forward(*inputs), from a graph that is there before the first timed call."""
        return self._peers(_gradient, forward, [*inputs, dy])

    def _peers(
        self, bind: Callable[..., Call], function: Callable[..., Any], tensors: Sequence[torch.Tensor]
    ) -> dict[str, Call]:
        if any(tensor.ndim == 4 for tensor in tensors):
            found = {name: bind(function, *_in_format(name, tensors)) for name in self.formats}
        else:
            found = {"eager": bind(function, *tensors)}
        for name, mode in self.modes():
            compiled = torch.compile(function, dynamic=False, **mode)
            found[name] = bind(compiled, *_in_format(self.formats[0], tensors))
        return {name: self.in_precision(call) for name, call in found.items()}


CPU = Setting("cpu", tuple(FORMATS), reference=torch.float32)


def _in_format(name: str, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [t.contiguous(memory_format=FORMATS[name]) if t.ndim == 4 else t for t in tensors]


def _gradient(forward: Callable[..., torch.Tensor], *inputs_and_dy: torch.Tensor) -> Call:
    """The graph is built at the first call, so that a compiler that fails is the failure of this peer alone; one for
    each stream, since PyTorch goes back on the stream on which it came."""
    *inputs, dy = inputs_and_dy
    graphs: dict[Any, tuple[Any, list[torch.Tensor]]] = {}

    def call() -> Any:
        stream = torch.cuda.current_stream() if dy.is_cuda else None
        if stream not in graphs:
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            graphs[stream] = forward(*leaves), leaves
        return torch.autograd.grad(*graphs[stream], dy, retain_graph=True)

    return call


# ---- Both libraries' arrays --------------------------------------------------------------------------------------


def host(result: Any) -> np.ndarray:
    """A result of either library on the host, images as NHWC."""
    if isinstance(result, torch.Tensor):
        result = result.detach()
        return (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).cpu().numpy()
    return result if isinstance(result, np.ndarray) else result.get()


def ours(tensor: torch.Tensor) -> Any:
    """The same memory as an array of ours: NCHW images as NHWC, OIHW filters as KRSC."""
    return interop.images_from_torch(tensor) if tensor.ndim == 4 else interop.from_torch(tensor)


def spoil(results: Any) -> None:
    """Overwrites arrays of either library, one or several; what else a call returns stays what it is."""
    for one in _listed(results):
        if isinstance(one, torch.Tensor | np.ndarray) or hasattr(one, "__cuda_array_interface__"):
            memory = one.detach() if isinstance(one, torch.Tensor) else interop.to_torch(one)
            with torch.inference_mode():  # some results are of that mode
                memory.fill_(torch.nan if memory.is_floating_point() else torch.iinfo(memory.dtype).max)


def compare(reference: Call, tolerances: Sequence[float] = (1.0,)) -> Callable[[Any], float]:
    """The error of a result, or of a list of results the greatest, each weighed by its tolerance (so that the greatest
    of `tolerances` is that of all); NaN where one has a NaN. In float64, where the results lie: a copy of the greatest
    to the host would take longer than all else."""

    def error(results: Any) -> float:
        expected = reference()
        if not isinstance(results, list):
            results, expected = [results], [expected]
        weights = [max(tolerances) / tolerance for tolerance in tolerances]
        return float(np.max([w * distance(a, b) for a, b, w in zip(results, expected, weights, strict=True)]))

    return error


def agreement(tolerances: Sequence[float] = (1.0,)) -> Callable[[Any, Any], float]:
    """How far a peer's result is from ours, or of several results the greatest distance, weighed as by `compare`."""

    def distance_of(theirs: Any, mine: Any) -> float:
        return compare(lambda: _listed(mine), tolerances)(_listed(theirs))

    return distance_of


def _listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, list | tuple) else [results]


def distance(result: Any, expected: Any) -> float:
    """norm(a - b) / norm(b). Of a bfloat16 result: the greatest |a - b| / (|b| + rms(b) OF_RMS / ROUNDING), so that
    ROUNDING is how much it may be. ValueError where shapes differ."""
    if not _is_bfloat16(result):
        return whole_distance(result, expected)
    actual, wanted = _alike_in_shape(result, expected)
    rms = wanted.square().mean().sqrt()
    return float(((actual - wanted).abs() / (wanted.abs() + rms * OF_RMS / ROUNDING).clamp(min=1e-300)).max())


def whole_distance(result: Any, expected: Any) -> float:
    """norm(a - b) / norm(b), of whatever type. ValueError where shapes differ."""
    actual, wanted = _alike_in_shape(result, expected)
    difference = torch.linalg.vector_norm(actual - wanted)
    return float(difference / torch.linalg.vector_norm(wanted).clamp(min=1e-300))


def _alike_in_shape(result: Any, expected: Any) -> tuple[torch.Tensor, torch.Tensor]:
    actual, wanted = tensor(result), tensor(expected)
    check_shapes(actual.shape, wanted.shape)
    return actual, wanted


def _is_bfloat16(result: Any) -> bool:
    return str(result.dtype).rpartition(".")[2] == "bfloat16"


def tensor(result: Any) -> torch.Tensor:
    """A result of either library in float64, images as NHWC."""
    if not isinstance(result, torch.Tensor):
        return interop.to_torch(result).double()
    result = result.detach()
    return (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).double()
