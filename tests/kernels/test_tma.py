"""csrc/kernels/conv/tma.cuh: products of compute capability 9.0 whose k-tiles the tensor memory accelerator copies,
against float64; which shapes they serve, and when they are chosen."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import ARITHMETICS, WEIGHT_GRAD, Arithmetic, assert_close
from tests.kernels.plans import with_tile
from tests.kernels.test_conv import conv2d_to_channels
from tests.kernels.test_wgmma import can_run, normal
from zfcuda import backends, ops

TILES = ("tma 192x256", "tma 256x192", "tma 128x256", "tma 256x128", "tma 128x128")
TILES_OF_WINDOWS = (*TILES, "tma 168x256")  # whose rows windows are
FILTERS = (1, 3, 8, 17, 64, 130, 200, 264)
# Channels, in vectors of 16 bytes: lines have 8 or 4 of these, with none or half a line to spare.
VECTORS = (1, 2, 3, 4, 5, 8, 9, 12, 13, 16, 17)
_, TF32, BF16 = ARITHMETICS


def vector(arithmetic):
    """Elements."""
    return 16 // np.dtype(arithmetic.dtype).itemsize


def launches():
    """Of the kernels that the emulator has run, by name."""
    return {name: n for name, n in backends.get("emulated").module.debug.variants().items() if "TmaTile" in name}


def random_problem(rng, arithmetic):
    """A dense convolution within the accelerator's limits, now and then of more than one tile."""
    kernel = tuple(int(side) for side in rng.integers(1, 5, 2))
    padding = tuple(int(rng.integers(0, side)) for side in np.repeat(kernel, 2))
    spare = padding[0] + padding[1], padding[2] + padding[3]
    size = tuple(int(rng.integers(max(1, r - p), 14)) for r, p in zip(kernel, spare, strict=True))
    stride = tuple(int(step) for step in rng.integers(1, 9 if rng.random() < 0.3 else 3, 2))
    c, k = int(rng.choice(VECTORS)) * vector(arithmetic), int(rng.choice(FILTERS))
    return (int(rng.integers(1, 4)), *size, c), (k, *kernel, c), {"stride": stride, "padding": padding}


def forward(to, rng, x_shape, w_shape, geometry, arithmetic):
    """With bias and, one time in two each, a scale, what is added, and ReLU."""
    x, w = arithmetic.normal(rng, x_shape), arithmetic.normal(rng, w_shape)
    b = rng.standard_normal(w_shape[0], np.float32)
    out = (x_shape[0], *oracles.output_size(x_shape[1:3], w_shape[1:3], **geometry), w_shape[0])
    more = {"relu": bool(rng.random() < 0.5)}
    arrays = {"scale": rng.standard_normal(w_shape[0], np.float32), "add": arithmetic.normal(rng, out)}
    arrays = {name: array for name, array in arrays.items() if rng.random() < 0.5}
    on_device = {name: to(array) for name, array in arrays.items()}
    y = ops.conv2d(to(x), to(w), to(b), **geometry, **more, **on_device, **arithmetic.options)
    return y, oracles.conv2d(x, w, b, **geometry, **more, **arrays)


def to_channels(to, rng, x_shape, w_shape, geometry, arithmetic):
    """Forward, to channels of a wider array."""
    x, w = arithmetic.normal(rng, x_shape), arithmetic.normal(rng, w_shape)
    b = rng.standard_normal(w_shape[0], np.float32)
    shape = (x_shape[0], *oracles.output_size(x_shape[1:3], w_shape[1:3], **geometry), w_shape[0])
    before, after = (int(n) for n in rng.choice([0, 1, 4, 8], 2))
    y = conv2d_to_channels(to, x, w, b, shape, before, after, **geometry, **arithmetic.options)
    return y, oracles.conv2d(x, w, b, **geometry)


def whole_vectors(rng, w_shape, arithmetic):
    """With filters in multiples of a vector."""
    filters = rng.choice(VECTORS) * vector(arithmetic) if w_shape[0] % vector(arithmetic) else w_shape[0]
    return (int(filters), *w_shape[1:])


def transposed(to, rng, x_shape, w_shape, geometry, arithmetic):
    w_shape, size = whole_vectors(rng, w_shape, arithmetic), x_shape[1:3]
    y = arithmetic.normal(rng, (x_shape[0], *oracles.output_size(size, w_shape[1:3], **geometry), w_shape[0]))
    w = arithmetic.normal(rng, w_shape)
    x = ops.conv_transpose2d(to(y), to(w), **geometry, output_size=size, **arithmetic.options)
    return x, oracles.conv_transpose2d(y, w, **geometry, output_size=size)


