"""`zfcuda visualize`: the images that excite each map most, projected to pixels (paper Fig. 2, P4)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..analysis import TopActivations, rank_layers, strongest_maps, visualize
from ..analysis.geometry import field_of
from ..analysis.progress import Steps
from ..backends import to_host
from ..data import Dataset
from ..nn import Network
from ..nn.layers import RULES, Conv
from ..report import Gallery, Note, Picture, Report, Section, weight_tiles
from .common import (
    Commands,
    add_checkpoint,
    add_command,
    add_data,
    add_split,
    command_line,
    finish,
    kept,
    open_half,
    open_network,
    output,
    positive,
    preprocess_of,
    show,
)


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "visualize",
        run,
        "the images that excite each map most, projected to pixels",
        "Ranks all images by how strongly they excite each map, in one pass, and projects the winners to pixels.",
    )
    add_checkpoint(parser)
    add_data(parser)
    add_split(parser)
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="default: the end of every block with maps")
    parser.add_argument(
        "--maps", type=positive, default=16, metavar="N", help="show the N strongest maps of a layer (default: 16)"
    )
    parser.add_argument("--top", type=positive, default=9, metavar="K", help="winners per map (default: 9)")
    parser.add_argument("--rule", choices=RULES, default="deconvnet", help="how ReLUs are undone (default: deconvnet)")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images at a time (default: 64)")


def run(arguments: argparse.Namespace) -> int:
    net = open_network(arguments)
    dataset = open_half(arguments, net)
    directory = output(arguments)
    report = Report(
        "What excites each map",
        f"{len(dataset):,} images of {arguments.data}; the strongest {arguments.top} for each map, projected with the "
        f"{arguments.rule} rule.",
        command_line(arguments),
    )
    add_sections(
        report,
        net,
        dataset,
        layers=arguments.layers,
        maps=arguments.maps,
        k=arguments.top,
        rule=arguments.rule,
        batch_size=arguments.batch_size,
        progress=not arguments.quiet,
    )
    return finish(report, directory)


def add_sections(
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
    tops, partly_ranked = kept(report, rank_layers, net, dataset, layers, k, batch_size=batch_size, progress=progress)
    if tops is None:
        return True
    stopped = False
    for layer in layers:
        top = tops[layer]
        chosen = strongest_maps(top, maps)
        dead = int((top.values[:, 0] <= 0).sum())
        parts: list = []
        if layer == layers[0]:
            parts += filters(net)
        if not chosen:
            report.add(Section(title(net, layer), parts, f"No map of {layer} fires for any of these images."))
            continue
        gallery = None
        if not stopped:
            caption = f"{len(chosen)} of {len(top.values)} maps, {dead} never fire"
            gallery, stopped = kept(
                report,
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
            report.add(Section(title(net, layer), parts, numbers=top))
        else:
            report.add(Section(title(net, layer), [*parts, gallery], _blurb(net, top), gallery.numbers()))
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


def filters(net: Network, suffix: str = "") -> list[Picture]:
    """The first-layer filters, if they can be looked at: those of 1 or 3 channels. Saved as filtersSUFFIX.png."""
    first = next((layer for layer in net.layers.values() if isinstance(layer, Conv)), None)
    if first is None or first.weight.shape[3] not in (1, 3):
        return []
    weight = to_host(first.weight)
    count, height, width, _ = weight.shape
    caption = f"The {count} filters of {first.name}, {height} x {width}, strongest first"
    return [Picture(f"filters{suffix}", weight_tiles(weight), caption, least=480)]


def block_layers(net: Network) -> list[str]:
    """The layers that end the paper's blocks, as far as they have maps."""
    return [name for _, name in sorted(net.blocks.items()) if len(net.layers[name].output_shape) == 3]


def title(net: Network, layer: str) -> str:
    """ "Block 2" for the layer that ends it, else the layer's own name."""
    numbers = {name: number for number, name in net.blocks.items()}
    return f"Block {numbers[layer]}" if layer in numbers else layer


def _blurb(net: Network, top: TopActivations) -> str:
    _, _, height, width = field_of(net, top.layer).frame(0, 0)
    return (
        f"For each map of {top.layer}, left: what the strongest activation in each of {top.values.shape[1]} images "
        f"projects to; right: the {height} x {width} pixels that it sees. Click one to open it."
    )
