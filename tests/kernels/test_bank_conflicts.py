"""The products of convolutions read and fill shared memory without bank conflicts, whatever the layout of a slice.

Counted by the emulator, where it checks every access: `tests/simt/run_checks.sh`.
"""

import re

import numpy as np
import pytest

from tests.kernels.plans import with_tile
from tests.kernels.test_conv_variants import check_all
from tests.shapes import CONV_TILES
from zfcuda import backends, ops

READING = r"conv/(mma|ffma)\.cuh"
FILLING = r"conv/(copies|unpooled_map)\.cuh"  # copies, and what is gathered through switches


@pytest.fixture
def bank_use(kernels):
    """Counts from now on; bank_use(pattern) sums the instructions and the conflicts of such lines."""
    if kernels.name != "emulated":
        pytest.skip(f"{kernels.name}: banks are the emulator's")
    debug = backends.get("emulated").module.debug
    if not debug.checks_accesses():
        pytest.skip("needs a build with ZFCUDA_CHECKED=ON, and ZFCUDA_EMULATED_MODULE=_checked")
    debug.count_bank_conflicts(True)

    def total(pattern):
        uses = [use for use in debug.bank_use() if re.search(pattern, use.where)]
        return sum(use.instructions for use in uses), sum(use.conflicts for use in uses)

    yield total
    debug.count_bank_conflicts(False)


@pytest.mark.parametrize("tile", CONV_TILES)
@pytest.mark.parametrize(("c", "k"), [(16, 16), (3, 5)])  # copies of 16 bytes, and of one element
def test_products(kernels, arithmetic, force_plan, bank_use, tile, c, k):
    force_plan(with_tile(tile))
    check_all(kernels, arithmetic, 1, (9, 8), c, k, kernel=(3, 2), stride=(1, 1), padding=(1, 1))
    instructions, conflicts = bank_use(READING)
    assert instructions > 100
    assert conflicts == 0
    instructions, conflicts = bank_use(FILLING)
    assert instructions > 100
    # Eight lanes fill parts of two lines where a line has twelve chunks of 16 bytes.
    assert conflicts <= (instructions if (arithmetic.name, tile) == ("bf16", "128x96") else 0)


@pytest.mark.parametrize("taps", [2, 3, 4])
@pytest.mark.parametrize("c", [1, 3])
def test_patches(kernels, arithmetic, force_plan, bank_use, taps, c):
    """Of transposed convolutions to few channels."""
    force_plan(lambda candidates: next(one for one in candidates if " 512x" in one[0]))
    rng = np.random.default_rng(0)
    y, w = arithmetic.normal(rng, (1, 20, 40, 24)), arithmetic.normal(rng, (24, 2 * taps, 3, c))
    own = {"stride": 2, "padding": 1, "output_size": (38 + 2 * taps - 2, 79)}
    ops.conv_transpose2d(kernels.array(y), kernels.array(w), **own, **arithmetic.options)
    for pattern in (r"conv/patch_tiles\.cuh", r"conv/dgrad_patch\.cu"):
        instructions, conflicts = bank_use(pattern)
        assert instructions > 100
        assert conflicts == 0


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("tile", ["patch 128x96", "patch 128x64"])
def test_patches_of_the_image(kernels, arithmetic, force_plan, bank_use, tile, stride, c):
    """Read overlapping, wherever a window begins in a chunk of 16 bytes."""
    force_plan(lambda candidates: next(one for one in candidates if one[0] == tile))
    rng = np.random.default_rng(0)
    x, w = arithmetic.normal(rng, (1, 30, 23 * stride, c)), arithmetic.normal(rng, (16, 5, 7, c))
    ops.conv2d(kernels.array(x), kernels.array(w), stride=stride, padding=2, **arithmetic.options)
    instructions, conflicts = bank_use(r"conv/patch_windows\.cuh")
    assert instructions > 100
    assert conflicts == 0


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_weight_gradients_from_patches_of_the_image(kernels, force_plan, bank_use, stride, c):
    """In float32, where half a warp reads the same chunk of a window."""
    force_plan(lambda candidates: next(one for one in candidates if one[0].startswith("patch")))
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, np.float32) for shape in ((1, 30, 23 * stride, c), (1, 30, 23, 96)))
    own = {"kernel_size": (5, 7), "stride": (1, stride), "padding": (2, 2, 3, 3)}
    ops.conv2d_weight_grad(kernels.array(x), kernels.array(dy), **own)
    instructions, conflicts = bank_use(r"conv/wgrad_patch\.cu")
    assert instructions > 100
    assert conflicts == 0
