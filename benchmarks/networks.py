"""Whole networks: forward, a training step, the top-9 projections of a layer and an occlusion map. Each
function makes the calls of one case."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import cases
import numpy as np
import peers
import reference
import torch
from harness import Calls, relative_error
from setting import FORMATS, ROUNDING, Call, Setting, compare, host, ours, tensor
from torch import nn

from zfcuda import analysis, backends, models, ops, training
from zfcuda.analysis.deconvnet import cut
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


def _images(setting: Setting, network: Network, n: int) -> torch.Tensor:
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
    x = _images(setting, network, case.n)
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
    return Calls(lambda: network.predict(images), calls, compare(expected), tolerance, flops)


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
    x = _images(setting, network, case.n)
    labels = torch.arange(case.n, device=setting.device) % network.num_classes
    our_images, our_labels = ours(x), ours(labels.int())

    def error(trainer: training.Trainer) -> float:
        start = _without_dropout(build(setting, case.family))
        start.set_parameters({name: array.copy() for name, array in initial.items()})
        records = start._forward(our_images, Training(0, 0, {}))
        expected = build(setting, case.family)
        interop.load_weights(expected, reference.gradients(start, records, x, labels, setting.reference))
        errors = []
        for name, array in expected.parameters().items():
            decay = 0 if array.ndim == 1 else trainer.optimizer.weight_decay
            change = -trainer.lr * (tensor(array) + decay * tensor(initial[name]))
            found = tensor(trainer.optimizer.velocities[name])
            errors.append(float(torch.linalg.vector_norm(found - change) / torch.linalg.vector_norm(change)))
        return float(np.max(errors))

    def of(trainer: training.Trainer) -> Call:
        """As `fit` goes through its batches: the loss is on its way, but nobody waits for it. Nor does the peer."""

        def call() -> training.Trainer:
            trainer.launch(our_images, our_labels)
            return trainer

        return call

    captured, launched = training.Trainer(network, lr=_LEARNING_RATE), training.Trainer(plain, lr=_LEARNING_RATE)
    launched._captured = lambda function, *, key, **arrays: function(**arrays)  # type: ignore[assignment]

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
    # On the way down signals are rounded too, and batch normalisation makes more of it: PyTorch's own float32 is 2e-4
    # away for ResNet-50.
    tolerance = max(setting.weight_grad_tolerance, 2 * _tolerance(setting, network), 1e-3)
    return Calls(of(launched), calls, error, tolerance, flops, prepare=prepare, own_graph=of(captured))


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

    def prepare() -> None:
        weight[...] = ours(w)
        velocity[...] = 0

    def peer(**implementation: bool) -> Call:
        parameter = nn.Parameter(w.clone())
        parameter.grad = g
        return torch.optim.SGD([parameter], **options, **implementation).step

    def first_step() -> torch.Tensor:
        return w - options["lr"] * (g.double() + options["weight_decay"] * w.double())

    calls = {"foreach": peer(foreach=True), "fused": peer(fused=True)}
    return Calls(call, calls, compare(first_step), setting.tolerance, moved=5.0 * w.nbytes, prepare=prepare)


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

    def theirs(
        deconvnet: peers.HookedDeconvnet, name: str, maps: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> np.ndarray:
        winners = [(m, rank) for m in maps for rank in range(per_map)]
        pixels = []
        for start in range(0, len(winners), batch):
            m, rank = (np.array(column) for column in zip(*winners[start : start + batch], strict=True))
            signal = np.zeros((len(m), c, h, w), np.float32)
            signal[np.arange(len(m)), m, top.positions[m, rank, 0], top.positions[m, rank, 1]] = top.values[m, rank]
            which = torch.from_numpy(top.indices[m, rank]).to(x.device)
            seeds = torch.from_numpy(signal).to(x.device)
            pixels.append(host(deconvnet.project(*(formatted(name, one).to(dtype) for one in (x[which], seeds)))))
        return np.concatenate(pixels)

    modules = modules_of(dataclasses.replace(setting, compiled=0), network)
    hooked = {name: peers.HookedDeconvnet(module, case.layer.replace(".", "_")) for name, module in modules.items()}
    spread = np.linspace(0, c - 1, case.maps).astype(int).tolist()
    some = spread[:: case.maps // case.peer_maps]

    def error(found: analysis.Visualization) -> float:
        """Of nine projections in ten: in the others, rounding makes another switch in a batch of another size."""
        errors = []
        for m in some[:8]:
            which = torch.from_numpy(top.indices[m]).to(x.device)
            records = network.forward(ours(formatted("", x[which]))).records
            module = reference.follow(network, records, setting.reference, masks=False)
            deconvnet = peers.HookedDeconvnet(module, case.layer.replace(".", "_"))
            expected = theirs(deconvnet, "", [m], setting.reference)
            row = spread.index(m)
            pairs = zip(found.projections[row], expected, found.frames[row], strict=True)
            errors += [relative_error(mine, cut(other, frame)) for mine, other, frame in pairs]
        return float(np.quantile(errors, 0.9))

    calls = {name: functools.partial(theirs, deconvnet, name, some) for name, deconvnet in hooked.items()}
    flops = 2 * forward_flops(network, per_map * case.maps, until=case.layer)
    share = len(some) / case.maps
    return Calls(lambda: call(spread), calls, error, 2 * setting.tolerance, flops, peer_share=share, captured=False)


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

    modules = modules_of(dataclasses.replace(setting, compiled=0), network)
    calls = {name: theirs(name, module) for name, module in modules.items()}
    steps = range(-(-(network.input_shape[0] - case.square) // case.stride) + 1)

    def expected() -> torch.Tensor:
        """Rows of the map, each a batch; a square ends at the image's edge."""
        module, exact, rows = interop.to_module(network).eval().to(setting.reference), x.to(setting.reference), []
        for i in steps:
            images = exact.repeat(len(steps), 1, 1, 1)
            for j in steps:
                top, left = i * case.stride, j * case.stride
                images[j, :, top : top + case.square, left : left + case.square] = 0
            with torch.inference_mode():
                rows.append(module(images).softmax(1)[:, label])
        return torch.stack(rows)

    # Of a probability, the error of its logit, which is some tens.
    tolerance, flops = 10 * setting.tolerance, forward_flops(network, len(steps) ** 2)
    return Calls(call, calls, compare(expected), tolerance, flops, captured=False)


MAKERS = {"forward": forward, "step": step, "sgd": sgd, "projection": projection, "occlusion": occlusion}
