"""Stochastic gradient descent with momentum, weight decay and filter renormalisation (P2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .. import ops
from ..backends import Array, array_module
from ..numbers import check_number


class SGD:
    """v = momentum * v - lr * (g + weight_decay * w); w = w + v; then filters above `max_filter_rms` are scaled back.

    Weights decay; biases and factors of normalisation do not (Krizhevsky et al. 2012 regularise the weights).
    Renormalisation (paper 3) is for convolution filters, the weights with four dimensions. `velocities` are keyed like
    the parameters.
    """

    def __init__(
        self,
        parameters: Mapping[str, Array],
        *,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        max_filter_rms: float | None = None,
    ):
        momentum, weight_decay = check_number("momentum", momentum), check_number("weight_decay", weight_decay)
        if max_filter_rms is not None:
            max_filter_rms = check_number("max_filter_rms", max_filter_rms)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if not 0 <= weight_decay < math.inf:
            raise ValueError(f"weight_decay must not be negative, got {weight_decay}")
        if max_filter_rms is not None and not 0 < max_filter_rms < math.inf:
            raise ValueError(f"max_filter_rms must be positive or None, got {max_filter_rms}")
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.max_filter_rms = max_filter_rms
        self.velocities: dict[str, Array] = {
            name: array_module(array).zeros_like(array) for name, array in parameters.items()
        }

    def update(
        self,
        parameters: Mapping[str, Array],
        gradients: Mapping[str, Array],
        lr: float | Array,
        *,
        guard: Array | None = None,
    ) -> None:
        """One step, in place; none where `guard` is not finite. lr and guard as in `ops.sgd_step`."""
        for name, w in parameters.items():
            decay = self.weight_decay if w.ndim > 1 else 0.0
            factors: dict[str, Any] = {"lr": lr, "momentum": self.momentum, "weight_decay": decay}
            ops.sgd_step(w, gradients[name], self.velocities[name], **factors, guard=guard)
            if self.max_filter_rms is not None and w.ndim == 4:
                ops.renormalize_filters(w, max_rms=self.max_filter_rms, guard=guard)
