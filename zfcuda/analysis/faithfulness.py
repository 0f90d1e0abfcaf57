"""Deletion and insertion curves: is what a map calls relevant what the net needs?

The image is cut into patches, which a map ranks. Deletion (pixel flipping: Bach et al. 2015, Samek et al. 2017; RISE:
Petsiuk et al. 2018) paints one patch after another over, the most relevant first: the better the map, the sooner the
class is gone, and the smaller the area under the curve of its probability. Insertion begins with all of the image
painted over and brings the patches back: the better the map, the larger the area. Random orders say what a map that
knows nothing gets.

Each step is evaluated exactly, computing only what its patch changes (`incremental`). And insertion in one order is
deletion in the opposite order, read backwards: all curves of an image start from one forward pass, and random orders
serve both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import to_host
from ..nn.finite import check_activations, is_finite
from ..numbers import check_at_least
from ..pairs import IntPair, check_part
from .figures import new_figure, plain
from .fills import Fill, check_fill, filled
from .geometry import Window, shorter_side
from .incremental import PatchedForward
from .occlusion import Occlusion
from .progress import Steps
from .results import OfClass
from .source import Images, as_source, check_image, check_labels, to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..nn.network import Network

_WAYS = {"deletion": 1, "insertion": -1}  # in which a curve is read
MODES = tuple(_WAYS)
_PATCHES = 16  # along the image's shorter side, or a signal, by default


@dataclass(frozen=True, repr=False)
class Faithfulness(OfClass):
    """Deletion and insertion curves of N images in P patches, the map's and those of R random orders.

    labels int64 (N,): the class whose probability is followed. curves: by mode, float32 (N, P + 1): the probability
    after 0, 1, ... P patches, the most relevant first. random: by mode, float32 (N, R, P + 1). orders int64 (N, P):
    the patches as the map ranks them, numbered row by row. patch: (height, width) in pixels, clipped by the image's
    edge; grid: (rows, columns) of patches. fill: with what they are painted over.
    """

    labels: np.ndarray
    curves: Mapping[str, np.ndarray]
    random: Mapping[str, np.ndarray]
    orders: np.ndarray
    patch: tuple[int, int]
    grid: tuple[int, int]
    fill: Fill

    def areas(self, mode: str) -> np.ndarray:
        """The area under each image's curve, the mean probability on the way, float64 (N,)."""
        return _areas(self.curves[mode])

    def random_areas(self, mode: str) -> np.ndarray:
        """Those of the random orders, float64 (N, R)."""
        return _areas(self.random[mode])

    def gain(self, mode: str) -> np.ndarray:
        """By how much the map's area is better (in deletion smaller, in insertion larger) than the mean of the random
        orders', float64 (N,); NaN without random orders."""
        random = self.random_areas(mode)
        if not random.shape[1]:
            return np.full(len(random), np.nan)
        difference = self.areas(mode) - random.mean(axis=1)
        return -difference if mode == "deletion" else difference

    def ranks(self) -> np.ndarray:
        """The map as the patches see it: P - 1 for the most relevant patch down to 0, int64 (N, rows, columns)."""
        ranks = np.empty_like(self.orders)
        np.put_along_axis(ranks, self.orders, np.arange(self.orders.shape[1])[None, ::-1], axis=1)
        return ranks.reshape(-1, *self.grid)

    def numbers(self) -> dict[str, Any]:
        """Everything, and the areas."""
        return {
            **vars(self),
            "areas": {mode: self.areas(mode) for mode in self.curves},
            "random_areas": {mode: self.random_areas(mode) for mode in self.curves},
            "gain": {mode: self.gain(mode) for mode in self.curves},
        }

    def plot(self) -> Figure:
        """A panel per mode: the mean curve over the images, beside that of the random orders."""
        return plot_curves({"map": self})


