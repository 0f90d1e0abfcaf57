"""`zfcuda pack`: a data set of any size, decoded once and for all."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from .. import data
from . import common
from .common import Commands
from .numbers import SEED, SIDE
from .ranks import alone


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "pack",
        help="decode a data set once, into shards that are read as they are",
        description=(
            "Decodes every image of a data set once, into shards of raw pixels (.npy) beside an index (packed.json). "
            "The folder is then a DATA like others. The same call goes on where an earlier one was ended, and makes "
            "again what has been damaged."
        ),
    )
    parser.set_defaults(run=run)
    parser.add_argument("data", metavar="DATA", help=common.DATA)
    parser.add_argument(
        "--out", metavar="DIR", default="zfcuda-pack", help="a folder of its own (default: %(default)s)"
    )
    parser.add_argument("--size", type=SIDE, metavar="N", help="images are scaled and cropped to N x N")
    parser.add_argument("--skip-damaged", action="store_true", help="leave damaged files out instead of stopping")
    parser.add_argument("--seed", type=SEED, default=0, help="of the order of the training images (default: 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--verify", action="store_true", help="DATA is packed: read all of it, and compare its checksums"
    )


@alone
def run(arguments: argparse.Namespace) -> int:
    if arguments.verify:
        return _verify(arguments)
    if not arguments.out:
        raise ValueError("--out must not be empty")
    out, source = Path(arguments.out), Path(arguments.data)
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"--out {data.printable(arguments.out)} must be outside of {data.printable(arguments.data)}")
    arguments.image_size, arguments.clutter = arguments.size, None
    split = common.open_data(arguments, in_memory=False)
    images = sum(map(len, split))
    with tqdm(total=images, unit=" images", disable=True if arguments.quiet else None, dynamic_ncols=True) as bar:
        options = {"source": data.stamp(arguments.data), "seed": arguments.seed}
        packed = data.pack(split, common.output(arguments), **options, progress=bar.update)
    shape = " x ".join(map(str, packed.train.image_shape))
    halves = f"{len(packed.train):,} images to train on and {len(packed.test):,} to test on"
    print(f"packed: {halves}, of {shape} and {len(packed.train.classes):,} classes")
    print(f"next: zfcuda train --data {data.printable(arguments.out)}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    split = data.open_packed(arguments.data, verify=True)
    print(f"whole: {len(split.train):,} images to train on, {len(split.test):,} to test on")
    return 0
