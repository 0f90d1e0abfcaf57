"""Tensors keep their dimensions through every operation: signals (N, C, W), and maps without an axis, against the
module itself in float64."""

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[torch]'")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from tests.accuracy import relative_error  # noqa: E402
from zfcuda.interop.torch import from_module  # noqa: E402

SIZE = 8  # of signals, and of both sides of maps


class Doing(nn.Module):
    """A function of (6 channels of a signal, parts with weights), the signal being made in one of several ways."""

    def __init__(self, source, function):
        super().__init__()
        self.source, self.function = source, function
        self.conv1d, self.conv2d = nn.Conv1d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleDict({str(n): nn.BatchNorm1d(n) for n in range(1, 13)})
        self.convs = nn.ModuleDict({str(n): nn.Conv1d(n, 5, 3, padding=1) for n in range(1, 13)})
        for norm in self.norms.values():
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.bias)

    def forward(self, x):
        return self.function(SOURCES[self.source](self, x), self)


SOURCES = {
    "image": lambda m, x: x,
    "signal": lambda m, x: m.conv1d(x),
    "mean of columns": lambda m, x: m.conv2d(x).mean(2),
    "largest of rows": lambda m, x: m.conv2d(x).amax(3),
    "pixels in a row": lambda m, x: m.conv2d(x).flatten(2),
}

CUTS = {
    "all": lambda x: x,
    "slice": lambda x: x[:, 1:4],
    "chunk": lambda x: x.chunk(2, 1)[1],
    "every second channel": lambda x: x[:, ::2],
    "every second pixel": lambda x: x[:, :, ::2],
    "some of both": lambda x: x[:, :3, ::4],
    "turned channels": lambda x: x.flip(1)[:, :4],
    "mean": lambda x: x.mean(2, keepdim=True),
}


def vector(x):
    return torch.linspace(-1.5, 2, x.shape[1], dtype=x.dtype)[:, None]


OPERATIONS = {
    "relu": lambda x, m: x.relu(),
    "leaky relu": lambda x, m: F.leaky_relu(x, 0.2),
    "prelu": lambda x, m: F.prelu(x, torch.tensor([0.3], dtype=x.dtype)),
    "prelu by channel": lambda x, m: F.prelu(x, vector(x).flatten()),
    "clip": lambda x, m: x.clamp(-0.25, 0.5),
    "batch norm": lambda x, m: m.norms[str(x.shape[1])](x),
    "times a number": lambda x, m: x * -2,
    "times numbers": lambda x, m: x * vector(x),
    "plus numbers": lambda x, m: x + vector(x),
    "a quotient": lambda x, m: x / 2 - 1,
    "negative": lambda x, m: -x,
    "dropout": lambda x, m: F.dropout(x, 0.3, m.training),
    "lrn": lambda x, m: F.local_response_norm(x, 3, alpha=0.5),
    "sum": lambda x, m: x.relu() + x,
    "sum with a factor": lambda x, m: torch.add(x.relu(), x, alpha=0.5),
    "sum of others": lambda x, m: x.flip(1) + x,
    "difference": lambda x, m: x - x.relu(),
    "concat": lambda x, m: torch.cat([x, x.relu()], 1),
    "parts": lambda x, m: F.relu(x[:, :1]) + x[:, 1:2],
}

ENDS = {
    "signal": lambda x, m: x,
    "every second pixel": lambda x, m: x[:, :, ::2].mean(-1),
    "every second pixel again": lambda x, m: x[:, :, ::2].relu().mean(-1),
    "mean": lambda x, m: x.mean(-1),
    "largest": lambda x, m: x.amax(2),
    "total": lambda x, m: x.sum(2),
    "mean that keeps its axis": lambda x, m: x.mean(2, keepdim=True).flatten(1),
    "flat": lambda x, m: x.flatten(1),
    "first pixel": lambda x, m: x[:, :, :1].mean(-1),
    "conv": lambda x, m: m.convs[str(x.shape[1])](x).mean(2),
    "average pool": lambda x, m: F.avg_pool1d(x, 2, ceil_mode=True) if x.shape[2] > 1 else x,
    "max pool": lambda x, m: F.max_pool1d(x, 2) if x.shape[2] > 1 else x,
    "adaptive pool": lambda x, m: F.adaptive_avg_pool1d(x, 1),
}


