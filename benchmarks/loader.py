"""How fast images come from the disk: packed shards and JPEGs, against PyTorch's DataLoader over the same JPEGs.

    python benchmarks/loader.py                         2,000 made pictures of 500 x 375
    python benchmarks/loader.py --data FOLDER           a folder of class folders of your own
    python benchmarks/loader.py --out PATH              writes PATH.json and PATH.md

An epoch of crops, 224 x 224 of 256 x 256, mirrored or not, minus the mean, float32, in batches of 128. All contestants
get the same images, order, corners and flips, and their crops are compared before they are timed. The peer is what
torchvision's ImageFolder does with a DataLoader: Pillow in worker processes, which stay between epochs. It is timed
twice: with all done in the workers, and with uint8 crops from the workers, which the main process makes float32. In
turn with them is timed what no loader can be faster than: with packed shards the crops alone, of images that are in
memory; with JPEGs their decoding alone, by the same libjpeg in a thread a core.

The threads that crop want the cores that read; a GPU that crops leaves them to the readers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from cpu_device import time_alternating
from harness import Call, Calls, Name, Row, first_line, measure
from PIL import Image, ImageOps
from record import environment, refuse_unwritable, table, write_results
from torch.utils import data as torch_data

from zfcuda import data
from zfcuda.data import Dataset, Preprocess

SIDE, CROP, BATCH = 256, 224, 128
SIZE, QUALITY = (500, 375), 90  # ImageNet's most common size


def make_pictures(folder: Path, count: int) -> None:
    """JPEGs of smooth noise with some grain, about as large as photographs, in two class folders."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        pixels = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), np.int16)
        pixels = np.clip(pixels + rng.integers(-14, 15, pixels.shape, np.int16), 0, 255).astype(np.uint8)
        place = folder / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i:06}.jpg", quality=QUALITY)


@dataclass(frozen=True)
class Epoch:
    """What each contestant is to read: an order in batches, and the crop of each image."""

    batches: list[np.ndarray]
    corners: np.ndarray  # int32 (N,2)
    flips: np.ndarray  # uint8 (N,)
    preprocess: Preprocess

    @classmethod
    def of(cls, dataset: Dataset, seed: int = 0) -> Epoch:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(dataset))
        corners = rng.integers(0, SIDE - CROP, (len(dataset), 2), np.int32, endpoint=True)
        mean = rng.uniform(100, 140, (SIDE, SIDE, 3)).astype(np.float32)
        batches = np.split(order, range(BATCH, len(order), BATCH))
        return cls(batches, corners, rng.integers(0, 2, len(order), np.uint8), Preprocess(mean, (CROP, CROP)))

    def read(self, dataset: Dataset) -> Iterator[np.ndarray]:
        """Ours: float32 (n,H,W,C)."""
        batches = (data.Drawn(indices, self.corners[indices], self.flips[indices]) for indices in self.batches)
        for crops, _ in data.load_crops(dataset, self.preprocess, batches):
            yield crops


class Pictures(torch_data.Dataset):
    """The peer: pictures decoded, scaled and cropped with Pillow, by index -> (H,W,C), label."""

    def __init__(self, paths: list[str], labels: np.ndarray, epoch: Epoch, to_float: bool):
        self.paths, self.labels, self.epoch, self.to_float = paths, labels, epoch, to_float

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as file:
            picture = ImageOps.fit(file.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)
        top, left = map(int, self.epoch.corners[index])
        picture = picture.crop((left, top, left + CROP, top + CROP))
        if self.epoch.flips[index]:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(picture))
        return (pixels - self.mean(index) if self.to_float else pixels), int(self.labels[index])

    def mean(self, index: int) -> torch.Tensor:
        """Of the crop, as it is turned."""
        top, left = map(int, self.epoch.corners[index])
        mean = self.epoch.preprocess.mean[top : top + CROP, left : left + CROP]
        return torch.from_numpy(mean[:, ::-1].copy() if self.epoch.flips[index] else mean)

    def loader(self, workers: int) -> torch_data.DataLoader:
        batches = [batch.tolist() for batch in self.epoch.batches]
        return torch_data.DataLoader(self, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0)  # type: ignore[arg-type]

    def read(self, loader: torch_data.DataLoader) -> Iterator[torch.Tensor]:
        """float32 (n,H,W,C)."""
        for indices, (pixels, _) in zip(self.epoch.batches, loader, strict=True):
            if not self.to_float:
                pixels = pixels - torch.stack([self.mean(int(index)) for index in indices])
            yield pixels


def run_through(batches: Iterator) -> int:
    """Takes every batch, as a training would."""
    return sum(len(batch) for batch in batches)


def largest_difference(ours: Iterator[np.ndarray], theirs: Iterator[torch.Tensor]) -> float:
    return max(float(np.abs(one - other.numpy()).max()) for one, other in zip(ours, theirs, strict=True))


