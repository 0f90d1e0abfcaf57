"""The arithmetics in which the convolutions are asked to compute, and how near to float64 each must come."""

from dataclasses import dataclass, field

import numpy as np

from tests.shapes import BF16


@dataclass(frozen=True)
class Arithmetic:
    name: str
    tolerance: float
    weight_grad_tolerance: float
    options: dict = field(default_factory=dict)  # keywords of the operations
    dtype: type = np.float32

    def normal(self, rng, shape):
        """Normally distributed values that its arrays can hold."""
        return rng.standard_normal(shape, dtype=np.float32).astype(self.dtype)


ARITHMETICS = (
    Arithmetic("fp32", 1e-5, 1e-4),
    Arithmetic("tf32", 2e-3, 2e-3, {"precision": "tf32"}),
    Arithmetic("bf16", 2e-2, 2e-2, dtype=BF16),
)
