"""Evolution of features during training (paper 4 and Fig. 4, P5): how a map's strongest projection changes by epoch.

A tracker looks at the network after chosen epochs, as a callback of the trainer. Each look is a file of its own, so
that a training that was interrupted and resumed keeps what was seen before. It says which training it is of
(`zfcuda.training.origin`): what another one left in the same folder plays no part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from ..brief import Brief
from ..data import Dataset
from ..errors import DataError
from ..files import write_atomically
from ..nn.finite import is_finite
from ..training import Trainer
from ..wording import layer_words
from .deconvnet import block_layers, rank_layers, visualize
from .figures import new_figure, plain
from .results import Result
from .source import Images, check_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..nn import Network

PAPER_EPOCHS = (1, 2, 5, 10, 20, 30, 40, 64)
FOLDER = "evolution"  # beside the checkpoint

_TRAINING = "training"  # among a file's metadata
_ARRAYS = ("maps", "values", "indices", "frames", "projections")


@dataclass(frozen=True, repr=False)
class LayerEvolution(Brief):
    """M maps of one layer at E epochs.

    epochs (E,), maps (M,); values float32 (M,E): the strongest activation over the images, indices int64 (M,E): in
    which image; frames int32 (M,E,4): where that activation looks (top, left, height, width); projections float32
    (M,E,h,w,C): what it projects to, inside the frame.
    """

    layer: str
    epochs: np.ndarray
    maps: np.ndarray
    values: np.ndarray
    indices: np.ndarray
    frames: np.ndarray
    projections: np.ndarray

    @property
    def changed(self) -> np.ndarray:
        """bool (M,E): whether another image took the top since the epoch before; False in the first."""
        changed = np.zeros(self.indices.shape, bool)
        changed[:, 1:] = self.indices[:, 1:] != self.indices[:, :-1]
        return changed

    @property
    def likeness(self) -> np.ndarray:
        """float64 (E,): how much the projections are already those of the last epoch, mean cosine over maps, -1..1."""
        flat = self.projections.reshape(*self.projections.shape[:2], -1).astype(np.float64)
        norms = np.linalg.norm(flat, axis=2)
        products = (flat * flat[:, -1:]).sum(axis=2)
        scale = norms * norms[:, -1:]
        return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0).mean(axis=0)

    @property
    def settled(self) -> int | None:
        """The first of the epochs from which on the projections' likeness to the last stays above 0.9; None if that is
        the last one, which is like itself whatever happened before."""
        below = np.flatnonzero(self.likeness <= 0.9)
        first = below[-1] + 1 if below.size else 0
        return int(self.epochs[first]) if first < len(self.epochs) - 1 else None


@dataclass(frozen=True, repr=False)
class Evolution(Result):
    """What a tracker saw: a `LayerEvolution` per layer."""

    layers: Mapping[str, LayerEvolution]

    def numbers(self) -> dict[str, Any]:
        """All but the projections, with what follows from them."""
        return {
            name: {
                "epochs": layer.epochs,
                "maps": layer.maps,
                "values": layer.values,
                "indices": layer.indices,
                "changed": layer.changed,
                "likeness": layer.likeness,
                "settled": layer.settled,
            }
            for name, layer in self.layers.items()
        }

    def plot(self) -> Figure:
        """Per layer: likeness of the projections to the last ones, and the share of maps whose top image changed."""
        figure, axes = new_figure(columns=2, width=9.0, height=3.2)
        for name, layer in self.layers.items():
            axes[0, 0].plot(layer.epochs, layer.likeness, marker="o", markersize=3, label=plain(layer_words(name)))
            axes[0, 1].plot(layer.epochs[1:], 100 * layer.changed[:, 1:].mean(axis=0), marker="o", markersize=3)
        axes[0, 0].set_ylabel("likeness to the last epoch")
        axes[0, 1].set_ylabel("maps with another top image, %")
        for axis in axes[0]:
            axis.set_xlabel("epoch")
        axes[0, 0].legend(frameon=False)
        return figure


class Tracker:
    """A callback of `Trainer.fit`: after each of the epochs `at`, the strongest activation of chosen maps, projected.

    images: what is looked at, a data set or float32 (N,H,W,C). layers: by default the end of every block with maps.
    maps: how many maps of each layer, spread evenly, or a list of numbers per layer. out_dir: where the looks are kept;
    without it they are kept in memory.
    """

    def __init__(
        self,
        net: Network,
        images: Images,
        *,
        at: Sequence[int] = PAPER_EPOCHS,
        layers: Sequence[str] | None = None,
        maps: int | Mapping[str, Sequence[int]] = 8,
        out_dir: str | os.PathLike | None = None,
        batch_size: int = 64,
    ):
        if not at or min(at) < 1:
            raise ValueError(f"at must be epochs of at least 1, one or more, got {at!r}")
        self._net = net
        self._images = images
        self._at = frozenset(at)
        self._batch_size = batch_size
        self._out_dir = None if out_dir is None else Path(out_dir)
        self._looks: dict[int, dict[str, np.ndarray]] = {}
        names = check_layers(net, layers or block_layers(net))
        self._maps = {name: _chosen(maps, name, net.layers[name].output_shape[-1]) for name in names}

    def __call__(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Looks at the trainer's network if this epoch is one of those chosen."""
        if metrics["epoch"] in self._at:
            self.look(trainer.net, metrics["epoch"])

    def look(self, net: Network, epoch: int) -> None:
        """Ranks the images and projects the winners, now."""
        arrays: dict[str, np.ndarray] = {}
        tops = rank_layers(net, self._images, list(self._maps), k=1, batch_size=self._batch_size)
        for layer, maps in self._maps.items():
            arrays[f"{layer}/place"] = np.array([list(net.layers).index(layer)])
            view = visualize(net, self._images, tops[layer], maps=maps, batch_size=self._batch_size)
            arrays |= {f"{layer}/{name}": getattr(view, name) for name in _ARRAYS}
        self._looks[epoch] = arrays
        if self._out_dir is not None:
            self._out_dir.mkdir(parents=True, exist_ok=True)
            contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            metadata = {_TRAINING: net.origin.get("training") or ""}
            write_atomically(self._place(epoch), safetensors.numpy.save(contiguous, metadata))

    def result(self) -> Evolution:
        """What was seen so far, also before a training was resumed into the same out_dir. ValueError if nothing was,
        `DataError` if what lies in out_dir is damaged or of other maps."""
        first = min(self._looks, default=max(self._at) + 1)
        training = self._net.origin.get("training")
        earlier = _read(self._out_dir, training) if self._out_dir is not None else {}
        looks = {epoch: look for epoch, look in earlier.items() if epoch in self._at and epoch < first} | self._looks
        return _stacked(looks)

    def _place(self, epoch: int) -> Path:
        assert self._out_dir is not None
        return self._out_dir / f"epoch-{epoch:04d}.safetensors"