def crops_alone(packed: Dataset, epoch: Epoch) -> Callable[[], object]:
    """An epoch of crops of images that are in memory."""
    images, _ = packed.batch(epoch.batches[0])

    def crop() -> None:
        for indices in epoch.batches:
            epoch.preprocess.crops(images[: len(indices)], epoch.corners[indices], epoch.flips[indices])

    return crop


def decoding_alone(paths: list[str]) -> Callable[[], object]:
    """An epoch of pictures as libjpeg makes them, neither scaled nor cropped."""

    def decode(path: str) -> None:
        with Image.open(path) as picture:
            picture.load()

    def run() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(decode, paths))

    return run


def both(folder: Path, work: Path) -> tuple[Dataset, Dataset]:
    """The pictures of a folder of class folders as they are, and packed, in one order."""
    jpegs = data.open(folder, image_size=SIDE, channels=3, in_memory=False).train
    nothing = data.ArrayDataset(np.zeros((1, SIDE, SIDE, 3), np.uint8), np.zeros(1, np.int32), tuple(jpegs.classes))
    # The training half in its own order, as what is tested on, so that indices are those of the folder.
    return jpegs, data.pack(data.Split(nothing, jpegs), work / "packed").test


def compare(folder: Path, work: Path, *, workers: int, rounds: int) -> tuple[list[Row], dict[str, str]]:
    """Both of ours against both forms of the peer: rows, and the rates in words by problem."""
    jpegs, packed = both(folder, work)
    epoch = Epoch.of(jpegs)
    paths = [jpegs.identifier(index) for index in range(len(jpegs))]
    peers = {}
    for name, to_float in (("float32 from workers", True), ("uint8 from workers", False)):
        pictures = Pictures(paths, jpegs.labels, epoch, to_float)
        peers[name] = pictures, pictures.loader(workers)
    rows, rates = [], {}
    for name, dataset, part, alone in (
        ("packed", packed, "the crops", crops_alone(packed, epoch)),
        ("JPEG", jpegs, "decoding", decoding_alone(paths)),
    ):
        alone_ms: list[float] = []

        def timer(
            calls: dict[str, Call], alone: Callable[[], object] = alone, alone_ms: list[float] = alone_ms
        ) -> dict[str, list[float]]:
            samples = time_alternating({**calls, "alone": alone}, seconds=0, rounds=(rounds, rounds))
            alone_ms.append(statistics.median(samples.pop("alone")))
            return samples

        calls = Calls(
            ours=lambda dataset=dataset: run_through(epoch.read(dataset)),
            peers={
                peer: lambda pictures=pictures, loader=loader: run_through(pictures.read(loader))
                for peer, (pictures, loader) in peers.items()
            },
            error=lambda _, dataset=dataset: max(
                largest_difference(epoch.read(dataset), pictures.read(loader)) for pictures, loader in peers.values()
            ),
            tolerance=0.0,
            alike=lambda theirs, mine: abs(theirs - mine),  # how many; their pixels are compared above
            peers_may=0.0,
        )
        rows.append(measure(Name("loader", name, "epoch", f"{workers} workers"), calls, timer, None))
        if (row := rows[-1]).ours_ms is not None and row.best_peer is not None:
            ours, theirs, most = (len(jpegs) / ms * 1e3 for ms in (row.ours_ms, row.best_peer[1], *alone_ms))
            against = f"DataLoader ({row.best_peer[0]}) {theirs:,.0f}: {ours / theirs:.2f} times as fast"
            share = f"{ours / most:.0%} of the rate of {part} alone, {most:,.0f}"
            rates[name] = f"{ours:,.0f} images/s, {against}; {share}"
    return rows, rates


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of class folders (default: made pictures)")
    parser.add_argument("--images", type=int, default=2000, help="how many pictures are made (default: 2000)")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each contestant (default: 7)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="of the DataLoader (default: one a core)")
    parser.add_argument("--out", type=Path, metavar="PATH", help="writes PATH.json and PATH.md")
    arguments = parser.parse_args(words)
    if arguments.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {arguments.rounds}")
    refuse_unwritable(parser, arguments.out and arguments.out.parent)
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    facts = {**environment(), "pillow": Image.__version__, "OMP_WAIT_POLICY": policy}
    with tempfile.TemporaryDirectory() as work:
        if arguments.data is None:
            make_pictures(Path(work) / "made", arguments.images)
        try:
            folder = arguments.data or Path(work) / "made"
            rows, rates = compare(folder, Path(work), workers=arguments.workers, rounds=arguments.rounds)
        except (OSError, ValueError) as error:
            parser.exit(2, f"{first_line(error)}\n")
    print("\n".join(f"{what}: {value}" for what, value in (facts | rates).items()), table(rows), sep="\n\n")
    if arguments.out is not None:
        write_results(arguments.out, "Reading images", facts | rates, rows)


if __name__ == "__main__":
    main()