def plot_curves(results: Mapping[str, Faithfulness]) -> Figure:
    """The mean curves of several maps of the same images in the same modes, and of the first one's random orders."""
    first = next(iter(results.values()))
    figure, axes = new_figure(columns=len(first.curves), width=4.8 * len(first.curves), height=3.6)
    changed = np.linspace(0, 100, len(first.orders[0]) + 1)
    for axis, mode in zip(axes[0], first.curves, strict=True):
        for name, result in results.items():
            area = result.areas(mode).mean()
            axis.plot(changed, result.curves[mode].mean(axis=0), label=f"{plain(name)}, area {area:.3f}")
        random = first.random[mode].mean(axis=0)
        if len(random):
            label = f"{len(random)} random orders, area {first.random_areas(mode).mean():.3f}"
            axis.plot(changed, random.mean(axis=0), color="#7a7a7a", linestyle="--", label=label)
            axis.fill_between(changed, random.min(axis=0), random.max(axis=0), color="#7a7a7a", alpha=0.15, lw=0)
        axis.set_title(mode, fontsize=9)
        axis.set_xlabel("patches painted over, %" if mode == "deletion" else "patches brought back, %")
        axis.set_ylabel(first.followed_of("the class"))
        if first.followed == "probability":
            axis.set_ylim(bottom=0)
        axis.legend(frameon=False, fontsize=8)
    return figure


def faithfulness(
    net: Network,
    images: Images,
    labels: Sequence[int] | np.ndarray,
    maps: Sequence[Occlusion | np.ndarray],
    *,
    patch: IntPair | None = None,
    modes: Sequence[str] = MODES,
    fill: Fill = 0.0,
    orders: int = 3,
    seed: int = 0,
    batch_size: int = 1024,
    progress: bool = False,
) -> Faithfulness:
    """Deletion and insertion curves of maps that rank the parts of images by relevance (see the module).

    images: float32 (N,H,W,C) as the net takes them, or a data set. labels (N,): the class whose probability is
    followed. maps: one for each image: its `Occlusion`, whose `relevance` counts; an array (H,W), larger where it is
    more relevant; or signed pixels (H,W,C) such as a projection, whose magnitude counts. patch: the size of the patches
    in pixels, an int or (height, width), as `size` of `occlusion`, by default a sixteenth of the image; the last ones
    are clipped by the edge. modes: "deletion", "insertion" or both. fill: what is painted over: a number (0 is the mean
    of images whose mean is subtracted), "mean" (of the image, by channel), "blur" (the image, blurred) or "noise" (see
    `occlusion`). orders: how many random orders. seed: of these, of the noise, and of the order of patches that are
    equally relevant. batch_size: how many steps are evaluated at a time.
    ValueError, TypeError for what does not fit or is not finite. `Interrupted` by Ctrl-C, with the images evaluated by
    then.
    """
    source = as_source(net, images)
    if not len(source) == len(labels) == len(maps):
        raise ValueError(f"images, labels and maps must be as many: {len(source)}, {len(labels)}, {len(maps)}")
    if not modes or not set(modes) <= set(MODES):
        raise ValueError(f"modes must be one or both of {', '.join(MODES)}; got {', '.join(modes) or 'none'}")
    fill = check_fill(fill)
    orders = check_at_least("orders", orders, 0)
    seed = check_at_least("seed", seed, 0)
    batch_size = check_at_least("batch_size", batch_size, 1)
    wanted = check_labels(labels, net.num_classes)
    whole = source.image_shape[:2]
    size = check_part("patch", max(1, round(shorter_side(whole) / _PATCHES)) if patch is None else patch, whole)
    grid, windows = _patches(size, source.image_shape)

    found: list[tuple[np.ndarray, np.ndarray]] = []  # of each image: the map's order, curves
    with Steps(len(source), unit="images evaluated", label="faithfulness" if progress else "") as steps:
        for (index,) in steps:
            image = check_image(net, source.read([index])[0], f"image {index}")
            output = check_activations(net.forward(to_device(net, image[None])).output, "output", index)
            start = float(to_host(net.answer(output))[0, wanted[index]])
            relevance = _relevance(maps[index], image, index)
            rng = np.random.default_rng([seed, index])
            random = [rng.permutation(len(windows)) for _ in range(orders)]
            order = np.lexsort((rng.random(len(windows)), -_by_patch(relevance, size)))
            ways = [order[:: _WAYS[mode]] for mode in modes]
            paint = filled(image, fill, seed)
            curves = _deletion(net, image, int(wanted[index]), start, windows, paint, [*ways, *random], batch_size)
            if not is_finite(curves):
                raise ValueError(f"fill must leave activations finite, got {fill}")
            found.append((order, curves))
    curves = np.stack([curves for _, curves in found])
    of_modes, random_curves = curves[:, : len(modes)], curves[:, len(modes) :]
    return steps.finish(
        Faithfulness(
            labels=wanted[: len(found)],
            curves={mode: of_modes[:, place, :: _WAYS[mode]] for place, mode in enumerate(modes)},
            random={mode: random_curves[..., :: _WAYS[mode]] for mode in modes},
            orders=np.stack([order for order, _ in found]),
            patch=size,
            grid=grid,
            fill=fill,
            head=net.head,
            one_output=net.num_classes == 1,
        )
    )


