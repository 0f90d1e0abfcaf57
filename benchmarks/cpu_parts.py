"""The parts of cpu.py: lists of problems, each of which cpu.py has measured in a process of its own, by this script."""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import cpu_device
import harness
import numpy as np
import peers
import torch
from harness import Case, Row, relative_error
from torch.nn import functional

from zfcuda import analysis, models, ops, training
from zfcuda.analysis import deconvnet
from zfcuda.analysis.geometry import field_of
from zfcuda.interop.torch import images_to_torch, to_module

aten = torch.ops.aten
rng = np.random.default_rng(0)


class Layer(NamedTuple):
    """A convolution of ZFNet, and the pool after it, if there is one, by its padding."""

    size: int
    channels: int
    maps: int
    kernel: int
    stride: int
    padding: int
    pool_padding: int | None = None

    @property
    def output(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding}

    @property
    def pooling(self) -> dict[str, Any]:
        return {"window": 3, "stride": 2, "padding": self.pool_padding}

    def flops(self, n: int) -> float:
        return 2.0 * n * self.output**2 * self.maps * self.kernel**2 * self.channels


LAYERS = {
    1: Layer(224, 3, 96, 7, 2, 1, 1),
    2: Layer(55, 96, 256, 5, 2, 0, 1),
    3: Layer(13, 256, 384, 3, 1, 1),
    4: Layer(13, 384, 384, 3, 1, 1),
    5: Layer(13, 384, 256, 3, 1, 1, 0),
}
POOLED = {number: layer for number, layer in LAYERS.items() if layer.pool_padding is not None}


# Prepares a problem: only the process that measures it does so.
MakeCase = Callable[[], Case]


