"""Correspondence analysis (paper 4.4 and Table 1, P9): does masking the same part change features in the same way?

For image i, e_i is the difference of a layer's features with and without the mask. If a network knows a part, the signs
of the e_i agree between images more than for masks at random places.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..backends import to_host
from ..nn.finite import check_activations
from ..numbers import check_at_least
from ..wording import layer_words
from .figures import new_figure, plain
from .fills import Fill, check_fill, filled
from .geometry import Window, check_box
from .occlusion import last_map_layer
from .progress import Steps
from .results import Result
from .source import as_source, check_layers, to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..nn import Network

RANDOM = "random"

_BATCH = 64

Boxes = Sequence[Sequence[int]]  # (top, left, height, width) of the part in each image


@dataclass(frozen=True)
class Consistency:
    """One part in one layer: the mean over pairs of images of the normalised Hamming distance between sign(e_i) and
    sign(e_j), 0 (the mask changes all images alike) to 1, and its standard deviation over the pairs."""

    part: str
    layer: str
    mean: float
    deviation: float


@dataclass(frozen=True, repr=False)
class Correspondence(Result):
    """Table 1: a `Consistency` per part (and for the random control) and layer."""

    cells: tuple[Consistency, ...]
    layers: tuple[str, ...]
    images: int

    @property
    def parts(self) -> list[str]:
        """The names of the parts, the random control last."""
        return list(dict.fromkeys(cell.part for cell in self.cells))

    def cell(self, part: str, layer: str) -> Consistency:
        """What was measured for a part in a layer; KeyError if nothing was."""
        for cell in self.cells:
            if (cell.part, cell.layer) == (part, layer):
                return cell
        raise KeyError(f"{part!r} in {layer!r}")

    def plot(self) -> Figure:
        """Bars of all parts in each layer, with deviations; lower is more alike."""
        columns = min(len(self.layers), 3)
        rows = -(-len(self.layers) // columns)
        size = {"width": 3.2 * columns, "height": rows * (0.7 + 0.3 * len(self.parts))}
        figure, axes = new_figure(columns, rows, **size)
        for axis in axes.flat[len(self.layers) :]:
            axis.remove()
        for axis, layer in zip(axes.flat, self.layers, strict=False):
            cells = [self.cell(part, layer) for part in self.parts]
            colors = ["#7a7a7a" if cell.part == RANDOM else "#3b7dd8" for cell in cells]
            axis.barh(
                [plain(c.part) for c in cells], [c.mean for c in cells], xerr=[c.deviation for c in cells], color=colors
            )
            axis.invert_yaxis()
            axis.set_xlabel(f"inconsistency in {plain(layer_words(layer))}")
            axis.set_ylabel("masked")
        return figure


def correspondence(
    net: Network,
    images: np.ndarray,
    parts: Mapping[str, Boxes],
    *,
    layers: Sequence[str] | None = None,
    fill: Fill = 0.0,
    random_draws: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> Correspondence:
    """Masks each part in every image and compares how the features change (P9).

    images: float32 (N,H,W,C), two or more. parts: name -> one box (top, left, height, width) per image. The control
    masks boxes of the parts' sizes at random places, `random_draws` times; 0 leaves it out. layers: by default the last
    with maps and the last hidden one (the paper's 5 and 7). fill: what a mask is painted with: a number (0 is the mean
    image), or "mean", "blur" or "noise" of the image itself. `seed` draws the control's places, and noise.
    `Interrupted` by Ctrl-C, with the masks compared by then: the parts come before the control.
    """
    source = as_source(net, images)
    count, (height, width, _) = len(source), source.image_shape
    if count < 2:
        raise ValueError(f"images must be two or more, to be compared, got {count}")
    if not parts:
        raise ValueError("parts is empty: there is nothing to mask")
    if RANDOM in parts:
        raise ValueError(f"parts must not be called {RANDOM!r}: that is the control")
    boxes = {
        name: [check_box(f"a box of part {name!r}", box, height, width) for box in part] for name, part in parts.items()
    }
    for name, part in boxes.items():
        if len(part) != count:
            raise ValueError(f"part {name!r} must have one box for each of the {count} images, got {len(part)}")
    random_draws = check_at_least("random_draws", random_draws, 0)
    fill = check_fill(fill)
    if layers is None:
        hidden = [name for _, name in sorted(net.blocks.items())][:-1]
        layers = (last_map_layer(net), *hidden[-1:])
    layers = check_layers(net, layers)

    original = np.stack([source.read([i])[0] for i in range(count)])
    painted = np.stack([filled(image, fill, seed) for image in original])
    still = _features(net, original, layers)
    masks = [(name, part) for name, part in boxes.items()]
    masks += [(RANDOM, draw) for draw in _random_boxes(list(boxes.values()), random_draws, height, width, seed)]
    compared: list[dict[str, list[float]]] = []
    with Steps(len(masks), unit="masks compared", label="masking" if progress else "") as steps:
        for (number,) in steps:
            masked = original.copy()
            for image, paint, box in zip(masked, painted, masks[number][1], strict=True):
                down, across = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
                image[down, across] = paint[down, across]
            changed = _features(net, masked, layers)
            compared.append({layer: _between_pairs(still[layer], changed[layer]) for layer in layers})
    distances: dict[tuple[str, str], list[float]] = {}
    for (name, _), by_layer in zip(masks, compared, strict=False):
        for layer, found in by_layer.items():
            distances.setdefault((name, layer), []).extend(found)
    cells = tuple(
        Consistency(name, layer, float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else 0.0)
        for (name, layer), found in distances.items()
    )
    return steps.finish(Correspondence(cells, layers, count))


def _between_pairs(still: np.ndarray, changed: np.ndarray) -> list[float]:
    """Features (N,D) without and with the masks -> normalised Hamming distance of their signs, for each pair."""
    signs = np.sign(still - changed).astype(np.int8)
    return [float((one != other).mean()) for one, other in itertools.combinations(signs, 2)]


def _random_boxes(
    parts: Sequence[Sequence[Window]], draws: int, height: int, width: int, seed: int
) -> list[list[Window]]:
    """For each draw, a box per image: of the size of a part's box there (parts in turn), anywhere in the image."""
    rng = np.random.default_rng(seed)
    found = []
    for draw in range(draws):
        part = parts[draw % len(parts)]
        corners = [(rng.integers(0, height - b.height + 1), rng.integers(0, width - b.width + 1)) for b in part]
        found.append([Window(int(y), int(x), b.height, b.width) for (y, x), b in zip(corners, part, strict=True)])
    return found


def _features(net: Network, images: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    for step in Steps(len(images), _BATCH):
        trace = net.forward(to_device(net, images[step.start : step.stop]))
        for layer in layers:
            parts[layer].append(to_host(check_activations(trace[layer], layer, step.start)).reshape(len(step), -1))
    return {layer: np.concatenate(found) for layer, found in parts.items()}