def weight_gradient(to, rng, x_shape, w_shape, geometry, arithmetic=BF16):
    w_shape = whole_vectors(rng, w_shape, arithmetic)
    out = oracles.output_size(x_shape[1:3], w_shape[1:3], **geometry)
    x, dy = arithmetic.normal(rng, x_shape), arithmetic.normal(rng, (x_shape[0], *out, w_shape[0]))
    dw = ops.conv2d_weight_grad(to(x), to(dy), kernel_size=w_shape[1:3], **geometry)
    return dw, oracles.conv2d_weight_grad(x, dy, kernel_size=w_shape[1:3], **geometry)


@dataclass(frozen=True)
class Operation:
    """What these kernels compute, in an arithmetic."""

    compute: Callable
    arithmetic: Arithmetic

    def __str__(self):
        return f"{self.compute.__name__} {self.arithmetic.name}"

    @property
    def tiles(self):
        return TILES if self.compute is weight_gradient else TILES_OF_WINDOWS

    def check(self, to, rng, *problem, what=""):
        """The result, which must be near to that in float64."""
        actual, expected = self.compute(to, rng, *problem, self.arithmetic)
        assert_close(actual, expected, self.arithmetic.weight_grad_tolerance, what=what)
        return actual


OPERATIONS = [Operation(one, BF16) for one in (forward, to_channels, transposed, weight_gradient)]
OPERATIONS += [Operation(one, TF32) for one in (forward, to_channels, transposed)]
of_every_kernel = pytest.mark.parametrize(
    ("operation", "tile"), [(one, tile) for one in OPERATIONS for tile in one.tiles], ids=str
)


@pytest.mark.parametrize("number", range(60))
@of_every_kernel
def test_random_shapes(kernels, force_plan, operation, tile, number):
    can_run(kernels)
    force_plan(with_tile(tile))
    rng = np.random.default_rng(number)
    problem = random_problem(rng, operation.arithmetic)
    before = sum(launches().values()) if kernels.name == "emulated" else 0
    operation.check(kernels.array, rng, *problem, what=problem)
    if kernels.name == "emulated":
        assert sum(launches().values()) == before + 1


@pytest.mark.parametrize("vectors", [12, 16])
@of_every_kernel
def test_a_long_depth(kernels, force_plan, operation, tile, vectors):
    """More k-tiles than stages, whole and split, with a ragged last split."""
    can_run(kernels)
    c = vectors * vector(operation.arithmetic)
    problem = (3, 9, 11, c), (c + 8, 3, 3, c), {"stride": (1, 1), "padding": (1, 1)}
    for splits in (1, 2, 5):
        force_plan(lambda found, s=splits: next(((name, s) for name, _ in found if name == tile), None))
        operation.check(kernels.array, np.random.default_rng(splits), *problem, what=splits)


