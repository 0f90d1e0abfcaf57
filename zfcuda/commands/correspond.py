"""`zfcuda correspond`: does masking the same part change features in the same way? (paper Table 1, P9)"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis import correspondence
from ..analysis.geometry import Window
from ..analysis.source import preprocess_of
from ..data import Preprocess, image_size, read_image
from ..errors import DataError
from ..files import read_json
from ..report import Report
from ..report.sections.correspondence import correspondence_section
from ..report.shown import seen
from . import common
from .common import Commands
from .numbers import MANY, SEED
from .ranks import alone

_FARTHEST = 10**6  # pixels
_FORM = '{"face1.jpg": {"left eye": [top, left, height, width], "nose": [...]}, "face2.jpg": {...}}'


def add_parser(commands: Commands) -> None:
    parser = common.add_command(
        commands,
        "correspond",
        run,
        "whether masking the same part changes features alike",
        "Masks the same part in several images and compares how the features change, against masks at random places.",
    )
    common.add_checkpoint(parser)
    parser.add_argument(
        "parts",
        metavar="PARTS.json",
        help=f"boxes of the parts in pixels of each image file, with paths relative to this file: {_FORM}".replace(
            "%", "%%"
        ),
    )
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="default: the last with maps and the last hidden")
    parser.add_argument("--draws", type=MANY, default=10, metavar="N", help="of random masks (default: 10)")
    parser.add_argument("--seed", type=SEED, default=0, help="of the random masks (default: 0)")


@alone
def run(arguments: argparse.Namespace) -> int:
    net = common.open_network(arguments)
    preprocess = preprocess_of(net)
    paths, parts = read_parts(Path(arguments.parts), preprocess)
    directory = common.output(arguments)
    raw = np.stack([read_image(path, preprocess.image_shape) for path in paths])
    report = Report(
        "Correspondence of parts",
        f"{len(paths)} images, {len(parts)} parts and a random control.",
        common.command_line(arguments),
    )
    result, _ = report.kept(
        correspondence,
        net,
        np.asarray(preprocess(raw)),
        parts,
        layers=arguments.layers,
        random_draws=arguments.draws,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    if result is not None:
        report.add(correspondence_section(result, seen(raw, preprocess), parts))
    return common.finish(report, directory)


def read_parts(path: Path, preprocess: Preprocess) -> tuple[list[Path], dict[str, list[Window]]]:
    """Image files and, per part, its box in each, in pixels of the network's input; `DataError` if it is wrong."""
    try:
        content = read_json(path)
        described = {
            str(name): {str(part): list(box) for part, box in boxes.items()} for name, boxes in content.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} must be JSON like {_FORM} ({error})") from error
    if not described:
        raise DataError(f"{path} names no image; it must be JSON like {_FORM}")
    names = list(next(iter(described.values())))
    paths: list[Path] = []
    parts: dict[str, list[Window]] = {name: [] for name in names}
    for name, boxes in described.items():
        if list(boxes) != names:
            raise DataError(f"{path}: {name} must have the parts {', '.join(names)}, in this order; got {list(boxes)}")
        image = path.parent / name
        if not image.exists():
            raise FileNotFoundError(f"{image}: no such image, but {path} names it")
        size = image_size(image)
        paths.append(image)
        for part, box in boxes.items():
            parts[part].append(_mapped(f"{path}: {part} of {name}", box, size, preprocess))
    return paths, parts


def _mapped(what: str, box: list[Any], size: tuple[int, int], preprocess: Preprocess) -> Window:
    """A box in pixels of the file -> in pixels of the input: the image is scaled to cover the data's shape, its centre
    kept, and the network sees the centre crop of that."""
    numbers = len(box) == 4 and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in box)
    if not numbers or not all(abs(v) <= _FARTHEST for v in box) or min(box[2:]) <= 0:  # NaN is not, either
        raise DataError(
            f"{what} must be [top, left, height, width] in pixels, height and width more than 0, all at most "
            f"{_FARTHEST:,}; got {str(box)[:100]}"
        )
    scale = max(target / have for target, have in zip(preprocess.image_shape[:2], size, strict=True))
    edges = []
    for axis in (0, 1):
        margin = (size[axis] * scale - preprocess.image_shape[axis]) / 2 + preprocess.test_corners[-1][axis]
        first = max(0, math.floor(box[axis] * scale - margin))
        last = min(preprocess.crop[axis], math.ceil((box[axis] + box[axis + 2]) * scale - margin))
        if last <= first:
            raise DataError(f"{what} lies outside of what the network sees, got {box} in {size[0]} x {size[1]} pixels")
        edges.append((first, last - first))
    (top, height), (left, width) = edges
    return Window(top, left, height, width)
