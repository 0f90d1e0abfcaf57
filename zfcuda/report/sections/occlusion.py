"""Occlusion (paper Fig. 7, P8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...analysis import Occlusion, TopActivations, occlusion, top_activations, visualize
from ...analysis.progress import Steps
from ...analysis.source import preprocess_of
from ...data import Dataset
from ...nn import Network
from .. import Explorer, Report, Section, Table
from ..parts import Part
from ..pictures import from_projection, from_range, tile
from ..shown import class_names, show

_COLUMNS = (
    "image",
    "class",
    "predicted",
    "probability",
    "lowest",
    "square there, at row",
    "column",
    "another class, % of places",
)


def add_occlusion(
    report: Report,
    net: Network,
    chosen: Dataset,
    others: Dataset | None,
    *,
    square: tuple[int, int],
    layer: str | None = None,
    progress: bool = True,
) -> bool:
    """Explorers of all images of `chosen`, and a table; `others` are where the strongest map's best images are, if
    they are to be shown -> whether Ctrl-C stopped it."""
    preprocess, classes = preprocess_of(net), class_names(net, chosen)
    size, stride = square
    results, stopped = report.kept(_occlude, net, chosen, square, layer, progress)
    if results is None:
        return True
    tops: list[np.ndarray] = []
    if others is not None and not stopped:
        top, stopped = report.kept(top_activations, net, others, results[0].layer, progress=progress)
        if top is not None:
            found, cut_short = report.kept(_tops, net, others, top, [r.feature_map for r in results], progress)
            tops, stopped = found or [], stopped or cut_short
    shown = show(chosen, range(len(results)), preprocess)
    parts: list[Part] = [Table(_COLUMNS, [_row(shown[i].name, classes, r) for i, r in enumerate(results)], decimals=3)]
    for index, result in enumerate(results):
        heading = f"{shown[index].name}: {shown[index].label}"
        elsewhere = tops[index] if index < len(tops) else None
        parts.append(Explorer(f"occlusion-{index + 1:02d}", heading, result, shown[index].picture, classes, elsewhere))
    blurb = (
        f"A square of {size} x {size} pixels at steps of {stride}, painted with the mean image. Where the probability "
        "falls, the network needs what is covered. Move over a map or an image to see the square there."
    )
    report.add(Section("Occlusion", parts, blurb, [result.numbers() for result in results]))
    return stopped


def occlusion_section(result: Occlusion) -> Section:
    """The explorer of one image, of classes that have no names."""
    classes = [f"class {label}" for label in range(1 + max(int(result.prediction.max()), result.label))]
    (height, width), (down, across) = result.size, result.stride
    blurb = (
        f"A square of {height} x {width} pixels at steps of {down} and {across}. Without it the probability of class "
        f"{result.label} is {result.baseline:.3f}, at least {float(result.probability.min()):.3f} with it."
    )
    explorer = Explorer("occlusion", classes[result.label], result, from_range(result.image), classes)
    return Section("Occlusion", [explorer], blurb, result.numbers())


def _occlude(
    net: Network, chosen: Dataset, square: tuple[int, int], layer: str | None, progress: bool
) -> list[Occlusion]:
    """The occlusion of every image of `chosen`."""
    preprocess, (size, stride) = preprocess_of(net), square
    results: list[Occlusion] = []
    with Steps(len(chosen), unit="images occluded", label="occluding" if progress else "") as steps:
        for (index,) in steps:
            images, labels = chosen.batch([index])
            image = preprocess(images)[0]
            results.append(occlusion(net, image, int(labels[0]), size=size, stride=stride, layer=layer))
    return steps.finish(results)


def _tops(net: Network, others: Dataset, top: TopActivations, maps: Sequence[int], progress: bool) -> list[np.ndarray]:
    """Of each map the projections from the images that excite it most, as one picture."""
    tiles: list[np.ndarray] = []
    label = "projecting" if progress else ""
    with Steps(len(maps), unit="strongest maps projected", label=label) as steps:
        for (index,) in steps:
            view = visualize(net, others, top, maps=[maps[index]])
            tiles.append(tile([from_projection(one) for one in view.projections[0]], columns=3))
    return steps.finish(tiles)


def _row(name: str, classes: Sequence[str], result: Occlusion) -> list:
    row, column = result.lowest()
    top, left, _, _ = result.window(row, column)
    return [
        name,
        classes[result.label],
        classes[result.baseline_prediction],
        result.baseline,
        float(result.probability.min()),
        top,
        left,
        round(100 * float((result.prediction != result.baseline_prediction).mean())),
    ]