@pytest.mark.parametrize("splits", [1, 7])
@of_every_kernel
def test_more_tiles_than_multiprocessors(kernels, force_plan, multiprocessors, operation, tile, splits):
    """Blocks that take one after the other, of more k-tiles than stages or of one."""
    can_run(kernels)
    rows, cols = (int(side) for side in tile.split()[1].split("x"))
    tiles = -(-(3 * multiprocessors // 2 + 1) // splits)
    pixels, many = (tiles * rows - 5, 8) if rows > cols else (5, tiles * cols - 8)
    channels, filters = (many, 64) if operation.compute is transposed else (64, many)
    if operation.compute is weight_gradient:
        pixels, channels, filters = 7 * 64 - 5, 64, tiles * rows - 8
    problem = (1, pixels, 1, channels), (filters, 7, 1, channels), {"stride": (1, 1), "padding": (3, 3, 0, 0)}
    force_plan(lambda found: next(((name, splits) for name, _ in found if name == tile), None))
    operation.check(kernels.array, np.random.default_rng(splits), *problem)


@pytest.mark.parametrize(("vectors", "r", "s"), [(5, 2, 2), (12, 3, 1)])  # the second fills half a k-tile up
@pytest.mark.parametrize("tile", TILES_OF_WINDOWS)
@pytest.mark.parametrize("mma", [TF32, BF16], ids=["tf32", "bf16"])
def test_what_no_window_reaches_does_not_count(kernels, force_plan, mma, tile, vectors, r, s):
    """Pixels between windows."""
    can_run(kernels)
    force_plan(with_tile(tile))
    rng, c, stride = np.random.default_rng(0), vectors * vector(mma), (r + 1, s + 1)
    x, w = mma.normal(rng, (2, 12, 13, c)), mma.normal(rng, (20, r, s, c))
    clean = x.copy()
    x[:, r :: r + 1], x[:, :, s :: s + 1] = np.inf, np.nan
    y = ops.conv2d(kernels.array(x), kernels.array(w), stride=stride, **mma.options)
    assert_close(y, oracles.conv2d(clean, w, stride=stride, padding=(0, 0)), mma.tolerance)
    if mma is BF16 and tile in TILES:
        dy, options = mma.normal(rng, (*y.shape[:3], 24)), {"kernel_size": (r, s), "stride": stride}
        dw = ops.conv2d_weight_grad(kernels.array(x), kernels.array(dy), **options)
        assert_close(dw, oracles.conv2d_weight_grad(clean, dy, **options, padding=(0, 0)), WEIGHT_GRAD)


def rounded(x):
    """To tf32: to nearest, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & 0xFFFFE000).view(np.float32)


@pytest.mark.parametrize("tile", TILES_OF_WINDOWS)
def test_tf32_rounds_its_factors_to_nearest(kernels, force_plan, tile):
    """Tensor cores would cut them off: all products would be too small, by 7e-4 on average."""
    can_run(kernels)
    force_plan(with_tile(tile))
    rng = np.random.default_rng(0)
    x, w = TF32.normal(rng, (2, 9, 8, 36)), TF32.normal(rng, (24, 3, 3, 36))
    y = ops.conv2d(kernels.array(x), kernels.array(w), padding=1, precision="tf32")
    geometry = {"stride": (1, 1), "padding": (1, 1)}
    assert_close(y, oracles.conv2d(rounded(x), rounded(w), **geometry), WEIGHT_GRAD)
    y = TF32.normal(rng, y.shape)
    x = ops.conv_transpose2d(kernels.array(y), kernels.array(w), **geometry, output_size=(9, 8), precision="tf32")
    assert_close(x, oracles.conv_transpose2d(rounded(y), rounded(w), **geometry, output_size=(9, 8)), WEIGHT_GRAD)


@pytest.mark.parametrize("k", [4, 32, 36, 68])
@pytest.mark.parametrize("c", [4, 32, 36, 68])
def test_filters_are_turned_square_by_square(kernels, force_plan, c, k):
    """Of a transposed convolution in tf32."""
    can_run(kernels)
    force_plan(with_tile("tma 128x128"))
    problem = (2, 6, 5, c), (k, 2, 3, c), {"stride": (1, 1), "padding": (1, 0)}
    Operation(transposed, TF32).check(kernels.array, np.random.default_rng(0), *problem)


@pytest.mark.parametrize("skewed", ["y", "w", "x"])
def test_arrays_that_are_not_aligned(kernels, force_plan, skewed):
    """Of y and w by another kernel, which leaves the plan's room for turned filters empty."""
    can_run(kernels)
    force_plan(with_tile("tma 128x128"))
    rng = np.random.default_rng(0)
    shapes = {"y": (2, 6, 5, 16), "w": (16, 3, 3, 8), "x": (2, 6, 5, 8)}

    def place(name, values):
        memory = kernels.array(np.empty(values.size + 1, np.float32))
        array = memory[1:].reshape(values.shape) if name == skewed else memory[:-1].reshape(values.shape)
        array[...] = kernels.array(values)
        return array

    values = {name: TF32.normal(rng, shape) for name, shape in shapes.items()}
    y, w, x = (place(name, values[name]) for name in shapes)
    geometry = {"stride": (1, 1), "padding": (1, 1)}
    ops.conv_transpose2d(y, w, **geometry, output_size=(6, 5), out=x, precision="tf32")
    expected = oracles.conv_transpose2d(values["y"], values["w"], **geometry, output_size=(6, 5))
    assert_close(x, expected, TF32.tolerance)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (1, 33), (5, 1), (2, 20), (2, 31), (3, 43), (8, 8), (9, 15)])
