"""Feature generalisation and feature analysis (paper 5.2, 5.3 and Table 7, P11 and P12).

The trained net stays as it is; a linear classifier is trained on the features of each layer in turn, on another data
set, with more and more images per class. Beside it, the same net trained from scratch on those images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..backends import to_host
from ..data import Dataset, Preprocess, Subset, mean_image, relabelled
from ..nn import Network
from ..nn.architecture import Architecture, FullyConnectedSpec
from ..nn.finite import check_activations
from ..numbers import check_at_least
from ..training import Ranks, Trainer, evaluate
from ..wording import layer_words
from . import classifier
from .ablation import Budget
from .figures import new_figure, plain
from .progress import Steps
from .results import Result
from .source import as_source, batches, check_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCRATCH = "from scratch"


@dataclass(frozen=True)
class FeatureScore:
    """Accuracy in % on the test images: mean and standard deviation over draws of the training images."""

    layer: str
    per_class: int
    accuracy: float
    deviation: float


@dataclass(frozen=True, repr=False)
class FeatureAnalysis(Result):
    """A score per layer (and for the net from scratch) and number of training images per class."""

    scores: tuple[FeatureScore, ...]
    kind: str
    classes: int
    test_images: int

    @property
    def layers(self) -> list[str]:
        """The layers in the order of the net, then the net from scratch if it was trained."""
        return list(dict.fromkeys(score.layer for score in self.scores))

    @property
    def counts(self) -> list[int]:
        """The numbers of training images per class, ascending."""
        return sorted({score.per_class for score in self.scores})

    def score(self, layer: str, per_class: int) -> FeatureScore:
        """What was measured; KeyError if nothing was."""
        for score in self.scores:
            if (score.layer, score.per_class) == (layer, per_class):
                return score
        raise KeyError(f"{layer!r} with {per_class} images per class")

    def plot(self) -> Figure:
        """Accuracy by images per class, a line per layer; and by layer, with the most images."""
        figure, axes = new_figure(columns=2, width=9.0, height=3.6)
        for layer in self.layers:
            scores = [self.score(layer, count) for count in self.counts]
            axes[0, 0].errorbar(
                self.counts,
                [score.accuracy for score in scores],
                yerr=[score.deviation for score in scores],
                marker="o",
                markersize=3,
                linestyle="--" if layer == SCRATCH else "-",
                label=plain(layer_words(layer)),
            )
        axes[0, 0].set_xscale("log")
        axes[0, 0].set_xticks(self.counts, [str(count) for count in self.counts])
        axes[0, 0].minorticks_off()
        axes[0, 0].set_xlabel("training images per class")
        axes[0, 0].set_ylabel("test accuracy, %")
        axes[0, 0].legend(frameon=False, fontsize=7)
        most = [self.score(layer, self.counts[-1]).accuracy for layer in self.layers]
        axes[0, 1].bar([plain(layer_words(layer)) for layer in self.layers], most)
        axes[0, 1].set_ylabel(f"test accuracy, %, {self.counts[-1]} per class")
        axes[0, 1].set_xlabel("features of")
        axes[0, 1].tick_params(axis="x", labelrotation=45)
        return figure


def feature_analysis(
    net: Network,
    train: Dataset,
    test: Dataset,
    *,
    layers: Sequence[str] | None = None,
    per_class: Sequence[int] = (5, 15, 30, 60),
    draws: int = 3,
    kind: str = "softmax",
    scratch: Budget | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> FeatureAnalysis:
    """Trains linear classifiers on frozen features, by layer and number of training images (P11, P12).

    train, test: data sets of images as the net takes them, of any classes; those of `test` are matched by name with
    those of `train`. layers: by default the end of every block but the last. per_class: numbers of training images per
    class; a class that has fewer gives all. draws: how often the images are drawn anew. kind: "softmax" or "svm".
    scratch: the budget of the net trained from scratch on the same images, which is left out if None. ranks: of
    processes that share the draws, each of which is one's from its first image to the last.

    scikit-learn fits the classifiers; ImportError where it is missing. `Interrupted` by Ctrl-C, with what the draws
    measured by then.
    """
    if not per_class or min(per_class) < 1:
        raise ValueError(f"per_class must be numbers of at least 1, one or more, got {per_class!r}")
    draws = check_at_least("draws", draws, 1)
    classifier.check_kind(kind)
    if len(np.unique(train.labels)) < 2:
        raise ValueError("train must have images of two classes or more: classifiers are to tell them apart")
    test = relabelled(test, train.classes, len(train.classes))
    if layers is None:
        layers = [name for _, name in sorted(net.blocks.items())][:-1]
    if not layers:
        raise ValueError(
            f"layers must be one or more of {', '.join(net.layers)}: no block of the net ends below its last"
        )
    layers = check_layers(net, layers)
    jobs = [(count, draw) for count in sorted(set(per_class)) for draw in range(draws)]

    def measure(step: range) -> dict[str, float]:
        count, draw = jobs[step[0]]
        chosen = Subset(train, draw_images(train.labels, count, seed + draw))
        features = extract(net, chosen, layers, batch_size)
        fits = {layer: classifier.fit(features[layer], chosen.labels, kind, seed=draw) for layer in layers}
        right = _count_right(net, test, fits, batch_size)
        accuracies = {layer: 100 * share / len(test) for layer, share in right.items()}
        if scratch is not None:
            accuracies[SCRATCH] = 100 * _from_scratch(net, chosen, test, scratch, seed + draw)
        return accuracies

    measured: list[dict[str, float]] = []
    label = "measuring draws" if progress else ""
    with Steps(len(jobs), unit="draws of training images measured", label=label, ranks=ranks) as steps:
        for _, one in steps.map(measure):
            measured.append(one)
    found: dict[tuple[str, int], list[float]] = {}
    for (count, _), one in zip(jobs, measured, strict=False):
        for layer, accuracy in one.items():
            found.setdefault((layer, count), []).append(accuracy)
    order = [*layers, *([SCRATCH] if scratch is not None else [])]
    scores = tuple(
        FeatureScore(
            layer,
            count,
            float(np.mean(found[layer, count])),
            float(np.std(found[layer, count], ddof=1)) if len(found[layer, count]) > 1 else 0.0,
        )
        for layer in order
        for count in sorted(set(per_class))
        if (layer, count) in found
    )
    return steps.finish(FeatureAnalysis(scores, kind, len(train.classes), len(test)))


class Fitted:
    """A data set with its images scaled to another shape (H,W,C), grey ones repeated or colours averaged: what a net
    trained on one data set needs to look at another. ValueError for other differences of channels."""

    def __init__(self, dataset: Dataset, image_shape: tuple[int, int, int]):
        has, wanted = dataset.image_shape[2], image_shape[2]
        if has != wanted and {has, wanted} != {1, 3}:
            raise ValueError(f"images of {has} channels cannot be made ones of {wanted}; only grey and colour can")
        self._dataset = dataset
        self.image_shape = image_shape
        self.labels, self.classes, self.skipped = dataset.labels, dataset.classes, dataset.skipped

    def __len__(self) -> int:
        return len(self._dataset)

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """images uint8 (n,H,W,C) and labels int32 (n,)."""
        images, labels = self._dataset.batch(indices)
        return np.stack([self._fit(image) for image in images]), labels

    def identifier(self, index: int) -> str:
        return self._dataset.identifier(index)

    def _fit(self, image: np.ndarray) -> np.ndarray:
        height, width, channels = self.image_shape
        if channels < image.shape[2]:
            image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
        if image.shape[:2] != (height, width):
            planes = [Image.fromarray(np.ascontiguousarray(image[..., channel])) for channel in range(image.shape[2])]
            scaled = [np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)) for plane in planes]
            image = np.stack(scaled, axis=2)
        return np.broadcast_to(image, self.image_shape)


def draw_images(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices of `per_class` images of each class (all of a class that has fewer), sorted."""
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(members))


