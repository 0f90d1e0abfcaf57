"""Top-9 projections (paper Fig. 2, P4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...analysis import TopActivations, Visualization, block_layers, rank_layers, strongest_maps, visualize
from ...analysis.figures import is_signal
from ...analysis.geometry import field_of
from ...analysis.progress import Steps
from ...analysis.source import check_layers, preprocess_of
from ...data import Dataset
from ...nn import Network
from ...training import Ranks
from ...wording import layer_words
from .. import Chart, Drawing, Gallery, Note, Picture, Report, Section, Table
from ..parts import Part
from ..pictures import at_most, beside, from_projection, from_range, tile
from ..shown import channel_words, extent_words, show
from .filters import filters

_LISTED = 24  # maps of a result without its images
_TILE = 64  # pixels that the longer side of its tiles has at most
_NO_SWITCHES = (
    "There is no max pooling below this layer, and so no switch that remembers where: what the deconvnet projects is "
    "what the map looks for, the same for each image but for its strength, and not where in its patch it found it. "
    "--rule guided (or gradient) follows the image's ReLUs, and depends on it."
)


def add_visualization(
    report: Report,
    net: Network,
    dataset: Dataset,
    *,
    layers: Sequence[str] | None = None,
    maps: int = 16,
    k: int = 9,
    rule: str = "deconvnet",
    batch_size: int = 64,
    progress: bool = True,
    ranks: Ranks | None = None,
) -> bool:
    """A section per layer, the first with the first-layer filters too -> whether Ctrl-C stopped it. ranks: of processes
    that share the images and the maps.

    Of a ranking that was stopped the winners are projected; a projection that was stopped is the last one.
    """
    layers = check_layers(net, layers or block_layers(net))
    tops, partly_ranked = report.kept(
        rank_layers, net, dataset, layers, k, batch_size=batch_size, progress=progress, ranks=ranks
    )
    if tops is None:
        return True
    shown = [layer for layer in layers if strongest_maps(tops[layer], maps)]
    report.add(Section("The network", [Drawing(net, shown, "A framed box leads to its layer's maps.")]))
    stopped = False
    for layer in layers:
        top = tops[layer]
        chosen = strongest_maps(top, maps)
        dead = int((top.values[:, 0] <= 0).sum())
        parts: list[Part] = []
        if layer == layers[0]:
            parts += filters(net)
        if not chosen:
            report.add(
                Section(_title(net, layer), parts, f"No map of {layer_words(layer)} fires for any of these images.")
            )
            continue
        gallery = None
        if not stopped:
            caption = f"{len(chosen)} of {len(top.values)} maps, {dead} never fire"
            gallery, stopped = report.kept(
                _gallery,
                net,
                dataset,
                top,
                chosen,
                caption,
                rule=rule,
                batch_size=batch_size,
                progress=progress,
                ranks=ranks,
            )
        if gallery is None:
            parts.append(Note("Ranked, but not projected; the ranking is in report.json.", "warning"))
            report.add(Section(_title(net, layer), parts, numbers=top))
        else:
            if rule == "deconvnet" and not pooled_below(net, layer):
                parts.append(Note(_NO_SWITCHES, "warning"))
            report.add(Section(_title(net, layer), [*parts, gallery], _blurb(net, top), gallery.numbers()))
    return partly_ranked or stopped


def without_switches(net: Network, layers: Sequence[str] | None) -> str:
    """A line for who looks with the rule deconvnet at these layers, or those of all blocks, where there is no max
    pooling below any of them; else nothing."""
    if any(pooled_below(net, layer) for layer in layers or block_layers(net)):
        return ""
    return (
        "no max pooling, so no switches: the deconvnet's pictures show what maps look for, not where in their patches "
        "they found it; --rule guided depends on the image"
    )


def top_section(result: TopActivations) -> Section:
    """The ranking of a layer's maps as a chart and a table, without a look at the images."""
    order = np.argsort(-result.values[:, 0], kind="stable")[:_LISTED]
    rows = [
        [
            int(number),
            float(result.values[number, 0]),
            int(result.indices[number, 0]),
            *result.positions[number, 0].tolist(),
        ]
        for number in order
    ]
    columns = ("map", "strongest activation", "in image", "at row", "column")
    fires = int((result.values[:, 0] > 0).sum())
    layer = layer_words(result.layer)
    blurb = f"{fires} of {len(result.values)} maps of {layer} fire for some image. Listed are at most {_LISTED}."
    return Section(
        f"Strongest activations of {layer}",
        [Chart("top", result.plot()), Table(columns, rows)],
        blurb,
    )


