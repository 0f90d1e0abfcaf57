"""csrc/kernels/conv/plan.h: what is chosen where an SM has little shared memory, as on compute capability 8.6."""

import pytest

from tests.kernels import test_dgrad_patch, test_image_patch
from zfcuda import backends

POOL = {"window": (3, 3), "stride": (2, 2), "padding": (1, 1)}
MUCH, LITTLE = 228 << 10, 100 << 10  # bytes
CONV1 = (1, 224, 224, 3), (96, 7, 7, 3), (2, 2), (1, 1)  # ZFNet's layers, for one image
CONV3 = (1, 13, 13, 256), (384, 3, 3, 256), (1, 1), (1, 1)


@pytest.fixture
def module():
    """With 72 SMs."""
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    module = backends.get("emulated").module
    before = module.debug.configuration()
    module.debug.configure(multiprocessors=72)
    yield module
    module.debug.configure(**before)


def candidates(module, shared_bytes, operation, precision, conv, pool=None):
    module.debug.configure(shared_bytes=shared_bytes)
    shape = module.ConvShape(*conv)
    if pool:
        pool = module.PoolShape(shape.output, pool["window"], pool["stride"], pool["padding"], False)
    return module.plan_candidates(operation, precision, shape, pool)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_blocks_that_find_no_room_are_not_chosen(module, precision):
    """256x96 takes 116 KB."""

    def tiles(shared_bytes):
        found = candidates(module, shared_bytes, "conv2d_relu_pool", precision, CONV1, POOL)
        return {kernel.split()[-1] for kernel, _ in found}

    assert {"256x96", "128x64"} <= tiles(MUCH)
    assert "128x64" in tiles(LITTLE)
    assert "256x96" not in tiles(LITTLE)


@pytest.mark.parametrize(
    ("operation", "precision", "conv", "with_much", "with_little"),
    [
        ("conv_transpose2d", "bf16", CONV1, ("mma 512x16", 6), ("mma 512x16", 2)),
        ("conv_transpose2d", "fp32", CONV1, ("ffma 512x12", 6), ("ffma 512x12", 2)),
        ("conv2d", "tf32", CONV3, ("mma 64x64", 12), ("mma 128x128", 12)),
        ("conv2d", "fp32", CONV3, ("ffma 128x64", 18), ("ffma 128x64", 12)),
    ],
)
def test_splits_fill_what_fits(module, operation, precision, conv, with_much, with_little):
    """Not more waves of blocks than are on an SM at once, which are fewer with less shared memory."""
    assert candidates(module, MUCH, operation, precision, conv)[0] == with_much
    assert candidates(module, LITTLE, operation, precision, conv)[0] == with_little


@pytest.mark.parametrize("name", ["zfnet", "alexnet"])
def test_what_is_computed_there(module, kernels, arithmetic, name):
    if kernels.name != "emulated":
        pytest.skip(f"{kernels.name}: has the shared memory that it has")
    module.debug.configure(shared_bytes=LITTLE)
    test_image_patch.check(kernels, arithmetic, test_image_patch.LAYERS[name])
    test_image_patch.check_block(kernels, arithmetic, test_image_patch.LAYERS[name], POOL)
    test_image_patch.check_wgrad(kernels, arithmetic, test_image_patch.LAYERS[name])
    test_dgrad_patch.check(kernels, arithmetic, test_dgrad_patch.LAYERS[name])
