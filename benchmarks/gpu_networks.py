"""Whole networks: forward, a training step, the top-9 projections of a layer and an occlusion map."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import peers
import torch
from gpu_setting import Call, Setting, compare, host, ours
from harness import Case, relative_error
from torch import nn
from torch.nn import functional

from zfcuda import analysis, ops, training
from zfcuda.analysis.deconvnet import cut
from zfcuda.interop import torch as interop
from zfcuda.nn import Network
from zfcuda.nn.architecture import Architecture
from zfcuda.nn.layers import Dropout

# How far two right results may be apart. Of gradients more: where rounding orders two neighbours otherwise, a gradient
# goes to another pixel.
_TOLERANCE = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}
_GRADIENT_TOLERANCE = {"fp32": 1e-2, "tf32": 5e-2, "bf16": 3e-1}


def _networks(setting: Setting) -> Iterator[tuple[str, Network]]:
    """At a scale at which signals neither die out nor grow, so that a comparison means something."""
    for name, architecture in setting.architectures():
        yield name, Network(dataclasses.replace(architecture, initial="lecun"), seed=0).to(_our_device(setting))


def _networks_in_every_precision(setting: Setting) -> Iterator[tuple[str, Network]]:
    for precision in setting.precisions:
        for name, network in _networks(setting):
            network.precision = precision
            yield f"{name} {precision}", network


def _our_device(setting: Setting) -> str:
    return torch.device(setting.device).type


def _module(network: Network) -> nn.Sequential:
    return interop.to_module(network).to(memory_format=torch.channels_last)


def _images(setting: Setting, network: Network, count: int) -> torch.Tensor:
    h, w, c = network.input_shape
    return setting.normal(count, c, h, w, scale=50)


def forward_flops(architecture: Architecture, batch: int) -> float:
    """Of the conv and fully connected layers."""
    shapes = [architecture.input_shape, *architecture.shapes()]
    return (
        2.0
        * batch
        * sum(
            float(np.prod(after[:-1]) * np.prod(spec.weight_shape(before)))
            for spec, before, after in zip(architecture.layers, shapes[:-1], shapes[1:], strict=True)
            if hasattr(spec, "weight_shape")
        )
    )


def forward(setting: Setting) -> Iterator[Case]:
    """The whole network at test time, in every precision: images to probabilities."""
    for name, network in _networks_in_every_precision(setting):
        yield _forward(setting, name, network)


def _forward(setting: Setting, name: str, network: Network) -> Case:
    module, x = _module(network).eval(), _images(setting, network, setting.batch)

    def reference() -> torch.Tensor:
        with torch.no_grad(), peers.precision("fp32", x.device.type):
            return module(x)

    def infer(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return module(x).softmax(1)

    def in_precision(call: Call) -> Call:
        def called() -> Any:
            with peers.precision(network.precision, x.device.type):
                return call()

        return called

    error = compare(lambda: network.forward(ours(x)).output, reference)
    calls = {peer: in_precision(call) for peer, call in setting.peers(infer, x).items()}
    flops = forward_flops(network.architecture, setting.batch)
    tolerance, precision = _TOLERANCE[network.precision], network.precision
    return Case("forward", name, flops, 0.0, lambda: network.predict(ours(x)), calls, error, tolerance, precision)


def step(setting: Setting) -> Iterator[Case]:
    """A training step in every precision: forward, backward, update (P2); ours is a CUDA graph, as in any training.
    Checked by its gradients, with dropout off, against PyTorch's in float32."""
    for name, network in _networks_in_every_precision(setting):
        yield _step(setting, name, network)


def _step(setting: Setting, name: str, network: Network) -> Case:
    x = _images(setting, network, setting.batch)
    labels = torch.arange(setting.batch, device=setting.device) % network.num_classes
    our_labels = ours(labels.int())

    def error() -> float:
        module = _module(network).eval()
        with peers.precision("fp32", x.device.type):
            functional.cross_entropy(module(x), labels).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(parameter.grad)
        expected = Network(network.architecture).to(_our_device(setting))
        interop.load_weights(expected, module)
        with _without_dropout(network):
            _, _, gradients = network.loss_and_gradients(ours(x), our_labels)
        wanted = expected.parameters()
        return max(relative_error(host(gradients[key]), host(wanted[key])) for key in wanted)

    precision = network.precision
    trainer = training.Trainer(network, lr=1e-4)
    calls: dict[str, Call] = {"eager": peers.training_step(_module(network), x, labels, precision)}
    if setting.compiled:
        compiled = torch.compile(_module(network), dynamic=False)
        calls["compiled"] = peers.training_step(compiled, x, labels, precision)
    flops = 3 * forward_flops(network.architecture, setting.batch)
    # As `fit` goes through its batches: the loss is on its way, but nobody waits for it. Nor does the peer.
    launch = trainer.launch
    tolerance = _GRADIENT_TOLERANCE[precision]
    return Case("step", name, flops, 0.0, lambda: launch(ours(x), our_labels), calls, error, tolerance, precision)


