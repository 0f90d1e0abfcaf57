"""csrc/kernels/conv/tma_phases.cuh: transposed convolutions with strides, whose k-tiles the tensor memory accelerator
copies, against float64."""

import itertools

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.kernels.plans import with_tile
from tests.kernels.test_tma import BF16, FILTERS, TF32, TILES_OF_WINDOWS, VECTORS, launches, vector
from tests.kernels.test_wgmma import can_run
from zfcuda import ops

of_every_kernel = pytest.mark.parametrize("tile", TILES_OF_WINDOWS)
pytestmark = pytest.mark.parametrize("mma", [TF32, BF16], ids=["tf32", "bf16"])


def check(to, rng, mma, size, channels, filters, kernel, *, n=1, **geometry):
    """Of whole numbers, whose sums are exact but for the rounding of a result: size of x, channels of x and of y."""
    y = rng.integers(-4, 5, (n, *oracles.output_size(size, kernel, **geometry), filters)).astype(mma.dtype)
    w = rng.integers(-4, 5, (filters, *kernel, channels)).astype(mma.dtype)
    x = ops.conv_transpose2d(to(y), to(w), **geometry, output_size=size, **mma.options)
    expected = oracles.conv_transpose2d(y, w, **geometry, output_size=size)
    assert_close(x, expected, mma.tolerance, what=(n, size, channels, filters, kernel, geometry))


@pytest.mark.parametrize("number", range(60))
def test_random_shapes(kernels, force_plan, mma, number):
    """Strides up to 8, also larger than filters, and images of a pixel."""
    can_run(kernels)
    force_plan(with_tile(TILES_OF_WINDOWS[number % len(TILES_OF_WINDOWS)]))
    rng = np.random.default_rng(number)
    kernel = tuple(int(side) for side in rng.integers(1, 8, 2))
    padding = tuple(int(rng.integers(0, side)) for side in np.repeat(kernel, 2))
    stride = tuple(int(step) for step in rng.choice((1, 2, 2, 3, 4, 5, 8), 2))
    spare = padding[0] + padding[1], padding[2] + padding[3]
    least = [max(1, r - p) for r, p in zip(kernel, spare, strict=True)]
    size = tuple(low + int(rng.integers(0, 20)) * int(rng.random() < 0.8) for low in least)
    filters = -(-int(rng.choice(FILTERS)) // vector(mma)) * vector(mma)
    before = sum(launches().values()) if kernels.name == "emulated" else 0
    check(
        kernels.array,
        rng,
        mma,
        size,
        int(rng.choice(VECTORS)) * vector(mma),
        filters,
        kernel,
        n=int(rng.integers(1, 4)),
        stride=stride,
        padding=padding,
    )
    if kernels.name == "emulated":
        assert sum(launches().values()) == before + 1


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("along", ["h", "w"])
def test_every_phase_along_an_axis(kernels, force_plan, mma, along, stride):
    """Of each size, filter and padding: where windows begin, and which taps they have."""
    can_run(kernels)
    force_plan(with_tile("tma 128x128"))
    rng, few = np.random.default_rng(0), vector(mma)
    for taps, padding in itertools.product((1, 2, 3, 5), (0, 1, 2, 3)):
        for size in {max(1, taps - 2 * padding), taps + 2, taps + 3}:
            lines = {"size": (size, 1), "kernel": (taps, 1), "stride": (stride, 1), "padding": (padding, 0)}
            if along == "w":
                lines = {name: pair[::-1] for name, pair in lines.items()}
            check(kernels.array, rng, mma, channels=few, filters=few, **lines)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("kernel", "stride"), [((1, 1), (2, 2)), ((1, 2), (3, 1)), ((2, 1), (2, 4)), ((3, 3), (5, 7))])
@of_every_kernel
def test_phases_without_taps_are_zero(kernels, force_plan, mma, tile, kernel, stride, splits):
    can_run(kernels)
    force_plan(lambda found: next(((name, splits) for name, _ in found if name == tile), None))
    rng, sizes = np.random.default_rng(0), (5 * vector(mma), 20 * vector(mma))
    check(kernels.array, rng, mma, (11, 9), *sizes, kernel, n=2, stride=stride, padding=(0, 0))


