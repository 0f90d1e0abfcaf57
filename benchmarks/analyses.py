"""Analyses of whole networks: the top-9 projections of a layer, an occlusion map, deletion and insertion curves. Each
function makes the calls of one case."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import cases
import networks
import numpy as np
import peers
import reference
import torch
from harness import Calls, relative_error
from setting import PEERS_MAY, Call, Setting, compare, distance, host, ours
from torch import nn

from zfcuda import analysis
from zfcuda.analysis.deconvnet import cut
from zfcuda.interop import torch as interop


def projection(setting: Setting, case: cases.Projection, *, batch: int = 32) -> Calls:
    """Of our batches, on a GPU, all but the first and a last one of another size are launched as a CUDA graph."""
    network = networks.build(setting, case.family)
    x = networks.images_of(setting, network, case.n)
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
            pixels.append(
                host(deconvnet.project(*(networks.formatted(name, one).to(dtype) for one in (x[which], seeds))))
            )
        return np.concatenate(pixels)

    modules = networks.modules_of(dataclasses.replace(setting, compiled=0), network)
    hooked = {name: peers.HookedDeconvnet(module, case.layer.replace(".", "_")) for name, module in modules.items()}
    spread = np.linspace(0, c - 1, case.maps).astype(int).tolist()
    some = spread[:: case.maps // case.peer_maps]

    def error(found: analysis.Visualization) -> float:
        """Of nine projections in ten: in the others, rounding makes another switch in a batch of another size."""
        errors = []
        for m in some[:8]:
            which = torch.from_numpy(top.indices[m]).to(x.device)
            records = network.forward(ours(networks.formatted("", x[which]))).records
            module = reference.follow(network, records, setting.reference, masks=False)
            deconvnet = peers.HookedDeconvnet(module, case.layer.replace(".", "_"))
            expected = theirs(deconvnet, "", [m], setting.reference)
            row = spread.index(m)
            pairs = zip(found.projections[row], expected, found.frames[row], strict=True)
            errors += [relative_error(mine, cut(other, frame)) for mine, other, frame in pairs]
        return float(np.quantile(errors, 0.9))

    def apart(projections: np.ndarray, found: analysis.Visualization) -> float:
        """Of nine in ten, as above."""
        rows = [spread.index(m) for m in some]
        mine = [pair for row in rows for pair in zip(found.projections[row], found.frames[row], strict=True)]
        errors = [relative_error(cut(one, frame), its) for one, (its, frame) in zip(projections, mine, strict=True)]
        return float(np.quantile(errors, 0.9))

    calls = {name: functools.partial(theirs, deconvnet, name, some) for name, deconvnet in hooked.items()}
    flops = 2 * networks.forward_flops(network, per_map * case.maps, until=case.layer)
    return Calls(
        lambda: call(spread),
        calls,
        error,
        tolerance=2 * setting.tolerance,
        alike=apart,
        peers_may=PEERS_MAY * 2 * setting.tolerance,
        flops=flops,
        peer_share=len(some) / case.maps,
        captured=False,
    )


def occlusion(setting: Setting, case: cases.Occlusion, *, peer_batch: int = 36) -> Calls:
    """The probability of a class for every position of a square over one image (P8)."""
    network = networks.build(setting, case.family)
    x = networks.images_of(setting, network, 1)
    image = host(x)[0]
    label = int(host(network.predict(ours(x))).argmax())

    def call() -> Any:
        return analysis.occlusion(network, image, label, size=case.square, stride=case.stride).probability

    def theirs(name: str, module: nn.Module) -> Call:
        geometry = {"size": case.square, "stride": case.stride, "per_evaluation": peer_batch}
        return lambda: peers.captum_occlusion(module.eval(), networks.formatted(name, x), label, **geometry)

    modules = networks.modules_of(dataclasses.replace(setting, compiled=0), network)
    calls = {name: theirs(name, module) for name, module in modules.items()}
    steps = range(-(-(network.input_shape[0] - case.square) // case.stride) + 1)

    def expected() -> np.ndarray:
        """Rows of the map, each a batch; a square ends at the image's edge. On the host, as ours is."""
        module, exact, rows = interop.to_module(network).eval().to(setting.reference), x.to(setting.reference), []
        for i in steps:
            images = exact.repeat(len(steps), 1, 1, 1)
            for j in steps:
                top, left = i * case.stride, j * case.stride
                images[j, :, top : top + case.square, left : left + case.square] = 0
            with torch.inference_mode():
                rows.append(module(images).softmax(1)[:, label])
        return host(torch.stack(rows))

    # Of a probability, the error of its logit, which is some tens.
    tolerance, flops = 10 * setting.tolerance, networks.forward_flops(network, len(steps) ** 2)
    return Calls(call, calls, compare(expected), tolerance, distance, PEERS_MAY * tolerance, flops, captured=False)


