"""Occlusion (paper Fig. 7, P8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...analysis import Occlusion, Occlusions, TopActivations, occlusion, top_activations, visualize
from ...analysis.figures import is_signal
from ...analysis.fills import Fill
from ...analysis.occlusion import Square
from ...analysis.progress import Steps
from ...analysis.source import preprocess_of
from ...data import Dataset
from ...nn import Network
from ...training import Ranks
from .. import Explorer, Report, Section, Table
from ..parts import Part
from ..pictures import from_projection, from_range, tile
from ..shown import ONE_OUTPUT, Shown, class_names, extent_words, fill_name, outputs_only, show

_SHOWN = 8  # of several images in a notebook


def add_occlusion(
    report: Report,
    net: Network,
    chosen: Dataset,
    others: Dataset | None,
    *,
    square: Square,
    fill: Fill = 0.0,
    seed: int = 0,
    layer: str | None = None,
    progress: bool = True,
    ranks: Ranks | None = None,
) -> bool:
    """Explorers of all images of `chosen`, and a table; `others` are where the strongest map's best images are, if
    they are to be shown -> whether Ctrl-C stopped it. ranks: of processes that share the images."""
    preprocess, classes = preprocess_of(net), class_names(net, chosen)
    size, stride = square
    results, stopped = report.kept(
        lambda: occlusion(
            net,
            chosen,
            chosen.labels,
            size=size,
            stride=stride,
            fill=fill,
            seed=seed,
            layer=layer,
            progress=progress,
            ranks=ranks,
        )
    )
    if results is None:
        return True
    tops: list[np.ndarray] = []
    if others is not None and not stopped:
        top, stopped = report.kept(top_activations, net, others, results[0].layer, progress=progress, ranks=ranks)
        if top is not None:
            maps = [result.feature_map for result in results]
            found, cut_short = report.kept(_tops, net, others, top, maps, progress, ranks)
            tops, stopped = found or [], stopped or cut_short
    shown = show(chosen, range(len(results)), preprocess)
    parts = _parts(results, [shown[index] for index in range(len(results))], classes, tops)
    noun = "a signal" if is_signal(*net.input_shape[:2]) else "an image"
    blurb = (
        f"{_square(results[0])}. Where the {results[0].followed} falls, the network needs what is covered. Move over a "
        f"map or {noun} to see the {_shape(results[0])} there.{outputs_only(results[0])}"
    )
    report.add(Section("Occlusion", parts, blurb, [result.numbers() for result in results]))
    return stopped


def occlusion_section(result: Occlusion) -> Section:
    """The explorer of one image, of classes that have no names."""
    classes = _numbered([result])
    blurb = (
        f"{_square(result)}. Without it the {result.followed_of(f'class {result.label}')} is {result.baseline:.3f}, at "
        f"least {float(result.probability.min()):.3f} with it."
    )
    explorer = Explorer("occlusion", classes[result.label], result, from_range(result.image), classes)
    return Section("Occlusion", [explorer], blurb, result.numbers())


def occlusions_section(results: Occlusions) -> Section:
    """The first eight of several images, of classes that have no names."""
    first = results[:_SHOWN]
    classes = _numbered(first)
    shown = [Shown(one.image, f"image {i}", classes[one.label]) for i, one in enumerate(first)]
    some = f" The first {len(first)} of {len(results)} images." if len(first) < len(results) else ""
    return Section("Occlusion", _parts(first, shown, classes), f"{_square(first[0])}.{some}", results.numbers())


def _parts(
    results: Sequence[Occlusion], shown: Sequence[Shown], classes: Sequence[str], tops: Sequence[np.ndarray] = ()
) -> list[Part]:
    """A table of the images, and an explorer of each."""
    parts: list[Part] = [_table(results, shown, classes)]
    for index, (one, result) in enumerate(zip(shown, results, strict=True)):
        elsewhere = tops[index] if index < len(tops) else None
        heading = one.name if result.one_output else f"{one.name}: {one.label}"
        parts.append(Explorer(f"occlusion-{index + 1:02d}", heading, result, one.picture, classes, elsewhere))
    return parts


def _shape(result: Occlusion) -> str:
    """What slides over the image."""
    return "square" if result.size[0] == result.size[1] else "rectangle"


def _square(result: Occlusion) -> str:
    (height, width), (down, across) = result.size, result.stride
    of_signal = is_signal(*result.image.shape[:2])
    steps = f"{across}" if of_signal or down == across else f"{down} and {across}"
    size = f"{extent_words(height, width, of_signal)} at steps of {steps}"
    return f"A {_shape(result)} of {size}, painted with {fill_name(result.fill)}"


def _numbered(results: Sequence[Occlusion]) -> list[str]:
    """Names of the classes that have none."""
    if results[0].one_output:
        return [ONE_OUTPUT]
    largest = max(max(int(one.prediction.max()), one.label, one.baseline_prediction) for one in results)
    return [f"class {label}" for label in range(1 + largest)]


def _tops(
    net: Network, others: Dataset, top: TopActivations, maps: Sequence[int], progress: bool, ranks: Ranks | None
) -> list[np.ndarray]:
    """Of each map the projections from the images that excite it most, as one picture."""

    def picture(step: range) -> np.ndarray:
        view = visualize(net, others, top, maps=[maps[index] for index in step])
        return tile([from_projection(one) for one in view.projections[0]], columns=3)

    tiles: list[np.ndarray] = []
    label = "projecting" if progress else ""
    with Steps(len(maps), unit="strongest maps projected", label=label, ranks=ranks) as steps:
        for _, one in steps.map(picture):
            tiles.append(one)
    return steps.finish(tiles)


def _table(results: Sequence[Occlusion], shown: Sequence[Shown], classes: Sequence[str]) -> Table:
    """A row for each image; with its class and what it is taken for, if the network tells classes apart."""
    of_signal = is_signal(*results[0].image.shape[:2])
    where = ("at sample",) if of_signal else ("at row", "column")
    followed = (results[0].followed, "lowest", f"{_shape(results[0])} there, {where[0]}", *where[1:])
    rows = []
    for one, result in zip(shown, results, strict=True):
        row, column = result.lowest()
        top, left, _, _ = result.window(row, column)
        of_square = [result.baseline, float(result.probability.min()), *([left] if of_signal else [top, left])]
        if result.one_output:
            rows.append([one.name, *of_square])
        else:
            another = round(100 * float((result.prediction != result.baseline_prediction).mean()))
            named = [classes[result.label], classes[result.baseline_prediction]]
            rows.append([one.name, *named, *of_square, another])
    if results[0].one_output:
        return Table(("image", *followed), rows, decimals=3)
    return Table(("image", "class", "predicted", *followed, "another class, % of places"), rows, decimals=3)
