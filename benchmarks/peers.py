"""What a PyTorch user would write: the deconvnet by hooks, occlusion by Captum, a training step. On any device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn


class HookedDeconvnet:
    """Deconvnet projections (paper 2.1) as PyTorch users make them: autograd, with hooks that rectify the signal at
    each ReLU instead of masking it, and that let it pass each normalisation as it is."""

    def __init__(self, module: nn.Sequential, layer: str):
        names = [name for name, _ in module.named_children()]
        self.body = module[: names.index(layer) + 1].eval()
        for child in self.body.children():
            if isinstance(child, nn.ReLU):
                child.register_full_backward_hook(lambda _, __, signals: (signals[0].clamp(min=0),))
            elif isinstance(child, nn.LocalResponseNorm):
                child.register_full_backward_hook(lambda _, __, signals: (signals[0],))

    def project(self, images: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        """images (N, C, H, W), signal of the layer's shape -> pixels (N, C, H, W)."""
        images = images.detach().requires_grad_()
        return torch.autograd.grad(self.body(images), images, signal)[0]


def captum_occlusion(
    module: nn.Module, image: torch.Tensor, label: int, *, size: int, stride: int, per_evaluation: int
) -> np.ndarray:
    """The label's probability for each position of the square, (rows, columns), by Captum's Occlusion with a fill of
    zero. image (1, C, H, W). Captum returns attributions; the probabilities are taken from what it asks the module."""
    from captum.attr import Occlusion

    asked: list[torch.Tensor] = []

    def probability(images: torch.Tensor) -> torch.Tensor:
        asked.append(module(images).softmax(1)[:, label])
        return asked[-1]

    with torch.inference_mode():
        Occlusion(probability).attribute(
            image,
            sliding_window_shapes=(image.shape[1], size, size),
            strides=(image.shape[1], stride, stride),
            baselines=0.0,
            perturbations_per_eval=per_evaluation,
        )
    rows, columns = (max(0, -(-(extent - size) // stride)) + 1 for extent in image.shape[2:])
    # The image as it is comes first; then rows run faster than columns.
    return torch.cat(asked[1:]).reshape(columns, rows).T.cpu().numpy()


@contextlib.contextmanager
def precision(name: str, device: str) -> Iterator[None]:
    """PyTorch in the precision that zfcuda calls `name`: exact float32, TF32 allowed, or bfloat16 by autocast, which
    leaves weights and their gradients in float32."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = name == "tf32"
    try:
        with torch.autocast(device, torch.bfloat16, enabled=name == "bf16"):
            yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


def training_step(
    module: nn.Module, images: torch.Tensor, labels: torch.Tensor, name: str, lr: float
) -> Callable[[], list[torch.Tensor]]:
    """One step of SGD with momentum and weight decay on these images (P2), in a precision; returns the gradients of
    the parameters."""
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, foreach=True)
    module.train()

    def step() -> list[torch.Tensor]:
        optimizer.zero_grad(set_to_none=True)
        with precision(name, images.device.type):
            loss = nn.functional.cross_entropy(module(images), labels)
            loss.backward()
        optimizer.step()
        return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]

    return step
