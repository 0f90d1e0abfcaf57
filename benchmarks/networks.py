"""Whole networks: forward, a training step, its update. Each function makes the calls of one case."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import cases
import numpy as np
import peers
import reference
import torch
from harness import Calls
from setting import (
    FORMATS,
    GRADIENTS_MAY,
    PEERS_MAY,
    ROUNDING,
    Call,
    Setting,
    compare,
    distance,
    ours,
    tensor,
    whole_distance,
)
from torch import nn

from zfcuda import backends, models, ops, training
from zfcuda.interop import torch as interop
from zfcuda.nn import Architecture, Network
from zfcuda.nn.record import Training

ARCHITECTURES: dict[str, Callable[[], Architecture]] = {
    "zfnet": models.zfnet_architecture,
    "alexnet": models.alexnet_architecture,
    "vgg16": models.vgg16_architecture,
    "resnet18": models.resnet18_architecture,
    "resnet50": models.resnet50_architecture,
    "zfnet_small": lambda: models.zfnet_small_architecture(10, (32, 32, 3)),
    "zfnet_small.28": lambda: models.zfnet_small_architecture(10, (28, 28, 1)),
}


# So small that however many steps are timed, on one batch, weights stay what they are, and finite.
_LEARNING_RATE = 1e-6


def build(setting: Setting, family: str) -> Network:
    """At a scale at which signals neither die out nor grow, so that a comparison means something; in bfloat16 with
    weights that it holds: what is judged is the arithmetic, not the rounding of what goes in."""
    architecture = dataclasses.replace(ARCHITECTURES[family](), initial="lecun")
    network = Network(architecture, seed=0).to(torch.device(setting.device).type)
    network.precision = setting.precision
    if setting.precision == "bf16":
        for array in network.parameters().values():
            array[...] = ops.cast(ops.cast(array, backends.BFLOAT16), np.float32)
    return network


def modules_of(setting: Setting, network: Network) -> dict[str, nn.Module]:
    """The network as PyTorch's, one for each peer that the setting asks for."""
    found: dict[str, Any] = {
        name: interop.to_module(network).to(memory_format=FORMATS[name]) for name in setting.formats
    }
    for name, mode in setting.modes():
        module = interop.to_module(network).to(memory_format=FORMATS[setting.formats[0]])
        found[name] = torch.compile(module, dynamic=False, **mode)
    return found


