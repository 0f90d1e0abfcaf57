"""benchmarks/gpu_choice.py: the plans that it mirrors."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import cases
import gpu_choice
import gpu_model
import gpu_sass
import pytest

H200, _, _, A10 = gpu_model.GPUS

CONVS = [one for one in cases.CASES if isinstance(one, cases.Conv | cases.Dense)]
BLOCKS = [one for one in cases.CASES if isinstance(one, cases.Block)]
STRIDED = [  # of fewer tiles than an H200 has SMs, and of more
    cases.Conv(layer="conv", size=size, channels=c, maps=maps, kernel=kernel, stride=stride, padding=kernel // 2, n=n)
    for n, size, c, maps, kernel, stride in (
        (1, 14, 512, 512, 3, 2),
        (2, 28, 512, 1024, 1, 2),
        (4, 27, 96, 256, 5, 3),
        (16, 56, 128, 128, 3, 2),
        (128, 14, 1024, 2048, 1, 2),
    )
]
MIRRORS = "benchmarks/gpu_choice.py has the choice of csrc/kernels/conv/ (plan.h, tiles.cuh, block_*.cuh) once more"


@pytest.fixture(scope="module")
def emulated():
    return pytest.importorskip("zfcuda._emulated", reason="the emulated backend is not built", exc_type=ImportError)


@pytest.fixture(params=[H200, A10], ids=lambda gpu: gpu.name)
def gpu(request, emulated):
    """One that the emulated kernels are planned for."""
    before = emulated.debug.configuration()
    emulated.debug.configure(multiprocessors=request.param.sms, shared_bytes=request.param.shared)
    yield request.param
    emulated.debug.configure(**before)


def shape_of(module, conv):
    n, kernel, stride, padding = conv.n, *map(cases.pair, (conv.kernel, conv.stride, conv.padding))
    x, w = (n, *cases.pair(conv.size), conv.channels), (conv.maps, *kernel, conv.channels)
    return module.ConvShape(x, w, stride, padding, (1, 1), 1)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("batch", [1, 16, 128])
def test_plans_are_those_of_the_kernels(emulated, gpu, untuned, precision, batch):
    names = {"fprop": "conv2d", "dgrad": "conv_transpose2d", "wgrad": "conv2d_weight_grad"}
    for case in CONVS:
        conv = case.with_batch(batch).as_conv()
        for operation, name in names.items():
            plan = gpu_choice.conv_plan(untuned, conv, operation, precision, gpu)
            expected = emulated.plan_candidates(name, precision, shape_of(emulated, conv), None)[0]
            assert (plan.kernel.tile.name, plan.splits) == expected, (MIRRORS, conv, operation)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize(
    ("operation", "of"), [("fprop", "conv2d"), ("dgrad", "conv_transpose2d"), ("wgrad", "conv2d_weight_grad")]
)
def test_splits_of_tma_are_those_of_the_kernels(emulated, recorded, operation, of, precision):
    kernels = [kernel for kernel in recorded if kernel.tile.is_tma]
    for conv in [*(case.with_batch(128).as_conv() for case in CONVS), *STRIDED]:
        wanted, expected = gpu_choice.product(conv, operation, precision), {}
        for name, splits in emulated.plan_candidates(of, precision, shape_of(emulated, conv), None):
            if name.startswith("tma"):
                expected.setdefault(name, splits)
        plans = [gpu_choice.plan_tile(kernel, wanted, H200) for kernel in gpu_choice.candidates(kernels, wanted)]
        assert {plan.kernel.tile.name: plan.splits for plan in plans} == expected, (MIRRORS, conv)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_workspaces_are_those_of_the_kernels(emulated, gpu, untuned, precision):
    """By which tiles are split: the most of arrays that allow copies of 16 bytes, and of those that do not."""
    names = {"fprop": "conv2d", "dgrad": "conv_transpose2d", "wgrad": "conv2d_weight_grad"}
    partly = 0
    for case in CONVS:
        conv = case.with_batch(128).as_conv()
        if conv.channels <= 4:  # have kernels of their own
            continue
        for operation, name in names.items():
            wanted, most = gpu_choice.product(conv, operation, precision), 0
            for a, b in ((True, True), (True, False), (False, False)):
                of_list = dataclasses.replace(wanted, vector_a=a, vector_b=b)
                if gpu_choice.candidates(untuned, of_list):
                    plan = gpu_choice.cheapest_plan(untuned, of_list, gpu)
                    rows = (plan.tiles - plan.whole) * plan.kernel.tile.rows
                    most = max(most, rows * (8 + 4 * plan.splits * plan.kernel.tile.cols))
                    partly += 0 < plan.whole < plan.tiles
            found = getattr(getattr(emulated, precision), f"{name}_workspace")(shape_of(emulated, conv))
            assert found == most, (MIRRORS, conv, operation)
    assert partly


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("batch", [1, 16, 128])
def test_plans_of_blocks_are_those_of_the_kernels(emulated, gpu, untuned, precision, batch):
    fused = gathered = 0
    for case in BLOCKS:
        block = case.with_batch(batch)
        plan = gpu_choice.block_plan(untuned, block, precision, gpu)
        conv, pool = (
            shape_of(emulated, block.conv),
            map(cases.pair, (block.pool.window, block.pool.stride, block.pool.padding)),
        )
        shape = emulated.PoolShape(conv.output, *pool, False)
        expected = emulated.plan_candidates("conv2d_relu_pool", precision, conv, shape)[0][0]
        assert (plan.kernel.tile.name if plan else "composed") == expected, (MIRRORS, block)
        fused += plan is not None
        plan = gpu_choice.unpool_wgrad_plan(untuned, block, precision, gpu)
        expected = emulated.plan_candidates("unpool_conv2d_weight_grad", precision, conv, shape)[0]
        assert ((plan.kernel.tile.name, plan.splits) if plan else ("composed", 1)) == expected, (MIRRORS, block)
        gathered += plan is not None
    assert fused
    assert gathered


# Those of tiles.cuh, with what stands for their machine code.
TMA_BLOCKS = [
    f"block_tma_kernel<TmaTile<{math}, {arguments}>, {line}>("
    for math, tiles in (
        ("Bf16", ("3, 1, 2, 128, 3, 192", "2, 2, 1, 192, 3, 256", "2, 1, 1, 256, 4, 128", "2, 2, 1, 128, 3, 256")),
        ("Bf16", ("2, 1, 1, 128, 6, 128", "3, 2, 1, 64, 3, 384")),
        ("Tf32", ("3, 1, 2, 128, 3, 192", "2, 2, 1, 192, 3, 256", "2, 1, 1, 256, 4, 128", "2, 2, 1, 128, 3, 256")),
        ("Tf32", ("2, 1, 1, 128, 6, 128",)),
    )
    for arguments in tiles
    for line in (64, 128)
]
NOTHING = gpu_sass.Counts(dict.fromkeys(gpu_sass.PIPES, 0))
CODE = gpu_sass.Code("", 168, 0, 0, 0, gpu_sass.MainLoop(NOTHING, NOTHING, ()), NOTHING)

WGMMA_CHOICES = """
import json, sys
from zfcuda import backends
module, found = backends.get("emulated").module, []
for precision, conv, pool in json.load(sys.stdin):
    conv = module.ConvShape(*conv)
    pool = module.PoolShape(tuple(conv.output), *pool, False)
    found.append([name for name, _ in module.plan_candidates("conv2d_relu_pool", precision, conv, pool)])
