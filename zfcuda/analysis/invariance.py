"""Feature invariance (paper 4 and Fig. 5, P6): how far features move when an image is shifted, enlarged or turned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..backends import to_host
from ..brief import Brief
from ..nn.finite import check_activations
from ..numbers import check_at_least
from ..training import Ranks
from ..wording import layer_words
from .figures import COLORS, is_signal, new_figure, plain
from .progress import Steps
from .results import OfClass
from .source import as_source, check_labels, check_layers, to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..nn import Network

TRANSFORMS = ("translation", "scale", "rotation")  # of Fig. 5
_UNITS = {
    "translation": "pixels down",
    "shift": "pixels or samples to the right",
    "scale": "times",
    "rotation": "degrees",
}
_TOLD_APART = 10  # lines in a chart
_PAPER_SHIFT = 60 / 224  # the largest translation, as a share of the image's side


@dataclass(frozen=True, repr=False)
class Curves(Brief):
    """One transform of N images by T amounts.

    amounts (T,): pixels down or to the right, factors, or degrees counter-clockwise. distances: layer -> float64 (N,T),
    Euclidean distance between the features of the image as it is and transformed. norms: layer -> float64 (N,), the
    length of the features of the image as it is. probability float32 (N,T): of the true label.
    """

    transform: str
    amounts: np.ndarray
    distances: Mapping[str, np.ndarray]
    norms: Mapping[str, np.ndarray]
    probability: np.ndarray

    def relative(self, layer: str) -> np.ndarray:
        """Distances as shares of the features' length, float64 (N,T): comparable between layers."""
        return self.distances[layer] / np.maximum(self.norms[layer], np.finfo(np.float32).tiny)[:, None]

    def steadiness(self, layer: str) -> float:
        """The mean relative distance over images and amounts: 0 for features that do not move."""
        return float(self.relative(layer).mean())


@dataclass(frozen=True, repr=False)
class Invariance(OfClass):
    """The curves of every transform, in the order of Fig. 5."""

    curves: Mapping[str, Curves]
    layers: tuple[str, ...]
    labels: tuple[int, ...]

    def numbers(self) -> dict[str, Any]:
        """Everything."""
        return {
            "layers": self.layers,
            "labels": self.labels,
            "head": self.head,
            "one_output": self.one_output,
            "curves": self.curves,
            "steadiness": {
                name: {layer: one.steadiness(layer) for layer in self.layers} for name, one in self.curves.items()
            },
        }

    def plot(self, names: Sequence[str] = ()) -> Figure:
        """A row per transform: the distance in each layer, then the probability of the true label; a line per image,
        called by its name if there are names. Of more than ten images, which nobody tells apart, also the mean."""
        columns = len(self.layers) + 1
        figure, axes = new_figure(
            columns=columns, rows=len(self.curves), width=3.2 * columns, height=2.7 * len(self.curves)
        )
        for row, curves in zip(axes, self.curves.values(), strict=True):
            for axis, layer in zip(row, self.layers, strict=False):
                _lines(axis, curves.amounts, curves.distances[layer])
                axis.set_ylabel(f"distance in {plain(layer_words(layer))}")
            _lines(row[-1], curves.amounts, curves.probability)
            row[-1].set_ylabel(self.followed_of("the true class"))
            if self.followed == "probability":
                row[-1].set_ylim(-0.02, 1.02)
            for axis in row:
                axis.set_xlabel(f"{curves.transform}, {_UNITS[curves.transform]}")
        if 0 < len(names) <= _TOLD_APART:
            lines = axes[0, 0].get_lines()
            figure.legend(lines, [plain(n) for n in names], frameon=False, ncols=2, loc="outside lower left")
        return figure


def _lines(axis: Any, amounts: np.ndarray, values: np.ndarray) -> None:
    """A line per image, values (N,T); a bold mean of thin ones where they are many."""
    if len(values) <= _TOLD_APART:
        axis.plot(amounts, values.T)
    else:
        axis.plot(amounts, values.T, color=COLORS[5], linewidth=0.5, alpha=max(0.1, 5 / len(values)))
        axis.plot(amounts, values.mean(axis=0), color=COLORS[0], linewidth=2)


def paper_amounts(transform: str, side: int, steps: int = 31) -> np.ndarray:
    """The amounts of Fig. 5 for images of this height (for shifts, width): -60..60 of 224 pixels, 1.0..1.8 times,
    0..360 degrees."""
    _check_transform(transform)
    steps = check_at_least("steps", steps, 1)
    if transform in ("translation", "shift"):
        reach = max(1, round(_PAPER_SHIFT * side))
        return np.unique(np.linspace(-reach, reach, steps).round())
    return np.linspace(1.0, 1.8, steps) if transform == "scale" else np.linspace(0.0, 360.0, steps)


def amounts_for(shape: tuple[int, int, int], steps: int = 31) -> dict[str, list[float]]:
    """The transforms and `paper_amounts` for images (H,W,C): those of Fig. 5; of signals, which cannot move down or be
    turned, shifts and scales."""
    height, width, _ = shape
    if is_signal(height, width):
        return {name: paper_amounts(name, width, steps).tolist() for name in ("shift", "scale")}
    return {name: paper_amounts(name, height, steps).tolist() for name in TRANSFORMS}


def _check_transform(transform: str) -> None:
    if transform not in _UNITS:
        raise ValueError(f"transform must be one of {', '.join(_UNITS)}; got {transform!r}")


