"""Linear classifiers on fixed features: softmax regression, and a linear support vector machine (paper 5.2, 5.3).

Both are smooth convex problems once the hinge is squared, so one solver does: accelerated gradient descent with
Nesterov's momentum and a step from the data's largest singular value. No learning rate to tune, the same bits each run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("softmax", "svm")

_STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)  # of the regulariser, tried on held-out training images
_STEPS = 300


@dataclass(frozen=True)
class LinearClassifier:
    """scores = ((features - mean) / scale, 1) @ weight; weight float32 (D + 1, classes)."""

    mean: np.ndarray
    scale: float
    weight: np.ndarray
    strength: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """features float32 (N,D) -> (N, classes)."""
        return ((features - self.mean) / self.scale) @ self.weight[:-1] + self.weight[-1]

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """The share of features (N,D) whose best score is their label's, 0..1."""
        return float((self.scores(features).argmax(axis=1) == labels).mean())


def fit(
    features: np.ndarray, labels: np.ndarray, classes: int, kind: str = "softmax", seed: int = 0
) -> LinearClassifier:
    """Trains on features float32 (N,D), labels (N,); the regulariser is chosen on a fifth of them, held out.

    ValueError for an unknown kind, and if there is nothing to train on.
    """
    if kind not in KINDS:
        raise ValueError(f"classifier must be one of {', '.join(KINDS)}; got {kind!r}")
    if len(features) == 0 or len(features) != len(labels):
        raise ValueError(f"features and labels must be as many, one or more, got {len(features)} and {len(labels)}")
    held = _held_out(labels, seed)
    strength = _STRENGTHS[1]
    if held.any() and not held.all():
        trials = [_fit(features[~held], labels[~held], classes, kind, strength) for strength in _STRENGTHS]
        scores = [trial.accuracy(features[held], labels[held]) for trial in trials]
        strength = _STRENGTHS[int(np.argmax(scores))]
    return _fit(features, labels, classes, kind, strength)


def _held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """bool (N,): a fifth of each class that has five images or more."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held[members[: len(members) // 5]] = True
    return held


def _fit(features: np.ndarray, labels: np.ndarray, classes: int, kind: str, strength: float) -> LinearClassifier:
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    x = features - mean
    # An average length of 1 makes one set of regularisers fit every layer.
    scale = float(np.sqrt((x.astype(np.float64) ** 2).sum() / len(x))) or 1.0
    x = np.concatenate([x / np.float32(scale), np.ones((len(x), 1), np.float32)], axis=1)
    targets = np.zeros((len(x), classes), np.float32)
    targets[np.arange(len(x)), labels] = 1.0
    curvature = _largest_eigenvalue(x) * (0.5 if kind == "softmax" else 2.0) + strength
    gradient = _softmax_gradient if kind == "softmax" else _hinge_gradient
    penalty = np.full((x.shape[1], 1), strength, np.float32)
    penalty[-1] = 0.0  # the bias is free
    weight = np.zeros((x.shape[1], classes), np.float32)
    ahead, momentum = weight, 1.0
    for _ in range(_STEPS):
        slope = x.T @ gradient(x @ ahead, targets) / np.float32(len(x)) + penalty * ahead
        after = ahead - slope / np.float32(curvature)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + np.float32((momentum - 1) / following) * (after - weight)
        weight, momentum = after, following
    return LinearClassifier(mean, scale, weight, strength)


def _softmax_gradient(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The gradient of the summed cross-entropy for the scores."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True) - targets


def _hinge_gradient(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The gradient of the summed squared hinge of one class against the rest: sum of max(0, 1 - sign * score)^2."""
    signs = 2 * targets - 1
    return -2 * signs * np.maximum(0, 1 - signs * scores)


def _largest_eigenvalue(x: np.ndarray) -> float:
    """Of x^T x / N, by power iteration, a little above."""
    vector = np.random.default_rng(0).standard_normal(x.shape[1], np.float32)
    size = 0.0
    for _ in range(30):
        vector = x.T @ (x @ vector) / np.float32(len(x))
        size = float(np.linalg.norm(vector))
        vector = vector / np.float32(size or 1.0)
    return 1.05 * size