json.dump(found, sys.stdout)
"""


def blocks_of_many_channels():
    """Of the benchmark, and with other pools and strides; those whose windows the accelerator copies."""
    for case in BLOCKS:
        if case.conv.channels % 8:
            continue
        yield case
        for window, stride, padding in ((3, 3, 0), (2, 1, 0), (2, 2, 1), ((1, 4), (1, 4), 0)):
            pool = dataclasses.replace(case.pool, window=window, stride=stride, padding=padding)
            yield dataclasses.replace(case, pool=pool)
        conv = dataclasses.replace(case.conv, stride=(1, 3))
        p, q = conv.output
        yield dataclasses.replace(case, conv=conv, pool=dataclasses.replace(case.pool, size=(p, q)))


def test_blocks_of_tma_are_those_of_the_kernels(recorded):
    """Where kernels of compute capability 9.0 are asked for: which there are, and which is taken."""
    pytest.importorskip("zfcuda._emulated", reason="the emulated backend is not built", exc_type=ImportError)
    kernels = [kernel for kernel in recorded if kernel.tile.is_wgmma and kernel.operation != "block"]
    kernels += gpu_model.kernels([CODE] * len(TMA_BLOCKS), TMA_BLOCKS)
    asked, wanted = [], []
    for case in blocks_of_many_channels():
        for batch, precision in ((1, "bf16"), (16, "bf16"), (128, "bf16"), (128, "tf32")):
            block = case.with_batch(batch)
            conv, pool = block.conv, block.pool
            x, w = (batch, *cases.pair(conv.size), conv.channels), (conv.maps, *cases.pair(conv.kernel), conv.channels)
            geometry = x, w, cases.pair(conv.stride), cases.pair(conv.padding)
            asked.append((precision, geometry, [cases.pair(one) for one in (pool.window, pool.stride, pool.padding)]))
            plan = gpu_choice.block_plan(kernels, block, precision, H200)
            wanted.append((plan.kernel.tile.name if plan else "composed", block))
    environment = os.environ | {"ZFCUDA_KERNELS": "wgmma"}
    program = [sys.executable, "-c", WGMMA_CHOICES]
    run = subprocess.run(
        program, env=environment, input=json.dumps(asked), capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(run.stdout)
    for (name, block), (first, *_) in zip(wanted, found, strict=True):
        assert name == first, (MIRRORS, block)
    taken = {name for name, _ in wanted}
    assert "composed" in taken
    assert len(taken) >= 5


def test_regions_of_a_weight_gradient_share_no_k_tile(untuned):
    """ZFNet's maps of 110 x 110 are 7 x 7 regions of 16 x 16 pixels, a k-tile a line: the last have 14 lines."""
    (conv,) = (one for one in CONVS if (one.family, one.layer) == ("zfnet", "conv1"))
    plan = gpu_choice.conv_plan(untuned, conv.with_batch(128), "wgrad", "fp32", H200)
    assert plan.kernel.name == "patch wgrad fp32 patch 96x168, 3 channels"
    assert plan.k_tiles[0] == pytest.approx(128 * 7 * 110)


def test_cells_cover_the_image_with_the_least_work():
    assert gpu_choice.cells(224, 7, 2, 1) == (112, 4)
    assert gpu_choice.cells(224, 3, 1, 1) == (224, 3)
    assert gpu_choice.cells(224, 11, 4, 2) == (57, 3)  # beginning in the padding; else 56 that see 4
    assert gpu_choice.cells(5, 1, 4, 0) == (2, 1)


def test_phases_cover_the_image_and_the_filter():
    conv = cases.Conv(layer="conv", size=(224, 7), channels=3, maps=96, kernel=(7, 3), stride=(2, 4), padding=(1, 0))
    found = gpu_choice.phases(conv)
    assert sum(pixels for pixels, _ in found) == 224 * 7
    assert sum(taps for _, taps in found) == 7 * 3
    assert math.prod((2, 4)) == len(found)
