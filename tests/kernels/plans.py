"""Plans of convolutions that a test chooses instead of the heuristic."""

import numpy as np

from tests.shapes import BF16
from zfcuda import ops

# What an operation is made of that has a choice of plan. All begin with a convolution's shape, blocks' with both.
PARTS = {
    "conv2d": ("conv2d",),
    "conv_transpose2d": ("conv_transpose2d",),
    "conv2d_weight_grad": ("conv2d_weight_grad",),
    "conv2d_relu_pool": ("conv2d", "conv2d_relu_pool"),
    "unpool_conv_transpose2d": ("conv_transpose2d",),
    "unpool_conv2d_weight_grad": ("conv2d_weight_grad", "unpool_conv2d_weight_grad"),
}
BLOCKS = ("conv2d_relu_pool", "unpool_conv2d_weight_grad")


def force(monkeypatch, choose):
    """From now on, wherever a convolution has a choice of plans, the one that choose([(tile, splits), ...]) returns is
    taken, unless that is None."""
    whole = ops.call

    def call(backend, function, *inputs, precision="fp32", **options):
        if hasattr(backend.module, "set_plan"):
            if any(isinstance(a, backend.xp.ndarray) and a.dtype == np.dtype(BF16) for a in inputs):
                precision_of_plan = "bf16"
            else:
                precision_of_plan = precision
            for part in PARTS.get(function, ()):
                problem = part, precision_of_plan, inputs[0], inputs[1] if part in BLOCKS else None
                choice = choose(backend.module.plan_candidates(*problem))
                if choice:
                    backend.module.set_plan(*problem, *choice)
        whole(backend, function, *inputs, precision=precision, **options)

    monkeypatch.setattr(ops, "call", call)


def with_tile(name):
    """The first candidate with this tile, and thus with the splits that the heuristic would take."""
    return lambda candidates: next((one for one in candidates if one[0] == name), None)