def made(source, function):
    torch.manual_seed(5)
    return Doing(source, function).eval()


def check(source, function):
    """The network of the function does what the module does."""
    signal = source in ("image", "signal")
    shape = (1, SIZE, 3) if signal else (SIZE, SIZE, 3)
    net = from_module(made(source, function), shape)
    x = np.random.default_rng(6).standard_normal((2, *shape)).astype(np.float32)
    given = torch.from_numpy(x).double().permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = made(source, function).double()(given[:, :, 0] if signal else given).numpy()
    output = net.forward(x).output
    if output.ndim == 4:
        output = output.transpose(0, 3, 1, 2)
    assert output.size == expected.size
    assert relative_error(output.reshape(expected.shape), expected) < 1e-5


WINDOWS = (
    "conv",
    "average pool",
    "max pool",
    "adaptive pool",
)  # of rows of what a layer makes
ROWS = ("signal", "mean of columns")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("source", [source for source in SOURCES if source != "image"])
def test_every_operation_behind_every_cut(source, operation):
    """Each cut with an end of its own, all in one network."""
    chosen = random.Random(f"{source} {operation}")
    ends = [end for end in ENDS if source in ROWS or end not in WINDOWS]
    pairs = [(CUTS[cut], ENDS[chosen.choice(ends)]) for cut in CUTS]

    def function(x, m):
        made_of = [end(OPERATIONS[operation](cut(x), m), m).flatten(1) for cut, end in pairs]
        return torch.cat(made_of, 1)

    check(source, function)


@pytest.mark.parametrize("seed", range(10))
def test_compositions(seed):
    chosen = random.Random(seed)
    operations = [OPERATIONS[chosen.choice(list(OPERATIONS))] for _ in range(4)]
    cut, end = CUTS[chosen.choice(list(CUTS))], ENDS[chosen.choice(list(ENDS))]

    def function(x, m):
        x = operations[1](cut(operations[0](x, m)), m)
        return end(operations[3](operations[2](x[:, :, ::2], m), m), m)

    check(chosen.choice(ROWS), function)


@pytest.mark.parametrize("source", ROWS)
@pytest.mark.parametrize(
    "function",
    [
        lambda x, m: x,
        lambda x, m: x[:, :2].relu(),
        lambda x, m: F.local_response_norm(x, 3),
        lambda x, m: x[:, :2].relu()[:, :, ::2].mean(-1),
        lambda x, m: x[:, :2].relu().mean(2, keepdim=True).flatten(1),
        lambda x, m: x.relu()[:, :2].relu()[:, :, :1].mean(-1),
        lambda x, m: (F.relu(x.chunk(2, 1)[0]) + x.chunk(2, 1)[1]).mean(2),
        lambda x, m: m.convs["2"](x[:, :2].relu()),
        lambda x, m: F.adaptive_avg_pool1d(x[:, :2].relu(), 1),
    ],
)
def test_signals(source, function):
    check(source, function)


def test_a_part_of_the_image():
    check("image", lambda x, m: m.convs["2"](x[:, :2] / 2 - 1))


@pytest.mark.parametrize("end", WINDOWS)
def test_windows_along_columns_are_refused(end):
    with pytest.raises(ValueError, match="lies along the height: transpose height and width before"):
        check("largest of rows", lambda x, m: ENDS[end](x[:, 1:4].relu(), m))


@pytest.mark.parametrize("number", [0.0, 2.0])
def test_constants_of_more_axes_are_refused(number):
    """In PyTorch the tensor has as many then."""
    with pytest.raises(ValueError, match=r"constants of shape \(1, 1, 1, 1\) have more axes than"):
        check("signal", lambda x, m: (x + torch.full((1, 1, 1, 1), number)).mean(-1))
