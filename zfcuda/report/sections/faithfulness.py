"""Deletion and insertion curves: which maps show what the network needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ...analysis import Faithfulness, Occlusion, faithfulness, occlusion
from ...analysis.deconvnet import one_hot
from ...analysis.faithfulness import plot_curves
from ...analysis.fills import Fill
from ...analysis.occlusion import Square
from ...analysis.source import preprocess_of, to_device
from ...backends import to_host
from ...data import Dataset
from ...nn import Network
from ...pairs import IntPair
from .. import Chart, Picture, Report, Section, Table
from ..parts import Part
from ..pictures import enlarge, heat, resized, tile
from ..shown import extent_words, fill_name, outputs_only, show

_SHOWN, _TILE = 8, 112  # images in the picture, and pixels that each of its tiles has at least


class _Maps(Sequence):
    """The maps of a data set's images by one method, "occlusion" or a rule of projection, made when looked at."""

    def __init__(self, net: Network, chosen: Dataset, method: str, square: Square):
        self._net, self._chosen, self._method, self._square = net, chosen, method, square

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Occlusion | np.ndarray:  # type: ignore[override]
        images, labels = self._chosen.batch([index])
        image, label = preprocess_of(self._net)(images)[0], int(labels[0])
        if self._method == "occlusion":
            size, stride = self._square
            return occlusion(self._net, image, label, size=size, stride=stride)
        trace, last = self._net.forward(to_device(self._net, image[None])), next(reversed(self._net.layers.values()))
        *place, number = (int(at) for at in np.unravel_index(label, last.output_shape))
        row, column = place or (0, 0)
        alone = one_hot(self._net, last.name, [(number, row, column, 1.0)])
        return to_host(self._net.project(trace, last.name, alone, rule=self._method))[0]


def add_faithfulness(
    report: Report,
    net: Network,
    chosen: Dataset,
    *,
    methods: Sequence[str],
    square: Square,
    patch: IntPair | None = None,
    fill: Fill = 0.0,
    orders: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> bool:
    """The curves of maps by each of the methods ("occlusion", rules of projection), and a table of their areas ->
    whether Ctrl-C stopped it. `square`: the size and stride of occlusion's."""
    results: dict[str, Faithfulness] = {}
    stopped = False
    for method in methods:
        if stopped:
            break
        result, stopped = report.kept(
            faithfulness,
            net,
            chosen,
            chosen.labels,
            _Maps(net, chosen, method, square),
            patch=patch,
            fill=fill,
            orders=0 if results else orders,
            seed=seed,
            progress=progress,
        )
        if result is not None:
            first = next(iter(results.values()), result)
            # Random orders are the same for every map.
            random = {mode: curves[: len(result.labels)] for mode, curves in first.random.items()}
            results[method] = dataclasses.replace(result, random=random)
    if results:
        count = min(_SHOWN, *(len(result.labels) for result in results.values()))
        shown = show(chosen, range(count), preprocess_of(net))
        report.add(faithfulness_section(results, [shown[index].picture for index in range(count)]))
    return stopped


def faithfulness_section(results: Mapping[str, Faithfulness], images: Sequence[np.ndarray] = ()) -> Section:
    """The curves and the areas of maps by their names, and how they rank the patches of the first images, uint8
    (H,W,3)."""
    first = next(iter(results.values()))
    columns = ["map"]
    for mode in first.curves:
        columns += [f"{mode}: area", "random orders", "better by", "better, % of images"]
    rows = [[name, *(cell for mode in one.curves for cell in _cells(one, mode))] for name, one in results.items()]
    (height, width), (down, across) = first.patch, first.grid
    patch = extent_words(height, width, height == down == 1)  # one row of patches of one row: signals
    blurb = (
        f"{len(first.labels)} images in {down} x {across} patches of {patch}. Deletion paints them "
        f"over with {fill_name(first.fill)}, the most relevant first: the smaller the area under the curve of the "
        f"{first.followed_of('the class')}, the better the map. Insertion brings them back: the larger the better. "
        f"Random orders are what a map that knows nothing gets.{outputs_only(first)}"
    )
    parts: list[Part] = [Chart("faithfulness", plot_curves(results)), Table(columns, rows, decimals=3)]
    if images:
        height, width = enlarge(images[0], _TILE).shape[:2]
        tiles = []
        for index, image in enumerate(images):
            row = [image, *(heat(result.ranks()[index]) for result in results.values())]
            tiles += [resized(one, height, width) for one in row]
        methods = ", ".join(results)
        caption = f"Each image, and its patches ranked by {methods}: yellow is painted over first, by however little"
        parts.append(Picture("faithfulness-maps", tile(tiles, 1 + len(results), gap=2), caption))
    return Section("Faithfulness", parts, blurb, {name: result.numbers() for name, result in results.items()})


def _cells(result: Faithfulness, mode: str) -> list[float | None]:
    areas, gain, random = result.areas(mode), result.gain(mode), result.random_areas(mode)
    known = random.shape[1] > 0
    compared = [float(random.mean()), float(gain.mean()), 100 * float((gain > 0).mean())] if known else [None] * 3
    return [float(areas.mean()), *compared]
