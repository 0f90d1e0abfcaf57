"""Whole networks: forward, a training step, the top-9 projections of a layer and an occlusion map. Each
function makes the calls of one case."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cases
import numpy as np
import peers
import torch
from harness import Calls, relative_error
from setting import FORMATS, Call, Setting, compare, host, ours
from torch import nn
from torch.nn import functional

from zfcuda import analysis, models, ops, training
from zfcuda.analysis.deconvnet import cut
from zfcuda.interop import torch as interop
from zfcuda.nn import Architecture, Network

ARCHITECTURES: dict[str, Callable[[], Architecture]] = {
    "zfnet": models.zfnet_architecture,
    "alexnet": models.alexnet_architecture,
    "vgg16": models.vgg16_architecture,
    "resnet18": models.resnet18_architecture,
    "resnet50": models.resnet50_architecture,
    "zfnet_small": lambda: models.zfnet_small_architecture(10, (32, 32, 3)),
}

# How far two right results may be apart. Of gradients more: where rounding orders two neighbours otherwise, a gradient
# goes to another pixel, the more often the deeper. (PyTorch's own in float32: VGG-16 4e-3, ResNet-50 4e-2.)
_TOLERANCE = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}
_GRADIENT_TOLERANCE = {"fp32": 6e-2, "tf32": 1e-1, "bf16": 4e-1}


def build(setting: Setting, family: str) -> Network:
    """At a scale at which signals neither die out nor grow, so that a comparison means something."""
    architecture = dataclasses.replace(ARCHITECTURES[family](), initial="lecun")
    network = Network(architecture, seed=0).to(torch.device(setting.device).type)
    network.precision = setting.precision
    return network


def modules_of(setting: Setting, network: Network) -> dict[str, nn.Module]:
    """The network as PyTorch's, one for each peer that the setting asks for."""
    found: dict[str, Any] = {
        name: interop.to_module(network).to(memory_format=FORMATS[name]) for name in setting.formats
    }
    if setting.compiled:
        module = interop.to_module(network).to(memory_format=FORMATS[setting.formats[0]])
        found["compiled"] = torch.compile(module, dynamic=False)
    return found


