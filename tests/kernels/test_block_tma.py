"""csrc/kernels/conv/block_tma.cuh: blocks of compute capability 9.0, convolved and pooled by one kernel, against
float64; which shapes they serve, and when they are chosen."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import ARITHMETICS, assert_close, assert_same
from tests.kernels.plans import with_tile
from tests.kernels.test_block import value_at_switch
from tests.kernels.test_tma import VECTORS, vector
from tests.kernels.test_wgmma import can_run
from tests.shapes import Conv, Pool
from zfcuda import backends, ops

_, TF32, BF16 = ARITHMETICS
TILES = ("tma 192x256", "tma 256x192", "tma 128x256", "tma 256x128", "tma 128x128")
TILES_OF = {"tf32": TILES, "bf16": (*TILES, "tma 384x64")}
FILTERS = (1, 3, 8, 17, 64, 66, 130, 200, 264)
of_every_kernel = pytest.mark.parametrize(
    ("mma", "tile"),
    [(mma, tile) for mma in (TF32, BF16) for tile in TILES_OF[mma.name]],
    ids=lambda one: getattr(one, "name", one),
)


def launches():
    """Of the kernels that the emulator has run, by name."""
    variants = backends.get("emulated").module.debug.variants()
    return {name: n for name, n in variants.items() if "block_tma_kernel" in name}


def random_problem(rng, arithmetic):
    """A block within the accelerator's limits, often of several tiles; windows of the pool side by side or not."""
    kernel = tuple(int(side) for side in rng.integers(1, 5, 2))
    padding = tuple(int(rng.integers(0, side)) for side in np.repeat(kernel, 2))
    spare = padding[0] + padding[1], padding[2] + padding[3]
    size = tuple(int(rng.integers(max(1, r - p), 26)) for r, p in zip(kernel, spare, strict=True))
    stride = tuple(int(step) for step in rng.integers(1, 9 if rng.random() < 0.2 else 3, 2))
    c, k = int(rng.choice(VECTORS)) * vector(arithmetic), int(rng.choice(FILTERS))
    conv = Conv((int(rng.integers(1, 4)), *size, c), (k, *kernel, c), stride, padding)
    if rng.random() < 0.4:
        window = tuple(int(rng.integers(1, min(side, 6) + 1)) for side in conv.output[1:3])
        window = (2, 2) if min(conv.output[1:3]) > 1 and rng.random() < 0.4 else window
        return conv, Pool(conv.output, window, window, (0, 0), False)
    while True:
        window = (2, 2) if rng.random() < 0.3 else tuple(int(side) for side in rng.integers(1, 5, 2))
        pool_stride = (2, 2) if rng.random() < 0.3 else tuple(int(step) for step in rng.integers(1, 6, 2))
        around = tuple(int(rng.integers(0, side)) for side in np.repeat(window, 2))
        pool = Pool(conv.output, window, pool_stride, around, bool(rng.random() < 0.3))
        if min(pool.output[1:3]) >= 1:
            return conv, pool


def run(to, conv, pool, x, w, b, arithmetic):
    return ops.conv2d_relu_pool(
        to(x),
        to(w),
        None if b is None else to(b),
        **conv.options,
        window=pool.window,
        pool_stride=pool.stride,
        pool_padding=pool.padding,
        pool_ceil_mode=pool.ceil_mode,
        **arithmetic.options,
    )


def whole(rng, shape, arithmetic, largest=3):
    """Small whole numbers: no sum of their products is rounded, and many are equal."""
    return rng.integers(-largest, largest, shape, endpoint=True).astype(arithmetic.dtype)


def check(device, rng, conv, pool, arithmetic, what=""):
    """Of random values, near to float64."""
    x, w = arithmetic.normal(rng, conv.x), arithmetic.normal(rng, conv.w)
    b = rng.standard_normal(conv.w[0], np.float32)
    y, _ = run(device.array, conv, pool, x, w, b, arithmetic)
    maps = oracles.conv2d(x, w, b, **conv.options, relu=True)
    assert_close(y, oracles.max_pool2d(maps, **pool.options)[0], arithmetic.tolerance, what=what)