def winners_section(result: Visualization) -> Section:
    """The projections and patches of a layer's maps, as the net sees them, without a look at the images."""
    shown = range(min(len(result.maps), _LISTED))
    columns = math.ceil(math.sqrt(result.values.shape[1]))
    pairs = []
    for row in shown:
        low, high = float(result.patches[row].min()), float(result.patches[row].max())
        projections = [at_most(from_projection(one), _TILE) for one in result.projections[row]]
        patches = [at_most(from_range(one, low, high), _TILE) for one in result.patches[row]]
        pairs.append(beside(tile(projections, columns), tile(patches, columns)))
    numbers = ", ".join(str(result.maps[row]) for row in shown)
    caption = (
        f"Maps {numbers}: on the left projections, each on a scale of its own about zero, on the right what the map "
        "sees, from its least to its largest number, the strongest first"
    )
    picture = tile(pairs, max(1, round(math.sqrt(len(pairs) / 2))), gap=8)
    rows = [[int(result.maps[row]), float(result.values[row, 0]), float(result.values[row, -1])] for row in shown]
    table = Table(("map", "strongest activation", f"of the {result.values.shape[1]} shown the weakest"), rows)
    blurb = f"{len(result.maps)} maps of {layer_words(result.layer)}, of which at most {_LISTED} are shown."
    return Section(f"Maps of {layer_words(result.layer)}", [Picture("maps", picture, caption, least=800), table], blurb)


def _gallery(
    net: Network,
    dataset: Dataset,
    top: TopActivations,
    maps: Sequence[int],
    caption: str,
    *,
    rule: str,
    batch_size: int,
    progress: bool,
    ranks: Ranks | None,
) -> Gallery | None:
    """The winners of these maps, with the data set's own pictures. As many maps at a time as fill a batch: memory does
    not grow with their number by more than what the page shows."""

    def gallery_of(step: range) -> Gallery:
        some = [maps[i] for i in step]
        view = visualize(net, dataset, top, maps=some, rule=rule, batch_size=batch_size)
        return Gallery(view, show(dataset, view.indices.flat, preprocess_of(net)), caption=caption)

    gallery: Gallery | None = None
    at_a_time = max(1, batch_size // top.values.shape[1])
    label = f"projecting {layer_words(top.layer)}" if progress else ""
    with Steps(
        len(maps), at_a_time, unit=f"maps of {layer_words(top.layer)} projected", label=label, ranks=ranks
    ) as steps:
        for _, more in steps.map(gallery_of):
            if gallery is None:
                gallery = more
            else:
                gallery.add(more)
    return steps.finish(gallery)


def pooled_below(net: Network, layer: str) -> bool:
    """Whether a layer is made of, or is, what a max pooling gave."""
    inputs = dict(zip(net.layers, net.architecture.inputs(), strict=True))
    names = {layer}
    for name in reversed(list(net.layers)):
        if name in names:
            names.update(inputs[name])
    return any(net.layers[name].kind == "pool" for name in names - {"input"})


def _title(net: Network, layer: str) -> str:
    """ "Block 2" for the layer that ends it, else the layer's own name."""
    numbers = {name: number for number, name in net.blocks.items()}
    return f"Block {numbers[layer]}" if layer in numbers else layer_words(layer)


def _blurb(net: Network, top: TopActivations) -> str:
    _, _, height, width = field_of(net, top.layer).frame(0, 0)
    layer, of_signal = layer_words(top.layer), is_signal(*net.input_shape[:2])
    lines = f" ({channel_words(net.input_shape[2])})" if of_signal else ""
    seen = extent_words(height, width, of_signal)
    return (
        f"For each map of {layer}, left: what the strongest activation in each of {top.values.shape[1]} images "
        f"projects to, each on a scale of its own about zero; right: the {seen} that it sees{lines}. "
        "Click one to open it, with its scale."
    )
