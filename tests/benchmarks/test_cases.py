"""benchmarks/cases.py: what is measured, and how it is chosen."""

import cases
import pytest

from zfcuda import models


def test_names_are_different():
    names = [str(problem) for problem in cases.problems(cases.CASES)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("family", ["zfnet", "alexnet"])
def test_layers_are_those_of_the_network(family):
    layers = getattr(models, family)().layers
    listed = [case for case in cases.CASES if case.family == family]
    for case in listed:
        layer = layers.get(case.layer)
        if isinstance(case, cases.Conv):
            assert layer.weight.shape == (case.maps, case.kernel, case.kernel, case.channels)
            assert (layer.stride, layer.padding) == (case.stride, case.padding)
            assert layer.output_shape == (*case.output, case.maps)
        elif isinstance(case, cases.Pool):
            assert (layer.window, layer.stride, layer.padding) == (case.window, case.stride, case.padding)
            assert layer.output_shape == (*case.output, case.channels)
        elif isinstance(case, cases.Norm):
            assert layer.output_shape == (case.size, case.size, case.channels)
        elif isinstance(case, cases.Dense):
            assert layer.weight.shape == (case.units, case.inputs)


def test_a_pool_after_its_convolution_makes_a_block():
    blocks = [case.layer for case in cases.CASES if isinstance(case, cases.Block) and case.family == "zfnet"]
    assert blocks == ["block1", "block2", "block5"]


def test_selection_by_words():
    problems = cases.problems(cases.CASES)
    assert cases.select(problems, []) == problems
    chosen = cases.select(problems, [["zfnet", "conv1", "fprop", "16"], ["zfnet", "memory"]])
    assert [str(problem) for problem in chosen] == ["zfnet conv1 fprop 16", "zfnet net memory MiB 32"]
    assert {problem.case.family for problem in cases.select(problems, [["lenet"]])} == {"lenet"}
    assert not cases.select(problems, [["zfnet", "conv9"]])


def test_quick_cases_are_small():
    for problem in cases.problems([case.quick() for case in cases.CASES]):
        assert problem.case.n <= (16 if isinstance(problem.case, cases.Projection) else 4)


def test_work_of_the_whole_zfnet():
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    from networks import forward_flops

    assert forward_flops(models.zfnet(), 128) == pytest.approx(299e9, rel=0.01)
