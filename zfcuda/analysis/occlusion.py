"""Occlusion sensitivity (paper 4.2 and Fig. 7, P8): a square slides over the image, and the net is asked each time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..backends import to_host
from ..nn.finite import check_activations, check_weights, is_finite
from ..numbers import check_at_least
from ..pairs import IntPair, check_part, check_steps
from ..training import Ranks
from ..wording import layer_words
from .deconvnet import block_layers
from .figures import color_range, is_signal, new_figure, plain
from .fills import Fill, check_fill, filled
from .geometry import Window, shorter_side
from .incremental import PatchedForward
from .progress import Steps
from .results import OfClass, Result
from .source import Images, as_source, check_image, check_labels, to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..nn.network import Network

Square = tuple[tuple[int, int], tuple[int, int]]  # (height, width), and its steps (down, across)

_PLOTTED = 8  # of several images


@dataclass(frozen=True, repr=False)
class Occlusion(OfClass):
    """What the net says of one image while a square covers a part of it (P8).

    The square's corner stands at (row * stride, column * stride); the last ones are clipped by the image's edge.
    probability float32 (rows, columns): of `label`; prediction int64 (rows, columns): the most probable class;
    activation float32 (rows, columns): the sum over map `feature_map` of `layer`, the one whose sum is largest in the
    whole image; projection float32 (H,W,C): that map of the whole image, projected to pixels; image float32 (H,W,C):
    what the net was given. baseline is the probability, baseline_prediction the class and baseline_activation the sum
    without a square. fill: what the square was painted with.
    """

    probability: np.ndarray
    prediction: np.ndarray
    activation: np.ndarray
    layer: str
    feature_map: int
    projection: np.ndarray
    image: np.ndarray
    label: int
    baseline: float
    baseline_prediction: int
    baseline_activation: float
    size: tuple[int, int]
    stride: tuple[int, int]
    fill: Fill

    def window(self, row: int, column: int) -> Window:
        """The pixels that the square of one position covers: top, left, height, width, each side at least 1.
        IndexError where there is no such position."""
        rows, columns = self.probability.shape
        if not (0 <= row < rows and 0 <= column < columns):
            raise IndexError(f"the square has {rows} x {columns} positions, got ({row}, {column})")
        return _window(row, column, self.size, self.stride, self.image.shape)

    def lowest(self) -> tuple[int, int]:
        """(row, column) of the position where the label is least probable: where the net looks."""
        row, column = np.unravel_index(int(self.probability.argmin()), self.probability.shape)
        return int(row), int(column)

    def relevance(self) -> np.ndarray:
        """How much a pixel counts: by how much the probability falls where the square covers it, the mean over these
        positions, float64 (H,W); 0 where none does."""
        falls, counts = np.zeros((2, *self.projection.shape[:2]))
        for row, column in np.ndindex(self.probability.shape):
            top, left, height, width = self.window(row, column)
            falls[top : top + height, left : left + width] += self.baseline - float(self.probability[row, column])
            counts[top : top + height, left : left + width] += 1
        return falls / np.maximum(counts, 1)

    def numbers(self) -> dict[str, Any]:
        """All but the pixels."""
        return {name: value for name, value in vars(self).items() if name not in ("projection", "image")}

    def plot(self) -> Figure:
        """Probability, prediction (if there are classes) and activation by the square's position."""
        return _plotted([self])


@dataclass(frozen=True, repr=False)
class Occlusions(Result, Sequence[Occlusion]):
    """Of several images, in their order: an `Occlusion` of each."""

    of_images: tuple[Occlusion, ...]

    def __len__(self) -> int:
        return len(self.of_images)

    @overload
    def __getitem__(self, index: int) -> Occlusion: ...
    @overload
    def __getitem__(self, index: slice) -> Occlusions: ...
    def __getitem__(self, index: int | slice) -> Occlusion | Occlusions:
        return Occlusions(self.of_images[index]) if isinstance(index, slice) else self.of_images[index]

    def numbers(self) -> dict[str, Any]:
        """Those of each image."""
        return {"of_images": [one.numbers() for one in self]}

    def plot(self) -> Figure:
        """Those of the first eight images, one above the other."""
        return _plotted(self.of_images[:_PLOTTED])


