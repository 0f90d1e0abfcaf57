"""Data sets of other libraries: whatever has a length and gives an image and a label by index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import DataError
from . import arrays, images
from .dataset import Described, Skipped
from .folders import PEEKED, look_of
from .names import printable


class Items(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


class SequenceDataset(Described):
    """Images of another library's data set, converted each time a batch asks for them, one after the other. Pack one
    (`zfcuda.data.pack`) that is slow.

    items    any object with a length that gives by index (image, label), as torchvision's data sets do, or a mapping
             with `keys`, as Hugging Face's: a picture of Pillow's, or an array uint8 (H,W,C) or (H,W); and a whole
             number
    classes  names of the labels 0, 1, ...; by default what `items` calls them, or the numbers
    labels   of all items; by default what `items` says (`targets`, or a column), without which all items are read once
    keys     of an image and its label in a mapping

    image_size and channels: as of `zfcuda.data.folders.Reading`; pictures are read as those of files are.

    TypeError for items of another form; `DataError`, with the index, for those that cannot be read, or have another
    label than `labels` says.
    """

    skipped: tuple[Skipped, ...] = ()

    def __init__(
        self,
        items: Items,
        *,
        classes: Sequence[str] | None = None,
        labels: Sequence[int] | np.ndarray | None = None,
        keys: tuple[str, str] = ("image", "label"),
        image_size: int | tuple[int, int] | None = None,
        channels: int | None = None,
    ):
        if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
            raise TypeError(f"items must have a length and give an item by index, got {type(items).__name__}")
        if len(items) == 0:
            raise ValueError("items must not be empty")
        self._items, self._keys = items, keys
        known: Any = _labels(items, keys[1]) if labels is None else labels
        if known is None:
            known = [self._item(index)[1] for index in range(len(items))]
        self.labels = _checked_labels(known, len(items))
        names: Any = _classes(items, keys[1]) if classes is None else classes
        if names is None:
            names = range(int(self.labels.max()) + 1)
        self.classes = tuple(printable(str(name)) for name in names)
        if self.labels.max() >= len(self.classes):
            index = int(self.labels.argmax())
            raise DataError(f"{self.identifier(index)}: is of the class {self.labels[index]} of {len(self.classes)}")
        step = -(-len(items) // PEEKED)
        headers = [self._peek(index) for index in range(0, len(items), step)]
        self.image_shape, self._bits = look_of(headers, image_size, channels, printable(type(items).__name__))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = np.asarray(indices, np.intp)
        batch = np.empty((len(indices), *self.image_shape), np.uint8)
        for row, index in enumerate(indices):
            batch[row] = self._image(int(index))
        return batch, self.labels[indices]

    def identifier(self, index: int) -> str:
        return f"{printable(type(self._items).__name__)}[{index}]"

    def _image(self, index: int) -> np.ndarray:
        image, label = self._item(index)
        where = self.identifier(index)
        if label != self.labels[index]:
            raise DataError(
                f"{where}: has the label {label!r:.80}, but {self.labels[index]} is its label in the list of all"
            )
        if isinstance(image, Image.Image):
            return images.fit_picture(image, where, self.image_shape, self._bits)
        try:
            return arrays.fit(_array(image, where), self.image_shape)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from error

    def _peek(self, index: int) -> images.Header:
        image, where = self._item(index)[0], self.identifier(index)
        if isinstance(image, Image.Image):
            return images.peek_picture(image, where)
        height, width, channels = _array(image, where).shape
        return images.Header(height, width, channels, 0)

    def _item(self, index: int) -> tuple[Any, Any]:
        where = self.identifier(index)
        try:
            item = self._items[index]
        except Exception as error:  # whatever the other library raises
            raise DataError(f"{where}: cannot be read ({type(error).__name__}: {error})") from error
        if hasattr(item, "keys"):
            missing = [key for key in self._keys if key not in item]
            if missing:
                raise TypeError(f"{where}: has no {missing[0]!r}, but {list(item.keys())}: say which keys to read")
            return item[self._keys[0]], item[self._keys[1]]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(f"{where}: must be (image, label) or a mapping, got {type(item).__name__}")
        return item[0], item[1]


def _array(image: Any, where: str) -> np.ndarray:
    """uint8 (H,W,C)."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise TypeError(
            f"{where}: an image must be one of Pillow's, or uint8 (H,W,C) or (H,W), got {array.dtype} {array.shape} "
            f"({type(image).__name__}); leave out transforms that make tensors"
        )
    if array.ndim == 3 and arrays.is_channels_first(array.shape):
        raise TypeError(f"{where}: an image must be (H,W,C), and {array.shape} looks like (C,H,W): transpose it")
    return array if array.ndim == 3 else array[..., None]


def _labels(items: Any, key: str) -> Iterable[int] | None:
    """Of all items, where these have them in one place: torchvision's `targets`, a column of Hugging Face's."""
    if key in (getattr(items, "column_names", None) or ()):
        return items[key]
    return getattr(items, "targets", None)


def _classes(items: Any, key: str) -> Iterable[str] | None:
    """What the labels are called: torchvision's `classes`, a feature of Hugging Face's."""
    feature = (getattr(items, "features", None) or {}).get(key)
    return getattr(feature, "names", None) or getattr(items, "classes", None)


def _checked_labels(labels: Iterable[int], count: int) -> np.ndarray:
    array = np.asarray(labels if hasattr(labels, "__array__") else list(labels))
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise TypeError(f"labels must be {count} whole numbers, got {array.dtype} {array.shape}")
    if array.min() < 0 or array.max() >= 2**20:
        raise ValueError(f"labels must be in [0, {2**20:,}), got values from {array.min()} to {array.max()}")
    return array.astype(np.int32)
