"""csrc/kernels/conv/tuned_plans.* and candidates.cu: every plan that a tuner may choose computes the same, and the
plan that holds is the one that was set."""

import threading

import numpy as np
import pytest

from tests import oracles
from tests.accuracy import assert_close
from tests.conftest import Device
from tests.kernels.test_conv import normal
from tests.kernels.test_conv_variants import check_all
from zfcuda import backends, ops

EMULATED = Device("emulated")
GEOMETRY = {"stride": (1, 1), "padding": (1, 1)}


@pytest.fixture
def module(force_plan):
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    return backends.get("emulated").module


def shape_of(module):
    return module.ConvShape((1, 5, 6, 72), (72, 3, 3, 72), (1, 1), (1, 1))


def partial_sums(splits):
    """Bytes, of the three tiles of 64 x 32 that this convolution has: where a row begins, and its sums."""
    return 3 * 64 * (8 + splits * 4 * 32)


def pool_of(module):
    return module.PoolShape((1, 5, 6, 72), (3, 3), (2, 2), (1, 1))


@pytest.mark.parametrize(("c", "k"), [(40, 24), (3, 24)])
def test_every_candidate(kernels, arithmetic, force_plan, c, k):
    """Against float64: the first of each operation, then the second of each, until no operation has more."""
    most = number = 0

    def choose(candidates):
        nonlocal most
        most = max(most, len(candidates))
        return candidates[min(number, len(candidates) - 1)]

    force_plan(choose)
    while number < max(most, 1):
        check_all(kernels, arithmetic, 1, (7, 6), c, k, kernel=(3, 3), stride=(1, 1), padding=(1, 1))
        number += 1
    assert most > 3


def test_the_first_candidate_is_what_holds_without_plans(module):
    shape, pool = shape_of(module), pool_of(module)
    for precision in ("fp32", "tf32", "bf16"):
        operations = getattr(module, precision)
        for operation in ("conv2d", "conv_transpose2d", "conv2d_weight_grad"):
            size = getattr(operations, f"{operation}_workspace")
            before = size(shape)
            problem = operation, precision, shape, None
            module.set_plan(*problem, *module.plan_candidates(*problem)[0])
            assert size(shape) == before
        for operation in ("conv2d_relu_pool", "unpool_conv2d_weight_grad"):
            size = getattr(operations, f"{operation}_workspace")
            before = size(shape, pool)
            problem = operation, precision, shape, pool
            module.set_plan(*problem, *module.plan_candidates(*problem)[0])
            assert size(shape, pool) == before


def test_candidates_are_different_and_split_where_it_may_pay(module):
    found = module.plan_candidates("conv2d", "bf16", shape_of(module), None)
    assert len(set(found)) == len(found)
    assert len({kernel for kernel, _ in found}) > 1
    assert len({splits for _, splits in found}) > 1
    block = module.plan_candidates("conv2d_relu_pool", "fp32", shape_of(module), pool_of(module))
    assert {kernel for kernel, _ in block} == {"composed", "ffma 256x96", "ffma 128x64"}


def test_windows_that_cover_a_pixel_too_often_are_not_read_through_switches(module):
    wide = module.PoolShape((1, 5, 6, 72), (5, 5), (2, 2), (2, 2))
    problem = "unpool_conv2d_weight_grad", "fp32", shape_of(module), wide
    assert module.plan_candidates(*problem) == [("composed", 1)]
    with pytest.raises(ValueError, match="kernel must be one of composed, got 'ffma 128x128'"):
        module.set_plan(*problem, "ffma 128x128", 1)


@pytest.mark.parametrize(
    ("operation", "precision", "pooled", "kernel", "splits", "message"),
    [
        ("relu", "fp32", False, "ffma 128x64", 1, "operation must be one of conv2d, .*, got 'relu'"),
        ("conv2d", "fp16", False, "ffma 128x64", 1, "precision must be one of fp32, tf32, bf16, got 'fp16'"),
        ("conv2d", "fp32", False, "mma 64x64", 1, "kernel must be one of .*ffma 128x64.*, got 'mma 64x64'"),
        ("conv2d", "fp32", False, "composed", 1, "kernel must be one of"),
        ("conv2d", "fp32", False, "ffma 128x64", 0, "splits of ffma 128x64 must be from 1 to 65535, got 0"),
        ("conv2d", "fp32", False, "ffma 128x64", 65536, "splits of ffma 128x64 must be from 1 to 65535, got 65536"),
        ("conv2d", "fp32", True, "ffma 128x64", 1, "conv2d has no pool"),
        ("conv2d_relu_pool", "fp32", False, "ffma 128x64", 1, "conv2d_relu_pool needs a pool"),
        ("conv2d_relu_pool", "fp32", True, "ffma 128x64", 2, "splits of ffma 128x64 must be from 1 to 1, got 2"),
        ("unpool_conv2d_weight_grad", "fp32", True, "composed", 2, "splits of composed must be from 1 to 1, got 2"),
    ],
)
def test_what_no_problem_can_have(module, operation, precision, pooled, kernel, splits, message):
    problem = operation, precision, shape_of(module), pool_of(module) if pooled else None
    for function in (module.check_plan, module.set_plan):
        with pytest.raises(ValueError, match=message):
            function(*problem, kernel, splits)


