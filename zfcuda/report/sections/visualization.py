"""Top-9 projections (paper Fig. 2, P4)."""

from __future__ import annotations

from collections.abc import Sequence

from ...analysis import TopActivations, block_layers, rank_layers, strongest_maps, visualize
from ...analysis.geometry import field_of
from ...analysis.progress import Steps
from ...analysis.source import preprocess_of
from ...data import Dataset
from ...nn import Network
from .. import Gallery, Note, Report, Section
from ..parts import Part
from ..shown import show
from .filters import filters


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
) -> bool:
    """A section per layer, the first with the first-layer filters too -> whether Ctrl-C stopped it.

    Of a ranking that was stopped the winners are projected; a projection that was stopped is the last one.
    """
    layers = list(layers or block_layers(net))
    tops, partly_ranked = report.kept(rank_layers, net, dataset, layers, k, batch_size=batch_size, progress=progress)
    if tops is None:
        return True
    stopped = False
    for layer in layers:
        top = tops[layer]
        chosen = strongest_maps(top, maps)
        dead = int((top.values[:, 0] <= 0).sum())
        parts: list[Part] = []
        if layer == layers[0]:
            parts += filters(net)
        if not chosen:
            report.add(Section(_title(net, layer), parts, f"No map of {layer} fires for any of these images."))
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
            )
        if gallery is None:
            parts.append(Note("Ranked, but not projected; the ranking is in report.json.", "warning"))
            report.add(Section(_title(net, layer), parts, numbers=top))
        else:
            report.add(Section(_title(net, layer), [*parts, gallery], _blurb(net, top), gallery.numbers()))
    return partly_ranked or stopped


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
) -> Gallery | None:
    """The winners of these maps, with the data set's own pictures. As many maps at a time as fill a batch: memory does
    not grow with their number by more than what the page shows."""
    gallery = None
    at_a_time = max(1, batch_size // top.values.shape[1])
    label = f"projecting {top.layer}" if progress else ""
    with Steps(len(maps), at_a_time, unit=f"maps of {top.layer} projected", label=label) as steps:
        for step in steps:
            some = [maps[i] for i in step]
            view = visualize(net, dataset, top, maps=some, rule=rule, batch_size=batch_size)
            shown = show(dataset, view.indices.flat, preprocess_of(net))
            if gallery is None:
                gallery = Gallery(view, shown, caption=caption)
            else:
                gallery.add(view, shown)
    return steps.finish(gallery)


def _title(net: Network, layer: str) -> str:
    """ "Block 2" for the layer that ends it, else the layer's own name."""
    numbers = {name: number for number, name in net.blocks.items()}
    return f"Block {numbers[layer]}" if layer in numbers else layer


def _blurb(net: Network, top: TopActivations) -> str:
    _, _, height, width = field_of(net, top.layer).frame(0, 0)
    return (
        f"For each map of {top.layer}, left: what the strongest activation in each of {top.values.shape[1]} images "
        f"projects to; right: the {height} x {width} pixels that it sees. Click one to open it."
    )
