"""Random calls of dropout, losses and steps."""

import numpy as np

from tests import oracles
from zfcuda import ops

from .draws import EXTREME_SHARE


def dropout(calls):
    x = calls.normal(*calls.shape(2))
    probability, seed, offset = float(calls.rng.choice([0, 0.5, 1, -1])), calls.size(0, 9), calls.size(0, 9)
    options = {"probability": probability, "seed": seed, "offset": offset}
    good = 0 <= probability < 1 and min(seed, offset) >= 0 and not any(isinstance(v, bool) for v in (seed, offset))
    return lambda: ops.dropout(x, **options), good and (lambda: oracles.dropout(x, **options))


def softmax(calls):
    logits = calls.normal(*calls.shape(2)) * 100
    return lambda: ops.softmax(logits), lambda: oracles.softmax(logits)


def labelled(calls):
    """Logits and labels, and whether these are in range."""
    logits = calls.normal(*calls.shape(2))
    labels = calls.rng.integers(0, logits.shape[1], len(logits)).astype(np.int32)
    if calls.rng.random() < EXTREME_SHARE:
        labels[0] = calls.rng.choice([-1, logits.shape[1], 2**31 - 1, -(2**31)])
    return logits, labels, bool((labels >= 0).all() and (labels < logits.shape[1]).all())


def softmax_cross_entropy(calls):
    logits, labels, good = labelled(calls)
    return lambda: ops.softmax_cross_entropy(logits, labels)[0], good and (
        lambda: np.asarray(oracles.cross_entropy(logits, labels))
    )


def softmax_cross_entropy_grad(calls):
    probabilities, labels, good = labelled(calls)
    return lambda: ops.softmax_cross_entropy_grad(probabilities, labels), good and (
        lambda: oracles.softmax_cross_entropy_grad(probabilities, labels)
    )


def sgd_step(calls):
    shape = calls.any_shape()
    w, g, v = (calls.normal(*shape) for _ in range(3))
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    before = w.copy(), g, v.copy()

    def step():
        ops.sgd_step(w, g, v, **options)
        return w

    return step, lambda: oracles.sgd_step(*before, **options)[0]


def renormalize_filters(calls):
    w = calls.normal(*calls.shape())
    before = w.copy()

    def step():
        ops.renormalize_filters(w, max_rms=0.5)
        return w

    return step, lambda: oracles.renormalize_filters(before, max_rms=0.5)
