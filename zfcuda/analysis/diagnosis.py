"""Architecture diagnosis (paper 4.1 and Fig. 6, P7): what a person sees in the filters and maps, measured.

Dead maps, filters of extreme frequency, filters that dominate, and aliasing: a convolution of stride s keeps every s-th
response, so what its response holds above 1 / (2 s) cycles a pixel (Nyquist's limit) comes back as false patterns. The
paper found both in an 11x11 first layer of stride 4 and cured them with 7x7 at stride 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import ops
from ..backends import array_module, to_host
from ..brief import Brief
from ..nn.layers import BatchNorm, Conv, ReLU
from ..pairs import as_pair
from ..training import Ranks
from .deconvnet import Ranking
from .figures import is_signal, new_figure
from .progress import Steps
from .results import Result
from .source import Images, as_source, to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..nn import Network

# Bands of a filter's spectrum, in cycles a pixel: low below the first, high above the second; 0.5 is the highest.
LOW, HIGH = 1 / 8, 1 / 4

# From where on a verdict speaks of a problem. White noise has 75 % of its energy in high frequencies and 19 % in middle
# ones: a filter that is rougher than noise has learned no shape.
DEAD_SHARE, ROUGH, ROUGH_SHARE, MIDDLE_SHARE, ALIASED_SHARE, OUTLIER_NORM = 0.1, 0.8, 0.25, 0.1, 0.25, 3.0

_SPECTRUM = 32  # filters are padded to this many pixels before their spectrum is taken
_DENSE_IMAGES = 8  # whose dense responses measure aliasing


@dataclass(frozen=True, repr=False)
class LayerDiagnosis(Brief):
    """One convolution of K maps.

    firing float64 (K,): the share of positions, over all images, where the map is above zero after its ReLU; dead
    bool (K,): never. rms float64 (K,): of each filter's weights; outliers bool (K,): more than three times the median.
    spectrum float64 (K,3): the share of each filter's energy in low, middle and high frequencies. aliased float64
    (K,): the share of each map's response (before sampling, without its mean) above the limit of the stride; 0 for
    stride 1. best float32 (K,): the strongest activation.
    """

    layer: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    firing: np.ndarray
    dead: np.ndarray
    best: np.ndarray
    rms: np.ndarray
    outliers: np.ndarray
    spectrum: np.ndarray
    aliased: np.ndarray

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words; empty if nothing is."""
        found = []
        count = len(self.dead)
        if self.dead.mean() > DEAD_SHARE:
            found.append(f"{self.dead.sum()} of {count} maps never fire")
        alive = ~self.dead
        rough = self.spectrum[alive, 2] > ROUGH
        if alive.any() and rough.mean() > ROUGH_SHARE:
            found.append(f"{rough.sum()} of {alive.sum()} filters are extreme high frequencies")
        if alive.any() and self.spectrum[alive, 1].mean() < MIDDLE_SHARE:
            found.append("little coverage of the middle frequencies")
        if self.outliers.any():
            found.append(f"{self.outliers.sum()} filters are more than {OUTLIER_NORM:g} times as strong as the median")
        if alive.any() and self.aliased[alive].mean() > ALIASED_SHARE:
            share = 100 * self.aliased[alive].mean()
            found.append(f"aliasing: {share:.0f} % of the response lies above the limit of stride {self._stride}")
        return found

    @property
    def verdict(self) -> str:
        """One plain sentence."""
        problems = self.problems
        return "; ".join(problems) if problems else "nothing unusual"

    @property
    def _stride(self) -> str:
        height, width = self.stride
        return str(height) if height == width else f"{height} x {width}"


