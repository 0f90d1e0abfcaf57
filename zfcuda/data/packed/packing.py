"""Packs a data set: every image is decoded once, and from then on read as it is."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...files import utf8, write_atomically
from ..dataset import Dataset, Split, Subset
from ..digest import begun, digest
from ..loading import load_batches
from ..names import printable
from .dataset import check_shard, check_sum, is_packed, open_packed
from .index import HALVES, File, Half, Index, Shard, read_index

SHARD_BYTES = 2**28
_BATCH = 256  # images
_SPOTS = 64  # images of a half that are looked at to know it again


def pack(
    split: Split,
    out: str | os.PathLike[str],
    *,
    source: str = "",
    shard_images: int | None = None,
    seed: int = 0,
    progress: Callable[[int], object] = lambda images: None,
) -> Split:
    """Writes both halves of a data set into a folder, as `open_packed` reads it, and opens that.

    out           a new or empty folder, or one in which an earlier call was ended: then this one checks what is there
                  and goes on
    source        what else tells this data set from others, such as `zfcuda.data.stamp` of its files. Its labels,
                  classes and some of its images do anyhow
    shard_images  images in a shard; by default as many as have 256 MiB
    seed          of the order in which training images are packed: shuffled, so that neighbours are of any class. Test
                  images keep their order
    progress      called with the number of images that are done, a batch or shard at a time

    Each file is written beside, flushed and renamed. ValueError where the folder holds something else, or the disk has
    no room; `DataError` where the folder was begun with other data or options, and for images that cannot be read;
    TypeError for images that are not uint8 of the shape that the data set says.
    """
    out = Path(out)
    shape = split.train.image_shape
    for name, half in zip(HALVES, split, strict=True):
        if half.image_shape != shape or tuple(half.classes) != tuple(split.train.classes):
            raise ValueError(f"{name} images of {half.image_shape} or their classes are not those to train on, {shape}")
    shard_images = max(1, SHARD_BYTES // math.prod(shape)) if shard_images is None else shard_images
    if shard_images < 1:
        raise ValueError(f"shard_images must be at least 1, got {shard_images}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    train = Subset(split.train, np.random.default_rng(seed).permutation(len(split.train)))
    halves: dict[str, Dataset] = dict(zip(HALVES, (train, split.test), strict=True))
    options = {"seed": seed, "shard_images": shard_images}
    index = Index(tuple(map(printable, train.classes)), shape, _source(source, halves), options, {})
    before = _begun(out, index)
    if before is not None and before.complete:
        with contextlib.suppress(DataError):  # then what is damaged is made again
            done = open_packed(out, verify=True)
            progress(sum(map(len, done)))
            return done
    _check_room(out, halves, before)
    _write_lists(out, index, halves, before)
    for name, half in halves.items():
        _pack_half(out, index, name, half, progress)
    index.complete = True
    index.save(out)
    return open_packed(out)


def _source(source: str, halves: dict[str, Dataset]) -> str:
    """A SHA-256 of what a data set is, without reading all of it."""
    found = hashlib.sha256(json.dumps([source, [len(half) for half in halves.values()]]).encode())
    for half in halves.values():
        found.update(np.ascontiguousarray(half.labels, "<i4").data)
        spots = np.unique(np.linspace(0, len(half) - 1, _SPOTS).astype(np.intp))
        found.update(digest(Subset(half, spots)).encode())
    return found.hexdigest()


def _begun(out: Path, index: Index) -> Index | None:
    """What an earlier call left in the folder, None where it is empty."""
    where = printable(str(out))
    if not is_packed(out):
        out.mkdir(parents=True, exist_ok=True)
        if any(not found.name.startswith(".") for found in out.iterdir()):
            raise ValueError(
                f"{where} must be an empty folder, or one in which packing was begun; it holds other files"
            )
        return None
    way_out = "pass another folder, or delete this one"
    try:
        before = read_index(out)
    except DataError as error:
        raise DataError(f"{error}; {way_out}") from None
    what = "packed" if before.complete else "begun"
    options = {"image_shape": index.image_shape, **index.options}
    for name, now in options.items():
        then = {**before.options, "image_shape": before.image_shape}[name]
        if then != now:
            raise DataError(f"{where}: was {what} with {name} {then}, not {now}: {way_out}")
    if (before.source, before.classes) != (index.source, index.classes):
        raise DataError(f"{where}: was {what} with other data, or what they are has changed since: {way_out}")
    return before


def _check_room(out: Path, halves: dict[str, Dataset], before: Index | None) -> None:
    left = sum(len(half) - (before.halves[name].packed if before else 0) for name, half in halves.items())
    needed = left * math.prod(halves["train"].image_shape)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise ValueError(f"{printable(str(out))}: {needed / 1e9:.3g} GB are needed, and {free / 1e9:.3g} GB are free")


def _write_lists(out: Path, index: Index, halves: dict[str, Dataset], before: Index | None) -> None:
    """The labels and names of all images, and the index with the shards of an earlier call."""
    lists: dict[str, tuple[bytes | memoryview, ...]] = {}
    for name, half in halves.items():
        labels, names = f"{name}-labels.npy", f"{name}-names.txt"
        lists[labels] = _npy(half.labels.astype("<i4"))
        lists[names] = (utf8("".join(printable(half.identifier(i)) + "\n" for i in range(len(half)))),)
        files = [File(one, _sha256(*lists[one])) for one in (labels, names)]
        shards = before.halves[name].shards if before else []
        index.halves[name] = Half(len(half), labels=files[0], names=files[1], shards=shards)
    index.save(out)  # before all other files: by it the next call knows the folder
    for one, content in lists.items():
        write_atomically(out / one, *content)


def _pack_half(out: Path, index: Index, name: str, half: Dataset, progress: Callable[[int], object]) -> None:
    """The shards of a half that are not there, and what is to be known of all its images."""
    entry, size = index.halves[name], index.options["shard_images"]
    found = begun(index.image_shape, index.classes, half.labels)
    total = np.zeros(index.image_shape, np.int64)
    kept = entry.shards
    entry.shards = []
    for shard in kept:
        images = _kept(out, shard, index.image_shape)
        if images is None:
            break
        found.update(images.data)
        total += images.sum(axis=0, dtype=np.int64)
        entry.shards.append(shard)
        progress(shard.count)
    for images in _shards(half, entry.packed, size, progress):
        found.update(images.data)
        total += images.sum(axis=0, dtype=np.int64)
        file = _write(out, f"{name}-{len(entry.shards):05}.npy", *_npy(images))
        entry.shards.append(Shard(file.file, file.sha256, entry.packed, len(images)))
        index.save(out)
    entry.digest = found.hexdigest()
    entry.mean = _write(out, f"{name}-mean.npy", *_npy((total / len(half)).astype(np.float32)))


def _kept(out: Path, shard: Shard, image_shape: tuple[int, int, int]) -> np.ndarray | None:
    """The images of a shard that an earlier call wrote; None where it is not whole, and has to be made again."""
    try:
        check_shard(out, shard, image_shape)
        check_sum(out, shard)
        return np.load(out / shard.file, allow_pickle=False)
    except DataError:
        return None


def _shards(half: Dataset, first: int, size: int, progress: Callable[[int], object]) -> Iterator[np.ndarray]:
    """The images from `first` on, uint8 (n,H,W,C), a shard at a time; the next ones are decoded meanwhile."""
    starts = range(first, len(half), size)
    parts = [np.arange(start, min(start + size, len(half))) for start in starts]
    cut = [np.split(part, range(_BATCH, len(part), _BATCH)) for part in parts]
    batches = load_batches(half, (indices for batches in cut for indices in batches))
    for part in parts:
        images = np.empty((len(part), *half.image_shape), np.uint8)
        done = 0
        while done < len(part):
            some, _ = next(batches)
            if some.dtype != np.uint8 or some.shape[1:] != half.image_shape:
                raise TypeError(f"images must be uint8 (n, *{half.image_shape}), got {some.dtype} {some.shape}")
            images[done : done + len(some)] = some
            done += len(some)
            progress(len(some))
        yield images


def _npy(array: np.ndarray) -> tuple[bytes, memoryview]:
    """Header and contents of a .npy file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue(), np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _sha256(*data: bytes | memoryview) -> str:
    found = hashlib.sha256()
    for part in data:
        found.update(part)
    return found.hexdigest()


def _write(out: Path, name: str, *data: bytes | memoryview) -> File:
    write_atomically(out / name, *data)
    return File(name, _sha256(*data))
