"""The randomisation check (Adebayo et al. 2018): how far projections and occlusion maps can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...analysis import Sanity, sanity
from ...analysis.figures import new_figure, plain
from ...analysis.sanity import MEASURES, METHODS
from ...analysis.source import preprocess_of
from ...data import Dataset, sample
from ...nn import Network
from ...nn.layers import RULES
from ...pairs import IntPair
from ...training import Ranks
from ...wording import layer_words
from .. import Chart, Note, Report, Section, Shown, Table
from ..parts import Part
from ..pictures import from_projection, from_range, heat, resized, size_of, tile
from ..shown import class_names, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEW = 5  # images of the short form
_TONES = {"depend": "good", "hardly": "warning"}
_TILE = 112  # pixels that the longer side of a tile has at most
_GAP = 2
_WIDEST = 12  # letters of a name that fit above a tile


def add_sanity(
    report: Report,
    net: Network,
    dataset: Dataset,
    *,
    methods: Sequence[str] = METHODS,
    layer: str | None = None,
    size: IntPair | None = None,
    stride: IntPair | None = None,
    seed: int = 0,
    pictures: int = 3,
    progress: bool = True,
    ranks: Ranks | None = None,
) -> bool:
    """A sentence for each method, the curves, a table, and the maps of the first few images -> whether Ctrl-C stopped
    it. ranks: of processes that share the images."""
    result, stopped = report.kept(
        sanity,
        net,
        dataset,
        layer=layer,
        methods=methods,
        size=size,
        stride=stride,
        seed=seed,
        keep=pictures,
        progress=progress,
        ranks=ranks,
    )
    if result is not None:
        shown = show(dataset, range(min(pictures, len(result.units))), preprocess_of(net))
        last = "the net's one output" if result.one_output else "the class that the net names"
        is_last = result.layer == next(reversed(net.layers))
        projected = last if is_last else f"the strongest unit of {layer_words(result.layer)}"
        report.add(sanity_section(result, projected, shown, class_names(net, dataset)))
    return stopped


def add_sanity_of_rules(
    report: Report, net: Network, dataset: Dataset, *, progress: bool = True, ranks: Ranks | None = None
) -> bool:
    """The short form, for a page that shows projections: the rules alone, on a few images of the data set."""
    few = sample(dataset, _FEW)
    return add_sanity(report, net, few, methods=RULES, pictures=1, progress=progress, ranks=ranks)


def sanity_section(
    result: Sanity, projected: str = "", shown: Mapping[int, Shown] | None = None, classes: Sequence[str] = ()
) -> Section:
    """The sentences, the curves, the table, and the maps of some images, beside these if they are there."""
    parts: list[Part] = [Note(result.sentence(m), _TONES.get(result.verdict(m), "plain")) for m in result.likeness]
    parts += [Chart("sanity", result.plot()), _table(result)]
    for index in range(min(len(maps) for maps in result.maps.values())):
        image, label = (shown or {}).get(index), result.labels[index]
        name = image.name if image else f"Image {index}"
        if not result.one_output:
            name += f", which the net calls {classes[label] if classes else f'class {label}'}"
        caption = (
            f"{name}: on the left what it shows as it is, to the right the same with random weights in this layer and "
            "those above, each map on its own scale"
        )
        parts.append(Chart(f"sanity-{index + 1:02d}", _grid(result, index, image), caption))
    projected = projected or f"the strongest unit of {layer_words(result.layer)}"
    blurb = (
        "The net's weights are replaced by random ones, from the top down, one layer more each time, and what it shows "
        f"of {len(result.units)} images is compared with what it showed before. What stays the same was never about "
        f"what the net has learned. Projected is {projected}; numbers are means over the images."
    )
    return Section("How far to trust such pictures", parts, blurb, result.numbers())


def _table(result: Sanity) -> Table:
    """What is left without the upper half of what was learned, and without all of it."""
    at = sorted({result.half, len(result.randomised)})
    columns = [
        f"{words}, random to {layer_words(result.randomised[step - 1])}" for step in at for words in MEASURES.values()
    ]
    rows = [
        [
            method,
            *(float(likeness.mean(measure)[step]) for step in at for measure in MEASURES),
            int(likeness.constant[1:].sum()),
        ]
        for method, likeness in result.likeness.items()
    ]
    return Table(["maps", *columns, "constant, left out"], rows)


def _grid(result: Sanity, index: int, image: Shown | None) -> Figure:
    """The maps of one image: a row for each method; the image itself, if it is there, then a column for each net."""
    top, left, height, width = (int(v) for v in result.windows[index])
    patch = [from_range(image.image[top : top + height, left : left + width])] if image else []
    rows, columns = size_of(height, width)
    scale = _TILE / max(rows, columns)
    rows, columns = max(1, round(scale * rows)), max(1, round(scale * columns))
    tiles = []
    for maps in result.maps.values():
        pictures = [from_projection(one) if one.ndim == 3 else heat(one) for one in maps[index]]
        tiles += [resized(picture, rows, columns) for picture in (*patch, *pictures)]
    names = [*(["image"] if image else []), "as learned", *(plain(layer_words(name)) for name in result.randomised)]
    grid = tile(tiles, len(names), _GAP)
    inches = 0.9 * len(names)
    longest = max(map(len, names))
    slanted = {"rotation": 30, "ha": "left", "rotation_mode": "anchor"} if longest > _WIDEST else {}
    above = 0.3 + (0.042 * longest if slanted else 0)  # half a letter's width each: the sine of 30 degrees
    figure, axes = new_figure(width=inches + 0.8, height=inches * grid.shape[0] / grid.shape[1] + above)
    axis = axes[0, 0]
    axis.imshow(grid)
    axis.set_xticks(np.arange(len(names)) * (columns + _GAP) + columns / 2, names, fontsize=8, **slanted)
    axis.set_yticks(np.arange(len(result.maps)) * (rows + _GAP) + rows / 2, list(result.maps), fontsize=8)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure
