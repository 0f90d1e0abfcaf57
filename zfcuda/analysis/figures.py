"""Matplotlib figures for the results of analyses: imported only when somebody plots, and never with a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that read on white and on black.
COLORS = ("#3b7dd8", "#d9822b", "#2a9d6f", "#c2455b", "#8466c9", "#7a7a7a", "#b09f28", "#26a6b7", "#ce79b2", "#8b5e3c")


def new_figure(columns: int = 1, rows: int = 1, width: float = 6.4, height: float = 3.6) -> tuple[Figure, Any]:
    """A figure of rows x columns axes without frames, `width` x `height` inches, and its axes (always 2-D)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_prop_cycle(color=COLORS)
    return figure, axes


def plain(text: str) -> str:
    """Text that Matplotlib shows as it is: a dollar sign would start a formula."""
    return text.replace("$", r"\$")
