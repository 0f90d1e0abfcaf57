"""The randomisation check (Adebayo et al. 2018, "Sanity Checks for Saliency Maps"): do pictures show what was learned?

The weights are replaced by random ones from the top down, one layer more each time, and each rule's projection and the
occlusion map are compared with the intact net's. What stays while the weights go was never about what they learned.

What is projected is one unit, the intact net's strongest, at strength 1 in every net. In the last layer, the default,
it is the class that the intact net names: every layer lies between it and the pixels, so every layer counts. Of a layer
below, only what leads to it can count, and projections are compared within the window that the unit sees: beyond, both
are 0 whatever the weights. The forward pass, and with it switches and masks, is the randomised net's own: those of the
intact net are learned too, and would carry its picture into the other.

Random weights are Gaussian with the root mean square of those that they replace. Signals keep their size, so what is
lost is what was learned and not the scale: at the paper's 1e-2 those of a narrow net die out on the way up. And a net
from elsewhere does not say how it started. They come from a stream of their own: the one that starts a net would give
a net trained with the same seed its first weights back, which it still resembles.

Correlation is taken twice. With signs, as the pictures are shown: one whose signs turn at random is another picture.
Without (the sum of magnitudes over a pixel's channels): is it still the same places? A rule is judged by the larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..backends import Array, to_host
from ..brief import Brief
from ..nn.finite import check_activations, check_weights
from ..nn.layers import RULES
from ..nn.network import Network
from ..numbers import check_at_least
from ..pairs import IntPair
from ..training import Ranks
from ..wording import layer_words
from .deconvnet import cut, one_hot
from .figures import new_figure, plain
from .geometry import Window, field_of
from .occlusion import Square, occlusion, square_of
from .progress import Steps
from .results import OfClass
from .similarity import correlation_of_ranks, structural_similarity
from .similarity import ranks as ranks_of
from .source import Images, as_source, check_image, to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = (*RULES, "occlusion")
_TICKS = 25  # names of layers below a plot, at most
MEASURES = {
    "rank": "rank correlation",
    "places": "rank correlation without signs",
    "structure": "structural similarity",
}
VERDICTS = {  # from which correlation on, what is said of maps, and what is left of them without the upper half
    "hardly": (0.6, "hardly depend on what the net has learned", "they stay much the same"),
    "in part": (0.3, "depend in part on what the net has learned", "something of them stays"),
    "depend": (-np.inf, "depend on what the net has learned", "little of them is left"),
}


@dataclass(frozen=True, repr=False)
class Likeness(Brief):
    """How like the intact net's maps of one method are those of nets with 0, 1, 2, ... L random layers.

    rank: rank correlation of the signed values; places: of their magnitudes; structure: SSIM. Each float64 (N images,
    L + 1); NaN where one of the two maps is constant, as it is where nothing reaches the pixels.
    """

    rank: np.ndarray
    places: np.ndarray
    structure: np.ndarray

    def mean(self, measure: str) -> np.ndarray:
        """The mean of a measure over the images that have it, float64 (L + 1,); NaN where none has."""
        return _mean(getattr(self, measure))

    def deviation(self, measure: str) -> np.ndarray:
        """Its standard deviation, likewise."""
        return np.sqrt(_mean((getattr(self, measure) - self.mean(measure)) ** 2))

    @property
    def constant(self) -> np.ndarray:
        """How many images have no two maps to compare, int64 (L + 1,)."""
        return np.isnan(self.rank).sum(axis=0)


def _mean(values: np.ndarray) -> np.ndarray:
    there = ~np.isnan(values)
    return np.where(there, values, 0).sum(axis=0) / np.where(there.any(axis=0), there.sum(axis=0), np.nan)


@dataclass(frozen=True, repr=False)
class Sanity(OfClass):
    """How the maps of each method change as a net's layers become random, from the top down. N images, L layers.

    layer: whose unit is projected; units int32 (N, 3): its map, row and column; windows int32 (N, 4): top, left, height
    and width of what it sees, to which projections are cut; labels int64 (N,): the class that the intact net names,
    whose probability occlusion follows. randomised: the L layers in the order in which they become random, by `seed`.
    likeness: by method. maps: by method, of the first few images, each float32 (L + 1, h, w, C) of projections, and
    (L + 1, rows, columns) of occlusion: how far the probability falls.
    """

    layer: str
    units: np.ndarray
    windows: np.ndarray
    labels: np.ndarray
    randomised: tuple[str, ...]
    seed: int
    likeness: Mapping[str, Likeness]
    maps: Mapping[str, Sequence[np.ndarray]]

    @property
    def half(self) -> int:
        """How many layers are the upper half."""
        return (len(self.randomised) + 1) // 2

    def kept(self, method: str) -> float:
        """What stays of a method's maps without what the upper half of the layers learned: the mean rank correlation
        with or without signs, whichever is larger. NaN if there is nothing to compare."""
        likeness = self.likeness[method]
        return float(np.fmax(likeness.mean("rank"), likeness.mean("places"))[self.half])

    def verdict(self, method: str) -> str:
        """A word of `VERDICTS`: do a method's maps depend on what the net has learned? "" where that cannot be said."""
        kept = self.kept(method)
        return next((word for word, (least, _, _) in VERDICTS.items() if kept >= least), "")

    def sentence(self, method: str) -> str:
        """What the check says of a method, in plain words."""
        name = "Occlusion maps" if method == "occlusion" else f'Projections by the rule "{method}"'
        random = f"with random weights in {', '.join(map(layer_words, self.randomised[: self.half]))}"
        if not (verdict := self.verdict(method)):
            return f"{name} cannot be judged: as they are or {random}, they are constant."
        _, judged, left = VERDICTS[verdict]
        means = (self.likeness[method].mean(measure)[self.half] for measure in ("rank", "places"))
        signed, places = (round(float(mean), 2) + 0.0 for mean in means)  # a zero without a sign
        return (
            f"{name} {judged}: {random}, {left} (rank correlation {signed:.2f}, without signs {places:.2f}; 1 is the "
            "same, 0 unrelated)."
        )

    def numbers(self) -> dict[str, Any]:
        """All but the maps, with the means, what is kept, and the sentences."""
        return {
            **{name: value for name, value in vars(self).items() if name != "maps"},
            "means": {method: {m: one.mean(m) for m in MEASURES} for method, one in self.likeness.items()},
            "constant": {method: one.constant for method, one in self.likeness.items()},
            "kept": {method: self.kept(method) for method in self.likeness},
            "verdicts": {method: self.verdict(method) for method in self.likeness},
            "sentences": {method: self.sentence(method) for method in self.likeness},
        }

    def plot(self) -> Figure:
        """A panel per measure, a line per method: the mean over the images, in a band of their standard deviation."""
        steps = np.arange(len(self.randomised) + 1)
        names = ["nothing", *(plain(layer_words(name)) for name in self.randomised)]
        every = -(-len(names) // _TICKS)
        height = 3 + 0.07 * max(map(len, names))  # with what the names take that stand below
        figure, axes = new_figure(columns=len(MEASURES), width=10.5, height=height)
        for axis, (measure, title) in zip(axes[0], MEASURES.items(), strict=True):
            for method, likeness in self.likeness.items():
                mean, deviation = likeness.mean(measure), likeness.deviation(measure)
                (line,) = axis.plot(steps, mean, marker="o", markersize=3, label=method)
                axis.fill_between(steps, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.12, lw=0)
            axis.set_title(title, fontsize=9)
            axis.set_xticks(steps[::every], names[::every], rotation=90, fontsize=7)
            axis.set_xlabel("random from the top down to")
        axes[0, 0].set_ylabel("likeness to the maps as learned")
        low = min(axis.get_ylim()[0] for axis in axes[0])
        for axis in axes[0]:
            axis.set_ylim(low, 1.05)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, ncols=4, loc="outside upper center")
        return figure