def _plotted(results: Sequence[Occlusion]) -> Figure:
    columns = 2 if results[0].one_output else 3
    figure, axes = new_figure(columns=columns, rows=len(results), width=3.2 * columns, height=3.2 * len(results))
    for row, one in zip(axes, results, strict=True):
        panels = [
            (one.followed_of(f"class {one.label}"), one.probability),
            (f"sum of {plain(layer_words(one.layer))} map {one.feature_map}", one.activation),
        ]
        if not one.one_output:
            panels.insert(1, ("most probable class", one.prediction))
        for axis, (title, values) in zip(row, panels, strict=True):
            low, high = color_range(values)
            ends = _samples(one) if is_signal(*one.image.shape[:2]) else None
            # One row, as of a signal, would be a line in the middle.
            aspect = "equal" if len(values) > 1 else "auto"
            shown = axis.imshow(values, aspect=aspect, extent=ends, vmin=low, vmax=high)
            figure.colorbar(shown, ax=axis, shrink=0.8)
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("column of the square" if ends is None else "first sample that is covered")
            if ends is None:
                axis.set_ylabel("row")
            if len(values) == 1:
                axis.set_yticks([0] if ends is None else [])
    return figure


def _samples(result: Occlusion) -> tuple[float, float, float, float]:
    """Where a signal's map begins and ends (left, right, bottom, top), in samples."""
    step = result.stride[1]
    return (-step / 2, (result.probability.shape[1] - 0.5) * step, 0.5, -0.5)