@dataclass(frozen=True, repr=False)
class Diagnosis(Result):
    """A `LayerDiagnosis` per convolution, from the images up."""

    layers: tuple[LayerDiagnosis, ...]
    images: int

    def numbers(self) -> dict[str, Any]:
        """Everything, with the verdicts."""
        return {
            "images": self.images,
            "layers": [{**vars(layer), "problems": layer.problems, "verdict": layer.verdict} for layer in self.layers],
        }

    def plot(self) -> Figure:
        """By layer: dead maps, energy of the filters by frequency, aliased response; all as shares in %."""
        figure, axes = new_figure(columns=2, width=9.0, height=3.4)
        names = [layer.layer for layer in self.layers]
        places = np.arange(len(names))
        left = np.zeros(len(names))
        for band, label in enumerate(("low", "middle", "high")):
            shares = np.array([100 * layer.spectrum[:, band].mean() for layer in self.layers])
            axes[0, 0].barh(places, shares, 0.6, left=left, label=label)
            left = left + shares
        axes[0, 0].set_xlabel("energy of the filters by frequency, %")
        axes[0, 0].legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        axes[0, 1].barh(places - 0.2, [100 * layer.dead.mean() for layer in self.layers], 0.38, label="dead maps")
        axes[0, 1].barh(places + 0.2, [100 * layer.aliased.mean() for layer in self.layers], 0.38, label="aliased")
        axes[0, 1].set_xlabel("share, %")
        axes[0, 1].set_xlim(0, max(5.0, axes[0, 1].get_xlim()[1]))  # nothing dead, nothing aliased: an empty chart
        axes[0, 1].legend(frameon=False)
        for axis in axes[0]:
            axis.set_yticks(places, names)
            axis.set_ylabel("layer")
            axis.invert_yaxis()
        return figure


