"""What a call costs: operations on arrays so small that Python's side, the binding and the choice of a method are most
of their time, and a network of such calls, against PyTorch.

    OMP_NUM_THREADS=1 python benchmarks/calls.py

Layers of LeNet's size are bound by it. Results are compared before they are timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from cpu_device import describe, time_alternating
from harness import Calls, Name, Row, Timer, measure, relative_error
from record import environment, table
from setting import distance
from torch.nn import functional

from zfcuda import interop, nn, ops
from zfcuda.nn import dense

LENET = nn.Architecture(
    (28, 28, 1),
    (
        nn.ConvSpec("conv1", 6, 5, 1, 2),
        nn.ReLUSpec("relu1"),
        nn.MaxPoolSpec("pool1", 2, 2),
        nn.ConvSpec("conv2", 16, 5),
        nn.ReLUSpec("relu2"),
        nn.MaxPoolSpec("pool2", 2, 2),
        nn.FullyConnectedSpec("fc1", 120),
        nn.ReLUSpec("relu3"),
        nn.FullyConnectedSpec("fc2", 84),
        nn.ReLUSpec("relu4"),
        nn.FullyConnectedSpec("fc3", 10),
    ),
    initial="lecun",
)


def contestants() -> dict[str, tuple[Callable[[], np.ndarray], Callable[[], torch.Tensor]]]:
    """By name: ours, and PyTorch's of the same values, both ready to be called; maps of PyTorch's are channels last."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((1, 4, 4, 8), np.float32) for _ in range(2))
    w, w1 = (rng.standard_normal((8, size, size, 8), np.float32) for size in (3, 1))
    b = rng.standard_normal(8, np.float32)
    pooled, switches = ops.max_pool2d(x, window=2, stride=2)
    tx, ty, tw, tw1, tpooled = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in (x, y, w, w1, pooled))
    tb = torch.from_numpy(b)
    _, indices = functional.max_pool2d(tx, 2, 2, return_indices=True)
    rows, matrix, trows, tmatrix = x.reshape(16, 8), w1[:, 0, 0], tx.permute(0, 2, 3, 1).reshape(16, 8), tw1[:, :, 0, 0]
    grad_input, grad_weight = torch.nn.grad.conv2d_input, torch.nn.grad.conv2d_weight
    net = nn.Network(LENET)
    module = interop.torch.to_module(net).eval()
    image = rng.standard_normal((1, 28, 28, 1), np.float32)
    timage = torch.from_numpy(image).permute(0, 3, 1, 2)
    return {
        "conv2d": (lambda: ops.conv2d(x, w, b, padding=1), lambda: functional.conv2d(tx, tw, tb, padding=1)),
        "conv2d 1x1": (lambda: ops.conv2d(x, w1, b), lambda: functional.conv2d(tx, tw1, tb)),
        "data gradient": (
            lambda: ops.conv_transpose2d(y, w, padding=1, output_size=4),
            lambda: grad_input(tx.shape, tw, ty, padding=1),
        ),
        "weight gradient": (
            lambda: ops.conv2d_weight_grad(x, y, kernel_size=3, padding=1),
            lambda: grad_weight(tx, tw.shape, ty, padding=1),
        ),
        "relu": (lambda: ops.relu(x), lambda: functional.relu(tx)),
        "max_pool2d": (
            lambda: ops.max_pool2d(x, window=2, stride=2)[0],
            lambda: functional.max_pool2d(tx, 2, 2, return_indices=True)[0],
        ),
        "max_unpool2d": (
            lambda: ops.max_unpool2d(pooled, switches, window=2, stride=2, output_size=4),
            lambda: functional.max_unpool2d(tpooled, indices, 2, 2),
        ),
        "linear": (lambda: dense.forward(rows, matrix, b), lambda: functional.linear(trows, tmatrix, tb)),
        "LeNet, one image": (lambda: net.predict(image), lambda: module(timage).softmax(1)),
    }


def compare(timer: Timer) -> list[Row]:
    """A row for each operation."""
    rows = []
    with torch.inference_mode():
        for name, (ours, theirs) in contestants().items():
            expected = theirs()
            if expected.ndim == 4:
                expected = expected.permute(0, 2, 3, 1)
            reference = expected.numpy()
            calls = Calls(
                ours=ours,
                peers={"torch": theirs},
                error=lambda result, reference=reference: relative_error(result, reference),
                tolerance=1e-5,
                alike=distance,
                peers_may=1e-5,
            )
            rows.append(measure(Name("calls", name, "a call", "CPU"), calls, timer, None))
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for what, value in (environment() | describe()).items():
        print(f"{what}: {value}")
    print()
    print(table(compare(time_alternating)))


if __name__ == "__main__":
    main()