@overload
def occlusion(
    net: Network,
    image: np.ndarray,
    label: int,
    *,
    size: IntPair,
    stride: IntPair,
    fill: Fill = 0.0,
    seed: int = 0,
    layer: str | None = None,
    feature_map: int | None = None,
    batch_size: int = 128,
    progress: bool = False,
) -> Occlusion: ...
@overload
def occlusion(
    net: Network,
    image: Images,
    label: Sequence[int] | np.ndarray,
    *,
    size: IntPair,
    stride: IntPair,
    fill: Fill = 0.0,
    seed: int = 0,
    layer: str | None = None,
    feature_map: int | None = None,
    batch_size: int = 128,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> Occlusions: ...
def occlusion(
    net: Network,
    image: Images,
    label: int | Sequence[int] | np.ndarray,
    *,
    size: IntPair,
    stride: IntPair,
    fill: Fill = 0.0,
    seed: int = 0,
    layer: str | None = None,
    feature_map: int | None = None,
    batch_size: int = 128,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> Occlusion | Occlusions:
    """Slides a square over an image and records the label's probability, the prediction and a map's activation (P8).

    image, label: float32 (H,W,C) as the net takes it and its class -> `Occlusion`; or float32 (N,H,W,C) or a data set,
    and their classes (N,) -> `Occlusions`, what each image gives alone. size, stride: of the square in pixels, an int
    or (height, width). An int is cut to the image's shorter side: 16 is 1 x 16 of a signal, an image of H = 1. The
    corner stands at multiples of `stride` from 0, ceil((H - size) / stride) + 1 of them down, the last one clipped by
    the edge; of a stride longer than the square ceil(H / stride), so that each covers a pixel at least. fill: what the
    square is painted with: a number (0 is the mean of images whose mean is subtracted), "mean" (of the image, by
    channel), "blur" (the image, blurred) or "noise" (Gaussian, with the image's mean and standard deviation by
    channel), which `seed` fixes, so that it lies still as the square moves. layer: whose map is summed, by default the
    last one with maps ("layer 5"); feature_map: which one, by default the one whose sum is largest without a square.
    batch_size: how many positions are evaluated at a time, at most: they are cut into batches of one size, as few as
    there can be. ranks: of processes that share the images, if these are several.

    Only the parts of the feature maps that the square changes are computed anew (`incremental`); the result is that of
    a full forward pass per position. ValueError, TypeError for what does not fit. `Interrupted` by Ctrl-C, with the
    images occluded by then.
    """
    if np.ndim(label):
        one = functools.partial(
            occlusion,
            net,
            size=size,
            stride=stride,
            fill=fill,
            seed=seed,
            layer=layer,
            feature_map=feature_map,
            batch_size=batch_size,
        )
        return _of_images(net, image, label, one, progress, ranks)
    image = check_image(net, image)
    square, step = square_of(net, size, stride)
    fill = check_fill(fill)
    seed = check_at_least("seed", seed, 0)
    layer = last_map_layer(net) if layer is None else _check_map_layer(net, layer)
    check_weights(net)
    trace = net.forward(to_device(net, image[None]))
    probabilities = to_host(net.answer(check_activations(trace.output, "output")))[0]
    label = _check_label(label, len(probabilities))
    maps = to_host(check_activations(trace[layer], layer))[0]
    sums = maps.sum(axis=(0, 1), dtype=np.float64)
    chosen = int(sums.argmax()) if feature_map is None else _check_map(feature_map, maps.shape[2])

    rows, columns = grid_of(image.shape, square, step)
    windows = [_window(row, column, square, step, image.shape) for row in range(rows) for column in range(columns)]
    patched, paint = PatchedForward(net, image, layer), filled(image, fill, seed)
    batches = -(-len(windows) // check_at_least("batch_size", batch_size, 1))
    found = [
        patched.occlude([windows[i] for i in positions], paint, chosen)
        for positions in Steps(len(windows), -(-len(windows) // batches), label="occlusion" if progress else "")
    ]
    probability = np.concatenate([f.probabilities for f in found])
    activation = np.concatenate([f.activations for f in found])
    if not (is_finite(probability) and is_finite(activation)):
        raise ValueError(f"fill must leave activations finite, got {fill}")

    alone = np.zeros_like(maps)
    alone[..., chosen] = maps[..., chosen]
    projection = to_host(net.project(trace, layer, to_device(net, alone[None])))[0]
    return Occlusion(
        probability=probability[:, label].reshape(rows, columns),
        prediction=probability.argmax(axis=1).reshape(rows, columns),
        activation=activation.reshape(rows, columns),
        layer=layer,
        feature_map=chosen,
        projection=projection,
        image=image,
        label=label,
        baseline=float(probabilities[label]),
        baseline_prediction=int(probabilities.argmax()),
        baseline_activation=float(sums[chosen]),
        size=square,
        stride=step,
        fill=fill,
        head=net.head,
        one_output=net.num_classes == 1,
    )


def _of_images(
    net: Network,
    images: Images,
    labels: Any,
    one: Callable[[np.ndarray, int], Occlusion],
    progress: bool,
    ranks: Ranks | None,
) -> Occlusions:
    """What `one` gives of each image and its label."""
    source = as_source(net, images)
    if len(source) != len(labels):
        raise ValueError(f"images and labels must be as many: {len(source)}, {len(labels)}")
    wanted = check_labels(labels, net.num_classes)
    found: list[Occlusion] = []
    label = "occluding" if progress else ""
    with Steps(len(source), unit="images occluded", label=label, ranks=ranks) as steps:
        for _, result in steps.map(lambda step: one(source.read(step)[0], int(wanted[step[0]]))):
            found.append(result)
    return steps.finish(Occlusions(tuple(found)))


def grid_of(shape: tuple[int, ...], size: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    """How many positions the square has down and across images of this shape: up to the first that reaches the edge,
    or, where steps are longer than the square, all that begin inside the image."""
    rows, columns = (-(-(n - max(0, s - d)) // d) for n, s, d in zip(shape[:2], size, stride, strict=True))
    return rows, columns


def _window(row: int, column: int, size: tuple[int, int], stride: tuple[int, int], shape: tuple[int, ...]) -> Window:
    """The pixels of an image of this shape that the square of one position covers, clipped by the edge."""
    top, left = row * stride[0], column * stride[1]
    return Window(top, left, min(size[0], shape[0] - top), min(size[1], shape[1] - left))


def square_of(net: Network, size: IntPair | None = None, stride: IntPair | None = None) -> Square:
    """The square's (height, width) and its steps (down, across), each from an int or a pair as `occlusion` takes them:
    by default a quarter of the image's shorter side (of a signal's length), and a quarter of that. ValueError,
    TypeError for what does not fit."""
    height, width, _ = net.input_shape
    side = shorter_side(net.input_shape)
    default = min(side, max(2, side // 4))
    square = check_part("size", default if size is None else size, (height, width))
    if stride is None:
        return square, (max(1, square[0] // 4), max(1, square[1] // 4))
    return square, check_steps("stride", stride, (height, width))


def last_map_layer(net: Network) -> str:
    """The paper's layer 5: what ends the last block before the fully connected layers."""
    with_maps = block_layers(net)
    if not with_maps:
        raise ValueError("the net has no layer with feature maps")
    return with_maps[-1]


def _check_map_layer(net: Network, layer: str) -> str:
    with_maps = [name for name, one in net.layers.items() if len(one.output_shape) == 3]
    if layer not in with_maps:
        raise ValueError(f"layer must be one with feature maps: {', '.join(with_maps)}; got {layer!r}")
    return layer


def _check_label(label: Any, classes: int) -> int:
    if not isinstance(label, (int, np.integer)) or isinstance(label, bool):
        raise TypeError(f"label must be a class number, got {label!r}")
    if not 0 <= label < classes:
        raise ValueError(f"label must be in [0, {classes}), got {label}")
    return int(label)


def _check_map(feature_map: int, maps: int) -> int:
    if not 0 <= feature_map < maps:
        raise ValueError(f"feature_map must be in [0, {maps}), got {feature_map}")
    return int(feature_map)
