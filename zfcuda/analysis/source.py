"""Where analyses read images: arrays that are ready for the net, or data sets, which the net's preprocessing makes so.

Every analysis reads through `as_source`, in batches and by index, so that memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..backends import array_module, to_host
from ..nn.finite import check_weights, is_finite
from .progress import Steps

if TYPE_CHECKING:
    from ..data import Dataset, Preprocess
    from ..nn.network import Network

Indices = Sequence[int] | np.ndarray


class Source(Protocol):
    """Images as the net takes them, by index."""

    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    def __len__(self) -> int: ...
    def read(self, indices: Indices) -> np.ndarray:
        """float32 (n,H,W,C), on the host."""
        ...


class _Array:
    def __init__(self, images: Any):
        self._images = images
        self.image_shape = tuple(images.shape[1:])

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Indices) -> np.ndarray:
        images = to_host(self._images[np.asarray(indices, np.intp)])
        for index, image in zip(indices, images, strict=True):
            if not is_finite(image):
                raise ValueError(f"image {index} has values that are not finite")
        return images


class _Prepared:
    """A data set as the net sees it."""

    def __init__(self, dataset: Dataset, preprocess: Preprocess):
        self._dataset = dataset
        self._preprocess = preprocess
        self.image_shape = (*preprocess.crop, dataset.image_shape[2])

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, indices: Indices) -> np.ndarray:
        return self._preprocess(self._dataset.batch(indices)[0])


Images = Any  # float32 (N,H,W,C), a Dataset (which the net's own preprocessing makes ready), or a Source


def as_source(net: Network, images: Images) -> Source:
    """Images of any kind as a source. TypeError for other kinds and dtypes, ValueError where they do not fit, or where
    the net's weights are not finite."""
    check_weights(net)
    source: Source
    if hasattr(images, "batch"):
        preprocess = preprocess_of(net)
        if images.image_shape != preprocess.image_shape:
            raise ValueError(f"images must have shape {preprocess.image_shape}, as trained, got {images.image_shape}")
        source = _Prepared(images, preprocess)
    elif hasattr(images, "read") and hasattr(images, "image_shape"):
        source = images
    elif not hasattr(images, "dtype") or not hasattr(images, "shape"):
        raise TypeError(f"images must be a float32 array (N,H,W,C) or a data set, got {type(images).__name__}")
    elif images.dtype != np.float32:
        raise TypeError(f"images must be float32, as the net takes them, got {images.dtype}")
    elif len(images.shape) != 4:
        raise ValueError(f"images must have shape (N,H,W,C), got {tuple(images.shape)}")
    else:
        source = _Array(images)
    if len(source) == 0:
        raise ValueError("images is empty")
    if tuple(source.image_shape) != tuple(net.input_shape):
        raise ValueError(f"images must have the net's input shape {tuple(net.input_shape)}, got {source.image_shape}")
    return source


def preprocess_of(net: Network) -> Preprocess:
    """How images of a data set become the net's inputs; ValueError if it does not know."""
    if net.preprocess is None:
        raise ValueError("the net carries no preprocessing: pass images that are ready for it, float32 (N,H,W,C)")
    return net.preprocess


def batches(net: Network, source: Source, steps: Steps) -> Iterator[tuple[int, Any]]:
    """(index of the first image, images on the net's device) for each of the steps over the source."""
    for indices in steps:
        yield indices[0], to_device(net, source.read(indices))


def to_device(net: Network, array: np.ndarray) -> Any:
    """The array where the net's weights are."""
    return array_module(next(iter(net.parameters().values()))).asarray(array)


def check_image(net: Network, image: Any, name: str = "image") -> np.ndarray:
    """One image (H,W,C) as the net takes it, on the host. TypeError and ValueError say what is wrong."""
    image = to_host(image) if hasattr(image, "get") else image
    if not isinstance(image, np.ndarray) or image.dtype != np.float32:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"{name} must be a float32 array (H,W,C), got {kind}")
    if image.shape != tuple(net.input_shape):
        raise ValueError(f"{name} must have the net's input shape {tuple(net.input_shape)}, got {image.shape}")
    if not is_finite(image):
        raise ValueError(f"{name} has values that are not finite")
    return image


def check_layers(net: Network, layers: Sequence[str]) -> tuple[str, ...]:
    """These layers of the net, each once; ValueError for one that it does not have, or if there is none."""
    if not layers:
        raise ValueError("layers is empty: there is nothing to look at")
    for layer in layers:
        net.locate(layer)
    return tuple(dict.fromkeys(layers))


def check_labels(labels: Sequence[int] | np.ndarray, classes: int) -> np.ndarray:
    """Class numbers as int64 (N,). TypeError and ValueError if they are none."""
    array = np.asarray(to_host(labels) if hasattr(labels, "get") else labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"labels must be class numbers (N,), got {array.dtype} of shape {array.shape}")
    if array.min() < 0 or array.max() >= classes:
        raise ValueError(f"labels must be in [0, {classes}), got {array.min()} to {array.max()}")
    return array.astype(np.int64)