def check_exactly(device, rng, conv, pool, arithmetic, what="", spoil=None, biased=True):
    """Of whole numbers, to the bit, and all switches: the first of equals wins. `spoil` changes x."""
    x, w = whole(rng, conv.x, arithmetic), whole(rng, conv.w, arithmetic)
    b = whole(rng, conv.w[0], TF32, 20) if biased else None
    if spoil:
        spoil(x)
    y, switches = run(device.array, conv, pool, x, w, b, arithmetic)
    maps = oracles.conv2d(x, w, b, **conv.options, relu=True).astype(np.float32).astype(arithmetic.dtype)
    expected, cells = oracles.max_pool2d(maps, **pool.options)
    y, switches = device.numpy(y), device.numpy(switches)
    assert_same(y, expected, str(what))
    np.testing.assert_array_equal(switches, cells, str(what))
    assert_same(value_at_switch(maps.astype(np.float64), switches, pool), expected.astype(np.float64), str(what))
    return y, switches


@pytest.mark.parametrize("number", range(60))
@of_every_kernel
def test_random_shapes(kernels, force_plan, mma, tile, number):
    can_run(kernels)
    force_plan(with_tile(tile))
    rng = np.random.default_rng(number)
    problem = random_problem(rng, mma)
    before = sum(launches().values()) if kernels.name == "emulated" else 0
    if number % 3:
        check_exactly(kernels, rng, *problem, mma, problem, biased=number % 4 > 0)
    else:
        check(kernels, rng, *problem, mma, problem)
    if kernels.name == "emulated":
        assert sum(launches().values()) == before + 1


def block(x, w, *, stride=(1, 1), padding=(1, 1), window=(2, 2), pool_stride=(2, 2), pool_padding=(0, 0), ceil=False):
    conv = Conv(x, w, stride, padding)
    return conv, Pool(conv.output, window, pool_stride, pool_padding, ceil)


@of_every_kernel
def test_a_long_depth(kernels, force_plan, mma, tile):
    """More k-tiles than stages."""
    can_run(kernels)
    force_plan(with_tile(tile))
    c = 17 * vector(mma)
    check(kernels, np.random.default_rng(0), *block((2, 9, 12, c), (72, 3, 3, c)), mma)


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (3, 2), (1, 4), (4, 1), (5, 5), (8, 3), (3, 8)])
@of_every_kernel
def test_windows_side_by_side(kernels, force_plan, mma, tile, window):
    """Across images, whose last pixels no window has; of each window as many lines, which begin at multiples of 8."""
    can_run(kernels)
    force_plan(with_tile(tile))
    c = 4 * vector(mma)
    check_exactly(
        kernels, np.random.default_rng(0), *block((5, 17, 19, c), (8, 3, 3, c), window=window, pool_stride=window), mma
    )


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((2, 40, 9), (3, 3), {"stride": (3, 1), "window": (3, 3)}),  # steps of 9 lines
        ((2, 5, 9), (130, 1), {"padding": (129, 0, 0, 0)}),
        ((2, 9, 5), (1, 130), {"padding": (0, 0, 129, 0)}),
        ((1, 9, 7), (3, 1), {"padding": (1, 0), "window": (1, 2), "ceil": True}),
        ((1, 12, 10), (1, 1), {"padding": (0, 0), "pool_padding": (1, 0, 0, 0)}),
        ((1, 12, 10), (1, 1), {"padding": (0, 0), "pool_padding": (0, 0, 1, 0)}),
        ((1, 11, 9), (1, 1), {"padding": (0, 0), "pool_padding": (0, 1, 0, 1)}),
        ((1, 12, 10), (1, 1), {"padding": (0, 0), "pool_stride": (2, 3)}),
        ((1, 12, 10), (1, 1), {"padding": (0, 0), "pool_stride": (3, 2)}),
        ((1, 12, 10), (1, 1), {"padding": (0, 0), "pool_stride": (2, 1)}),
        ((1, 12, 10), (1, 1), {"padding": (0, 0), "pool_stride": (1, 2)}),
    ],
)
@of_every_kernel
def test_windows_that_are_not_quite_side_by_side(kernels, force_plan, mma, tile, x, w, options):
    """Or beyond what the accelerator can address."""
    can_run(kernels)
    force_plan(with_tile(tile))
    c, options = vector(mma), {"window": (2, 2)} | options
    problem = block((*x, c), (8, *w, c), **{"pool_stride": options["window"]} | options)
    check_exactly(kernels, np.random.default_rng(0), *problem, mma)


