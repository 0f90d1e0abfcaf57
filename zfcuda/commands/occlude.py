"""`zfcuda occlude`: a square slides over images, and the network is asked each time (paper Fig. 7, P8)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..analysis import Cluttered, Occlusion, TopActivations, occlusion, pointing, top_activations, visualize
from ..analysis.progress import Steps
from ..analysis.source import to_device
from ..data import ArrayDataset, Dataset, Subset, read_image, sample
from ..nn import Network
from ..report import Explorer, Facts, Report, Section, Table
from ..report.pictures import from_projection, tile
from .common import (
    Commands,
    add_checkpoint,
    add_command,
    add_data,
    class_names,
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
        "occlude",
        run,
        "where a covered image loses its class",
        "Slides a grey square over images and maps the probability of the class, the prediction and the strongest "
        "feature map by the square's position.",
    )
    add_checkpoint(parser)
    add_data(parser)
    parser.add_argument(
        "--split", choices=("train", "test"), default="test", help="which half of the data to look at (default: test)"
    )
    parser.add_argument("--image", nargs="+", metavar="FILE", default=[], help="image files, instead of the data's own")
    parser.add_argument("--label", metavar="CLASS", help="the class of --image (default: what the network says)")
    parser.add_argument(
        "--images", type=positive, default=8, metavar="N", help="how many of the data's images (default: 8)"
    )
    parser.add_argument(
        "--pointing",
        type=positive,
        metavar="N",
        help="with --clutter: how often the lowest probability falls in the object's box, over N images",
    )
    parser.add_argument(
        "--size", type=positive, metavar="PIXELS", help="side of the square (default: a quarter of the image)"
    )
    parser.add_argument("--stride", type=positive, metavar="PIXELS", help="its steps (default: a quarter of its side)")
    parser.add_argument("--layer", help="whose strongest map is followed (default: the last with maps)")


def run(arguments: argparse.Namespace) -> int:
    net = open_network(arguments)
    count, arguments.images = arguments.images, None
    dataset = open_half(arguments, net)
    classes = class_names(net, dataset)
    if arguments.pointing and not isinstance(dataset, Cluttered):
        raise ValueError("--pointing needs --clutter: only there are the boxes of the objects known")
    if arguments.image:
        chosen: Dataset = _files(net, arguments.image, classes, arguments.label)
    else:
        chosen = sample(dataset, count)
    directory = output(arguments)
    report = Report(
        "Where the network looks",
        "A grey square slides over each image; what the network says is drawn at the square's place.",
        command_line(arguments),
    )
    square = square_of(net, arguments.size, arguments.stride)
    stopped = add_section(
        report, net, chosen, dataset, square=square, layer=arguments.layer, progress=not arguments.quiet
    )
    if arguments.pointing and not stopped:
        add_pointing(report, net, dataset, arguments.pointing, square=square, progress=not arguments.quiet)
    return finish(report, directory)


def _files(net: Network, paths: Sequence[str], classes: tuple[str, ...], label: str | None) -> ArrayDataset:
    preprocess = preprocess_of(net)
    images = np.stack([read_image(Path(path), preprocess.image_shape) for path in paths])
    if label is not None and label not in classes:
        raise ValueError(f"--label must be one of {', '.join(classes)}; got {label!r}")
    if label is not None:
        labels = np.full(len(images), classes.index(label), np.int32)
    else:
        probabilities = net.predict(to_device(net, preprocess(images)))
        labels = np.asarray(probabilities.argmax(axis=1).tolist(), np.int32)
    return ArrayDataset(images, labels, classes, list(paths))


def add_section(
    report: Report,
    net: Network,
    chosen: Dataset,
    others: Dataset,
    *,
    square: tuple[int, int],
    layer: str | None = None,
    progress: bool = True,
) -> bool:
    """Explorers of all images of `chosen`, and a table; `others` are where the strongest map's best images are ->
    whether Ctrl-C stopped it."""
    preprocess, classes = preprocess_of(net), class_names(net, others)
    size, stride = square
    results, stopped = kept(report, _occlude, net, chosen, square, layer, progress)
    if results is None:
        return True
    tops: list[np.ndarray] = []
    if not stopped:
        top, stopped = kept(report, top_activations, net, others, results[0].layer, progress=progress)
        if top is not None:
            found, cut_short = kept(report, _tops, net, others, top, [r.feature_map for r in results], progress)
            tops, stopped = found or [], stopped or cut_short
    shown = show(chosen, range(len(results)), preprocess)
    parts: list = [Table(_COLUMNS, [_row(shown[i].name, classes, r) for i, r in enumerate(results)], decimals=3)]
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


def add_pointing(
    report: Report, net: Network, dataset: Dataset, count: int, *, square: tuple[int, int], progress: bool = True
) -> None:
    """How often the network's answer falls most where the object is; `dataset` is a `Cluttered` one."""
    assert isinstance(dataset, Cluttered)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int))
    subset, (size, stride) = Subset(dataset, chosen), square
    result, _ = kept(
        report,
        pointing,
        net,
        subset,
        subset.labels,
        dataset.boxes[chosen],
        size=size,
        stride=stride,
        progress=progress,
    )
    if result is None:
        return
    facts = [
        ("points into the object", f"{100 * result.rate:.1f} %"),
        ("of images it gets right", f"{100 * result.rate_of_right:.1f} %"),
        ("a blind net would", f"{100 * result.chance:.1f} %"),
        ("mean fall, object covered", f"{100 * result.inside.mean():.1f} points"),
        ("mean fall, rest covered", f"{100 * result.outside.mean():.1f} points"),
        ("images", f"{len(result.hits)}, {int(result.right.sum())} right"),
    ]
    blurb = "Whether the square that lowers the true class's probability most has its centre in the object's box."
    report.add(Section("Pointing", [Facts(facts)], blurb, result.numbers()))


def square_of(net: Network, size: int | None = None, stride: int | None = None) -> tuple[int, int]:
    """The square's side and steps: by default a quarter of the image, and a quarter of that."""
    size = size or max(2, min(net.input_shape[:2]) // 4)
    return size, stride or max(1, size // 4)


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
