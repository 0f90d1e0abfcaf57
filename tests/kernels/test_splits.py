"""csrc/kernels/conv/splits.cu and tile_index.cuh: tiles of full waves are computed whole, those beyond them in splits;
against float64."""

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.kernels.test_conv import normal
from tests.kernels.test_conv_variants import check_all
from zfcuda import backends, ops

DEPTH = 40  # channels, or filters, that are summed over; pixels are 99


def forward(arithmetic, rng, rows, cols):
    """Arrays, by which a call and its oracle go; results are rows x cols."""
    x, w = (arithmetic.normal(rng, (number, *taps, DEPTH)) for number, taps in ((1, (rows, 1)), (cols, (3, 1))))
    more = {"scale": normal(rng, cols), "add": arithmetic.normal(rng, (1, rows, 1, cols))}
    geometry = {"stride": (1, 1), "padding": (1, 1, 0, 0), "relu": True}
    return ops.conv2d, oracles.conv2d, [x, w, normal(rng, cols)], more, geometry


def data_gradient(arithmetic, rng, rows, cols):
    arrays = [arithmetic.normal(rng, (1, rows, 1, DEPTH)), arithmetic.normal(rng, (DEPTH, 3, 1, cols))]
    geometry = {"stride": (1, 1), "padding": (1, 1, 0, 0), "output_size": (rows, 1)}
    return ops.conv_transpose2d, oracles.conv_transpose2d, arrays, {}, geometry


def weight_gradient(arithmetic, rng, rows, cols):
    arrays = [arithmetic.normal(rng, (1, 11, 9, cols)), arithmetic.normal(rng, (1, 11, 9, rows))]
    geometry = {"stride": (1, 1), "padding": (0, 0), "kernel_size": (1, 1)}
    return ops.conv2d_weight_grad, oracles.conv2d_weight_grad, arrays, {}, geometry


OPERATIONS = (forward, data_gradient, weight_gradient)


def tiles_of(force_plan, call):
    """Every tile that this call may have, as (kernel, rows)."""
    found = []
    force_plan(lambda candidates: found.extend(candidates))
    call()
    return [(name, int(name.split()[-1].split("x")[0])) for name in dict(found)]


def choose(kernel, splits):
    return lambda candidates: (kernel, splits) if kernel in dict(candidates) else None


def smallest(splits):
    """The tile of 64 rows."""
    return lambda candidates: next(
        ((name, splits) for name, _ in candidates if name.endswith(("64x32", "64x64"))), None
    )


@pytest.mark.parametrize("cols", [16, 7])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_only_tiles_beyond_full_waves_are_split(kernels, arithmetic, force_plan, multiprocessors, operation, cols):
    """The others have the bits of a product that is not split, whatever its tile."""

    def results(rows, *plan):
        """As computed, and in float64."""
        if plan:
            force_plan(choose(*plan))
        function, oracle, arrays, more, geometry = operation(arithmetic, np.random.default_rng(rows), rows, cols)
        to = kernels.array
        device = {name: to(array) for name, array in more.items()}
        found = function(*map(to, arrays), **device, **geometry, **arithmetic.options)
        return kernels.numpy(found).reshape(rows, cols), oracle(*arrays, **more, **geometry).reshape(rows, cols)

    tolerance = arithmetic.weight_grad_tolerance if operation is weight_gradient else arithmetic.tolerance
    tiles = tiles_of(force_plan, lambda: results(16))
    assert tiles
    for kernel, tile_rows in tiles:
        rows, whole = (multiprocessors + 1) * tile_rows - 8, multiprocessors * tile_rows
        (one, exact), (split, _) = results(rows, kernel, 1), results(rows, kernel, 3)
        assert_close(split, exact, tolerance, kernel)
        np.testing.assert_array_equal(split[:whole], one[:whole], kernel)
        if split.dtype == np.float32:  # of which other orders of adding seldom have all the same bits
            assert (split[whole:] != one[whole:]).any(), kernel


@pytest.mark.parametrize("splits", [2, 3])
def test_groups_beyond_full_waves(kernels, arithmetic, force_plan, multiprocessors, splits):
    """A tile for each group."""
    groups = multiprocessors + 1
    force_plan(smallest(splits))
    check_all(kernels, arithmetic, 1, (7, 6), 16 * groups, 8 * groups, (3, 3), (1, 1), (1, 1), groups=groups)


def test_tiles_without_rows(kernels, arithmetic, force_plan, multiprocessors):
    """Phases of a data gradient that are smaller than the first leave the last tiles nothing, split ones too."""
    force_plan(smallest(2))
    rng, size = np.random.default_rng(3), (3 * 64 * multiprocessors + 1, 1)
    conv = {"stride": (3, 1), "padding": (1, 0)}
    p = (size[0] + 2 - 4) // 3 + 1
    y, w = arithmetic.normal(rng, (1, p, 1, DEPTH)), arithmetic.normal(rng, (DEPTH, 4, 1, 8))
    x = ops.conv_transpose2d(kernels.array(y), kernels.array(w), **conv, output_size=size, **arithmetic.options)
    assert_close(x, oracles.conv_transpose2d(y, w, **conv, output_size=size), arithmetic.tolerance)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_same_bits_in_every_order(kernels, arithmetic, force_plan, multiprocessors, operation):
    rows = 64 * multiprocessors + 3
    function, _, arrays, more, geometry = operation(arithmetic, np.random.default_rng(4), rows, 12)
    to = kernels.array
    device = {name: to(array) for name, array in more.items()}
    force_plan(smallest(3))
    bits = set()
    for _ in kernels.orders():
        found = function(*map(to, arrays), **device, **geometry, **arithmetic.options)
        bits.add(kernels.numpy(found).tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize("splits", [2, 5])
def test_whole_tiles_need_no_workspace(splits):
    """Of three tiles of 64 x 32, two fill the multiprocessors."""
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    module = backends.get("emulated").module
    before = module.debug.configuration()
    problem = "conv2d", "fp32", module.ConvShape((1, 5, 6, 72), (72, 3, 3, 72), (1, 1), (1, 1)), None
    try:
        for multiprocessors, split in ((132, 3), (4, 3), (3, 0), (2, 1), (1, 0)):
            module.debug.configure(multiprocessors=multiprocessors)
            module.set_plan(*problem, "ffma 64x32", splits)
            expected = split * 64 * (8 + 4 * 32 * splits)
            assert module.fp32.conv2d_workspace(problem[2]) == expected, multiprocessors
    finally:
        module.clear_plans()
        module.debug.configure(**before)
