"""csrc/kernels/conv/wgmma.cuh: the products of compute capability 9.0 against float64, and when they are chosen."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import WEIGHT_GRAD, assert_close
from tests.kernels.plans import with_tile
from tests.shapes import BF16
from zfcuda import backends, ops

TILES = ("wgmma 192x256", "wgmma 128x256", "wgmma 128x128")


def launches():
    """Of the kernels that the emulator has run, by name."""
    return {name: n for name, n in backends.get("emulated").module.debug.variants().items() if "WgmmaTile" in name}


def can_run(device):
    if device.name == "cuda" and not backends.get("cuda").module.can_run_wgmma():
        pytest.skip("cuda: needs compute capability 9.0 and code for sm_90a")


def random_problem(rng):
    """A dense convolution whose arrays can be copied 16 bytes at a time, now and then of more than one tile."""
    c, k = 8 * int(rng.integers(1, 10)), int(rng.choice((8, 16, 24, 64, 136, 264)))
    kernel = tuple(int(side) for side in rng.integers(1, 5, 2))
    padding = tuple(int(rng.integers(0, side)) for side in kernel)
    size = tuple(int(rng.integers(max(1, r - 2 * p), 13)) for r, p in zip(kernel, padding, strict=True))
    stride = tuple(int(step) for step in rng.integers(1, 6, 2))
    return (int(rng.integers(1, 4)), *size, c), (k, *kernel, c), {"stride": stride, "padding": padding}


def normal(rng, shape):
    return rng.standard_normal(shape, np.float32).astype(BF16)


def forward(to, rng, x_shape, w_shape, geometry):
    x, w, b, relu = (
        normal(rng, x_shape),
        normal(rng, w_shape),
        rng.standard_normal(w_shape[0], np.float32),
        rng.random(),
    )
    relu = relu < 0.5
    y = ops.conv2d(to(x), to(w), to(b), relu=relu, **geometry)
    return y, oracles.conv2d(x, w, b, relu=relu, **geometry)


def data_gradient(to, rng, x_shape, w_shape, geometry):
    size = x_shape[1:3]
    p, q = oracles.output_size(size, w_shape[1:3], **geometry)
    dy, w = normal(rng, (x_shape[0], p, q, w_shape[0])), normal(rng, w_shape)
    dx = ops.conv_transpose2d(to(dy), to(w), output_size=size, **geometry)
    return dx, oracles.conv_transpose2d(dy, w, output_size=size, **geometry)


def weight_gradient(to, rng, x_shape, w_shape, geometry):
    p, q = oracles.output_size(x_shape[1:3], w_shape[1:3], **geometry)
    x, dy = normal(rng, x_shape), normal(rng, (x_shape[0], p, q, w_shape[0]))
    dw = ops.conv2d_weight_grad(to(x), to(dy), kernel_size=w_shape[1:3], **geometry)
    return dw, oracles.conv2d_weight_grad(x, dy, kernel_size=w_shape[1:3], **geometry)


OPERATIONS = (forward, data_gradient, weight_gradient)


@pytest.mark.parametrize("number", range(60))
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_random_shapes(kernels, force_plan, operation, tile, number):
    can_run(kernels)
    force_plan(with_tile(tile))
    rng = np.random.default_rng(number)
    problem = random_problem(rng)
    before = sum(launches().values()) if kernels.name == "emulated" else 0
    actual, expected = operation(kernels.array, rng, *problem)
    assert_close(actual, expected, WEIGHT_GRAD, what=problem)
    if kernels.name == "emulated":
        assert sum(launches().values()) == before + 1


@pytest.mark.parametrize("k", [1, 3, 17, 130, 259])
@pytest.mark.parametrize("tile", TILES)
def test_any_number_of_filters(kernels, force_plan, tile, k):
    """Rows of y that cannot be stored two values at a time."""
    can_run(kernels)
    force_plan(with_tile(tile))
    actual, expected = forward(
        kernels.array, np.random.default_rng(k), (2, 7, 6, 16), (k, 3, 3, 16), {"stride": (1, 1), "padding": (1, 1)}
    )
    assert_close(actual, expected)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_long_depth(kernels, force_plan, operation, tile):
    """More k-tiles than stages, whole and split, with a ragged last one."""
    can_run(kernels)
    problem = (3, 9, 11, 136), (136, 3, 3, 136), {"stride": (1, 1), "padding": (1, 1)}
    for splits in (1, 2, 5):
        force_plan(lambda found, s=splits: next(((name, s) for name, _ in found if name == tile), None))
        actual, expected = operation(kernels.array, np.random.default_rng(splits), *problem)
        assert_close(actual, expected, WEIGHT_GRAD, what=splits)


@pytest.mark.parametrize("tile", TILES)
def test_the_same_bits_in_every_order(kernels, force_plan, tile):
    can_run(kernels)
    force_plan(with_tile(tile))
    rng = np.random.default_rng(0)
    x, w = (kernels.array(rng.standard_normal(s, np.float32).astype(BF16)) for s in ((1, 9, 8, 40), (40, 3, 3, 40)))
    results = {kernels.numpy(ops.conv2d(x, w, stride=1, padding=1)).tobytes() for _ in kernels.orders()}
    assert len(results) == 1


PROGRAM = """
import numpy as np, ml_dtypes
from zfcuda import backends, ops
x, w = np.ones((1, 6, 6, 8), ml_dtypes.bfloat16), np.ones((8, 3, 3, 8), ml_dtypes.bfloat16)
module = backends.get("emulated").module
if PLAN:
    module.set_plan("conv2d", "bf16", module.ConvShape(x.shape, w.shape, (1, 1), (1, 1)), None, "wgmma 128x128", 1)
with backends.use("emulated"):
    ops.conv2d(x, w, stride=1, padding=1)
print(sum(n for name, n in module.debug.variants().items() if "WgmmaTile" in name), module.wgmma_use())
"""


@pytest.mark.parametrize(
    ("kernels", "plan", "expected"),
    [(None, False, 0), (None, True, 1), ("mma", False, 0), ("mma", True, 0), ("wgmma", False, 1), ("wgmma", True, 1)],
)
def test_the_environment_chooses(kernels, plan, expected):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    environment = os.environ | ({"ZFCUDA_KERNELS": kernels} if kernels else {})
    program = PROGRAM.replace("PLAN", str(plan))
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    use = {None: "if planned", "mma": "never", "wgmma": "always"}[kernels]
    assert run.stdout == f"{expected} {use}\n"


def test_another_word_is_an_error():
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    environment = os.environ | {"ZFCUDA_KERNELS": "wmma"}
    program = PROGRAM.replace("PLAN", "False")
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "ValueError: ZFCUDA_KERNELS must be mma or wgmma, got 'wmma'" in run.stderr
