"""The problems that kernels are checked by (zfcuda/kernel_checks.py): what they reach, and what they find."""

import numpy as np
import pytest

from tests.conftest import parameter
from tests.test_kernel_checks import KERNEL
from zfcuda import backends, kernel_checks
from zfcuda.kernel_checks import Kernel

pytestmark = pytest.mark.usefixtures("few_multiprocessors")

# What the tensor memory accelerator copies for: kernels of their own for either length of lines.
of_tma = pytest.mark.parametrize(
    ("operation", "precision"),
    [
        ("conv2d", "bf16"),
        ("conv_transpose2d", "bf16"),
        ("conv2d_weight_grad", "bf16"),
        ("conv2d", "tf32"),
        ("conv_transpose2d", "tf32"),
        ("conv2d_relu_pool", "bf16"),
        ("conv2d_relu_pool", "tf32"),
    ],
)


@pytest.mark.parametrize("name", [parameter("emulated"), parameter("cuda")])
@of_tma
def test_kernels_are_right(name, operation, precision):
    """On a GPU also where the emulated backend is not built."""
    if reason := backends.status()[name]:
        pytest.skip(f"{name}: {reason}")
    there = backends.get(name)
    if not there.module.can_run_wgmma():
        pytest.skip(f"{name}: needs compute capability 9.0 and code for sm_90a")
    kernels = [
        one for one in kernel_checks.checkable(there) if (one.operation, one.precision) == (operation, precision)
    ]
    assert kernels
    assert {kernel: kernel_checks.fault(there, kernel) for kernel in kernels} == dict.fromkeys(kernels, "")


def test_none_is_left_out(backend):
    assert {(one.operation, one.precision) for one in kernel_checks.checkable(backend)} == set(of_tma.args[1])


@of_tma
def test_both_lengths_of_lines_are_checked(backend, operation, precision):
    before = backend.module.debug.variants()
    assert kernel_checks.fault(backend, Kernel(operation, precision, "tma 128x128")) == ""
    ran = [name for name, n in backend.module.debug.variants().items() if n > before.get(name, 0) and "Tma" in name]
    assert len(ran) == 2


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("operation", ["conv2d", "conv_transpose2d", "conv2d_weight_grad"])
def test_kernels_of_mma_agree_with_each_other(backend, operation, precision):
    assert kernel_checks.fault(backend, Kernel(operation, precision, "mma 64x64")) == ""


@of_tma
def test_tile_after_tile_is_checked_with_both_lengths_of_lines(backend, monkeypatch, operation, precision):
    monkeypatch.setattr(kernel_checks, "_PROBLEMS", ())
    before = backend.module.debug.variants()
    assert kernel_checks.fault(backend, Kernel(operation, precision, "tma 192x256")) == ""
    ran = [name for name, n in backend.module.debug.variants().items() if n > before.get(name, 0) and "Tma" in name]
    assert len(ran) == 2


@pytest.mark.parametrize("multiprocessors", [1, 3, 78, 132])
def test_every_block_has_a_second_tile(backend, multiprocessors):
    for kernel in kernel_checks.checkable(backend):
        tile_rows, tile_cols = (int(side) for side in kernel.name.split()[1].split("x"))
        for problem in kernel_checks._long_problems(kernel, multiprocessors):
            x, w, y = *problem[:2], backend.module.ConvShape(*problem).output
            result = {"conv_transpose2d": x, "conv2d_weight_grad": (w[0], w[1] * w[2] * w[3])}
            *pixels, cols = result.get(kernel.operation, y)
            # Regions of blocks share pixels, and a box of the accelerator has no more than 256 below each other.
            phases = 2 if kernel.operation == "conv_transpose2d" else 1
            tiles = phases * -(-np.prod(pixels) // (phases * tile_rows)) * -(-cols // tile_cols)
            assert 2 * multiprocessors < tiles <= 3 * multiprocessors + 5, (kernel, problem)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("operation", ["conv2d", "conv_transpose2d", "conv2d_weight_grad", "conv2d_relu_pool"])
def test_nothing_is_rounded_in_a_check_but_a_result_in_bfloat16(backend, operation, precision):
    """Whatever low bits factors in tf32 have, sums of products are whole numbers that float32 holds."""
    problem = kernel_checks._PROBLEMS[0]
    shape = backend.module.ConvShape(*problem)
    for pool in kernel_checks._pools(backend, operation, shape):
        kernel = Kernel(operation, precision, "mma 64x64")
        result = kernel_checks._launcher(backend, kernel, *problem[:2], shape, pool)()
        assert np.array_equal(result, np.rint(result))
        assert np.abs(result).max() > 2**16
    depth = 3 * 13 * 11 if operation == "conv2d_weight_grad" else 2 * 3 * 264
    assert depth * kernel_checks._LARGEST**2 < 2**24


@pytest.mark.parametrize("kernel", [KERNEL, Kernel("conv2d", "tf32", "tma 128x128")], ids=str)
def test_the_last_bit_of_one_value_counts(backend, spoil, kernel):
    def instead(conv2d, arguments):
        conv2d(*arguments)
        y = arguments[8]
        if y.shape[:3] == (3, 13, 11):
            y.view(np.uint16 if kernel.precision == "bf16" else np.uint32)[1, 2, 3, 4] += 1

    spoil(kernel, instead)
    assert kernel_checks.fault(backend, kernel).startswith("1 of 113256 values of its result for x (3, 12, 11, 264)")


@pytest.mark.parametrize("pooled", [(3, 7, 6, 264), (3, 4, 3, 264)], ids=["overlapping", "side by side"])
@pytest.mark.parametrize("what", ["a value", "a switch"])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_one_value_or_switch_of_a_block_counts(backend, monkeypatch, precision, what, pooled):
    """Whether its map is cut into regions or into windows side by side."""
    kernel, of = Kernel("conv2d_relu_pool", precision, "tma 128x128"), getattr(backend.module, precision)
    block, broken = of.conv2d_relu_pool, []

    def instead(*arguments):
        block(*arguments)
        y, switches = arguments[5:7]
        if y.shape != pooled:
            return
        if broken and what == "a value":
            y[1, 2, 2, 4] = 1
        elif broken:
            switches[1, 2, 2, 4] ^= 1
        broken.append(True)

    monkeypatch.setattr(of, "conv2d_relu_pool", instead)
    problem = f"x (3, 12, 11, 264) and w (264, 2, 3, 264), pooled to {pooled},"
    assert kernel_checks.fault(backend, kernel).startswith(
        f"1 of {2 * np.prod(pooled)} values of its result for {problem} are not those"
    )


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_what_is_wrong_in_a_second_tile_alone_is_found(backend, spoil, precision):
    """Of a block: other problems have no more tiles than there are multiprocessors."""
    kernel, multiprocessors = Kernel("conv2d", precision, "tma 128x128"), 13

    def instead(conv2d, arguments):
        conv2d(*arguments)
        y = arguments[8].reshape(-1, arguments[8].shape[-1])
        tiles_n = -(-y.shape[1] // 128)
        for tile in range(multiprocessors, -(-y.shape[0] // 128) * tiles_n):
            y[tile // tiles_n * 128, tile % tiles_n * 128] = 0

    backend.module.debug.configure(multiprocessors=multiprocessors)
    spoil(kernel, instead)
    assert " values of its result for x (1, 760, 1, 72) " in kernel_checks.fault(backend, kernel)
