"""The pointing game for occlusion (P8): does the probability fall most where the object is?

Objects stand on canvases cluttered with pieces of other images, so that their boxes are known and the rest of the image
is no empty background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Dataset
from ..pairs import IntPair
from ..training import Ranks
from .figures import is_signal, new_figure
from .fills import Fill
from .geometry import Window, check_box
from .occlusion import Square, grid_of, occlusion, square_of
from .progress import Steps
from .results import OfClass
from .source import as_source, check_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..nn import Network

_PIECES = 10  # of other images on a canvas
_SHARE = 3  # a piece is a third of an object high and wide


class Cluttered:
    """A data set whose images are another one's, each somewhere on a square canvas among pieces of the others.

    canvas: the side in pixels, larger than the images. boxes int32 (N,4): top, left, height, width of each object.
    The same seed makes the same canvases, whatever the order in which they are read.
    """

    def __init__(self, dataset: Dataset, canvas: int, seed: int = 0):
        height, width, channels = dataset.image_shape
        if is_signal(height, width):
            raise ValueError(f"a cluttered canvas is for images, not for signals of {height} x {width} x {channels}")
        if canvas <= max(height, width):
            raise ValueError(f"canvas must be larger than the images of {height} x {width}, got {canvas}")
        self._dataset = dataset
        self._seed = seed
        self.image_shape = (canvas, canvas, channels)
        self.labels, self.classes, self.skipped = dataset.labels, dataset.classes, dataset.skipped
        rng = np.random.default_rng(seed)
        corners = np.stack([rng.integers(0, canvas - side + 1, len(dataset)) for side in (height, width)], axis=1)
        self.boxes = np.concatenate([corners, np.tile([height, width], (len(dataset), 1))], axis=1).astype(np.int32)

    def __len__(self) -> int:
        return len(self._dataset)

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """images uint8 (n, canvas, canvas, C) and labels int32 (n,)."""
        objects, labels = self._dataset.batch(indices)
        rngs = [np.random.default_rng([self._seed, int(index)]) for index in indices]
        others = [rng.integers(0, len(self._dataset), _PIECES) for rng in rngs]
        wanted, where = np.unique(others, return_inverse=True)
        pieces = self._dataset.batch(wanted)[0][where.reshape(len(rngs), _PIECES)]
        canvases = np.zeros((len(objects), *self.image_shape), np.uint8)
        for canvas, thing, clutter, rng, index in zip(canvases, objects, pieces, rngs, indices, strict=True):
            for other in clutter:
                _scatter(canvas, other, rng)
            top, left, height, width = self.boxes[index]
            canvas[top : top + height, left : left + width] = thing
        return canvases, labels

    def identifier(self, index: int) -> str:
        return f"{self._dataset.identifier(index)} on a cluttered canvas"


def _scatter(canvas: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> None:
    """Puts a piece of another image anywhere on the canvas."""
    height, width = (max(1, side // _SHARE) for side in other.shape[:2])
    row, column = rng.integers(0, other.shape[0] - height + 1), rng.integers(0, other.shape[1] - width + 1)
    top, left = rng.integers(0, canvas.shape[0] - height + 1), rng.integers(0, canvas.shape[1] - width + 1)
    canvas[top : top + height, left : left + width] = other[row : row + height, column : column + width]


@dataclass(frozen=True, repr=False)
class Pointing(OfClass):
    """hits bool (N,): whether the square that lowers the label's probability most has its centre in the object's box.

    right bool (N,): whether the net names the label while nothing is covered: where it does not, there is little
    probability to take away.
    inside, outside float64 (N,): the mean fall of the probability with the square's centre in the box and beyond it,
    NaN where it is never beyond.
    chance: the share of positions whose centre lies in a box: the rate of a net that looks nowhere.
    """

    hits: np.ndarray
    right: np.ndarray
    inside: np.ndarray
    outside: np.ndarray
    chance: float

    @property
    def rate(self) -> float:
        """The share of images that point into the box, 0..1."""
        return float(self.hits.mean())

    @property
    def rate_of_right(self) -> float:
        """The same among the images that the net gets right, NaN if there is none."""
        return float(self.hits[self.right].mean()) if self.right.any() else float("nan")

    def plot(self) -> Figure:
        """How often the square points into the box, and how far the probability falls inside and outside of it."""
        figure, axes = new_figure(columns=2, width=9.0, height=3.2)
        right = {} if self.one_output else {"where it is right": self.rate_of_right}
        rates = {"the net": self.rate, **right, "by chance": self.chance}
        axes[0, 0].bar(list(rates), [100 * rate for rate in rates.values()])
        axes[0, 0].set_xlabel("pointing into the box")
        axes[0, 0].set_ylabel("images, %")
        outside = self.outside[np.isfinite(self.outside)]
        axes[0, 1].hist([self.inside, outside], bins=20, label=["centre in the box", "beyond it"])
        axes[0, 1].set_xlabel(f"mean fall of the {self.followed}")
        axes[0, 1].set_ylabel("images")
        axes[0, 1].legend(frameon=False)
        return figure

    def numbers(self) -> dict[str, Any]:
        """Everything."""
        return {**vars(self), "rate": self.rate, "rate_of_right": self.rate_of_right}


def pointing(
    net: Network,
    images: Any,
    labels: Sequence[int] | np.ndarray,
    boxes: Sequence[Sequence[int]] | np.ndarray,
    *,
    size: IntPair,
    stride: IntPair,
    fill: Fill = 0.0,
    seed: int = 0,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> Pointing:
    """Occludes every image and compares where the probability falls with the object's box (top, left, height, width).

    images: a data set or float32 (N,H,W,C); labels (N,), as the net counts (`zfcuda.data.relabelled`); boxes (N,4),
    in pixels of what the net takes, inside of it. ValueError for a box that is `too_small` to be pointed at.
    size, stride, fill, seed: see `occlusion`. ranks: of processes that share the images. `Interrupted` by Ctrl-C, with
    the images done by then.
    """
    source = as_source(net, images)
    if not len(source) == len(labels) == len(boxes):
        raise ValueError(f"images, labels and boxes must be as many: {len(source)}, {len(labels)}, {len(boxes)}")
    wanted = check_labels(labels, net.num_classes)
    windows = [check_box(f"box {index}", box, *source.image_shape[:2]) for index, box in enumerate(boxes)]
    square = square_of(net, size, stride)
    missed = too_small(np.array(windows), source.image_shape, square)
    if missed.any():
        index = int(missed.argmax())
        (height, width), (down, across) = square
        raise ValueError(
            f"box {index} is so small that no rectangle of {height} x {width} pixels at steps of {down} and {across} "
            f"has its centre in it, got {tuple(windows[index])}; make the steps smaller"
        )

    def point(step: range) -> tuple[bool, bool, float, float, float]:
        (index,) = step
        image, label = source.read([index])[0], int(wanted[index])
        result = occlusion(net, image, label, size=size, stride=stride, fill=fill, seed=seed)
        within = _centres_within(result.probability.shape, square, windows[index])
        fall = result.baseline - result.probability.astype(np.float64)
        return (
            bool(within[result.lowest()]),
            result.baseline_prediction == result.label,
            fall[within].mean(),
            fall[~within].mean() if not within.all() else np.nan,
            within.mean(),
        )

    found = []
    words = "pointing" if progress else ""
    with Steps(len(source), unit="images pointed at", label=words, ranks=ranks) as steps:
        for _, one in steps.map(point):
            found.append(one)
    hits, right, inside, outside, chances = (np.array(column) for column in zip(*found, strict=True))
    return steps.finish(
        Pointing(hits, right, inside, outside, float(chances.mean()), head=net.head, one_output=net.num_classes == 1)
    )


def too_small(boxes: np.ndarray, shape: tuple[int, ...], square: Square) -> np.ndarray:
    """bool (N,): whether, of all places of the square on images of this shape, none has its centre in the box."""
    grid = grid_of(shape, *square)
    return np.array([not _centres_within(grid, square, Window(*box)).any() for box in boxes.tolist()], bool)


def _centres_within(shape: tuple[int, ...], square: Square, box: Window) -> np.ndarray:
    """bool (rows, columns): whether the square's centre lies in the box."""
    top, left, height, width = box
    rows, columns = (np.arange(count) * step + side / 2 for count, side, step in zip(shape, *square, strict=True))
    down = (rows >= top) & (rows < top + height)
    across = (columns >= left) & (columns < left + width)
    return down[:, None] & across[None, :]