def _deletion(
    net: Network,
    image: np.ndarray,
    label: int,
    start: float,
    windows: Sequence[Window],
    paint: np.ndarray,
    orders: Sequence[np.ndarray],
    batch_size: int,
) -> np.ndarray:
    """The probability after 0 (`start`), 1, ... P patches in each of the orders, float32 (orders, P + 1)."""
    whole, length = PatchedForward(net, image), len(windows)
    curves = np.empty((len(orders), length + 1), np.float32)
    curves[:, 0] = start
    # Several whole orders at once, or else one in parts.
    at_once = max(1, batch_size // length)
    for some in np.array_split(np.arange(len(orders)), -(-len(orders) // at_once)):
        patched = whole.fork()
        for first in range(0, length, batch_size):
            parts = [[windows[number] for number in orders[one][first : first + batch_size]] for one in some]
            answers = patched.advance(parts, paint)[:, label].reshape(len(some), -1)
            curves[some, first + 1 : first + 1 + answers.shape[1]] = answers
    return curves


def _patches(size: tuple[int, int], shape: tuple[int, ...]) -> tuple[tuple[int, int], list[Window]]:
    """((rows, columns), the patches row by row) of an image."""
    tops, lefts = (range(0, side, step) for side, step in zip(shape[:2], size, strict=True))
    windows = [
        Window(top, left, min(size[0], shape[0] - top), min(size[1], shape[1] - left)) for top in tops for left in lefts
    ]
    return (len(tops), len(lefts)), windows


def _relevance(one: Any, image: np.ndarray, index: int) -> np.ndarray:
    """The relevance of every pixel by the map of this image, number `index`, float64 (H,W)."""
    shape = image.shape
    if isinstance(one, Occlusion) and not np.array_equal(one.image, image):
        raise ValueError(
            f"map {index} is the occlusion of another image than image {index}; its relevance() may be passed"
        )
    values = one.relevance() if isinstance(one, Occlusion) else to_host(one) if hasattr(one, "get") else one
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise TypeError(f"map {index} must be an Occlusion or an array of numbers, got {type(one).__name__}")
    if values.shape not in (shape[:2], shape):
        raise ValueError(f"map {index} must have shape {shape[:2]} or {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"map {index} has values that are not finite")
    values = values.astype(np.float64)
    return values if values.ndim == 2 else np.abs(values).sum(axis=2)


def _by_patch(relevance: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mean relevance of each patch, row by row."""
    sums = [np.ones_like(relevance), relevance]
    for axis, step in enumerate(size):
        sums = [np.add.reduceat(one, np.arange(0, relevance.shape[axis], step), axis=axis) for one in sums]
    return (sums[1] / sums[0]).ravel()


def _areas(curves: np.ndarray) -> np.ndarray:
    """The areas under curves (..., P + 1) from 0 to 1, by trapezoids."""
    curves = curves.astype(np.float64)
    return (curves[..., 1:] + curves[..., :-1]).mean(axis=-1) / 2