@contextlib.contextmanager
def _without_dropout(network: Network) -> Iterator[None]:
    layers = [layer for layer in network.layers.values() if isinstance(layer, Dropout)]
    probabilities = [layer.probability for layer in layers]
    for layer in layers:
        layer.probability = 0.0
    try:
        yield
    finally:
        for layer, probability in zip(layers, probabilities, strict=True):
            layer.probability = probability


def projection(
    setting: Setting, *, layer: str = "pool5", maps: int | None = None, images: int = 64, peer_batch: int = 32
) -> Iterator[Case]:
    """The top 9 of every map of a layer (or of the first `maps`), each projected to pixels alone (P4). Of our
    batches, all but the first and a last one of another size are launched as a CUDA graph."""
    for name, network in _networks(setting):
        x = _images(setting, network, images)
        top = analysis.top_activations(network, host(x), layer)
        chosen = list(range(len(top.values) if maps is None else maps))
        yield _projection(name, network, x, top, chosen, peer_batch)


def _projection(
    name: str, network: Network, x: torch.Tensor, top: analysis.TopActivations, maps: list[int], peer_batch: int
) -> Case:
    images = host(x)
    h, w, c = network.layers[top.layer].output_shape
    deconvnet = peers.HookedDeconvnet(_module(network), top.layer)
    per_map = top.values.shape[1]

    def theirs(maps: list[int] = maps) -> np.ndarray:
        winners = [(m, rank) for m in maps for rank in range(per_map)]
        pixels = []
        for start in range(0, len(winners), peer_batch):
            m, rank = (np.array(column) for column in zip(*winners[start : start + peer_batch], strict=True))
            signal = np.zeros((len(m), c, h, w), np.float32)
            signal[np.arange(len(m)), m, top.positions[m, rank, 0], top.positions[m, rank, 1]] = top.values[m, rank]
            which = torch.from_numpy(top.indices[m, rank]).to(x.device)
            pixels.append(host(deconvnet.project(x[which], torch.from_numpy(signal).to(x.device))))
        return np.concatenate(pixels)

    def error() -> float:
        few = maps[:8]
        found = analysis.visualize(network, images, top, maps=few)
        frames = found.frames.reshape(-1, 4)
        expected = np.stack([cut(image, frame) for image, frame in zip(theirs(few), frames, strict=True)])
        return relative_error(found.projections.reshape(expected.shape), expected)

    problem = f"{name} {top.layer}, {len(maps) * per_map} projections"
    call: Call = lambda: analysis.visualize(network, images, top, maps=maps)  # noqa: E731
    return Case("projection", problem, 0.0, 0.0, call, {"hooks": theirs}, error, 1e-3)


def occlusion(setting: Setting, *, size: int = 50, stride: int = 8, peer_batch: int = 36) -> Iterator[Case]:
    """The probability of a class for every position of a square over one image (P8)."""
    for name, network in _networks(setting):
        yield _occlusion(setting, name, network, size, stride, peer_batch)


def _occlusion(setting: Setting, name: str, network: Network, size: int, stride: int, peer_batch: int) -> Case:
    module, x = _module(network).eval(), _images(setting, network, 1)
    image = host(x)[0]
    label = int(host(ops.softmax(network.forward(ours(x)).output)).argmax())

    def call() -> Any:
        return analysis.occlusion(network, image, label, size=size, stride=stride)

    def theirs() -> np.ndarray:
        return peers.captum_occlusion(module, x, label, size=size, stride=stride, per_evaluation=peer_batch)

    error = compare(lambda: call().probability, theirs)
    problem = f"{name}, square {size}, stride {stride}"
    return Case("occlusion", problem, 0.0, 0.0, call, {"captum": theirs}, error, 1e-3)
