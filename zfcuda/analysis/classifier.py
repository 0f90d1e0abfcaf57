"""Linear classifiers on fixed features, by scikit-learn: softmax regression, and a linear support vector machine (paper
5.2, 5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..brief import Brief

KINDS = ("softmax", "svm")

_STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)  # of the regulariser, tried on held-out training images


@dataclass(frozen=True, repr=False)
class LinearClassifier(Brief):
    """A model of scikit-learn on (features - mean) / scale."""

    mean: np.ndarray
    scale: float
    model: Any

    def predict(self, features: np.ndarray) -> np.ndarray:
        """features float32 (N,D) -> the labels (N,) of the best scores."""
        return self.model.predict((features - self.mean) / self.scale)

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """The share of features (N,D) that get their label, 0..1."""
        return float((self.predict(features) == labels).mean())


def check_kind(kind: str) -> None:
    """ValueError for an unknown kind, ImportError where scikit-learn is missing, with how to get it."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(f"classifiers need scikit-learn ({error}): pip install 'zfcuda[sklearn]'") from error


def fit(features: np.ndarray, labels: np.ndarray, kind: str = "softmax", seed: int = 0) -> LinearClassifier:
    """Trains on features float32 (N,D), labels (N,); the regulariser is chosen on a fifth of them, held out.

    Errors as in `check_kind`; ValueError if there is nothing to train on.
    """
    check_kind(kind)
    if len(features) == 0 or len(features) != len(labels):
        raise ValueError(f"features and labels must be as many, one or more, got {len(features)} and {len(labels)}")
    held = _held_out(labels, seed)
    strength = _STRENGTHS[1]
    if held.any():
        trials = [_fit(features[~held], labels[~held], kind, strength) for strength in _STRENGTHS]
        scores = [trial.accuracy(features[held], labels[held]) for trial in trials]
        strength = _STRENGTHS[int(np.argmax(scores))]
    return _fit(features, labels, kind, strength)


def _held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """bool (N,): a fifth of each class that has five images or more."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held[members[: len(members) // 5]] = True
    return held


def _fit(features: np.ndarray, labels: np.ndarray, kind: str, strength: float) -> LinearClassifier:
    """The minimum of the mean loss (cross-entropy, or the squared hinge of each class against the rest) plus
    strength / 2 * |weight|^2; the bias is free."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    x = features - mean
    # An average length of 1 makes one set of regularisers fit every layer.
    scale = float(np.sqrt((x.astype(np.float64) ** 2).sum() / len(x))) or 1.0
    c = 1 / (strength * len(x))
    if kind == "softmax":
        model = LogisticRegression(C=c, max_iter=1000)
    else:
        model = LinearSVC(C=c, dual=False, intercept_scaling=10)  # the bias as good as free
    return LinearClassifier(mean, scale, model.fit(x / np.float32(scale), labels))