def extract(net: Network, images: Any, layers: Sequence[str], batch_size: int = 64) -> dict[str, np.ndarray]:
    """The features of every layer: float32 (N, D), maps flattened."""
    parts: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    source = as_source(net, images)
    for start, batch in batches(net, source, Steps(len(source), batch_size)):
        trace = net.forward(batch)
        for layer in layers:
            parts[layer].append(to_host(check_activations(trace[layer], layer, start)).reshape(len(batch), -1))
    return {layer: np.concatenate(found) for layer, found in parts.items()}


def _count_right(
    net: Network, test: Dataset, fits: dict[str, classifier.LinearClassifier], batch_size: int
) -> dict[str, int]:
    """How many test images each layer's classifier gets right: one pass, nothing kept."""
    right = dict.fromkeys(fits, 0)
    for start, batch in batches(net, as_source(net, test), Steps(len(test), batch_size)):
        trace = net.forward(batch)
        labels = test.labels[start : start + len(batch)]
        for layer, fitted in fits.items():
            found = fitted.predict(to_host(check_activations(trace[layer], layer, start)).reshape(len(batch), -1))
            right[layer] += int((found == labels).sum())
    return right


def _from_scratch(net: Network, train: Dataset, test: Dataset, budget: Budget, seed: int) -> float:
    """The test accuracy of the same architecture, with these classes, trained on these images alone."""
    *layers, last = net.architecture.layers
    if not isinstance(last, FullyConnectedSpec):
        raise ValueError(f"the net must end with a fully connected layer to be trained anew, got {last.name}")
    layers.append(replace(last, units=len(train.classes)))
    device = "cpu" if isinstance(next(iter(net.parameters().values())), np.ndarray) else "cuda"
    fresh = Network(Architecture(net.input_shape, tuple(layers), net.architecture.initial), seed=seed).to(device)
    trainer = Trainer(fresh, budget.lr, budget.momentum, budget.weight_decay, budget.max_filter_rms, seed=seed)
    trainer.fit(
        train,
        epochs=budget.epochs,
        batch_size=budget.batch_size,
        schedule=budget.schedule,
        augmentation=budget.augmentation,
        preprocess=Preprocess(mean_image(train), net.input_shape[:2], budget.scale),
        progress=False,
    )
    return evaluate(fresh, test).top1
