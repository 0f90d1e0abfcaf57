"""How near to float64 a result must come: the one place that says so, and the arithmetics that it depends on."""

from dataclasses import dataclass, field

import numpy as np

from tests.shapes import BF16

# Relative errors. The sums of a weight gradient are long; those of bfloat16 arrays are float32 too.
FP32, WEIGHT_GRAD, TF32 = 1e-5, 1e-4, 2e-3

# Of what a small network makes: in bfloat16 the roundings of its layers add up like their squares.
NETWORK = {"fp32": FP32, "tf32": TF32, "bf16": 5e-3}

# Of an element in bfloat16: rounding to nearest, and of the RMS what the float32 before it may be off.
ROUNDING, OF_RMS = 2.0**-8, 1e-3


def _wide(array):
    return np.asarray(array.get() if hasattr(array, "get") else array, np.float64)  # CuPy's, too


def _require_same_shape_and_nan(actual, expected):
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), "NaN")


def relative_error(actual, expected):
    """norm(actual - expected) / norm(expected), of what is no NaN; NaNs must be in the same places."""
    actual, expected = _wide(actual), _wide(expected)
    _require_same_shape_and_nan(actual, expected)
    difference = np.linalg.norm(np.nan_to_num(actual - expected))
    scale = np.linalg.norm(np.nan_to_num(expected))
    return difference / scale if scale > 0 else difference


def bf16_error(actual, expected, roundings=1):
    """The largest error of an element, as a share of what it may be."""
    actual, expected = _wide(actual), _wide(expected)
    _require_same_shape_and_nan(actual, expected)
    rms = np.sqrt(np.nanmean(np.square(expected)))
    allowed = roundings * ROUNDING * np.abs(expected) + OF_RMS * rms
    return np.nanmax(np.abs(actual - expected) / np.maximum(allowed, 1e-300))


def assert_close(actual, expected, tolerance=FP32, what=""):
    """bfloat16 element by element, everything else by its relative error."""
    if actual.dtype == BF16:
        error, tolerance = bf16_error(actual, expected), 1.0
    else:
        error = relative_error(actual, expected)
    assert error < tolerance, f"error {error:.3g}, at most {tolerance:.3g} is allowed{what and f': {what}'}"


def assert_same(actual, expected, message=""):
    """Equal in dtype and in every element, where a NaN equals a NaN (NumPy knows no NaN in bfloat16)."""
    assert actual.dtype == expected.dtype, (actual.dtype, expected.dtype)
    np.testing.assert_array_equal(actual.astype(np.float64), expected.astype(np.float64), err_msg=message)


@dataclass(frozen=True)
class Arithmetic:
    """One in which convolutions are asked to compute."""

    name: str
    tolerance: float  # of results that are not bfloat16
    weight_grad_tolerance: float
    options: dict = field(default_factory=dict)  # keywords of the operations
    dtype: type = np.float32

    def normal(self, rng, shape):
        """Normally distributed values that its arrays can hold."""
        return rng.standard_normal(shape, dtype=np.float32).astype(self.dtype)

    def coarse(self, rng, shape):
        """The same in steps of which sums of a few are held exactly: where windows overlap, as in one operation and as
        in two."""
        return (np.round(8 * rng.standard_normal(shape)) / 8).astype(self.dtype)


ARITHMETICS = (
    Arithmetic("fp32", FP32, WEIGHT_GRAD),
    Arithmetic("tf32", TF32, TF32, {"precision": "tf32"}),
    Arithmetic("bf16", FP32, WEIGHT_GRAD, dtype=BF16),
)
