"""What the pictures of results have in common; Matplotlib is imported only when somebody plots, and opens no window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that read on white and on black.
COLORS = ("#3b7dd8", "#d9822b", "#2a9d6f", "#c2455b", "#8466c9", "#7a7a7a", "#b09f28", "#26a6b7", "#ce79b2", "#8b5e3c")
COLOR_NAMES = ("blue", "orange", "green", "red", "violet", "grey")  # of the first, those of a signal's channels

_FLAT = 0.01  # of its largest magnitude: by how much a map changes at least that is drawn at full contrast


def new_figure(columns: int = 1, rows: int = 1, width: float = 6.4, height: float = 3.6) -> tuple[Figure, Any]:
    """A figure of rows x columns axes without frames, `width` x `height` inches, and its axes (always 2-D)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_prop_cycle(color=COLORS)
    return figure, axes


def is_signal(height: int, width: int) -> bool:
    """Whether arrays (height, width, C) are drawn as signals, since as pictures they would be one pixel high."""
    return height == 1 < width


def draw_tiles(axis: Any, tiles: np.ndarray) -> None:
    """Tiles (N,h,w,C) from 0 to 1 side by side: in grey or the first three channels' colours; of signals, a line for
    each channel."""
    _, height, width, channels = tiles.shape
    if is_signal(height, width):
        gaps = np.full((len(tiles), 1, channels), np.nan)
        axis.plot(np.concatenate([tiles[:, 0], gaps], axis=1).reshape(-1, channels), linewidth=1)
        axis.set_ylim(-0.05, 1.05)
    else:
        pixels = np.concatenate(list(tiles), axis=1)
        axis.imshow(pixels[..., :3] if channels >= 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)


def plain(text: str) -> str:
    """Text that Matplotlib shows as it is: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def color_range(values: np.ndarray, least: float = 0.0) -> tuple[float, float]:
    """(low, high): what the ends of a colour scale stand for, of a map of numbers, some of them NaN perhaps.

    They are the map's least and largest, at least a hundredth of its largest magnitude, and `least`, apart: what hardly
    changes from place to place is rounding, or as good as that, and would look like a finding at full contrast.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return 0.0, 0.0
    low, high = float(finite.min()), float(finite.max())
    wider = max(_FLAT * max(abs(low), abs(high)), least) - (high - low)
    return (low - wider / 2, high + wider / 2) if wider > 0 else (low, high)


def full_swing(projection: np.ndarray) -> float:
    """The magnitude at which a projection is shown black or in full colour; 0 where there is nothing to be seen.

    One in two hundred of its values that are not 0 may be larger, and is cut off: of deep layers a few pixels
    are many times as strong as the others, and would leave all else grey.
    """
    magnitudes = np.abs(projection[projection != 0])
    return float(np.quantile(magnitudes, 0.995, method="higher")) if magnitudes.size else 0.0