def test_k_tiles_begin_anywhere_in_an_image(kernels, force_plan, tile, size):
    """Of a weight gradient: after any number of images, rows and pixels, and with strides."""
    can_run(kernels)
    force_plan(with_tile(tile))
    rng = np.random.default_rng(sum(size))
    n, stride = -(-300 // (size[0] * size[1])), tuple(int(step) for step in rng.integers(1, 9, 2))
    height, width = (3 + (places - 1) * step - 2 for places, step in zip(size, stride, strict=True))
    problem = (n, height, width, 8), (16, 3, 3, 8), {"stride": stride, "padding": (1, 1)}
    actual, expected = weight_gradient(kernels.array, rng, *problem)
    assert_close(actual, expected, WEIGHT_GRAD)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("kernel", [(255, 1), (1, 255)])
def test_the_largest_windows_of_few_columns(kernels, force_plan, tile, kernel):
    """Lines beyond the last tap of a weight gradient, by offsets that a copy cannot have."""
    can_run(kernels)
    force_plan(with_tile(tile))
    padding = tuple(127 if side > 1 else 0 for side in kernel)
    problem = (1, 3, 4, 72), (8, *kernel, 72), {"stride": (1, 1), "padding": padding}
    actual, expected = weight_gradient(kernels.array, np.random.default_rng(0), *problem)
    assert_close(actual, expected, WEIGHT_GRAD)


@pytest.mark.parametrize("tile", TILES)
def test_a_gradient_that_is_not_aligned(kernels, force_plan, tile):
    """Its values are stored one by one."""
    can_run(kernels)
    force_plan(with_tile(tile))
    rng = np.random.default_rng(0)
    x, dy = normal(rng, (2, 5, 6, 24)), normal(rng, (2, 5, 6, 16))
    memory = kernels.array(np.zeros(16 * 9 * 24 + 1, np.float32))
    dw = memory[1:].reshape(16, 3, 3, 24)
    options = {"kernel_size": 3, "stride": 1, "padding": 1}
    ops.conv2d_weight_grad(kernels.array(x), kernels.array(dy), **options, out=dw)
    expected = oracles.conv2d_weight_grad(x, dy, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    assert_close(dw, expected, WEIGHT_GRAD)


@of_every_kernel
def test_the_same_bits_in_every_order(kernels, force_plan, operation, tile):
    can_run(kernels)
    force_plan(with_tile(tile))
    c = 12 * vector(operation.arithmetic)
    problem = (1, 9, 8, c), (40, 3, 3, c), {"stride": (1, 1), "padding": (1, 1)}
    results = set()
    for _ in kernels.orders():
        result = operation.check(kernels.array, np.random.default_rng(0), *problem)
        results.add(np.ascontiguousarray(kernels.numpy(result)).tobytes())
    assert len(results) == 1


# ---- The choice ------------------------------------------------------------------------------------------------------


def candidates(operation="conv2d", precision="bf16", x=(2, 300, 300, 64), w=(64, 3, 3, 64), **geometry):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    module = backends.get("emulated").module
    own = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1} | geometry
    return {
        name for name, _ in module.plan_candidates(operation, precision, module.ConvShape(x, w, *own.values()), None)
    }


def test_they_are_candidates():
    assert candidates() >= set(TILES_OF_WINDOWS)
    assert candidates(precision="tf32") >= set(TILES_OF_WINDOWS)
    assert candidates(precision="tf32", x=(2, 30, 30, 68), w=(3, 3, 3, 68), stride=(8, 8)) >= set(TILES_OF_WINDOWS)
    assert candidates("conv_transpose2d") >= set(TILES_OF_WINDOWS)
    assert candidates("conv_transpose2d", "tf32") >= set(TILES_OF_WINDOWS)
    assert candidates("conv_transpose2d", "tf32", x=(2, 30, 30, 68), w=(4, 3, 3, 68)) >= set(TILES_OF_WINDOWS)
    assert candidates("conv_transpose2d", w=(64, 129, 129, 64), padding=(0, 0)) >= set(TILES_OF_WINDOWS)
    assert candidates("conv_transpose2d", stride=(2, 9)) >= set(TILES_OF_WINDOWS)
    assert candidates("conv_transpose2d", "tf32", stride=(300, 1)) >= set(TILES_OF_WINDOWS)
    assert candidates("conv_transpose2d", padding=(256, 0), stride=(2, 1)) >= set(TILES_OF_WINDOWS)
    assert candidates("conv_transpose2d", w=(64, 255, 1, 64), padding=(127, 0), stride=(2, 1)) >= set(TILES_OF_WINDOWS)
    assert candidates("conv2d_weight_grad") >= set(TILES)
    assert candidates("conv2d_weight_grad", stride=(8, 8)) >= set(TILES)
    assert candidates("conv2d_weight_grad", w=(64, 129, 129, 64), padding=(0, 0)) >= set(TILES)
    assert candidates(stride=(8, 8)) >= set(TILES_OF_WINDOWS)
    assert candidates(padding=(128, 128)) >= set(TILES_OF_WINDOWS)
    assert candidates(w=(64, 129, 129, 64), padding=(0, 0)) >= set(TILES_OF_WINDOWS)
    assert candidates(w=(64, 255, 1, 64), padding=(127, 0)) >= set(TILES_OF_WINDOWS)


@pytest.mark.parametrize(
    "problem",
    [
        {"precision": "fp32"},
        {"precision": "tf32", "x": (2, 30, 30, 66), "w": (64, 3, 3, 66)},
        {"precision": "tf32", "stride": (9, 1)},
        {"precision": "tf32", "padding": (1, 129)},
        {"precision": "tf32", "dilation": (2, 1)},
        {"x": (2, 30, 30, 68), "w": (64, 3, 3, 68)},
        {"stride": (9, 1)},
        {"stride": (1, 9)},
        {"padding": (129, 1)},
        {"padding": (1, 129)},
        {"padding": (1, 129), "w": (64, 1, 1, 64)},
        {"padding": (0, 0), "w": (64, 130, 1, 64)},
        {"padding": (0, 0), "w": (64, 1, 130, 64)},
        {"padding": (128, 0), "w": (64, 256, 1, 64)},
        {"padding": (0, 128), "w": (64, 1, 256, 64)},
        {"dilation": (2, 1)},
        {"groups": 2, "w": (64, 3, 3, 32)},
        {"operation": "conv_transpose2d", "precision": "fp32", "stride": (2, 1)},
        {"operation": "conv_transpose2d", "stride": (2, 2), "dilation": (2, 1)},
        {"operation": "conv_transpose2d", "stride": (2, 2), "padding": (257, 0)},
        {"operation": "conv_transpose2d", "stride": (1, 2), "padding": (1, 254), "w": (64, 3, 512, 64)},
        {"operation": "conv_transpose2d", "precision": "tf32", "w": (66, 3, 3, 64)},
        {"operation": "conv_transpose2d", "precision": "tf32", "x": (2, 30, 30, 66), "w": (64, 3, 3, 66)},
        {"operation": "conv_transpose2d", "w": (68, 3, 3, 64)},
        {"operation": "conv_transpose2d", "padding": (0, 0), "w": (64, 130, 1, 64)},
        {"operation": "conv_transpose2d", "padding": (1, 129), "w": (64, 1, 3, 64)},
        {"operation": "conv2d_weight_grad", "precision": "tf32"},
        {"operation": "conv2d_weight_grad", "w": (68, 3, 3, 64)},
        {"operation": "conv2d_weight_grad", "x": (2, 30, 30, 68), "w": (64, 3, 3, 68)},
        {"operation": "conv2d_weight_grad", "stride": (9, 1)},
        {"operation": "conv2d_weight_grad", "padding": (129, 1)},
        {"operation": "conv2d_weight_grad", "padding": (0, 128), "w": (64, 1, 256, 64)},
        {"operation": "conv2d_weight_grad", "groups": 2, "w": (64, 3, 3, 32)},
    ],
    ids=str,
)
def test_what_they_cannot_serve_they_are_no_candidates_for(problem):
    assert not [name for name in candidates(**problem) if name.startswith("tma")]


PROGRAM = """
import numpy as np, ml_dtypes
from zfcuda import backends, ops
x, w = np.ones((1, 6, 6, 64), ml_dtypes.bfloat16), np.ones((8, 3, 3, 64), ml_dtypes.bfloat16)
module = backends.get("emulated").module
if PLAN:
    shape = module.ConvShape(x.shape, w.shape, (1, 1), (1, 1))
    for precision, other in (("bf16", "conv2d_weight_grad"), ("tf32", "conv_transpose2d")):
        for operation in ("conv2d", other):
            module.set_plan(operation, precision, shape, None, "tma 128x128", 1)
with backends.use("emulated"):
    y = ops.conv2d(x, w, stride=1, padding=1)
    ops.conv2d_weight_grad(x, y, kernel_size=3, stride=1, padding=1)
    x, w = x.astype(np.float32), w.astype(np.float32)
    y = ops.conv2d(x, w, stride=1, padding=1, precision="tf32")
    ops.conv_transpose2d(y, w, stride=1, padding=1, output_size=6, precision="tf32")
print(sum(n for name, n in module.debug.variants().items() if "TmaTile" in name))
"""


@pytest.mark.parametrize(
    ("kernels", "plan", "expected"),
    [(None, False, 0), (None, True, 4), ("mma", False, 0), ("mma", True, 0), ("wgmma", False, 4), ("wgmma", True, 4)],
)
def test_the_environment_chooses(kernels, plan, expected):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    environment = os.environ | ({"ZFCUDA_KERNELS": kernels} if kernels else {})
    program = PROGRAM.replace("PLAN", str(plan))
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert int(run.stdout) == expected
