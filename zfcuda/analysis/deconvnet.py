"""Top-9 visualisation (paper 2.1 and Fig. 2, P3 and P4): what excites a feature map most, projected to pixels.

The ranking streams: one pass over the images in batches, keeping k values per map, so that memory is bounded by
k x maps and not by the data set. The winners alone are read again and projected, several activations of one image
sharing its forward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from ..backends import get, to_host
from ..errors import Interrupted
from ..nn.finite import check_activations
from ..numbers import check_at_least
from ..training import Ranks
from ..wording import layer_words
from .figures import draw_tiles, full_swing, new_figure, plain
from .geometry import field_of
from .progress import Steps
from .results import Result
from .source import Images, as_source, check_layers, to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..nn.network import Network

_PLOTTED = 8  # maps in a figure
_ROUNDING = 1e-2  # of a layer's strongest activation, between batches of other sizes and devices, in bfloat16 too


@dataclass(frozen=True, repr=False)
class TopActivations(Result):
    """The strongest activations of every map of a layer, one per image, strongest first.

    values float32 (maps, k), indices int64 (maps, k) of images, positions int32 (maps, k, 2) as (row, column) in the
    map, (0, 0) in fully connected layers. k is at most the number of images. Unpacks as values, indices, positions.
    """

    layer: str
    values: np.ndarray
    indices: np.ndarray
    positions: np.ndarray

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.values, self.indices, self.positions))

    def plot(self) -> Figure:
        """The winners of all maps, ordered by the strongest: a line per rank, the first on top."""
        figure, axes = new_figure()
        order = np.argsort(-self.values[:, 0], kind="stable")
        axes[0, 0].plot(np.arange(len(order)), self.values[order], linewidth=1)
        axes[0, 0].set_xlabel(f"maps of {plain(layer_words(self.layer))}, strongest first")
        axes[0, 0].set_ylabel(f"activation in its {self.values.shape[1]} best images")
        return figure


@dataclass(frozen=True, repr=False)
class Visualization(Result):
    """The winners of some maps of a layer, projected to pixels (P4). M maps, k winners each.

    maps (M,) numbers of the maps; values, indices (M, k) and positions (M, k, 2) as in `TopActivations`; windows int32
    (M, k, 4): top, left, height, width of exactly the pixels that the activation sees; frames int32 (M, k, 4): the same
    in one size for all positions, which may reach beyond the image; projections and patches float32 (M, k, h, w, C):
    the projection and the net's input inside the frame, zero beyond the image.
    """

    layer: str
    maps: np.ndarray
    values: np.ndarray
    indices: np.ndarray
    positions: np.ndarray
    windows: np.ndarray
    frames: np.ndarray
    projections: np.ndarray
    patches: np.ndarray

    def numbers(self) -> dict[str, Any]:
        """All but the pixels."""
        names = ("layer", "maps", "values", "indices", "positions", "windows")
        return {name: getattr(self, name) for name in names}

    def plot(self) -> Figure:
        """A row for each of the first maps: its projections, strongest first, then the patches that they came from."""
        rows = min(len(self.maps), _PLOTTED)
        figure, axes = new_figure(columns=2, rows=rows, width=9.0, height=1.0 + 0.9 * rows)
        for index, (left, right) in enumerate(axes):
            # Projections are signed: zero is mid grey.
            swings = [2 * full_swing(one) or 1 for one in self.projections[index]]
            projected = np.clip(0.5 + self.projections[index] / np.reshape(swings, (-1, 1, 1, 1)), 0, 1)
            low, high = self.patches[index].min(), self.patches[index].max()
            seen = (self.patches[index] - low) / (high - low if high > low else 1)
            for axis, tiles in ((left, projected), (right, seen)):
                draw_tiles(axis, tiles)
                axis.set_xticks([])
                axis.set_yticks([])
            left.set_ylabel(f"map {self.maps[index]}")
        axes[-1, 0].set_xlabel(f"projections from {plain(layer_words(self.layer))}")
        axes[-1, 1].set_xlabel("patches that the map sees")
        return figure


class Ranking:
    """The k strongest activations of every map so far; the earlier image wins a tie."""

    def __init__(self, layer: str, k: int):
        k = check_at_least("k", k, 1)
        self.layer = layer
        self.k = k
        self._columns: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # each (seen, maps)

    def including(self, activations: Any, first_index: int) -> Ranking:
        """The ranking with the layer's activations for images first_index, first_index + 1, ...: (N,H,W,C) or (N,C).

        ValueError if one is not finite: a ranking of NaN would be silent nonsense.
        """
        values, places, width = strongest(activations)
        check_activations(values, self.layer, first_index)
        positions = np.stack(np.divmod(places, width), axis=-1).astype(np.int32)
        indices = np.repeat(np.arange(first_index, first_index + len(values))[:, None], values.shape[1], axis=1)
        return self._with((values, indices, positions))

    def followed_by(self, later: Ranking) -> Ranking:
        """The ranking of the images of both, of which those of `later` come after all of this one's."""
        return self if later._columns is None else self._with(later._columns)

    def _with(self, columns: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Ranking:
        if self._columns is not None:
            columns = tuple(np.concatenate(pair) for pair in zip(self._columns, columns, strict=True))  # type: ignore
        order = np.argsort(-columns[0], axis=0, kind="stable")[: self.k]
        after = Ranking(self.layer, self.k)
        after._columns = (
            np.take_along_axis(columns[0], order, axis=0),
            np.take_along_axis(columns[1], order, axis=0),
            np.take_along_axis(columns[2], order[..., None], axis=0),
        )
        return after

    def result(self) -> TopActivations:
        """What has been found; ValueError if no image has been seen."""
        if self._columns is None:
            raise ValueError("images is empty: there is nothing to rank")
        values, indices, positions = (np.ascontiguousarray(c.swapaxes(0, 1)) for c in self._columns)
        return TopActivations(self.layer, values, indices, positions)


def strongest(activations: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Every map's strongest activation: values (N,C), flat positions (N,C) and the map's width, on the host."""
    if activations.ndim == 2:
        values = to_host(activations)
        return values, np.zeros(values.shape, np.int32), 1
    values, positions = ops.spatial_max(activations)
    return to_host(values), to_host(positions), activations.shape[2]


def top_activations(
    net: Network,
    images: Images,
    layer: str,
    k: int = 9,
    *,
    batch_size: int = 64,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> TopActivations:
    """The k images that excite each map of `layer` most, and where (P4). One pass, memory bounded by k x maps.

    images: float32 (N,H,W,C) as the net takes them, or a data set (see `zfcuda.analysis.source`). ranks: of processes
    that share the images, see `zfcuda.analysis.progress`. `Interrupted` by Ctrl-C, with the ranking of the images seen
    by then.
    """
    try:
        return rank_layers(net, images, [layer], k, batch_size=batch_size, progress=progress, ranks=ranks)[layer]
    except Interrupted as stop:
        raise Interrupted(stop.result and stop.result[layer], str(stop)) from None


def rank_layers(
    net: Network,
    images: Images,
    layers: Sequence[str],
    k: int = 9,
    *,
    batch_size: int = 64,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> dict[str, TopActivations]:
    """`top_activations` of several layers in one pass over the images."""
    layers = check_layers(net, layers)
    rankings = {layer: Ranking(layer, k) for layer in layers}
    source = as_source(net, images)

    def rank(indices: range) -> dict[str, Ranking]:
        trace = net.forward(to_device(net, source.read(indices)))
        return {layer: Ranking(layer, k).including(trace[layer], indices[0]) for layer in layers}

    label = "ranking" if progress else ""
    with Steps(len(source), batch_size, unit="images ranked", label=label, ranks=ranks) as steps:
        for _, found in steps.map(rank):
            rankings = {layer: ranking.followed_by(found[layer]) for layer, ranking in rankings.items()}
    return steps.finish({layer: ranking.result() for layer, ranking in rankings.items()})


def visualize(
    net: Network,
    images: Images,
    top: TopActivations,
    *,
    maps: Sequence[int] | None = None,
    rule: str = "deconvnet",
    batch_size: int = 64,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> Visualization:
    """Projects the winners of `maps` (all if None) to pixels, each activation alone, and cuts out what it sees (P4).

    images: those that `top` was ranked on; ValueError where they, or the net, are others, which give winners other
    activations; TypeError if `top` is no such ranking. rule: "deconvnet", "gradient" or "guided". ranks: of processes
    that share the winners. `Interrupted` by Ctrl-C, with zeros for the winners that had not been projected by then.
    """
    if not isinstance(top, TopActivations):
        raise TypeError(f"top must be what top_activations found, got {type(top).__name__}")
    chosen = _check_maps(maps, len(top.values))
    source = as_source(net, images)
    if top.indices.max() >= len(source):
        raise ValueError(
            f"images must be those that were ranked: image {top.indices.max()} won, of {len(source)} that are given"
        )
    field = field_of(net, top.layer)
    k = top.values.shape[1]
    indices, positions, values = top.indices[chosen], top.positions[chosen], top.values[chosen]
    window, frame = functools.cache(field.window), functools.cache(field.frame)  # many win at one place
    windows = np.array([[window(*p) for p in row] for row in positions.tolist()], np.int32)
    frames = np.array([[frame(*p) for p in row] for row in positions.tolist()], np.int32)
    height, width = frames[0, 0, 2:]
    shape = (len(chosen), k, int(height), int(width), source.image_shape[2])
    projections, patches = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    # Winners in the order of their images, so that an image is read once or twice, not once per map.
    order = np.argsort(indices, axis=None, kind="stable")

    def project(step: range) -> tuple[np.ndarray, np.ndarray]:
        """Of each of these winners what it projects to, and what it sees."""
        at = np.unravel_index(order[step], indices.shape)
        unique, which = np.unique(indices[at], return_inverse=True)
        batch = source.read(unique)
        trace = net.forward(to_device(net, batch))
        winners = zip(chosen[at[0]].tolist(), positions[at].tolist(), values[at], strict=True)
        seeds = [(feature_map, *position, value) for feature_map, position, value in winners]
        _check_winners(trace[top.layer], which, seeds, unique[which], np.abs(top.values).max())
        pixels = to_host(net.project(trace.select(which), top.layer, one_hot(net, top.layer, seeds), rule=rule))
        projected = [cut(one, frame) for one, frame in zip(pixels, frames[at], strict=True)]
        return np.stack(projected), np.stack([cut(i, frame) for i, frame in zip(batch[which], frames[at], strict=True)])

    label = f"projecting {layer_words(top.layer)}" if progress else ""
    with Steps(
        len(order), batch_size, unit=f"winners of {layer_words(top.layer)} projected", label=label, ranks=ranks
    ) as steps:
        for step, found in steps.map(project):
            at = np.unravel_index(order[step], indices.shape)
            projections[at], patches[at] = found
    return steps.finish(
        Visualization(top.layer, chosen, values, indices, positions, windows, frames, projections, patches)
    )


def _check_winners(
    activations: Any,
    which: np.ndarray,
    seeds: Sequence[tuple[int, int, int, float]],
    images: np.ndarray,
    largest: float,
) -> None:
    """ValueError where an activation, of image which[i] of the batch, is not the one that won: the images, or the net,
    are not those ranked."""
    maps, rows, columns, values = zip(*seeds, strict=True)
    place = (rows, columns, maps) if activations.ndim == 4 else (maps,)
    found = to_host(activations[tuple(np.array([which, *place]))])
    wrong = np.abs(found - np.array(values)) > _ROUNDING * largest
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(
            f"images must be those that were ranked, with the same net: map {maps[at]} won with {values[at]:.4g} on "
            f"image {images[at]}, where it is {found[at]:.4g}"
        )


def one_hot(net: Network, layer: str, seeds: Sequence[tuple[int, int, int, float]]) -> Any:
    """Activations of the layer, zero but for one (map, row, column, value) per image."""
    shape = net.layers[layer].output_shape
    activations = get("cpu").zeros((len(seeds), *shape))
    for image, (feature_map, row, column, value) in enumerate(seeds):
        if len(shape) == 3:
            activations[image, row, column, feature_map] = value
        else:
            activations[image, feature_map] = value
    return to_device(net, activations)


def cut(pixels: np.ndarray, frame: Sequence[int] | np.ndarray, fill: float = 0) -> np.ndarray:
    """The frame (top, left, height, width) of an array (H,W,C), `fill` where it reaches beyond."""
    top, left, height, width = (int(v) for v in frame)
    patch = np.full((height, width, pixels.shape[2]), fill, pixels.dtype)
    row, column = max(0, top), max(0, left)
    inside = pixels[row : max(0, top + height), column : max(0, left + width)]
    patch[row - top : row - top + inside.shape[0], column - left : column - left + inside.shape[1]] = inside
    return patch


def block_layers(net: Network) -> list[str]:
    """The layers that end the paper's blocks, as far as they have maps."""
    return [name for _, name in sorted(net.blocks.items()) if len(net.layers[name].output_shape) == 3]


def strongest_maps(top: TopActivations, count: int) -> list[int]:
    """The numbers of the `count` maps whose best activation stands out most, strongest first; dead maps never."""
    order = np.argsort(-top.values[:, 0], kind="stable")
    return [int(m) for m in order[:count] if top.values[m, 0] > 0]


def _check_maps(maps: Sequence[int] | None, count: int) -> np.ndarray:
    chosen = np.arange(count) if maps is None else np.asarray(maps, np.int64)
    if chosen.ndim != 1 or chosen.size == 0:
        raise ValueError(f"maps must be a list of one map number or more, got {maps!r}")
    if chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(f"maps must be in [0, {count}), got {maps!r}")
    return chosen