def load_evolution(directory: str | os.PathLike, training: str | None = None) -> Evolution:
    """What a tracker left in its out_dir. training: only of the training that a network's `origin` calls this.
    ValueError if there is nothing, `DataError` if it is damaged."""
    return _stacked(_read(Path(directory), training))


def _read(directory: Path, training: str | None) -> dict[int, dict[str, np.ndarray]]:
    """Every look of a training, or of any, in a folder: epoch -> "layer/array" -> array."""
    looks = {}
    for path in sorted(directory.glob("epoch-*.safetensors")):
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                if training is None or (file.metadata() or {}).get(_TRAINING) == training:
                    looks[int(path.stem.removeprefix("epoch-"))] = safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}); remove it") from error
    for epoch, look in looks.items():
        for name, array in look.items():
            if not is_finite(array):
                raise DataError(f"{directory}: {name} has values that are not finite in epoch {epoch}; remove it")
    return looks


def _stacked(looks: Mapping[int, Mapping[str, np.ndarray]]) -> Evolution:
    if not looks:
        raise ValueError("no epoch was looked at: there is nothing to show")
    epochs = sorted(looks)
    found = {key.rpartition("/")[0] for epoch in epochs for key in looks[epoch]}
    names = sorted(found, key=lambda name: (_place(looks[epochs[0]], name), name))  # a file keeps them in no order
    layers = {}
    for layer in names:
        try:
            maps = [looks[epoch][f"{layer}/maps"].tolist() for epoch in epochs]
            if any(one != maps[0] for one in maps):
                raise DataError(f"the looks at {layer} are of other maps in other epochs; remove the older ones")
            stacked = [
                np.stack([looks[epoch][f"{layer}/{name}"][:, 0] for epoch in epochs], axis=1) for name in _ARRAYS[1:]
            ]
        except KeyError as error:
            raise DataError(f"the looks are not all of the same layers: {error} is missing in one") from error
        layers[layer] = LayerEvolution(layer, np.array(epochs), np.array(maps[0]), *stacked)
    return Evolution(layers)


def _place(look: Mapping[str, np.ndarray], layer: str) -> int:
    """Where the layer stands in the net. Looks from before they said so are of layers with a number at the end."""
    numbers = re.findall("[0-9]+$", layer) or [0]
    return int(look.get(f"{layer}/place", numbers)[0])


def evolution(
    trainer: Trainer,
    train: Dataset,
    validation: Dataset | None = None,
    *,
    epochs: int,
    images: Images | None = None,
    at: Sequence[int] = PAPER_EPOCHS,
    layers: Sequence[str] | None = None,
    maps: int | Mapping[str, Sequence[int]] = 8,
    out_dir: str | Path | None = None,
    callbacks: Sequence[Callable[[Trainer, Any], None]] = (),
    **fit: Any,
) -> Evolution:
    """Trains, and looks after the epochs `at` (P5). images: what is looked at, by default the training images.

    layers, maps: see `Tracker`. out_dir gets the looks, in evolution/, and what `Trainer.fit` leaves; train,
    validation, epochs, callbacks and `fit` are arguments of that, and its errors are raised.
    """
    tracker = Tracker(
        trainer.net,
        train if images is None else images,
        at=at,
        layers=layers,
        maps=maps,
        out_dir=None if out_dir is None else Path(out_dir) / FOLDER,
    )
    trainer.fit(train, validation, epochs=epochs, out_dir=out_dir, callbacks=[*callbacks, tracker], **fit)
    return tracker.result()


def _chosen(maps: int | Mapping[str, Sequence[int]], layer: str, count: int) -> list[int]:
    if isinstance(maps, int):
        if maps < 1:
            raise ValueError(f"maps must be at least 1, got {maps}")
        return np.linspace(0, count - 1, min(maps, count)).round().astype(int).tolist()
    return list(maps[layer])
