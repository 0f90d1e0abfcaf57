"""benchmarks/gpu_predict.py: what layers take at least."""

import dataclasses
import math

import cases
import gpu_choice
import gpu_model
import gpu_predict
import gpu_static
import pytest

H200, H100, _, _ = gpu_model.GPUS
BLOCKS = [one for one in cases.CASES if isinstance(one, cases.Block)]


@pytest.mark.parametrize("gpu", [H200, H100], ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_layers_take_at_least_what_the_hardware_needs(untuned, gpu, precision):
    for case, direction in gpu_static.layers(128):
        found = gpu_predict.predict(untuned, case, direction, precision, gpu)
        conv = case.conv if isinstance(case, cases.Block) else case.as_conv()
        floor = conv.flops / 2 / (gpu.peaks[precision] * gpu.sms * gpu.hertz) * (2 if direction == "block grad" else 1)
        assert found.ms / 1e3 > floor
        assert found.share == pytest.approx(floor / (found.ms / 1e3))
        assert len(found.kernels) == len(found.splits) == len(found.waves) == (2 if direction == "block grad" else 1)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_splits_leave_few_multiprocessors_idle(untuned, precision):
    """In the last wave of the weight gradients."""
    found = 0
    for case, direction in gpu_static.layers(128):
        if direction == "wgrad" and case.channels > 3:
            (waves,) = gpu_predict.predict(untuned, case, direction, precision, H200).waves
            assert waves > 0.9 * math.ceil(waves), case
            found += 1
    assert found > 6


def test_a_block_that_is_not_fused(untuned):
    """Its map is written by the convolution, then read by the pool."""
    (block,) = (one.with_batch(128) for one in BLOCKS if (one.family, one.layer) == ("zfnet", "block2"))
    conv = gpu_predict.predict(untuned, block.conv, "fprop", "bf16", H200)
    whole = gpu_predict.predict(untuned, block, "block", "bf16", H200)
    assert whole.kernels == conv.kernels
    pooled = 128 * 13 * 13 * 256
    assert whole.ms - conv.ms == pytest.approx(1e3 * (2 * 128 * 26 * 26 * 256 + 3 * pooled) / 4.3e12)


def test_filters_that_are_turned_first(recorded):
    """A data gradient at stride 1 is a forward convolution; in tf32, of filters that another kernel writes."""
    tma = [kernel for kernel in recorded if kernel.tile.is_tma]
    (conv,) = (one.with_batch(128) for one in cases.CASES if (one.family, one.layer) == ("zfnet", "conv3"))
    mirrored = dataclasses.replace(conv, channels=conv.maps, maps=conv.channels)
    for precision, more in (("bf16", 0), ("tf32", 1e3 * 2 * 4 * 384 * 9 * 256 / H200.copy)):
        backward = gpu_predict.predict(tma, conv, "dgrad", precision, H200)
        forward = gpu_predict.predict(tma, mirrored, "fprop", precision, H200)
        assert backward.ms - forward.ms == pytest.approx(more, abs=1e-9)


def test_phases_of_different_depths(recorded):
    """ResNet's 3 x 3 at stride 2, of 14 x 14 pixels: two tiles for each SM, 32 and 8 or 16 and 16 k-tiles."""
    kernels = [kernel for kernel in recorded if kernel.tile.name == "tma 192x256"]
    conv = cases.Conv(layer="conv", size=14, channels=512, maps=512, kernel=3, stride=2, padding=1, n=128)
    for precision, k_tiles in (("bf16", 40), ("tf32", 80)):
        plan = gpu_choice.conv_plan(kernels, conv, "dgrad", precision, H200)
        assert gpu_predict._parts_of_phases(plan, conv, H200) == (264, k_tiles / 2)
        found = gpu_predict.predict(kernels, conv, "dgrad", precision, H200)
        of_windows = 128 * 7 * 7 / math.ceil(128 * 7 * 7 / 192)
        cycles = k_tiles * 128 * (of_windows + 256) / H200.l2 + gpu_predict.PROLOGUE
        turned = 2 * 4 * 512 * 9 * 512 / H200.copy if precision == "tf32" else 0
        assert found.ms == pytest.approx(1e3 * (cycles / H200.hertz + turned))


def test_splits_of_phases_have_no_more_than_there_is(recorded):
    """Phases of 32, 16, 16 and 8 k-tiles in splits of 11: the second and third of the shallower ones have less."""
    (kernel,) = (one for one in recorded if one.name == "dgrad bf16 tma 128x128, lines of 128 B")
    conv = cases.Conv(layer="conv", size=14, channels=512, maps=512, kernel=3, stride=2, padding=1, n=1)
    plan = gpu_choice.plan_splits(kernel, gpu_choice.product(conv, "dgrad", "bf16"), 3, H200)
    assert (plan.tiles, plan.whole, plan.splits, plan.k_tiles) == (16, 0, 3, (32, 11))
    two = dataclasses.replace(H200, sms=2)
    depths = [4 * [11] + 4 * [11] + 4 * [11] + 4 * [8], 4 * [11] + 8 * [5] + 4 * [0], 4 * [10] + 12 * [0]]
    assert gpu_predict._parts_of_phases(plan, conv, two) == (48, sum(map(sum, depths)) / 2 / 24)
