"""What benchmarks/gpu.py times is verified: ours against the reference, and against every peer."""

import dataclasses

import cases
import gpu_plan
import gpu_rehearsal
import gpu_smoke
import gpu_worker
import numpy as np
import pytest

from tests import accuracy
from zfcuda import backends, ops


@pytest.fixture
def setting(monkeypatch):
    """The small cases of a rehearsal, on the emulator."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    if reason := backends.status()["emulated"]:
        pytest.skip(f"emulated: {reason}")
    import networks
    import setting

    monkeypatch.setattr(cases, "CASES", [*gpu_rehearsal.LAYERS, *gpu_rehearsal.WHOLE])
    monkeypatch.setitem(networks.ARCHITECTURES, "zfnet", gpu_rehearsal.architecture)
    with gpu_rehearsal.active():
        yield setting.Setting(device="cpu")


def check(calls, peers_may=None):
    calls.prepare()
    assert calls.error(calls.ours()) <= calls.tolerance
    for peer in calls.peers.values():
        calls.prepare()
        assert calls.alike(peer(), calls.ours()) <= (peers_may or max(calls.peers_may / 2, calls.tolerance))


def peers_may(problem, precision):
    """What PyTorch's data gradients in bfloat16 may be off on a processor without AVX-512, where it adds them up in it;
    those of something else are 1 off."""
    import torch

    rounds = precision == "bf16" and "dgrad" in str(problem) and "AVX512" not in torch.backends.cpu.get_cpu_capability()
    return 0.1 if rounds else None


def problems(*parts):
    """With the precision of each."""
    jobs = gpu_plan.plan(parts, ["zfnet"], gpu_plan.PRECISIONS, 2)
    return [(problem, job.precision) for job in jobs for problem in job.problems]


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("conv", 18),
        ("depthwise", 3),
        ("dense", 9),
        ("pool", 8),
        ("norm", 10),
        ("joint", 6),
        ("optimizer", 1),
        ("block", 6),
        ("forward", 3),
        ("step", 3),
    ],
)
def test_ours_agrees_with_the_peers(setting, part, count):
    found = problems(part)
    assert len(found) == count
    for problem, precision in found:
        calls = gpu_worker.make(problem, dataclasses.replace(setting, precision=precision))
        check(calls, peers_may(problem, precision))
        assert calls.flops or calls.moved


def test_both_memory_formats_are_peers_on_the_cpu(setting):
    from setting import CPU

    for problem, _ in problems("pool", "block"):
        assert set(gpu_worker.make(problem, CPU).peers) == {"channels_last", "contiguous"}


def test_peers_run_in_the_precision_of_their_case(setting):
    import peers
    import torch

    x = torch.ones(2, 2)
    before = torch.backends.cudnn.allow_tf32
    for name, dtype in (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        with peers.precision(name, "cpu"):
            assert (x @ x).dtype == dtype
            assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (name == "tf32")
    assert torch.backends.cudnn.allow_tf32 == before


def test_projections_agree(setting):
    import analyses

    case = cases.Projection(family="zfnet", layer="pool5", n=4, maps=4, peer_maps=2)
    calls = analyses.projection(setting, case, batch=8)
    check(calls)
    assert calls.peer_share == 0.5


def test_occlusion_agrees(setting, monkeypatch):
    import analyses
    from setting import compare

    references = []
    monkeypatch.setattr(analyses, "compare", lambda reference: references.append(reference) or compare(reference))
    calls = analyses.occlusion(setting, cases.Occlusion(family="zfnet", square=20, stride=12))
    assert isinstance(references[0](), np.ndarray)  # on the host, where ours is
    assert calls.error(calls.ours()) <= calls.tolerance
    pytest.importorskip("captum", reason="needs Captum, the peer: pip install 'zfcuda[parity]'")
    check(calls)


def test_curves_agree(setting):
    import analyses

    calls = analyses.curves(setting, cases.Curves(family="zfnet", patch=24, peer_steps=6))
    check(calls)
    assert calls.peer_share == 6 / (2 * 4 * 9)
    found, theirs = calls.ours(), calls.peers["channels_last"]()
    for shorter in (theirs[:0], theirs[:1]):
        with pytest.raises(ValueError, match=r"a result of shape \([01],\), not \(6,\)"):
            calls.alike(shorter, found)
    found.curves["insertion"][:] = np.nan
    assert not calls.error(found) <= calls.tolerance


def test_work_counted(setting):
    import layers

    conv, pool = gpu_rehearsal.LAYERS[:2]
    calls = layers.fprop(setting, conv)
    assert calls.flops == 2 * 2 * 10 * 10 * 16 * 147
    assert calls.moved == 4 * (2 * 23 * 23 * 3 + 16 * 147 + 2 * 10 * 10 * 16)
    assert layers.pool(setting, pool).moved == 2 * 16 * (4 * 10 * 10 + 5 * 5 * 5)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_tolerances_are_those_of_the_tests(precision):
    setting = pytest.importorskip("setting", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    one = setting.Setting(precision=precision)
    arithmetic = next(one for one in accuracy.ARITHMETICS if one.name == precision)
    assert one.tolerance == (accuracy.ROUNDING if precision == "bf16" else arithmetic.tolerance)
    assert one.weight_grad_tolerance == arithmetic.weight_grad_tolerance
    assert setting.OF_RMS == accuracy.OF_RMS
    for name in gpu_smoke.OPERATIONS:
        allowed = arithmetic.weight_grad_tolerance if "weight_grad" in name else one.tolerance
        assert gpu_smoke.tolerance(name, precision) == allowed


def test_an_element_in_bfloat16_is_judged_by_its_size_and_the_rms():
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    from setting import ROUNDING, distance

    wanted = torch.randn(1000, dtype=torch.float64)
    assert distance(wanted.bfloat16(), wanted) <= ROUNDING
    off = wanted.bfloat16()
    off[7] += 0.05
    assert distance(off, wanted) > ROUNDING  # where the norm would say 2e-3
    assert distance(off.double(), wanted) < 4e-3


def test_results_of_another_shape_are_not_compared():
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    from setting import distance

    for dtype in (torch.float32, torch.bfloat16):
        for shape in ((0, 1), (1, 3), (3,)):
            with pytest.raises(ValueError, match=r"a result of shape \(.*\), not \(2, 3\)"):
                distance(torch.ones(shape, dtype=dtype), torch.ones(2, 3))


def test_spoiled_results_of_either_library(setting):
    import torch
    from setting import spoil

    with torch.inference_mode():
        of_inference = torch.ones(2)
    wanted = torch.nn.Parameter(torch.ones(2))
    bfloat16 = np.ones(2, backends.BFLOAT16)
    switches, other = np.ones(2, np.uint8), object()
    spoil([of_inference, wanted, torch.ones(2).bfloat16()])
    spoil((bfloat16, switches, other))
    spoil(other)
    assert of_inference.isnan().all()
    assert wanted.isnan().all()
    assert np.isnan(bfloat16.astype(np.float32)).all()
    assert (switches == 255).all()


def test_a_concatenation_that_copies_nothing_is_wrong(setting, monkeypatch):
    import graph_layers

    case = next(one for one in gpu_rehearsal.LAYERS if isinstance(one, cases.Joint))
    calls = graph_layers.concat(setting, case)
    monkeypatch.setattr(ops, "copy_channels", lambda source, out, **_: out)
    assert calls.error(calls.ours()) == 1