def sanity(
    net: Network,
    images: Images,
    *,
    layer: str | None = None,
    methods: Sequence[str] = METHODS,
    size: IntPair | None = None,
    stride: IntPair | None = None,
    seed: int = 0,
    keep: int = 3,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> Sanity:
    """Compares maps of the net with those of copies whose layers are random, from the top down (see the module).

    images: float32 (N,H,W,C) as the net takes them, or a data set. layer: whose strongest unit is projected, by default
    the last one, the classes. methods: some of "deconvnet", "gradient", "guided" and "occlusion". size, stride: of the
    square that occludes, in pixels, by default as in `square_of`. seed: of the random weights, the same on every
    device. keep: of how many images the result has the maps themselves. ranks: of processes that share the images.
    The net stays as it is. ValueError if a weight or an activation is not finite. `Interrupted` by Ctrl-C, with the
    images compared by then.
    """
    source = as_source(net, images)
    layer = next(reversed(net.layers)) if layer is None else layer
    net.locate(layer)
    if not methods or not set(methods) <= set(METHODS):
        raise ValueError(f"methods must be one or more of {', '.join(METHODS)}; got {', '.join(methods) or 'none'}")
    keep = check_at_least("keep", keep, 0)
    square = square_of(net, size, stride)
    layers, nets = _cascade(net, layer, seed)
    field = field_of(net, layer)

    def compare(step: range) -> _Found:
        (index,) = step
        image = check_image(net, source.read([index])[0], f"image {index}")
        trace = net.forward(to_device(net, image[None]))
        unit = _strongest(trace[layer], layer, index)
        label, _, _ = _strongest(trace.output, "output", index)
        window = field.window(*unit[1:])
        each = [_maps(one, image, methods, layer, unit, window, label, square) for one in nets]
        maps = {method: [of_net[method] for of_net in each] for method in methods}
        likeness = {method: _compare(of_method) for method, of_method in maps.items()}
        return _Found(unit, window, label, likeness, maps if index < keep else {})

    found: list[_Found] = []
    label = "comparing" if progress else ""
    with Steps(len(source), unit="images compared", label=label, ranks=ranks) as steps:
        for _, one in steps.map(compare):
            found.append(one)
    return steps.finish(
        Sanity(
            layer=layer,
            units=np.array([one.unit for one in found], np.int32),
            windows=np.array([one.window for one in found], np.int32),
            labels=np.array([one.label for one in found]),
            randomised=layers,
            seed=seed,
            likeness={m: Likeness(*np.stack([one.likeness[m] for one in found], axis=1)) for m in methods},
            maps={m: [np.stack(one.maps[m]) for one in found if one.maps] for m in methods},
            head=net.head,
            one_output=net.num_classes == 1,
        )
    )


def randomised(net: Network, layers: Sequence[str], seed: int = 0) -> Network:
    """A copy of the net with random weights and biases in these layers: Gaussian, of mean zero and of the root mean
    square of those that they replace. The others' arrays, and running averages, are the net's own. ValueError if one
    is not finite."""
    seed = check_at_least("seed", seed, 0)
    check_weights(net)
    parameters = net.parameters()
    for layer in layers:
        net.locate(layer)
        rng = np.random.default_rng([seed, *f"random {layer}".encode()])
        for name in (f"{layer}.{parameter}" for parameter in net.layers[layer].parameter_shapes):
            own = to_host(parameters[name])
            values = rng.standard_normal(own.shape, np.float32)
            values *= np.float32(np.sqrt(np.mean(np.square(own, dtype=np.float64))))
            parameters[name] = to_device(net, values)
    return _with_parameters(net, parameters)


def _with_parameters(net: Network, parameters: dict[str, Array]) -> Network:
    other = Network(net.architecture, parameters=parameters | net.state())
    other.precision, other.preprocess, other.classes = net.precision, net.preprocess, net.classes
    other.head = net.head
    return other


def _cascade(net: Network, layer: str, seed: int) -> tuple[tuple[str, ...], list[Network]]:
    """The layers with weights that lead to `layer`, from it down, and the nets in which none, the first, the first two
    ... are random. What is random in one is the same in the next: all of them take one more copy of the weights."""
    leading = {layer}
    for name in reversed(net.layers):
        if name in leading:
            leading.update(net.layers[name].inputs)
    layers = tuple(name for name in reversed(net.layers) if name in leading and net.layers[name].parameter_shapes)
    if not layers:
        raise ValueError(f"layer must have weights in it or below it, got {layer!r}")
    random, parameters, nets = randomised(net, layers, seed).parameters(), net.parameters(), [net]
    for name in layers:
        parameters |= {key: array for key, array in random.items() if key.rpartition(".")[0] == name}
        nets.append(_with_parameters(net, parameters))
    return layers, nets


class _Found(NamedTuple):
    """Of one image."""

    unit: tuple[int, int, int]
    window: Window
    label: int
    likeness: dict[str, np.ndarray]  # each (measures, nets)
    maps: dict[str, list[np.ndarray]]  # of each net, or none at all


def _strongest(activations: Array, name: str, index: int) -> tuple[int, int, int]:
    """(map, row, column) of the strongest of one image's activations (1,H,W,C) or (1,C)."""
    values = to_host(check_activations(activations, name, index))[0]
    *place, feature_map = (int(i) for i in np.unravel_index(int(values.argmax()), values.shape))
    row, column = place or (0, 0)
    return feature_map, row, column


def _maps(
    net: Network,
    image: np.ndarray,
    methods: Sequence[str],
    layer: str,
    unit: tuple[int, int, int],
    window: Window,
    label: int,
    square: Square,
) -> dict[str, np.ndarray]:
    """What one net says: projections (h,w,C), and how far the label's probability falls (rows, columns)."""
    trace = net.forward(to_device(net, image[None]))
    activations = one_hot(net, layer, [(*unit, 1.0)])
    maps = {}
    for method in methods:
        if method == "occlusion":
            result = occlusion(net, image, label, size=square[0], stride=square[1])
            maps[method] = result.baseline - result.probability
        else:
            maps[method] = cut(to_host(net.project(trace, layer, activations, rule=method))[0], window)
    return maps


def _compare(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Each map of one method with the first, the intact net's: float64 (measures, nets)."""
    signed = [ranks_of(one) for one in maps]
    places = [ranks_of(np.abs(one).reshape(*one.shape[:2], -1).sum(axis=2)) for one in maps]
    return np.array(
        [
            [correlation_of_ranks(signed[0], other) for other in signed],
            [correlation_of_ranks(places[0], other) for other in places],
            [structural_similarity(maps[0], other) for other in maps],
        ]
    )