def transformed(image: np.ndarray, transform: str, amount: float) -> np.ndarray:
    """The image float32 (H,W,C), moved down ("translation") or to the right ("shift") by pixels, enlarged by a factor
    or turned counter-clockwise by degrees about its centre, by bilinear sampling; 0 (the mean image) comes in from
    outside."""
    _check_transform(transform)
    height, width, channels = image.shape
    cos, sin, down, right = 1.0, 0.0, 0.0, 0.0
    if transform == "translation":
        down = amount
    elif transform == "shift":
        right = amount
    elif transform == "scale":
        if not amount > 0:
            raise ValueError(f"a scale must be positive, got {amount}")
        cos = 1 / amount
    else:
        cos, sin = math.cos(math.radians(amount)), math.sin(math.radians(amount))
    # Where each output pixel comes from: x' = cos x - sin y + ..., with the centre fixed. Pillow adds half a pixel.
    x, y = width / 2, height / 2
    matrix = (cos, -sin, x - cos * x + sin * y - right, sin, cos, y - sin * x - cos * y - down)
    moved = np.empty_like(image)
    for channel in range(channels):
        plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
        moved[..., channel] = plane.transform(
            (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=0
        )
    return moved


def invariance(
    net: Network,
    images: np.ndarray,
    labels: Sequence[int],
    *,
    amounts: Mapping[str, Sequence[float]] | None = None,
    layers: Sequence[str] | None = None,
    batch_size: int = 64,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> Invariance:
    """Transforms each image and measures how far its features move (P6).

    images: float32 (N,H,W,C) as the net takes them, labels: their N classes, as the net counts
    (`zfcuda.data.relabelled`). amounts: transform ("translation" down, "shift" to the right, "scale" or "rotation") ->
    amounts, by default `amounts_for` the images: the paper's. layers: by default the end of block 1 and the last hidden
    layer. ranks: of processes that share the images. `Interrupted` by Ctrl-C, with the curves of the images done by
    then.
    """
    source = as_source(net, images)
    if len(labels) != len(source):
        raise ValueError(f"labels must be {len(source)} class numbers, one per image, got {len(labels)}")
    wanted = check_labels(labels, net.num_classes)
    layers = check_layers(net, first_and_last_hidden(net) if layers is None else layers)
    if amounts is None:
        amounts = amounts_for(net.input_shape)
    batch_size = check_at_least("batch_size", batch_size, 1)
    if not amounts:
        raise ValueError("amounts is empty: there is no transform")
    for transform, those in amounts.items():
        if len(those) == 0:
            raise ValueError(f"amounts of {transform} is empty")
        if not np.isfinite(those).all():
            raise ValueError(f"amounts of {transform} must be finite, got {list(those)}")

    def curves_of(step: range) -> dict[str, tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]]:
        (i,) = step
        image, label = source.read([i])[0], int(wanted[i])
        return {
            transform: _curves_of_one(net, image, i, label, transform, those, layers, batch_size)
            for transform, those in amounts.items()
        }

    per_image = []
    words = "transforming" if progress else ""
    with Steps(len(source), unit="images transformed", label=words, ranks=ranks) as steps:
        for _, one in steps.map(curves_of):
            per_image.append(one)
    curves = {}
    for transform, those in amounts.items():
        of_images = [one[transform] for one in per_image]
        curves[transform] = Curves(
            transform,
            np.asarray(those, np.float64),
            {layer: np.stack([distances[layer] for distances, _, _ in of_images]) for layer in layers},
            {layer: np.array([norms[layer] for _, norms, _ in of_images]) for layer in layers},
            np.stack([probability for _, _, probability in of_images]),
        )
    done = tuple(wanted[: len(per_image)].tolist())
    return steps.finish(Invariance(curves, layers, done, head=net.head, one_output=net.num_classes == 1))


def first_and_last_hidden(net: Network) -> tuple[str, ...]:
    """The paper's layers 1 and 7: the ends of the first block and of the last one before the classes."""
    names = [name for _, name in sorted(net.blocks.items())]
    return tuple(dict.fromkeys((names[0], names[-2] if len(names) > 1 else names[0])))


def _curves_of_one(
    net: Network,
    image: np.ndarray,
    number: int,
    label: int,
    transform: str,
    amounts: Sequence[float],
    layers: Sequence[str],
    batch_size: int,
) -> tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]:
    """Distances (T,) and norm of the features per layer, and the label's probability (T,), for one image,
    the `number`-th."""
    still = net.forward(to_device(net, image[None]))
    original = {layer: _flat(check_activations(still[layer], layer, number))[0] for layer in layers}
    distances: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    probabilities = []
    for start in range(0, len(amounts), batch_size):
        batch = np.stack([transformed(image, transform, amount) for amount in amounts[start : start + batch_size]])
        trace = net.forward(to_device(net, batch))
        for layer in layers:
            (moved,) = check_activations(trace[layer][None], layer, number)  # all of them are of one image
            distances[layer].append(np.linalg.norm(_flat(moved) - original[layer], axis=1))
        (found,) = check_activations(net.predict(to_device(net, batch))[None], "output", number)
        probabilities.append(to_host(found)[:, label])
    # Not by BLAS, whose sum depends on the number of threads.
    norms = {layer: float(np.sqrt(np.square(original[layer]).sum())) for layer in layers}
    return {layer: np.concatenate(parts) for layer, parts in distances.items()}, norms, np.concatenate(probabilities)


def _flat(activations: Any) -> np.ndarray:
    return to_host(activations).reshape(len(activations), -1).astype(np.float64)