def curves(setting: Setting, case: cases.Curves, *, batch: int = 32) -> Calls:
    """Deletion and insertion curves of an image, a map's and three random orders'. The peers paint and evaluate each
    step whole, and so does our own network; of all steps a part, at the same cost a step."""
    orders = 3
    network = networks.build(setting, case.family)
    x = networks.images_of(setting, network, 1)
    images = host(x)
    label = int(host(network.predict(ours(x))).argmax())
    relevance = np.random.default_rng(0).random(images.shape[1:3])

    def call() -> analysis.Faithfulness:
        return analysis.faithfulness(network, images, [label], [relevance], patch=case.patch, orders=orders)

    def stepwise(evaluate: Any, x: torch.Tensor, order: Sequence[int], insertion: bool) -> torch.Tensor:
        """The label's probability after each of these patches."""
        columns = -(-x.shape[3] // case.patch)
        image, paint = (torch.zeros_like(x), x) if insertion else (x.clone(), torch.zeros_like(x))
        found = []
        for first in range(0, len(order), batch):
            steps = []
            for number in order[first : first + batch]:
                top, left = (case.patch * place for place in divmod(int(number), columns))
                window = ..., slice(top, top + case.patch), slice(left, left + case.patch)
                image[window] = paint[window]
                steps.append(image.clone())
            found.append(evaluate(torch.cat(steps))[:, label])
        return torch.cat(found)

    def probabilities(module: nn.Module) -> Any:
        return torch.inference_mode()(lambda images: module(images).softmax(1))

    def by_us(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(host(network.predict(ours(images))))

    def error(found: analysis.Faithfulness) -> float:
        module = probabilities(interop.to_module(network).eval().to(setting.reference))
        exact, order, errors = x.to(setting.reference), found.orders[0][: case.peer_steps], []
        for mode, values in found.curves.items():
            expected = host(stepwise(module, exact, order, mode == "insertion"))
            errors.append(relative_error(values[0, 1 : 1 + len(order)], expected))
        return float(np.max(errors))

    def apart(probability: torch.Tensor, found: analysis.Faithfulness) -> float:
        return relative_error(host(probability), found.curves["deletion"][0, 1 : 1 + len(numbers)])

    modules = networks.modules_of(dataclasses.replace(setting, compiled=0), network)
    patches = call().orders[0]
    numbers = patches[: case.peer_steps].tolist()
    calls: dict[str, Call] = {
        name: functools.partial(stepwise, probabilities(module.eval()), networks.formatted(name, x), numbers, False)
        for name, module in modules.items()
    }
    calls["zfcuda, steps whole"] = functools.partial(stepwise, by_us, networks.formatted("", x), numbers, False)
    steps = 2 * (1 + orders) * len(patches)
    return Calls(
        call,
        calls,
        error,
        tolerance=10 * setting.tolerance,
        alike=apart,
        peers_may=PEERS_MAY * 10 * setting.tolerance,
        flops=networks.forward_flops(network, steps),
        peer_share=len(numbers) / steps,
        captured=False,
    )


MAKERS = {"projection": projection, "occlusion": occlusion, "curves": curves}