def _in_place(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """With ReLUs that write over their input, as most networks have them, and no dropout of nothing."""
    for module in modules.values():
        for child in list(module.modules()):
            for name, one in child.named_children():
                if isinstance(one, nn.ReLU):
                    one.inplace = True
                elif isinstance(one, nn.Dropout) and not one.p:
                    setattr(child, name, nn.Identity())
    return modules


def formatted(name: str, images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=FORMATS.get(name, torch.channels_last))


def images_of(setting: Setting, network: Network, n: int) -> torch.Tensor:
    """Like pixels without their mean; float32 in every precision, with values that it holds."""
    h, w, c = network.input_shape
    return setting.normal(n, c, h, w, scale=50).float()


def forward_flops(network: Network, n: int, until: str | None = None) -> float:
    """Of the conv and fully connected layers, up to this one."""
    flops = 0.0
    for (name, layer), shape in zip(network.layers.items(), network.architecture.shapes(), strict=True):
        if hasattr(layer, "weight"):
            flops += 2.0 * n * math.prod(shape[:-1]) * layer.weight.size
        if name == until:
            break
    return flops


def forward(setting: Setting, case: cases.Net) -> Calls:
    """Images to logits, at test time."""
    network = build(setting, case.family)
    network.head = "none"
    x = images_of(setting, network, case.n)
    images = ours(x)

    def infer(module: nn.Module, x: torch.Tensor) -> Call:
        """With weights that are converted beforehand."""
        if setting.precision == "bf16":
            module.bfloat16()
            return setting.in_precision(torch.inference_mode()(lambda: module(x.bfloat16()).float()))
        return setting.in_precision(torch.inference_mode()(lambda: module(x)))

    def expected() -> torch.Tensor:
        with torch.no_grad():
            return interop.to_module(network).eval().to(setting.reference)(x.to(setting.reference))

    calls = {
        name: infer(module.eval(), formatted(name, x))
        for name, module in _in_place(modules_of(setting, network)).items()
    }
    flops, tolerance = forward_flops(network, case.n), _tolerance(setting, network)
    may = PEERS_MAY * tolerance
    return Calls(lambda: network.predict(images), calls, compare(expected), tolerance, distance, may, flops)


def _tolerance(setting: Setting, network: Network) -> float:
    """Of results; of bfloat16's a rounding for each product, which add up like their squares."""
    products = sum(hasattr(layer, "weight") for layer in network.layers.values())
    return ROUNDING * products**0.5 if setting.precision == "bf16" else setting.tolerance


def step(setting: Setting, case: cases.Net) -> Calls:
    """A training step: forward, backward, update (P2), without dropout, whose masks would differ; ours on a GPU is a
    CUDA graph, as in any training. Judged by the velocities that it leaves: of their parameters, before, it takes the
    gradients."""
    network, plain = (_without_dropout(build(setting, case.family)) for _ in range(2))
    initial = {name: array.copy() for name, array in {**network.parameters(), **network.state()}.items()}
    x = images_of(setting, network, case.n)
    labels = torch.arange(case.n, device=setting.device) % network.num_classes
    our_images, our_labels = ours(x), ours(labels.int())

    def velocities(trainer: training.Trainer, gradients: nn.Module) -> dict[str, torch.Tensor]:
        """Flat, those that the trainer should have left, by gradients that lie in the place of parameters."""
        found = build(setting, case.family)
        interop.load_weights(found, gradients)
        decay = trainer.optimizer.weight_decay
        return {
            name: -trainer.lr * (tensor(array) + (array.ndim > 1) * decay * tensor(initial[name])).flatten()
            for name, array in found.parameters().items()
        }

    def left(trainer: training.Trainer, name: str) -> torch.Tensor:
        return tensor(trainer.optimizer.velocities[name]).flatten()

    def error(trainer: training.Trainer) -> float:
        start = _without_dropout(build(setting, case.family))
        start.set_parameters({name: array.copy() for name, array in initial.items()})
        records = start._forward(our_images, Training(0, 0, {}))
        expected = velocities(trainer, reference.gradients(start, records, x, labels))
        return float(np.max([whole_distance(left(trainer, name), change) for name, change in expected.items()]))

    def apart(theirs: list[torch.Tensor], trainer: training.Trainer) -> float:
        expected = velocities(trainer, reference.in_place_of_parameters(network, theirs))
        return whole_distance(torch.cat(list(expected.values())), torch.cat([left(trainer, name) for name in expected]))

    def of(trainer: training.Trainer) -> Call:
        """As `fit` goes through its batches: the loss is on its way, but nobody waits for it. Nor does the peer."""

        def call() -> training.Trainer:
            trainer.launch(our_images, our_labels)
            return trainer

        return call

    captured = training.Trainer(network, lr=_LEARNING_RATE)
    launched = training.Trainer(plain, lr=_LEARNING_RATE, cuda_graphs=False)

    def prepare() -> None:
        for trainer in (captured, launched):
            for name, array in trainer.net.parameters().items():
                array[...] = initial[name]
                trainer.optimizer.velocities[name][...] = 0

    calls = {
        name: peers.training_step(module, formatted(name, x), labels, setting.precision, _LEARNING_RATE)
        for name, module in _in_place(modules_of(setting, network)).items()
    }
    flops = 3 * forward_flops(network, case.n)
    # On the way down signals are rounded too, and batch normalisation makes more of it: of ResNet-50 at batch 16 ours
    # is 2e-4 away from float64, PyTorch's float32 9e-4 (Zen 5, AVX-512, one thread).
    tolerance = max(setting.weight_grad_tolerance, 2 * _tolerance(setting, network), 1e-3)
    may = GRADIENTS_MAY[setting.precision]
    return Calls(of(launched), calls, error, tolerance, apart, may, flops, prepare=prepare, own_graph=of(captured))


def _without_dropout(network: Network) -> Network:
    for layer in network.layers.values():
        if hasattr(layer, "probability"):
            layer.probability = 0.0
    return network


def sgd(setting: Setting, case: cases.Update) -> Calls:
    """With momentum and weight decay, on all parameters in one array."""
    count = sum(array.size for array in build(setting, case.family).parameters().values())
    options = {"lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4}
    w, g = setting.normal(count), setting.normal(count) + 1
    weight, gradients, velocity = ours(w.clone()), ours(g), ours(torch.zeros_like(w))

    def call() -> Any:
        ops.sgd_step(weight, gradients, velocity, **options)
        return weight

    optimizers = {
        name: torch.optim.SGD([nn.Parameter(w.clone())], **options, **{name: True}) for name in ("foreach", "fused")
    }

    def prepare() -> None:
        weight[...] = ours(w)
        velocity[...] = 0
        for optimizer in optimizers.values():
            (parameter,) = optimizer.param_groups[0]["params"]
            parameter.data.copy_(w)
            for state in optimizer.state.values():
                state["momentum_buffer"].zero_()

    def peer(optimizer: torch.optim.SGD) -> Call:
        (parameter,) = optimizer.param_groups[0]["params"]
        parameter.grad = g

        def update() -> torch.Tensor:
            optimizer.step()
            return parameter

        return update

    def first_step() -> torch.Tensor:
        return w - options["lr"] * (g.double() + options["weight_decay"] * w.double())

    calls = {name: peer(optimizer) for name, optimizer in optimizers.items()}
    error, tolerance, moved = compare(first_step), setting.tolerance, 5.0 * w.nbytes
    return Calls(call, calls, error, tolerance, distance, tolerance, moved=moved, prepare=prepare)


MAKERS = {"forward": forward, "step": step, "sgd": sgd}