def diagnosis(
    net: Network,
    images: Images,
    *,
    layers: Sequence[str] | None = None,
    batch_size: int = 64,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> Diagnosis:
    """Measures every convolution (or those named by `layers`) over images: a data set or float32 (N,H,W,C) (P7).

    ranks: of processes that share the images. `Interrupted` by Ctrl-C, with the measures of the images seen by then.
    """
    source = as_source(net, images)
    convolutions = {name: layer for name, layer in net.layers.items() if isinstance(layer, Conv)}
    if layers is not None:
        for name in layers:
            if name not in convolutions:
                raise ValueError(f"layers must be convolutions: {', '.join(convolutions)}; got {name!r}")
        convolutions = {name: convolutions[name] for name in layers}
    if not convolutions:
        raise ValueError("the net has no convolution to diagnose")
    outputs = {name: _rectified(net, name) for name in convolutions}
    seen = {
        name: _Seen(Ranking(outputs[name], 1), np.zeros(layer.output_shape[-1])) for name, layer in convolutions.items()
    }
    aliased: dict[str, np.ndarray] = {}

    def measure(indices: range) -> tuple[dict[str, _Seen], dict[str, np.ndarray]]:
        """What is seen of each convolution, and, of the first images, how much is aliased."""
        batch = to_device(net, source.read(indices))
        trace = net.forward(batch)
        folded = {}
        for name, layer in convolutions.items() if indices[0] == 0 else ():
            (before,) = layer.inputs
            inputs = batch if before == "input" else trace[before]
            folded[name] = _aliased(layer, to_host(inputs[:_DENSE_IMAGES]))
        return {name: _Seen.of(trace[outputs[name]], outputs[name], indices[0]) for name in convolutions}, folded

    label = "diagnosing" if progress else ""
    with Steps(len(source), batch_size, unit="images measured", label=label, ranks=ranks) as steps:
        for _, (more, folded) in steps.map(measure):
            aliased |= folded
            seen = {name: one.followed_by(more[name]) for name, one in seen.items()}
    found = []
    for name, layer in convolutions.items():
        height, width, _ = layer.output_shape
        weight = to_host(layer.weight).astype(np.float64)
        rms = np.sqrt((weight**2).mean(axis=(1, 2, 3)))
        best = seen[name].ranking.result().values[:, 0]
        found.append(
            LayerDiagnosis(
                layer=name,
                kernel=(weight.shape[1], weight.shape[2]),
                stride=as_pair(layer.stride),
                firing=seen[name].fired / (steps.done * height * width),
                dead=best <= 0,
                best=best,
                rms=rms,
                outliers=rms > OUTLIER_NORM * np.median(rms),
                spectrum=_spectrum(weight, layer.input_shape),
                aliased=aliased[name],
            )
        )
    return steps.finish(Diagnosis(tuple(found), steps.done))


class _Seen(NamedTuple):
    """One convolution over the images so far: its strongest activations, and how often each map fired, float64 (K,)."""

    ranking: Ranking
    fired: np.ndarray

    @classmethod
    def of(cls, activations: Any, output: str, first_index: int) -> _Seen:
        """Its activations (N,P,Q,K) of images first_index, first_index + 1, ..., from the layer `output`."""
        fired = to_host((activations > 0).sum(axis=(0, 1, 2)))
        return cls(Ranking(output, 1).including(activations, first_index), fired)

    def followed_by(self, later: _Seen) -> _Seen:
        """Of the images of both."""
        return _Seen(self.ranking.followed_by(later.ranking), self.fired + later.fired)


def _rectified(net: Network, name: str) -> str:
    """The ReLU right behind a convolution or its normalisation, or the convolution itself."""
    readers = [layer for layer in net.layers.values() if name in layer.inputs]
    if len(readers) == 1 and isinstance(readers[0], BatchNorm):
        after = _rectified(net, readers[0].name)
        return name if after == readers[0].name else after
    return readers[0].name if len(readers) == 1 and isinstance(readers[0], ReLU) else name


def _radius(height: int, width: int) -> np.ndarray:
    """The frequency of each coefficient of a 2-D spectrum, in cycles a pixel along the faster axis."""
    return np.maximum(np.abs(np.fft.fftfreq(height))[:, None], np.abs(np.fft.fftfreq(width))[None, :])


def _spectrum(weight: np.ndarray, maps: tuple[int, ...]) -> np.ndarray:
    """Filters (K,R,S,C) of maps (H,W,C) -> (K,3), the share of energy in low, middle and high frequencies; zero for a
    zero filter. Across a signal there are none."""
    height, width = (max(_SPECTRUM, size) for size in weight.shape[1:3])
    if is_signal(*maps[:2]) and weight.shape[1] == 1:
        height = 1
    radius = _radius(height, width)
    bands = [radius < LOW, (radius >= LOW) & (radius <= HIGH), radius > HIGH]
    shares = np.zeros((len(weight), 3))
    for number, one in enumerate(weight):
        energy = (np.abs(np.fft.fft2(one, s=(height, width), axes=(0, 1))) ** 2).sum(axis=2)
        if energy.sum() > 0:
            shares[number] = [energy[band].sum() / energy.sum() for band in bands]
    return shares


def _aliased(layer: Conv, inputs: np.ndarray) -> np.ndarray:
    """Inputs (N,H,W,C) -> (K,): the share of each map's response at stride 1 that the layer's stride folds back."""
    down, across = as_pair(layer.stride)
    count = layer.output_shape[-1]
    if down == across == 1:
        return np.zeros(count)
    above, total = np.zeros(count), np.zeros(count)
    for one in inputs:
        response = to_host(
            ops.conv2d(
                array_module(layer.weight).asarray(one[None]), layer.weight, padding=layer.padding, **layer.sparsity
            )
        )[0]
        response = response.astype(np.float64) - response.mean(axis=(0, 1), dtype=np.float64)
        # The window's soft edges keep the image's own edge from looking like high frequencies.
        window = np.hanning(response.shape[0] + 2)[1:-1, None] * np.hanning(response.shape[1] + 2)[None, 1:-1]
        energy = np.abs(np.fft.fft2(response * window[..., None], axes=(0, 1))) ** 2
        high = np.abs(np.fft.fftfreq(energy.shape[0]))[:, None] > 1 / (2 * down)
        high = high | (np.abs(np.fft.fftfreq(energy.shape[1]))[None, :] > 1 / (2 * across))
        above += energy[high].sum(axis=0)
        total += energy.sum(axis=(0, 1))
    return np.divide(above, total, out=np.zeros(count), where=total > 0)
