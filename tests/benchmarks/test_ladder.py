"""benchmarks/ladder: every step is right on shapes that its tiles do not divide, touches nothing else, and asks less of
memory than the step before."""

import dataclasses

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import FP32, TF32, assert_close

kernels = pytest.importorskip("zfcuda._ladder", reason="needs a build with ZFCUDA_CHECKED=ON")

STEPS = list(kernels.steps)
# n, h, w, c, k, r, s, strides, paddings
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0),
    (2, 9, 7, 3, 5, 3, 2, 2, 1, 1, 0),
    (1, 13, 11, 4, 130, 3, 3, 1, 1, 1, 1),  # two tiles of maps
    (3, 8, 6, 20, 9, 1, 1, 1, 2, 0, 0),  # two tiles of rows, a k-tile and a part
    (1, 6, 5, 6, 17, 5, 5, 3, 2, 3, 4),
]


def convolve(step, shape):
    """The result, and what float64 says."""
    n, h, w, c, k, r, s, stride_h, stride_w, pad_h, pad_w = shape
    rng = np.random.default_rng(sum(shape))
    x, filters = (rng.standard_normal(size, np.float32) for size in ((n, h, w, c), (k, r, s, c)))
    expected = oracles.conv2d(x, filters, stride=(stride_h, stride_w), padding=(pad_h, pad_w))
    y = np.full(expected.shape, np.nan, np.float32)
    for name, array in (("x", x), ("w", filters), ("y", y)):
        kernels.debug.register_array(array.ctypes.data, array.nbytes, array is not y, name)
    try:
        kernels.steps[step](shape, x.ctypes.data, filters.ctypes.data, y.ctypes.data)
    finally:
        kernels.debug.forget_arrays()
    return y, expected


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("step", STEPS)
def test_step_is_right(step, shape):
    y, expected = convolve(step, shape)
    assert_close(y, expected, TF32 if step == "tensor cores" else FP32)


def test_every_step_asks_less_of_memory():
    """By what its idea says, for each multiply-add of a product of whole tiles."""

    def traffic():
        every = list(kernels.debug.traffic().values())
        return {what: sum(kernel[what] for kernel in every) for what in every[0]}

    multiply_adds = (8 * 16) * 128 * 32
    found = []
    for step in STEPS:
        before = traffic()
        convolve(step, (1, 8, 16, 32, 128, 1, 1, 1, 1, 0, 0))
        found.append({what: (count - before[what]) / multiply_adds for what, count in traffic().items()})
    naive, shared, registers, vectors, tensor_cores = found
    stores = 1 / 32
    copies = {"by values": 2 / 128, "by vectors": 2 / 128 / 4}
    assert naive["global accesses"] == 2 + stores
    assert naive["shared accesses"] == 0
    assert shared["global accesses"] == 2 / 16 + stores
    assert shared["shared accesses"] == 2 + 2 / 16
    assert registers["global accesses"] == copies["by values"] + stores
    assert registers["shared accesses"] == 16 / 64 + copies["by values"]
    assert vectors["global accesses"] == copies["by vectors"] + stores
    assert vectors["shared accesses"] == 16 / 256 + copies["by vectors"]
    assert tensor_cores["shared accesses"] == 12 * 32 / (64 * 32 * 16) + copies["by vectors"]


@pytest.fixture
def script():
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    import ladder

    return ladder


def test_counts(script, capsys, monkeypatch):
    monkeypatch.setattr(script, "EMULATED", dataclasses.replace(script.EMULATED, size=4, channels=4))
    assert script.main(["--emulated"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "images 1x4x4x4, filters 128x3x3x4, strides and padding [1, 1, 1, 1]"
    assert [line.split(" | ")[0][2:] for line in lines[4:-1]] == STEPS


def test_times(script, monkeypatch):
    """All but the GPU."""
    times = {
        name: 2.0**-i for i, name in enumerate([*STEPS, "zfcuda fp32", "PyTorch fp32", "zfcuda tf32", "PyTorch tf32"])
    }
    monkeypatch.setattr("gpu_device.time_alternating", lambda calls: {name: [times[name]] for name in calls})
    conv = dataclasses.replace(script.EMULATED, size=4, channels=4)
    lines = script.timed(script.Ladder(kernels, "cpu", conv)).splitlines()
    assert [line.split(" | ")[0][2:] for line in lines[2:]] == list(times)
    assert lines[3].endswith("| 0.5 | 0.00 | 2.00 |")


def test_without_a_gpu_nothing_is_measured(script, monkeypatch, capsys):
    monkeypatch.setattr("zfcuda.backends.status", lambda: {"cuda": "too old"})
    assert script.main([]) == 3
    assert capsys.readouterr().err == "Nothing was measured: too old\n"
