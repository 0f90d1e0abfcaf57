"""Checks of kernels that do not come to a verdict: zfcuda runs without those kernels, and what is known is kept."""

import json
from dataclasses import replace

import pytest

from tests.test_kernel_checks import CONV, GPU, KERNEL, OTHER, PLAN, write
from zfcuda import kernel_checks, plans


def test_an_error_of_the_reference_is_not_the_kernels(backend, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("the GPU is gone")

    monkeypatch.setattr(backend.module.bf16, "conv2d", fail)
    message = "^kernel .* 128x128 of .*, kernel .* 128x256 of .* and not used: RuntimeError: the GPU is gone;"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        assert kernel_checks.faulty(backend, GPU, [KERNEL, OTHER]) == {KERNEL, OTHER}
    assert len(caught) == 1
    assert not kernel_checks.cache_path(GPU).exists()


def test_a_kernel_that_breaks_the_context_is_known_to_the_next_process(backend, monkeypatch):
    """Nothing runs after it, and the kernels behind it are checked then."""
    write(backend, PLAN, replace(PLAN, problem=replace(CONV, x=(1, 7, 7, 8)), kernel=OTHER.name))
    checked = []

    def fault(backend, kernel):
        checked.append(kernel)
        if checked[0] == KERNEL and kernel != KERNEL:
            raise RuntimeError("the context is gone")
        return "RuntimeError: an illegal instruction was encountered" if kernel == KERNEL else ""

    monkeypatch.setattr(kernel_checks, "fault", fault)
    with pytest.warns(RuntimeWarning) as caught:
        plans.load(backend)
    said = [str(one.message) for one in caught]
    assert "128x128 of conv2d in bf16 is wrong on emulator and not used: RuntimeError: an illegal" in said[0]
    assert "128x256 of conv2d in bf16: could not be checked on emulator and not used: RuntimeError: the" in said[1]
    checked.clear()
    with pytest.warns(RuntimeWarning, match="is wrong") as caught:
        plans.load(backend)
    assert len(caught) == 1
    assert checked == [OTHER]


def test_kernels_that_are_asked_for_are_used_all_the_same(backend, monkeypatch):
    def fault(backend, kernel):
        raise MemoryError("no room")

    monkeypatch.setattr(kernel_checks, "fault", fault)
    monkeypatch.setattr(backend.module, "wgmma_use", lambda: "always")
    with pytest.warns(RuntimeWarning, match="but used, as ZFCUDA_KERNELS asks: MemoryError: no room;"):
        assert kernel_checks.faulty(backend, GPU, [KERNEL]) == set()


def test_verdicts_outlive_an_interruption(backend, monkeypatch):
    def stops(backend, kernel):
        if kernel == OTHER:
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(kernel_checks, "fault", stops)
    with pytest.raises(KeyboardInterrupt):
        kernel_checks.faulty(backend, GPU, [KERNEL, OTHER])
    assert [one["name"] for one in json.loads(kernel_checks.cache_path(GPU).read_text())["kernels"]] == [KERNEL.name]