@pytest.mark.parametrize("vectors", [4, 8])  # lines of 64 bytes, and of 128
@pytest.mark.parametrize("window", [1, 2, 3])
@of_every_kernel
def test_more_tiles_than_multiprocessors(kernels, force_plan, multiprocessors, mma, tile, window, vectors):
    """A block of threads that computes one after the other, each of more k-tiles than stages."""
    can_run(kernels)
    force_plan(with_tile(tile))
    c, rows, cols = vectors * vector(mma), *(int(side) for side in tile.split()[1].split("x"))
    wide = -(-(3 * multiprocessors // 2 + 1) // 2) * (rows // 11)
    conv, pool = block((2, 11, wide, c), (cols + 8, 1, 7, c), padding=(0, 3), window=(window, window))
    check_exactly(kernels, np.random.default_rng(0), conv, pool, mma)


@pytest.mark.parametrize(
    ("x", "w", "stride", "window"),
    [
        ((1, 1, 700), (1, 3), (1, 1), (1, 2)),  # a region as wide as a tile has rows, or a box pixels
        ((1, 700, 1), (3, 1), (1, 1), (2, 1)),
        ((1, 1, 700), (1, 3), (1, 2), (1, 2)),  # a box of 255 pixels
        ((1, 700, 1), (3, 1), (2, 1), (2, 1)),
        ((1, 1, 900), (1, 3), (1, 8), (1, 2)),  # 32 steps of 8
        ((1, 900, 1), (3, 1), (8, 1), (2, 1)),
        ((1, 300, 3), (7, 3), (3, 1), (2, 2)),
    ],
)
@of_every_kernel
def test_the_largest_boxes(kernels, force_plan, mma, tile, x, w, stride, window):
    can_run(kernels)
    force_plan(with_tile(tile))
    c, padding = 2 * vector(mma), tuple(side // 2 for side in w)
    problem = block((*x, c), (9, *w, c), stride=stride, padding=padding, window=window, pool_stride=window)
    check_exactly(kernels, np.random.default_rng(0), *problem, mma)


@pytest.mark.parametrize("geometry", [{}, {"window": (3, 3), "pool_padding": (1, 1)}], ids=["apart", "overlapping"])
@of_every_kernel
def test_other_pixels_do_not_count(kernels, force_plan, mma, tile, geometry):
    """NaN wins, in its own windows alone: those of no other region, image or channel."""
    can_run(kernels)
    force_plan(with_tile(tile))
    c = 4 * vector(mma)

    def spoil(x):
        x[0, 5, 7, 3] = x[0, 20, 30, 0] = x[1, 0, 0, 5] = x[2, -1, -1, 1] = np.nan

    problem = block((3, 23, 34, c), (24, 3, 3, c), **geometry)
    y, _ = check_exactly(kernels, np.random.default_rng(0), *problem, mma, spoil=spoil)
    spoilt = np.isnan(y).any(axis=(1, 2, 3))
    assert spoilt.all()
    assert np.isnan(y).mean() < 0.05


@pytest.mark.parametrize(("vectors", "r", "s"), [(5, 2, 2), (12, 3, 1)])  # the second fills half a k-tile up
@of_every_kernel
def test_what_no_window_reaches_does_not_count(kernels, force_plan, mma, tile, vectors, r, s):
    """Pixels between windows of the filters, which boxes skip; and pixels of the map between those of the pool."""
    can_run(kernels)
    force_plan(with_tile(tile))
    c = vectors * vector(mma)
    conv, pool = block(
        (2, 32, 31, c), (20, r, s, c), stride=(r + 1, s + 1), padding=(0, 0), window=(2, 1), pool_stride=(3, 2)
    )
    rng = np.random.default_rng(0)
    x, w = whole(rng, conv.x, mma), whole(rng, conv.w, mma)
    maps = oracles.conv2d(x, w, **conv.options, relu=True).astype(np.float32).astype(mma.dtype)
    expected, cells = oracles.max_pool2d(maps, **pool.options)
    x[:, r :: r + 1], x[:, :, s :: s + 1] = np.inf, np.nan
    x[:, 2 * (r + 1) :: 3 * (r + 1)] = x[:, :, s + 1 :: 2 * (s + 1)] = np.nan
    y, switches = run(kernels.array, conv, pool, x, w, None, mma)
    assert_same(kernels.numpy(y), expected)
    np.testing.assert_array_equal(kernels.numpy(switches), cells)


@pytest.mark.parametrize("skewed", ["x", "w", None])
@pytest.mark.parametrize("mma", [TF32, BF16], ids=["tf32", "bf16"])
def test_arrays_that_are_not_aligned(kernels, force_plan, mma, skewed):
    """By other kernels, in whose workspace a map may lie."""
    can_run(kernels)
    force_plan(with_tile("tma 128x128"))
    rng = np.random.default_rng(0)
    conv, pool = block((2, 9, 12, 4 * vector(mma)), (16, 3, 3, 4 * vector(mma)))

    def place(name, values):
        memory = kernels.array(np.empty(values.size + 1, values.dtype))
        array = memory[1:].reshape(values.shape) if name == skewed else memory[:-1].reshape(values.shape)
        array[...] = kernels.array(values)
        return array

    x, w = whole(rng, conv.x, mma), whole(rng, conv.w, mma)
    before = sum(launches().values()) if kernels.name == "emulated" else 0
    made = run(lambda array: array, conv, pool, place("x", x), place("w", w), None, mma)
    maps = oracles.conv2d(x, w, **conv.options, relu=True).astype(np.float32).astype(mma.dtype)
    expected, cells = oracles.max_pool2d(maps, **pool.options)
    assert_same(kernels.numpy(made[0]), expected)
    np.testing.assert_array_equal(kernels.numpy(made[1]), cells)
    if kernels.name == "emulated":
        assert sum(launches().values()) - before == (skewed is None)


@of_every_kernel
def test_the_same_bits_in_every_order(kernels, force_plan, multiprocessors, mma, tile):
    can_run(kernels)
    force_plan(with_tile(tile))
    c = 12 * vector(mma)
    conv, pool = block((2, 19, 30, c), (40, 3, 3, c), window=(3, 3), pool_padding=(1, 0))
    rng = np.random.default_rng(0)
    x, w = mma.normal(rng, conv.x), mma.normal(rng, conv.w)
    results = set()
    for _ in kernels.orders():
        made = run(kernels.array, conv, pool, x, w, None, mma)
        results.add(b"".join(np.ascontiguousarray(kernels.numpy(one)).tobytes() for one in made))
    assert len(results) == 1


# ---- The choice ------------------------------------------------------------------------------------------------------


def candidates(precision="bf16", x=(2, 30, 30, 64), w=(64, 3, 3, 64), window=(2, 2), pool_stride=(2, 2), **geometry):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    module = backends.get("emulated").module
    own = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1} | geometry
    conv = module.ConvShape(x, w, *own.values())
    pool = module.PoolShape(tuple(conv.output), window, pool_stride, (0, 0), False)
    return [name for name, _ in module.plan_candidates("conv2d_relu_pool", precision, conv, pool)]


def tiles(**problem):
    return {name for name in candidates(**problem) if name.startswith("tma ")}


def test_they_are_candidates():
    assert tiles() == {*TILES, "tma 384x64"}
    assert tiles(precision="tf32") == set(TILES)
    assert tiles(precision="tf32", x=(2, 30, 30, 68), w=(3, 3, 3, 68)) == set(TILES)
    assert tiles(stride=(8, 8), window=(1, 1)) == {*TILES, "tma 384x64"}
    assert tiles(x=(1, 500, 500, 8), w=(8, 300, 1, 8), padding=(299, 0)) == {*TILES, "tma 384x64"}


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ({"window": (12, 12)}, {*TILES, "tma 384x64"} - {"tma 128x256", "tma 128x128"}),
        ({"window": (13, 13)}, {*TILES, "tma 384x64"} - {"tma 128x256", "tma 128x128"}),
        ({"window": (15, 15)}, {"tma 256x192", "tma 256x128", "tma 384x64"}),
        ({"window": (16, 16), "pool_stride": (16, 16)}, {"tma 256x192", "tma 256x128", "tma 384x64"}),
        ({"x": (1, 300, 1, 8), "w": (8, 1, 1, 8), "window": (128, 1), "stride": (2, 1), "padding": (0, 0)}, None),
        ({"x": (1, 300, 1, 8), "w": (8, 1, 1, 8), "window": (129, 1), "stride": (2, 1), "padding": (0, 0)}, set()),
        ({"x": (1, 1, 300, 8), "w": (8, 1, 1, 8), "window": (1, 128), "stride": (1, 2), "padding": (0, 0)}, None),
        ({"x": (1, 1, 300, 8), "w": (8, 1, 1, 8), "window": (1, 129), "stride": (1, 2), "padding": (0, 0)}, set()),
    ],
)
def test_windows_that_fit(problem, expected):
    """Into the rows of a tile, and of each axis into the 256 pixels of a box."""
    assert tiles(**problem) == ({*TILES, "tma 384x64"} if expected is None else expected)