def randn(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def nchw(array: np.ndarray) -> dict[str, torch.Tensor]:
    """NHWC or KRSC as PyTorch's tensors, in both memory formats."""
    tensor = images_to_torch(array)
    return {"channels_last": tensor, "contiguous": tensor.contiguous()}


def nhwc(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().permute(0, 2, 3, 1).numpy()


def in_both_formats(function: Callable[..., Any], *arrays: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The peer's function on these arrays, once per memory format."""
    tensors = [nchw(array) for array in arrays]
    return {name: functools.partial(function, *(t[name] for t in tensors)) for name in tensors[0]}


def case(
    part: str,
    problem: str,
    ours: Callable[[], Any],
    theirs: dict[str, Callable[[], Any]],
    *,
    flops: float = 0.0,
    moved: float = 0.0,
    tolerance: float = 2e-5,
) -> Case:
    """A case whose reference is the first peer's result: a tensor, or several of which the first counts."""

    def error() -> float:
        mine, reference = ours(), next(iter(theirs.values()))()
        mine = mine[0] if isinstance(mine, tuple) else mine
        reference = reference[0] if isinstance(reference, tuple) else reference
        return relative_error(mine, nhwc(reference) if reference.ndim == 4 else reference.detach().numpy())

    return Case(part, problem, flops, moved, ours, theirs, error, tolerance)


# ---- Layers ------------------------------------------------------------------------------------------------------


def conv(n: int) -> list[MakeCase]:
    return [functools.partial(make, number, n) for number in LAYERS for make in (_fprop, _dgrad, _wgrad)]


def _conv_facts(number: int, n: int, *arrays: np.ndarray) -> dict[str, Any]:
    """Of a convolution's case; arrays: the three that it reads and writes."""
    moved = float(sum(array.nbytes for array in arrays))
    return {"problem": f"conv{number}, batch {n}", "flops": LAYERS[number].flops(n), "moved": moved}


def _fprop(number: int, n: int) -> Case:
    layer = LAYERS[number]
    x, w, b, dy = _layer_arrays(layer, n)
    return case(
        "conv fprop",
        ours=lambda: ops.conv2d(x, w, b, **layer.geometry),
        theirs=in_both_formats(functools.partial(functional.conv2d, bias=torch.from_numpy(b), **layer.geometry), x, w),
        **_conv_facts(number, n, x, w, dy),
    )


def _dgrad(number: int, n: int) -> Case:
    layer = LAYERS[number]
    x, w, _, dy = _layer_arrays(layer, n)

    def theirs(dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return _conv_backward(layer, dy, x, w, [True, False])[0]

    return case(
        "conv dgrad" if number > 1 else "conv1 dgrad",
        ours=lambda: ops.conv_transpose2d(dy, w, output_size=layer.size, **layer.geometry),
        theirs=in_both_formats(theirs, dy, x, w),
        **_conv_facts(number, n, x, w, dy),
    )


def _wgrad(number: int, n: int) -> Case:
    layer = LAYERS[number]
    x, w, _, dy = _layer_arrays(layer, n)

    def theirs(dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return _conv_backward(layer, dy, x, w, [False, True])[1]

    return case(
        "conv wgrad",
        ours=lambda: ops.conv2d_weight_grad(x, dy, kernel_size=layer.kernel, **layer.geometry),
        theirs=in_both_formats(theirs, dy, x, w),
        tolerance=1e-4,
        **_conv_facts(number, n, x, w, dy),
    )


def _layer_arrays(layer: Layer, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, w, b and dy."""
    x = randn(n, layer.size, layer.size, layer.channels)
    w = randn(layer.maps, layer.kernel, layer.kernel, layer.channels) / math.sqrt(layer.kernel**2 * layer.channels)
    return x, w, randn(layer.maps) / 10, randn(n, layer.output, layer.output, layer.maps)


def _conv_backward(
    layer: Layer, dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor, wanted: list[bool]
) -> tuple[torch.Tensor, ...]:
    """The gradients of x and of w, as far as they are wanted."""
    stride, padding = [layer.stride] * 2, [layer.padding] * 2
    return aten.convolution_backward(dy, x, w, None, stride, padding, [1, 1], False, [0, 0], 1, [*wanted, False])


def _pool_backward(padding: int | None, dy: torch.Tensor, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    return aten.max_pool2d_with_indices_backward(dy, x, [3, 3], [2, 2], [padding] * 2, [1, 1], False, indices)


def _their_pool(layer: Layer) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    return functools.partial(
        functional.max_pool2d, kernel_size=3, stride=2, padding=layer.pool_padding, return_indices=True
    )


def pool(n: int) -> list[MakeCase]:
    return [functools.partial(make, number, n) for number in POOLED for make in (_max_pool, _unpool)]


def _max_pool(number: int, n: int) -> Case:
    layer = POOLED[number]
    x = randn(n, layer.output, layer.output, layer.maps)
    y, switches = ops.max_pool2d(x, **layer.pooling)
    return case(
        "max pool with switches",
        f"pool{number}, batch {n}",
        functools.partial(ops.max_pool2d, x, **layer.pooling),
        in_both_formats(_their_pool(layer), x),
        moved=float(x.nbytes + y.nbytes + switches.nbytes),
        tolerance=0.0,
    )


def _unpool(number: int, n: int) -> Case:
    layer = POOLED[number]
    x = randn(n, layer.output, layer.output, layer.maps)
    y, switches = ops.max_pool2d(x, **layer.pooling)
    dy = randn(*y.shape)
    theirs = {}
    for (name, images), signal in zip(nchw(x).items(), nchw(dy).values(), strict=True):
        indices = _their_pool(layer)(images)[1]
        theirs[name] = functools.partial(_pool_backward, layer.pool_padding, signal, images, indices)
    return case(
        "unpool",
        f"pool{number}, batch {n}",
        functools.partial(ops.max_unpool2d, dy, switches, output_size=layer.output, **layer.pooling),
        theirs,
        moved=float(x.nbytes + y.nbytes + switches.nbytes),
        tolerance=1e-6,
    )


NORM_SHAPES = {1: (55, 55, 96), 2: (13, 13, 256)}


def _their_norm(x: torch.Tensor) -> torch.Tensor:
    # PyTorch divides alpha by the size.
    return functional.local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2.0)


def norm(n: int) -> list[MakeCase]:
    return [functools.partial(make, number, n) for number in NORM_SHAPES for make in (_norm, _norm_grad)]


def _norm(number: int, n: int) -> Case:
    x = 50 * randn(n, *NORM_SHAPES[number])
    return case(
        "normalisation",
        f"norm{number}, batch {n}",
        functools.partial(ops.local_response_norm, x),
        {name: torch.inference_mode()(call) for name, call in in_both_formats(_their_norm, x).items()},
        moved=2.0 * x.nbytes,
    )


def _norm_grad(number: int, n: int) -> Case:
    x, dy = 50 * randn(n, *NORM_SHAPES[number]), randn(n, *NORM_SHAPES[number])
    theirs = {}
    for (name, images), signal in zip(nchw(x).items(), nchw(dy).values(), strict=True):
        y = _their_norm(images.requires_grad_())
        theirs[name] = functools.partial(
            lambda y, images, signal: torch.autograd.grad(y, images, signal, retain_graph=True)[0], y, images, signal
        )
    return case(
        "normalisation gradient",
        f"norm{number}, batch {n}",
        functools.partial(ops.local_response_norm_grad, dy, x),
        theirs,
        moved=3.0 * x.nbytes,
    )


def block(n: int) -> list[MakeCase]:
    return [functools.partial(make, number, n) for number in POOLED for make in (_block_forward, _block_way_back)]


def _block_geometry(layer: Layer) -> dict[str, Any]:
    return {**layer.geometry, "window": 3, "pool_stride": 2, "pool_padding": layer.pool_padding}


def _block_forward(number: int, n: int) -> Case:
    layer = POOLED[number]
    x, w, b, _ = _layer_arrays(layer, n)
    geometry = _block_geometry(layer)
    y, switches = ops.conv2d_relu_pool(x, w, b, **geometry)

    def theirs(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = functional.conv2d(x, w, torch.from_numpy(b), **layer.geometry).relu_()
        return *_their_pool(layer)(z), z

    return case(
        f"block {number} forward",
        f"block {number}, batch {n}",
        lambda: ops.conv2d_relu_pool(x, w, b, **geometry),
        {name: torch.inference_mode()(call) for name, call in in_both_formats(theirs, x, w).items()},
        flops=layer.flops(n),
        moved=float(x.nbytes + w.nbytes + y.nbytes + switches.nbytes),
    )


def _block_way_back(number: int, n: int) -> Case:
    layer = POOLED[number]
    x, w, b, _ = _layer_arrays(layer, n)
    geometry = _block_geometry(layer)
    y, switches = ops.conv2d_relu_pool(x, w, b, **geometry)
    dy = randn(*y.shape)

    def ours() -> tuple[np.ndarray, np.ndarray]:
        masked = ops.relu_grad(dy, y)
        dw = ops.unpool_conv2d_weight_grad(x, masked, switches, kernel_size=layer.kernel, **geometry)
        dx = ops.unpool_conv_transpose2d(masked, switches, w, output_size=layer.size, **geometry)
        return dw, dx

    def theirs(indices: Any, dy: Any, z: Any, x: Any, w: Any) -> tuple[torch.Tensor, torch.Tensor]:
        dz = aten.threshold_backward(_pool_backward(layer.pool_padding, dy, z, indices), z, 0)
        dx, dw, _ = _conv_backward(layer, dz, x, w, [True, True])
        return dw, dx

    # Both go back from our map and switches: rounding decides which of two nearly equal values wins a window.
    tensors = [nchw(array) for array in (dy, ops.conv2d(x, w, b, relu=True, **layer.geometry), x, w)]
    indices = nchw(_as_indices(switches, layer))
    return case(
        f"block {number} way back",
        f"block {number}, batch {n}, both gradients",
        ours,
        {name: functools.partial(theirs, indices[name], *(formats[name] for formats in tensors)) for name in indices},
        flops=2 * layer.flops(n),
        moved=float(2 * (x.nbytes + w.nbytes + y.nbytes) + switches.nbytes),
        tolerance=1e-4,
    )


def _as_indices(switches: np.ndarray, layer: Layer) -> np.ndarray:
    """The same as PyTorch's indices: row * width + column of each window's maximum in the map."""
    corners = 2 * np.arange(switches.shape[1]) - layer.pool_padding
    rows = corners[:, None, None] + switches // 3
    columns = corners[None, :, None] + switches % 3
    return rows.astype(np.int64) * layer.output + columns


# ---- The network ---------------------------------------------------------------------------------------------------


def forward_flops(net: Any, n: int) -> float:
    matrices = sum(
        layer.weight.size for layer in net.layers.values() if getattr(layer, "weight", np.empty(0)).ndim == 2
    )
    return sum(layer.flops(n) for layer in LAYERS.values()) + 2.0 * n * matrices


def zfnet() -> Any:
    """ZFNet with weights that keep the scale of the signal, so that errors are seen."""
    net = models.zfnet(seed=0)
    for layer in net.layers.values():
        if hasattr(layer, "weight"):
            layer.weight *= np.float32(math.sqrt(2 / layer.weight[0].size) / 1e-2)
    return net


def modules(net: Any) -> dict[str, torch.nn.Module]:
    """The network as PyTorch's, in both memory formats."""
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    return {name: to_module(net).to(memory_format=layout) for name, layout in formats.items()}


def net(n: int) -> list[MakeCase]:
    return [functools.partial(make, n) for make in (_forward, _training_step)]


def _forward(n: int) -> Case:
    network, images = zfnet(), randn(n, 224, 224, 3)
    theirs = {
        name: torch.inference_mode()(functools.partial(module.eval(), nchw(images)[name]))
        for name, module in modules(network).items()
    }
    return case(
        "forward",
        f"ZFNet, batch {n}",
        lambda: network.forward(images).output,
        theirs,
        flops=forward_flops(network, n),
        tolerance=1e-4,
    )


def _training_step(n: int) -> Case:
    images = randn(n, 224, 224, 3)
    labels = rng.integers(0, 1000, n).astype(np.int32)
    # The paper's weights: at 1e-2, both libraries train these without trouble.
    network = models.zfnet(seed=0)
    steps = {}
    for name, module in modules(network).items():
        steps[name] = peers.training_step(module, nchw(images)[name], torch.from_numpy(labels).long())
    trainer = training.Trainer(network, lr=1e-2, momentum=0.9, weight_decay=5e-4)

    def error() -> float:
        """Of the loss after two steps without dropout, whose masks differ."""
        ours = models.zfnet(seed=0)
        for name in ("drop6", "drop7"):
            ours.layers[name].probability = 0.0
        theirs = peers.training_step(to_module(ours), nchw(images)["contiguous"], torch.from_numpy(labels).long())
        train = training.Trainer(ours, lr=1e-2, momentum=0.9, weight_decay=5e-4)
        return max(relative_error(np.float64(train.step(images, labels)), theirs().numpy()) for _ in range(2))

    flops = 3 * forward_flops(network, n) - LAYERS[1].flops(n)
    moved = 5.0 * sum(array.nbytes for array in network.parameters().values())
    return Case(
        "training step",
        f"ZFNet, batch {n}",
        flops,
        moved,
        lambda: trainer.step(images, labels),
        steps,
        error,
        1e-4,
    )


class Projection(NamedTuple):
    """Top 9 of `maps` of block 5's 256 maps, each winner alone down to the pixels: the projection of `visualize`,
    after the ranking."""

    maps: int
    ours: Callable[[], np.ndarray]
    theirs: dict[str, Callable[[], np.ndarray]]

    @property
    def problem(self) -> str:
        return f"{self.maps} of 256 maps of block 5"

    @property
    def flops(self) -> float:
        return 2 * sum(conv.flops(9 * self.maps) for conv in LAYERS.values())

    def error(self) -> float:
        """Of nine projections in ten: in the others, rounding decides which of two near equal values wins a window."""
        pairs = zip(self.ours(), self.theirs["contiguous"](), strict=True)
        errors = [relative_error(*pair) for nine in pairs for pair in zip(*nine, strict=True)]
        return float(np.quantile(errors, 0.9))

    def case(self) -> Case:
        return Case("top-9 projection", self.problem, self.flops, 0.0, self.ours, self.theirs, self.error, 1e-4)


def projection(maps: list[int]) -> Iterator[Projection]:
    """The same ranking's winners, for each of these numbers of maps."""
    network, layer, batch = zfnet(), "pool5", 32
    images = randn(128, 224, 224, 3)
    top = deconvnet.top_activations(network, images, layer, 9, batch_size=batch)
    field = field_of(network, layer)

    def ours(chosen: np.ndarray) -> np.ndarray:
        return deconvnet.visualize(network, images, top, maps=chosen.tolist(), batch_size=batch).projections

    def theirs(project: peers.HookedDeconvnet, layout: torch.memory_format, chosen: np.ndarray) -> np.ndarray:
        indices, positions, values = top.indices[chosen], top.positions[chosen], top.values[chosen]
        order = np.argsort(indices, axis=None, kind="stable")
        results: Any = [[None] * indices.shape[1] for _ in chosen]
        for start in range(0, len(order), batch):
            rows, ranks = np.unravel_index(order[start : start + batch], indices.shape)
            inputs = images_to_torch(images[indices[rows, ranks]]).contiguous(memory_format=layout)
            signal = torch.zeros(len(rows), 256, 6, 6).contiguous(memory_format=layout)
            for i, (row, rank) in enumerate(zip(rows, ranks, strict=True)):
                there = positions[row, rank].tolist()
                signal[i, int(chosen[row]), there[0], there[1]] = float(values[row, rank])
            pixels = nhwc(project.project(inputs, signal))
            for row, rank, image in zip(rows, ranks, pixels, strict=True):
                frame = field.frame(*positions[row, rank].tolist())
                results[row][rank] = deconvnet.cut(image, frame)
        return np.array(results)

    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    hooked = {name: peers.HookedDeconvnet(module, layer) for name, module in modules(network).items()}
    for count in maps:
        chosen = np.linspace(0, 255, count).astype(int)
        yield Projection(
            count,
            functools.partial(ours, chosen),
            {name: functools.partial(theirs, hooked[name], formats[name], chosen) for name in formats},
        )


def measure_projection(
    parts: list[int], whole: int, timer: harness.Timer, ceilings: harness.Ceilings | None
) -> Iterator[Row]:
    """Both libraries on a few maps, which shows what another map costs; then ours on `whole` maps, beside the peers'
    time for the most that they were measured on, scaled up."""
    *some, all_maps = projection([*parts, whole])
    rows = [harness.measure(part.case(), timer, ceilings) for part in some]
    yield from rows
    samples = timer({"ours": all_maps.ours})["ours"]
    scale = all_maps.maps / some[-1].maps
    yield Row(
        "top-9 projection of the layer",
        all_maps.problem,
        all_maps.flops,
        0.0,
        ours_ms=statistics.median(samples),
        spread=(max(samples) - min(samples)) / statistics.median(samples),
        peers_ms={name: None if ms is None else scale * ms for name, ms in rows[-1].peers_ms.items()},
        floor_ms=ceilings.floor_ms(all_maps.flops, 0.0) if ceilings else None,
        note=f"peers: {some[-1].problem}, times {scale:g}",
    )


def occlusion(stride: int) -> Case:
    network = zfnet()
    image, label, size = randn(224, 224, 3), 3, 50

    def ours() -> np.ndarray:
        return analysis.occlusion(network, image, label, size=size, stride=stride).probability

    theirs = {
        name: functools.partial(
            peers.captum_occlusion,
            module.eval(),
            nchw(image[None])[name],
            label,
            size=size,
            stride=stride,
            per_evaluation=36,
        )
        for name, module in modules(network).items()
    }
    positions = (-(-(224 - size) // stride) + 1) ** 2
    return Case(
        "occlusion map",
        f"square {size}, stride {stride}",
        forward_flops(network, positions),
        0.0,
        ours,
        theirs,
        lambda: relative_error(ours(), theirs["contiguous"]()),
        1e-3,
    )


# ---- Memory ----------------------------------------------------------------------------------------------------------


def memory(n: int) -> Iterator[Row]:
    """Peak resident MiB of three training steps, a process each; what importing the library takes is subtracted."""
    found = {}
    for library in ("zfcuda", "channels_last", "contiguous"):
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import cpu_parts; cpu_parts.print_peak_memory({library!r}, {n})"
        )
        result = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        found[library] = float(result.stdout.split()[-1])
    ours = found.pop("zfcuda")
    yield Row(
        "peak memory of a step (MiB)", f"ZFNet, batch {n}", 0.0, 0.0, ours_ms=ours, spread=0.0, peers_ms=dict(found)
    )


def peak_mebibytes() -> float:
    """Of this process since it was started; getrusage would count its parent's memory before that."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def print_peak_memory(library: str, n: int) -> None:
    """In a process of its own: the growth of the resident size over three training steps of one library."""
    images, labels = randn(n, 224, 224, 3), rng.integers(0, 1000, n).astype(np.int32)
    before = peak_mebibytes()
    network = models.zfnet(seed=0)
    if library == "zfcuda":
        trainer = training.Trainer(network, lr=1e-2, momentum=0.9, weight_decay=5e-4)
        for _ in range(3):
            trainer.step(images, labels)
    else:
        module = modules(network)[library]
        del network
        step = peers.training_step(module, nchw(images)[library], torch.from_numpy(labels).long())
        for _ in range(3):
            step()
    print(peak_mebibytes() - before)


# ---- All of it ---------------------------------------------------------------------------------------------------

Problem = Callable[[harness.Timer, harness.Ceilings | None], Iterator[Row]]


def problems(part: str, quick: bool) -> list[Problem]:
    """Those of a part of cpu.PARTS. To make the list prepares nothing."""
    n = 4 if quick else 16
    whole = 4 if quick else 32
    if part == "memory":
        return [lambda timer, ceilings: memory(whole)]
    if part == "projection":
        return [functools.partial(measure_projection, [2, 4] if quick else [8, 16], 16 if quick else 256)]
    makers = {
        "conv": conv(n),
        "pool": pool(n),
        "norm": norm(n),
        "block": block(n),
        "net": net(whole),
        "occlusion": [functools.partial(occlusion, 48 if quick else 16)],
    }[part]
    return [functools.partial(_measure, make) for make in makers]


def _measure(make: MakeCase, timer: harness.Timer, ceilings: harness.Ceilings | None) -> Iterator[Row]:
    yield harness.measure(make(), timer, ceilings)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path, help="gets the rows, as JSON")
    parser.add_argument("part")
    parser.add_argument("number", type=int, help="of the part's problem")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ceilings", type=float, nargs=2, metavar=("GFLOPS", "GBYTES"))
    arguments = parser.parse_args()
    ceilings = harness.Ceilings(*arguments.ceilings) if arguments.ceilings else None
    few = arguments.quick or arguments.part in ("net", "projection", "occlusion")
    seconds, rounds = (1.0 if arguments.quick else 2.0), ((3, 3) if few else (5, 15))
    timer = functools.partial(cpu_device.time_alternating, seconds=seconds, rounds=rounds)
    problem = problems(arguments.part, arguments.quick)[arguments.number]
    arguments.output.write_text(json.dumps([asdict(row) for row in problem(timer, ceilings)]))


if __name__ == "__main__":
    main()
