"""Softmax and cross-entropy."""

from __future__ import annotations

import numpy as np

from ..backends import Array, Backend, resolve
from .arguments import check_apart, check_input, check_output, expect_shape
from .call import call


def softmax(logits: Array, *, out: Array | None = None) -> Array:
    """The probabilities of each row: logits (N, classes) -> probabilities (N, classes)."""
    backend, (logits, out) = resolve(logits=logits, out=out)
    check_apart(backend, out, logits)
    logits = check_input(backend, "logits", logits, 2)
    probabilities = check_output(backend, out, logits.shape)
    call(backend, backend.module.softmax, *logits.shape, logits, results=(probabilities,))
    return probabilities


def check_label_range(labels: Array, classes: int) -> None:
    """ValueError unless all labels are in [0, classes). Waits for a GPU, which no operation does."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be in [0, {classes}), got values from {low} to {high}")


def _check_labels(backend: Backend, labels: Array, n: int, classes: int) -> Array:
    labels = check_input(backend, "labels", labels, 1, np.int32)
    expect_shape("labels", labels, (n,))
    if backend.on_host and labels.view(np.uint32).max() >= classes:  # negative ones are large
        check_label_range(labels, classes)
    return labels


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """The loss (P2): logits (N, classes), labels int32 (N,) -> mean loss, a float32 array of shape (), and
    probabilities (N, classes). A label out of range is a ValueError on the host; on a GPU, where looking for one would
    mean to wait, it makes the loss NaN."""
    backend, (logits, labels) = resolve(logits=logits, labels=labels)
    logits = check_input(backend, "logits", logits, 2)
    n, classes = logits.shape
    labels = _check_labels(backend, labels, n, classes)
    loss = backend.empty(())
    probabilities = backend.empty((n, classes))
    workspace = backend.module.softmax_cross_entropy_workspace, n, classes
    call(
        backend,
        backend.module.softmax_cross_entropy,
        n,
        classes,
        logits,
        labels,
        results=(loss, probabilities),
        workspace=workspace,
    )
    return loss, probabilities


def softmax_cross_entropy_grad(probabilities: Array, labels: Array, *, out: Array | None = None) -> Array:
    """The gradient of the mean loss for the logits: (probabilities - one_hot(labels)) / N."""
    backend, (probabilities, labels, out) = resolve(probabilities=probabilities, labels=labels, out=out)
    check_apart(backend, out, probabilities, labels)
    probabilities = check_input(backend, "probabilities", probabilities, 2)
    n, classes = probabilities.shape
    labels = _check_labels(backend, labels, n, classes)
    dlogits = check_output(backend, out, (n, classes))
    call(backend, backend.module.softmax_cross_entropy_grad, n, classes, probabilities, labels, results=(dlogits,))
    return dlogits