@pytest.mark.parametrize("vectors", [12, 16])
@of_every_kernel
def test_a_long_depth(kernels, force_plan, mma, tile, vectors):
    """More k-tiles than stages in the deepest phase, whole and split; the other phases have no share in the last."""
    can_run(kernels)
    sizes = (vectors + 1) * vector(mma), vectors * vector(mma)
    for splits in (1, 2, 5):
        force_plan(lambda found, s=splits: next(((name, s) for name, _ in found if name == tile), None))
        geometry = {"stride": (2, 2), "padding": (1, 1)}
        check(kernels.array, np.random.default_rng(splits), mma, (9, 12), *sizes, (5, 3), n=2, **geometry)


@pytest.mark.parametrize("splits", [1, 2])
@of_every_kernel
def test_blocks_that_take_tiles_of_several_phases(kernels, force_plan, multiprocessors, mma, tile, splits):
    """Of more k-tiles than stages, of fewer and of none, also before others, in tiles of which the last have few rows
    and columns."""
    can_run(kernels)
    rows, cols = (int(side) for side in tile.split()[1].split("x"))
    force_plan(lambda found: next(((name, splits) for name, _ in found if name == tile), None))
    for taps, stride in ((7, (2, 1)), (2, (3, 1)), (7, (2, 2))):
        windows = max(rows + 3, rows * (multiprocessors // (2 * stride[0])) + 3)
        geometry = {"stride": stride, "padding": (taps // 2, taps // 2, 0, 0)}
        sizes = (stride[0] * windows - 1, stride[1]), cols + vector(mma), 16 * vector(mma), (taps, 1)
        check(kernels.array, np.random.default_rng(splits), mma, *sizes, **geometry)


@pytest.mark.parametrize(("taps", "stride"), [(255, 1), (509, 2), (510, 2), (765, 3)])
@of_every_kernel
def test_the_most_taps(kernels, force_plan, mma, tile, taps, stride):
    """255 of a phase, the first of which begins a pixel further on, and a line beyond the last: a copy cannot have
    larger offsets."""
    can_run(kernels)
    force_plan(with_tile(tile))
    rng, sizes = np.random.default_rng(0), (vector(mma), 4 * vector(mma))
    around = (127 * stride - 1,) * 2
    for lines in (
        {"size": (40, 2), "kernel": (taps, 1), "stride": (stride, 1), "padding": (*around, 0, 0)},
        {"size": (2, 40), "kernel": (1, taps), "stride": (1, stride), "padding": (0, 0, *around)},
    ):
        before = sum(launches().values()) if kernels.name == "emulated" else 0
        check(kernels.array, rng, mma, channels=sizes[0], filters=sizes[1], **lines)
        if kernels.name == "emulated":
            assert sum(launches().values()) == before + 1


@pytest.mark.parametrize("vectors", [4, 5, 8])  # a line, half a line more than one, and two lines
@of_every_kernel
def test_what_no_tap_reaches_does_not_count(kernels, force_plan, mma, tile, vectors):
    """One pixel of y that is not finite: values of x under its filters alone are not."""
    can_run(kernels)
    force_plan(with_tile(tile))
    rng, kernel, size, geometry = np.random.default_rng(0), (3, 2), (8, 9), {"stride": (2, 3), "padding": (1, 0)}
    y = mma.normal(rng, (2, *oracles.output_size(size, kernel, **geometry), vectors * vector(mma)))
    w = mma.normal(rng, (y.shape[-1], *kernel, 3 * vector(mma)))
    reached = np.zeros(y.shape)
    y[1, 2, 1], reached[1, 2, 1] = np.nan, 1
    x = ops.conv_transpose2d(kernels.array(y), kernels.array(w), **geometry, output_size=size, **mma.options)
    expected = oracles.conv_transpose2d(reached, np.ones(w.shape), **geometry, output_size=size) > 0
    assert np.array_equal(np.isnan(kernels.numpy(x).astype(np.float32)), expected)