@pytest.mark.parametrize(
    "problem",
    [
        {"precision": "fp32"},
        {"precision": "tf32", "x": (2, 30, 30, 66), "w": (64, 3, 3, 66)},
        {"x": (2, 30, 30, 68), "w": (64, 3, 3, 68)},
        {"stride": (9, 1)},
        {"stride": (1, 9)},
        {"dilation": (2, 1)},
        {"groups": 2, "w": (64, 3, 3, 32)},
    ],
    ids=str,
)
def test_what_they_cannot_serve_they_are_no_candidates_for(problem):
    assert not tiles(**problem)


PROGRAM = """
import numpy as np, ml_dtypes
from zfcuda import backends, ops
x, w = np.ones((8, 32, 32, 16), ml_dtypes.bfloat16), np.ones((128, 1, 1, 16), ml_dtypes.bfloat16)
module = backends.get("emulated").module
if PLAN:
    shape = module.ConvShape(x.shape, w.shape, (1, 1), (1, 1))
    pool = module.PoolShape(tuple(shape.output), (2, 2), (2, 2), (0, 0), False)
    for precision in ("bf16", "tf32"):
        module.set_plan("conv2d_relu_pool", precision, shape, pool, PLAN, 1)
own = {"stride": 1, "padding": 1, "window": 2, "pool_stride": 2}
with backends.use("emulated"):
    ops.conv2d_relu_pool(x, w, None, **own)
    ops.conv2d_relu_pool(x.astype(np.float32), w.astype(np.float32), None, **own, precision="tf32")
print(sum(n for name, n in module.debug.variants().items() if "block_tma_kernel" in name))
"""


@pytest.mark.parametrize(
    ("kernels", "plan", "expected"),
    [
        (None, "", 0),
        (None, "tma 128x128", 2),
        ("mma", "", 0),
        ("mma", "tma 128x128", 0),
        ("wgmma", "", 2),
        ("wgmma", "tma 128x256", 2),
        ("wgmma", "mma 256x96", 0),
        ("wgmma", "composed", 0),
    ],
)
def test_the_environment_chooses(kernels, plan, expected):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    environment = os.environ | ({"ZFCUDA_KERNELS": kernels} if kernels else {})
    program = PROGRAM.replace("PLAN", repr(plan))
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert int(run.stdout) == expected
