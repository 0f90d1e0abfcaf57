"""How alike two maps of one image are: rank correlation (Spearman 1904), structural similarity (Wang et al. 2004)."""

from __future__ import annotations

import numpy as np

_WINDOW = 7  # side of the windows whose structure is compared
_RANGE = 2.0  # of the pictures that are compared: from -1 to 1
# What keeps flat windows from a division by nothing, as shares of the range; values of Wang et al.
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of the values of two arrays of one shape: 1 where their order is the same, 0 where the
    orders have nothing in common, -1 where they are opposite. NaN where an array has no order: all its values are
    equal, or one is not finite."""
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, got {a.shape} and {b.shape}")
    return correlation_of_ranks(ranks(a), ranks(b))


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value among all, float64 (n,), less their mean: 0 for all where all are equal. Equal values
    share the mean of their ranks. NaN for all where a value is not finite."""
    if not np.isfinite(values).all():
        return np.full(values.size, np.nan)
    _, which, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + values.size) / 2)[which]


def correlation_of_ranks(a: np.ndarray, b: np.ndarray) -> float:
    """`rank_correlation` of arrays whose `ranks` are known."""
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else float("nan")


def structural_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of two signed maps (H,W) or (H,W,C) as pictures: 0 is mid grey, the largest magnitude full swing.

    The mean, over channels and all windows of 7 x 7 (shorter where the map is), of
        (2 mean_a mean_b + c1) (2 cov + c2) / ((mean_a^2 + mean_b^2 + c1) (var_a + var_b + c2)):
    1 for equal pictures, about 0 for unlike ones; what is empty in both counts as equal. NaN as in `rank_correlation`.
    """
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise ValueError(f"a and b must have one shape, (H,W) or (H,W,C), got {a.shape} and {b.shape}")
    if not (_varies(a) and _varies(b)):
        return float("nan")
    a, b = (values / np.abs(values).max().astype(np.float64) for values in (a, b))
    mean_a, mean_b = _window_means(a), _window_means(b)
    variances = _window_means(a * a + b * b) - mean_a**2 - mean_b**2
    covariance = _window_means(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    return float((likeness / ((mean_a**2 + mean_b**2 + _C1) * (variances + _C2))).mean())


def _varies(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and values.min() < values.max())


def _window_means(values: np.ndarray) -> np.ndarray:
    """The mean of every window of the map (H,W,...) that lies in it whole."""
    rows, columns = (min(_WINDOW, size) for size in values.shape[:2])
    height, width = values.shape[0] - rows + 1, values.shape[1] - columns + 1
    down = sum(values[row : row + height] for row in range(rows)) / rows
    return sum(down[:, column : column + width] for column in range(columns)) / columns
