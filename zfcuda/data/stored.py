"""Images that lie in files pixel by pixel: read whole, or as they are cropped."""

from __future__ import annotations

import contextlib
import math
import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import ops
from ..backends import resolve
from ..brief import Brief
from ..errors import DataError
from ..ops.image import check_crops
from ..pairs import IntPair
from .names import printable
from .threads import in_threads

_CUT_SHORT = -1  # csrc/cpu/image.cpp


@dataclass(frozen=True, eq=False, repr=False)
class StoredImages(Brief):
    """Images uint8 (N,H,W,C) = `shape` of which nothing has been read: image i is what the file `paths[numbers[i]]`
    holds from byte `offsets[i]` on. `Preprocess.crops` takes them as it takes an array.

    numbers, offsets: int64 (N,). Files are read, not mapped into memory: where a disk fails or a file has become
    shorter, reading is an error, and a mapped page would end the process.
    """

    shape: tuple[int, int, int, int]
    paths: Sequence[Path]
    numbers: np.ndarray
    offsets: np.ndarray

    def read(self, images: np.ndarray) -> None:
        """Fills an array uint8 of this shape. `DataError` with the path of a file that cannot be read or is cut
        short."""
        size = math.prod(self.shape[1:])

        def fill(number: int) -> None:
            with self._opened(number) as file:
                for row in np.flatnonzero(self.numbers == number):
                    if os.preadv(file, [images[row]], int(self.offsets[row])) != size:
                        raise self._error(number, _CUT_SHORT)

        in_threads(fill, np.unique(self.numbers))

    def crops(self, mean: np.ndarray | None, corners: np.ndarray, flips: np.ndarray, *, size: IntPair) -> np.ndarray:
        """`ops.crop_images` of these images. On the CPU, rows are read when they are cropped, those that a crop needs,
        and are not written to memory in between. `DataError` as of `read`."""
        backend, _ = resolve(corners=corners, mean=mean, flips=flips)
        used, file_of = np.unique(self.numbers, return_inverse=True)
        if backend.name != "cpu" or len(used) > _most_open():
            images = np.empty(self.shape, np.uint8)
            self.read(images)
            return ops.crop_images(images, mean, corners, flips, size=size)
        shape, mean, corners, flips = check_crops(backend, self.shape, mean, corners, flips, size)
        y = backend.empty(shape.output)
        failures = np.empty(self.shape[0], np.int32)
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(self._opened(number)) for number in used]
            files = np.array(opened, np.int32)[file_of]
            offsets = np.ascontiguousarray(self.offsets, np.int64)
            backend.module.crop_stored_images(shape, files, offsets, mean, corners, flips, y, failures)
        if failures.any():
            first = np.flatnonzero(failures)[0]
            raise self._error(self.numbers[first], int(failures[first]))
        return y

    @contextlib.contextmanager
    def _opened(self, number: int) -> Iterator[int]:
        """The descriptor of a file."""
        try:
            with open(self.paths[number], "rb", buffering=0) as file:
                yield file.fileno()
        except OSError as error:
            raise DataError(f"{self._shown(number)}: cannot be read ({error.strerror or error})") from error

    def _error(self, number: int, failure: int) -> DataError:
        reason = "is cut short" if failure == _CUT_SHORT else f"cannot be read ({os.strerror(failure)})"
        return DataError(f"{self._shown(number)}: {reason}")

    def _shown(self, number: int) -> str:
        return printable(str(self.paths[number]))


def _most_open() -> int:
    """Files that a batch may have open at once: a quarter of what the process may, which is 1,024 by default."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if allowed == resource.RLIM_INFINITY else min(256, allowed // 4)
