"""Packed images, read."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..arrays import read_header
from ..buffers import Buffers
from ..dataset import Described, Skipped, Split
from ..files import read_file
from ..names import printable
from ..stored import StoredImages
from ..threads import in_threads
from .index import HALVES, INDEX, File, Index, Shard, read_index, sha256_of

# Sets of up to so many bytes are checked whole when they are opened.
VERIFIED = 2 * 2**30
_WINDOW = 2 * 2**30  # bytes of images that are shuffled: they should fit into the page cache
_LIST = 2**34  # bytes of a file with labels or names


def is_packed(path: str | os.PathLike[str]) -> bool:
    return (Path(path) / INDEX).is_file()


def open_packed(folder: str | os.PathLike[str], *, verify: bool | None = None) -> Split:
    """The two halves of a folder that `pack` made.

    The index, labels, and the form and size of every shard are checked; so are the checksums of all shards
    if `verify`, or by default if they have up to 2 GiB together: for larger sets it takes minutes. `DataError` with
    the path where anything is missing, damaged, cut short or unlike what the index says, or the packing was not
    finished.
    """
    folder = Path(folder)
    index = read_index(folder)
    if not index.complete:
        done, images = (sum(getattr(half, what) for half in index.halves.values()) for what in ("packed", "images"))
        raise DataError(
            f"{printable(str(folder))}: the packing was ended after {done:,} of {images:,} images; the same call of "
            "pack goes on"
        )
    train, test = (PackedDataset(folder, index, name) for name in HALVES)
    if verify is None:
        verify = (len(train) + len(test)) * math.prod(index.image_shape) <= VERIFIED
    if verify:
        train.verify()
        test.verify()
    return Split(train, test)


class PackedDataset(Described):
    """A half of packed images. The operating system keeps in memory what it has room for; this keeps nothing.

    digest: `zfcuda.data.digest` of the half. mean: float32 (H,W,C), of all its images.
    """

    skipped: tuple[Skipped, ...] = ()

    def __init__(self, folder: Path, index: Index, name: str):
        half = index.halves[name]
        self._folder, self._half = folder, half
        self.classes = tuple(map(printable, index.classes))
        self.image_shape = index.image_shape
        self.labels = _stored(folder, half.labels, np.dtype(np.int32), (half.images,))
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            path = _shown(folder, half.labels)
            raise DataError(f"{path}: labels must be in [0, {len(self.classes)}), got values from {low} to {high}")
        assert half.mean is not None
        assert half.digest is not None
        self.mean = _stored(folder, half.mean, np.dtype(np.float32), self.image_shape)
        self.digest = half.digest
        begins = in_threads(lambda shard: check_shard(folder, shard, self.image_shape), half.shards)
        self._begins = np.array(begins, np.int64)  # of the images in a shard's file
        self._firsts = np.array([shard.first for shard in half.shards], np.int64)
        self._paths = [folder / shard.file for shard in half.shards]
        self._names: list[str] | None = None
        self._buffers = Buffers()

    def __len__(self) -> int:
        return self._half.images

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As of every `Dataset`. `DataError` with the path of a shard that cannot be read any more."""
        stored, labels = self.unread(indices)
        images = self._buffers.empty(stored.shape)
        stored.read(images)
        return images, labels

    def unread(self, indices: Sequence[int] | np.ndarray) -> tuple[StoredImages, np.ndarray]:
        """A batch's images before they are read, and its labels."""
        indices = np.asarray(indices, np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"indices must be in [0, {len(self)}), got {indices.min()} to {indices.max()}")
        numbers = np.searchsorted(self._firsts, indices, "right") - 1
        offsets = self._begins[numbers] + (indices - self._firsts[numbers]) * math.prod(self.image_shape)
        stored = StoredImages((len(indices), *self.image_shape), self._paths, numbers, offsets)
        return stored, self.labels[indices]

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All indices, each once: the shards in a random order, then images at random within windows of 2 GiB. What is
        read next lies close together, and the page cache holds it."""
        drawn = [self._half.shards[number] for number in rng.permutation(len(self._half.shards))]
        order = np.concatenate([np.arange(shard.first, shard.first + shard.count) for shard in drawn])
        window = max(1, _WINDOW // math.prod(self.image_shape))
        for start in range(0, len(order), window):
            rng.shuffle(order[start : start + window])
        return order

    def identifier(self, index: int) -> str:
        """Where the image came from."""
        if self._names is None:
            text = _checked(self._folder, self._half.names)
            names = text.decode("utf-8", "replace").removesuffix("\n").split("\n")
            if len(names) != len(self):
                path = _shown(self._folder, self._half.names)
                raise DataError(f"{path}: holds {len(names)} names for {len(self)} images")
            self._names = names
        return printable(self._names[index])

    def verify(self) -> None:
        """Reads every file and compares its checksum; `DataError` with the path of the first that differs."""
        _checked(self._folder, self._half.names)
        in_threads(lambda shard: check_sum(self._folder, shard), self._half.shards)


# ---- Checks ------------------------------------------------------------------------------------------------


def check_sum(folder: Path, file: File) -> None:
    """`DataError` where the file has another SHA-256 than the index says, or cannot be read."""
    try:
        found = sha256_of(folder / file.file)
    except OSError as error:
        raise DataError(f"{_shown(folder, file)}: cannot be read ({error.strerror or error})") from error
    _compare(folder, file, found)


def check_shard(folder: Path, shard: Shard, image_shape: tuple[int, int, int]) -> int:
    """Where the images begin in a shard's file; `DataError` where its form or size is not what the index says."""
    path, shown = folder / shard.file, _shown(folder, shard)
    wanted = (shard.count, *image_shape)
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            shape, fortran, dtype = read_header(file)
            begins = file.tell()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{shown}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise DataError(f"{shown}: is no .npy file of images ({error})") from error
    if dtype != np.uint8 or shape != wanted or fortran:
        raise DataError(f"{shown}: holds {dtype} {shape}{' in Fortran order' * fortran}, the index says uint8 {wanted}")
    if size != begins + math.prod(wanted):
        what = "is cut short" if size < begins + math.prod(wanted) else "goes on behind its images"
        raise DataError(f"{shown}: {what}: {size:,} bytes, where {begins + math.prod(wanted):,} are expected")
    return begins


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # as one would for the other end of a FIFO


def _stored(folder: Path, file: File, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """An array that is read whole, its checksum, dtype and shape compared."""
    data = _checked(folder, file)
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        raise DataError(f"{_shown(folder, file)}: is no .npy file ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        found = f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}"
        raise DataError(f"{_shown(folder, file)}: holds {found}, expected {dtype} {shape}")
    return array


def _checked(folder: Path, file: File) -> bytes:
    try:
        data = read_file(folder / file.file, _LIST)
    except OSError as error:
        raise DataError(f"{_shown(folder, file)}: cannot be read ({error.strerror or error})") from error
    _compare(folder, file, hashlib.sha256(data).hexdigest())
    return data


def _compare(folder: Path, file: File, found: str) -> None:
    if found != file.sha256:
        raise DataError(f"{_shown(folder, file)}: is damaged: its SHA-256 is not that of the index")


def _shown(folder: Path, file: File) -> str:
    return printable(str(folder / file.file))