def _in_place(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """With ReLUs that write over their input, as most networks have them."""
    for module in modules.values():
        for child in module.modules():
            if isinstance(child, nn.ReLU):
                child.inplace = True
    return modules


def formatted(name: str, images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=FORMATS.get(name, torch.channels_last))


def _images(setting: Setting, network: Network, n: int) -> torch.Tensor:
    """Like pixels without their mean; float32 in every precision."""
    h, w, c = network.input_shape
    return dataclasses.replace(setting, precision="fp32").normal(n, c, h, w, scale=50)


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
    """Images to probabilities, at test time."""
    network = build(setting, case.family)
    x = _images(setting, network, case.n)
    images = ours(x)

    def infer(module: nn.Module, x: torch.Tensor) -> Call:
        return setting.in_precision(torch.inference_mode()(lambda: module(x).softmax(1)))

    def reference() -> torch.Tensor:
        with torch.no_grad(), peers.precision("fp32", x.device.type):
            return interop.to_module(network).eval()(x)

    calls = {
        name: infer(module.eval(), formatted(name, x))
        for name, module in _in_place(modules_of(setting, network)).items()
    }
    error = compare(lambda: network.forward(images).output, reference)
    flops, tolerance = forward_flops(network, case.n), _TOLERANCE[setting.precision]
    return Calls(lambda: network.predict(images), calls, error, tolerance, flops)


def step(setting: Setting, case: cases.Net) -> Calls:
    """A training step: forward, backward, update (P2); ours on a GPU is a CUDA graph, as in any training. Checked by
    its gradients, with dropout off, against PyTorch's in float32."""
    network = build(setting, case.family)
    x = _images(setting, network, case.n)
    labels = torch.arange(case.n, device=setting.device) % network.num_classes
    our_images, our_labels = ours(x), ours(labels.int())

    def error() -> float:
        with _without_dropout(network):
            module = interop.to_module(network).to(memory_format=torch.channels_last).train()
            with peers.precision("fp32", x.device.type):
                functional.cross_entropy(module(x), labels).backward()
            _, _, gradients = network.loss_and_gradients(our_images, our_labels)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(parameter.grad)
        expected = build(setting, case.family)
        interop.load_weights(expected, module)
        wanted = expected.parameters()
        return max(relative_error(host(gradients[key]), host(wanted[key])) for key in wanted)

    calls = {
        name: peers.training_step(module, formatted(name, x), labels, setting.precision)
        for name, module in _in_place(modules_of(setting, network)).items()
    }
    # As `fit` goes through its batches: the loss is on its way, but nobody waits for it. Nor does the peer.
    launch = training.Trainer(network, lr=1e-4).launch
    flops = 3 * forward_flops(network, case.n)
    tolerance = _GRADIENT_TOLERANCE[setting.precision]
    return Calls(lambda: launch(our_images, our_labels), calls, error, tolerance, flops)


@contextlib.contextmanager
def _without_dropout(network: Network) -> Iterator[None]:
    layers: list[Any] = [layer for layer in network.layers.values() if hasattr(layer, "probability")]
    probabilities = [layer.probability for layer in layers]
    for layer in layers:
        layer.probability = 0.0
    try:
        yield
    finally:
        for layer, probability in zip(layers, probabilities, strict=True):
            layer.probability = probability


def sgd(setting: Setting, case: cases.Update) -> Calls:
    """With momentum and weight decay, on all parameters in one array."""
    count = sum(array.size for array in build(setting, case.family).parameters().values())
    options = {"lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4}
    w, g = setting.normal(count), setting.normal(count) + 1
    weight, gradients, velocity = ours(w.clone()), ours(g), ours(torch.zeros_like(w))

    def call() -> Any:
        ops.sgd_step(weight, gradients, velocity, **options)
        return weight

    def peer(**implementation: bool) -> Call:
        parameter = nn.Parameter(w.clone())
        parameter.grad = g
        return torch.optim.SGD([parameter], **options, **implementation).step

    def first_step() -> torch.Tensor:
        return w - options["lr"] * (g.double() + options["weight_decay"] * w.double())

    calls = {"foreach": peer(foreach=True), "fused": peer(fused=True)}
    return Calls(call, calls, compare(call, first_step), 1e-6, moved=5.0 * w.nbytes)


# ---- Analyses ----------------------------------------------------------------------------------------------------


def projection(setting: Setting, case: cases.Projection, *, batch: int = 32) -> Calls:
    """Of our batches, on a GPU, all but the first and a last one of another size are launched as a CUDA graph."""
    network = build(setting, case.family)
    x = _images(setting, network, case.n)
    images = host(x)
    top = analysis.top_activations(network, images, case.layer, batch_size=batch)
    h, w, c = network.layers[case.layer].output_shape
    per_map = top.values.shape[1]

    def call(maps: Sequence[int]) -> Any:
        return analysis.visualize(network, images, top, maps=maps, batch_size=batch)

    def theirs(deconvnet: peers.HookedDeconvnet, name: str, maps: Sequence[int]) -> np.ndarray:
        winners = [(m, rank) for m in maps for rank in range(per_map)]
        pixels = []
        for start in range(0, len(winners), batch):
            m, rank = (np.array(column) for column in zip(*winners[start : start + batch], strict=True))
            signal = np.zeros((len(m), c, h, w), np.float32)
            signal[np.arange(len(m)), m, top.positions[m, rank, 0], top.positions[m, rank, 1]] = top.values[m, rank]
            which = torch.from_numpy(top.indices[m, rank]).to(x.device)
            seeds = torch.from_numpy(signal).to(x.device)
            pixels.append(host(deconvnet.project(formatted(name, x[which]), formatted(name, seeds))))
        return np.concatenate(pixels)

    modules = modules_of(dataclasses.replace(setting, compiled=False), network)
    hooked = {name: peers.HookedDeconvnet(module, case.layer.replace(".", "_")) for name, module in modules.items()}
    spread = np.linspace(0, c - 1, case.maps).astype(int).tolist()
    some = spread[:: case.maps // case.peer_maps]

    def error() -> float:
        """Of nine projections in ten: in the others, rounding decides which of two near equal values wins a window."""
        name, deconvnet = next(iter(hooked.items()))
        found = call(some[:8])
        ours = found.projections.reshape(-1, *found.projections.shape[2:])
        frames = found.frames.reshape(-1, 4)
        pairs = zip(ours, theirs(deconvnet, name, some[:8]), frames, strict=True)
        return float(np.quantile([relative_error(mine, cut(other, frame)) for mine, other, frame in pairs], 0.9))

    calls = {name: functools.partial(theirs, deconvnet, name, some) for name, deconvnet in hooked.items()}
    flops = 2 * forward_flops(network, per_map * case.maps, until=case.layer)
    return Calls(lambda: call(spread), calls, error, 1e-3, flops, peer_share=len(some) / case.maps)


def occlusion(setting: Setting, case: cases.Occlusion, *, peer_batch: int = 36) -> Calls:
    """The probability of a class for every position of a square over one image (P8)."""
    network = build(setting, case.family)
    x = _images(setting, network, 1)
    image = host(x)[0]
    label = int(host(network.predict(ours(x))).argmax())

    def call() -> Any:
        return analysis.occlusion(network, image, label, size=case.square, stride=case.stride).probability

    def theirs(name: str, module: nn.Module) -> Call:
        geometry = {"size": case.square, "stride": case.stride, "per_evaluation": peer_batch}
        return lambda: peers.captum_occlusion(module.eval(), formatted(name, x), label, **geometry)

    modules = modules_of(dataclasses.replace(setting, compiled=False), network)
    calls = {name: theirs(name, module) for name, module in modules.items()}
    positions = (-(-(network.input_shape[0] - case.square) // case.stride) + 1) ** 2
    return Calls(call, calls, compare(call, next(iter(calls.values()))), 1e-3, forward_flops(network, positions))


MAKERS = {"forward": forward, "step": step, "sgd": sgd, "projection": projection, "occlusion": occlusion}
