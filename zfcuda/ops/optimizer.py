"""Stochastic gradient descent, and the bound on filters."""

from __future__ import annotations

import numpy as np

from ..backends import Array, resolve
from ..numbers import check_number
from .arguments import array_or_none, check_in_place, check_input, expect_shape, place_number
from .call import call


def _check_guard(guard: Array | None) -> None:
    if guard is None:
        return
    expect_shape("guard", guard, ())
    if guard.dtype != np.float32:
        raise TypeError(f"guard must be float32, got {guard.dtype}")


def sgd_step(
    w: Array,
    g: Array,
    v: Array,
    *,
    lr: float | Array,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    guard: Array | None = None,
) -> None:
    """One step of SGD with momentum and weight decay (P2), in place, any shape:
    v = momentum * v - lr * (g + weight_decay * w); w = w + v.

    w, g and v float32, which share no memory. lr: a number, or a float32 array of shape (). guard: float32 of shape (),
    such as a loss; where it is not finite, nothing changes. The host looks at neither of these two.
    """
    backend, (w, g, v, guard, _) = resolve(w=w, g=g, v=v, guard=guard, lr=array_or_none(lr))
    check_in_place(backend, "w", w)
    check_in_place(backend, "v", v)
    given = g  # it may be copied
    g = check_input(backend, "g", g, None)
    expect_shape("g", g, w.shape)
    expect_shape("v", v, w.shape)
    _check_guard(guard)
    factors = (
        place_number(backend, "lr", lr, np.float32),
        check_number("momentum", momentum),
        check_number("weight_decay", weight_decay),
    )
    for names, one, other in (("w and v", w, v), ("w and g", w, given), ("v and g", v, given)):
        if backend.xp.may_share_memory(one, other):
            raise ValueError(f"{names} must not share memory")
    call(backend, backend.module.sgd_step, w.size, w, g, v, *factors, guard)


def renormalize_filters(w: Array, *, max_rms: float, guard: Array | None = None) -> None:
    """Scales every filter whose RMS exceeds `max_rms` back to it, in place (paper 3, P2). w (K, ...): K filters; guard
    as in `sgd_step`."""
    backend, (w, guard) = resolve(w=w, guard=guard)
    check_in_place(backend, "w", w)
    if w.ndim < 2 or w.size == 0:
        raise ValueError(f"w must have 2 dimensions or more and elements, got shape {w.shape}")
    max_rms = check_number("max_rms", max_rms)
    if not max_rms > 0:
        raise ValueError(f"max_rms must be positive, got {max_rms}")
    _check_guard(guard)
    call(backend, backend.module.renormalize_filters, w.shape[0], w.size // w.shape[0], max_rms, w, guard)
