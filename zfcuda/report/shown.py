"""Images of a data set as people see them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ..analysis.figures import COLOR_NAMES
from ..analysis.fills import Fill
from ..analysis.results import OfClass
from ..data import Dataset, Preprocess
from ..nn import Network
from .pictures import from_range

_FILLS = {
    "mean": "the image's mean colour",
    "blur": "the blurred image",
    "noise": "noise with the image's mean and deviation",
}


ONE_OUTPUT = "output"  # what a network with one output says, if it does not name it


class Shown(NamedTuple):
    """An image that people see: uint8 (H,W,C), or float32 of any range; where it came from, and its class."""

    image: np.ndarray
    name: str
    label: str

    @property
    def picture(self) -> np.ndarray:
        """The image as they see it, uint8 (H,W,3)."""
        return from_range(self.image)


def seen(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The part of uint8 images (N,H,W,C) that the network sees: (N,h,w,C)."""
    (top, left), (height, width) = preprocess.test_corners[-1], preprocess.crop
    return images[:, top : top + height, left : left + width]


def show(dataset: Dataset, indices: Iterable[int], preprocess: Preprocess, chunk: int = 256) -> dict[int, Shown]:
    """These images of a data set, as far as the network sees them, by their index."""
    wanted = sorted({int(index) for index in indices})
    shown = {}
    for start in range(0, len(wanted), chunk):
        part = wanted[start : start + chunk]
        images, labels = dataset.batch(part)
        for index, image, label in zip(part, seen(images, preprocess), labels, strict=True):
            shown[index] = Shown(image, short(dataset.identifier(index)), dataset.classes[label])
    return shown


def short(name: str) -> str:
    """The last two parts of a path, which tell an image from the others of its data set."""
    return "/".join(name.replace("\\", "/").split("/")[-2:])


def class_names(net: Network, dataset: Dataset | None = None) -> tuple[str, ...]:
    """The names of the network's classes, from the network or a data set that has as many. One output, as of a yes or
    no, is none of the data set's classes."""
    if net.classes:
        return tuple(net.classes)
    if net.num_classes == 1:
        return (ONE_OUTPUT,)
    if dataset is not None and len(dataset.classes) == net.num_classes:
        return tuple(dataset.classes)
    return tuple(f"class {label}" for label in range(net.num_classes))


def fill_name(fill: Fill) -> str:
    """What parts of an image are painted over with, in words."""
    if isinstance(fill, str):
        return _FILLS[fill]
    return f"{fill:g}" if fill else "0 (the mean image, where it is subtracted)"


def extent_words(height: int, width: int, of_signal: bool) -> str:
    """The size of a part of an image, in pixels, or of a signal in samples."""
    return f"{width} sample{'s' * (width != 1)}" if of_signal else f"{height} x {width} pixels"


def channel_words(channels: int) -> str:
    """What the lines of a signal's picture are, or its bands."""
    if channels > len(COLOR_NAMES):
        return f"bands: channel 0 at the top, {channels - 1} at the bottom, dark is low"
    if channels == 1:
        return "one channel"
    named = ", ".join(f"{number} {color}" for number, color in enumerate(COLOR_NAMES[:channels]))
    return f"lines: channel {named}"


def colour_words(values: np.ndarray, colours: tuple[float, float], unit: str = "") -> str:
    """What the colours of a heat map of these values stand for, from `colours`, those at the dark and the bright end;
    and that they hardly differ, where they span more than the values do."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    ends = "{} (dark) to {}".format(*told_apart(*colours, unit))
    if high - low >= 0.99 * (colours[1] - colours[0]):
        return ends if high > low else f"the same everywhere, {low:.3g}{unit}"
    found = "{} to {}".format(*told_apart(low, high, unit)) if high > low else f"{low:.3g}{unit} everywhere"
    return f"hardly changes, {found}; colours {ends}"


def told_apart(low: float, high: float, unit: str = "") -> tuple[str, str]:
    """Two numbers in words, with as many digits as tell them apart."""
    span, largest = high - low, max(abs(low), abs(high))
    digits = 3 if span <= 0 else max(3, 2 + math.ceil(math.log10(largest / span)))
    return f"{low:.{digits}g}{unit}", f"{high:.{digits}g}{unit}"


def outputs_only(result: OfClass) -> str:
    """A sentence where what is followed is no probability, or of no class."""
    if result.one_output:
        logit = ", no probability (`zfcuda import --head sigmoid` makes one of a logit)"
        return f" The network has one output and no classes: that is followed{logit if result.head == 'none' else ''}."
    if result.followed == "probability":
        return ""
    return (
        " The network ends without a softmax: what is followed is its output, no probability (`zfcuda import --head "
        "softmax` makes probabilities of logits)."
    )