def test_a_pool_of_another_map(module):
    other = module.PoolShape((1, 9, 9, 72), (3, 3), (2, 2), (1, 1))
    with pytest.raises(ValueError, match="the pool's input must be the convolution's output"):
        module.plan_candidates("conv2d_relu_pool", "fp32", shape_of(module), other)


def test_a_plan_holds_for_its_problem_alone(module):
    shape = shape_of(module)
    before = module.fp32.conv2d_workspace(shape), module.tf32.conv2d_workspace(shape)
    other = module.ConvShape((2, 5, 6, 72), (72, 3, 3, 72), (1, 1), (1, 1))
    other_before = module.fp32.conv2d_workspace(other)
    module.set_plan("conv2d", "fp32", shape, None, "ffma 64x32", 2)
    assert module.fp32.conv2d_workspace(shape) == partial_sums(2) != before[0]
    assert module.tf32.conv2d_workspace(shape) == before[1]
    assert module.fp32.conv2d_workspace(other) == other_before
    module.set_plan("conv2d", "fp32", shape, None, "ffma 64x32", 3)
    assert module.fp32.conv2d_workspace(shape) == partial_sums(3)
    module.clear_plans()
    assert module.fp32.conv2d_workspace(shape) == before[0]


def test_more_splits_than_the_depth_has_k_tiles(module):
    """Fewer are made, and none of them is empty."""
    rng = np.random.default_rng(0)
    x, w = normal(rng, (1, 5, 6, 72)), normal(rng, (72, 3, 3, 72))
    module.set_plan("conv2d", "fp32", shape_of(module), None, "ffma 64x32", 65535)
    with backends.use("emulated"):
        y = ops.conv2d(x, w, **GEOMETRY)
    assert_close(y, oracles.conv2d(x, w, None, **GEOMETRY, relu=False), what="conv2d")


def test_a_launch_has_the_plan_that_its_workspace_was_asked_for(module):
    """Whatever another thread sets between the two: here it would need a workspace where there is none."""
    rng = np.random.default_rng(1)
    x, w = normal(rng, (1, 5, 6, 72)), normal(rng, (72, 3, 3, 72))
    shape = shape_of(module)
    module.set_plan("conv2d", "fp32", shape, None, "ffma 64x32", 1)
    assert module.fp32.conv2d_workspace(shape) == 0
    setter = threading.Thread(target=module.set_plan, args=("conv2d", "fp32", shape, None, "ffma 64x32", 4))
    setter.start()
    setter.join()
    y = np.empty((1, 5, 6, 72), np.float32)
    module.fp32.conv2d(shape, *(module.address(a) for a in (x, w)), 0, 0, 0, False, 72, module.address(y), 0, 0)
    assert_close(y, oracles.conv2d(x, w, None, **GEOMETRY, relu=False), what="conv2d")
    assert module.fp32.conv2d_workspace(shape) == partial_sums(4)


def test_plans_are_set_while_other_threads_compute(module):
    rng = np.random.default_rng(2)
    x, w = normal(rng, (1, 5, 6, 72)), normal(rng, (72, 3, 3, 72))
    expected = oracles.conv2d(x, w, None, **GEOMETRY, relu=False)
    problem = "conv2d", "fp32", shape_of(module), None
    failures, done = [], threading.Event()

    def compute():
        try:
            with backends.use("emulated"):
                for _ in range(6):
                    assert_close(ops.conv2d(x, w, **GEOMETRY), expected, what="conv2d")
        except BaseException as failure:
            failures.append(failure)
        finally:
            done.set()

    thread = threading.Thread(target=compute)
    thread.start()
    changes = 0
    while not done.is_set():
        module.set_plan(*problem, "ffma 64x32", 1 + changes % 7)
        changes += 1
    thread.join()
    assert not failures
    assert changes > 6
