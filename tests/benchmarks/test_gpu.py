"""benchmarks/gpu.py as far as a machine without a GPU can tell: its problems are right, and it invents no number."""

import dataclasses
import subprocess
import sys
import types
from pathlib import Path

import gpu
import gpu_device
import gpu_plan
import harness
import pytest

SCRIPT = Path(gpu.__file__)
RATES = {"float32, TFLOP/s": 50.0, "TF32, TFLOP/s": 400.0, "bfloat16, TFLOP/s": 800.0}


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of this name, which runs the given shell lines, alone on PATH."""

    def install(*lines):
        program = tmp_path / "nvidia-smi"
        program.write_text("\n".join(["#!/bin/sh", *lines]))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return install


def test_without_nvidia_smi_it_measures_nothing(tmp_path):
    result = subprocess.run(
        [sys.executable, SCRIPT, "--out", tmp_path / "results"],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(gpu.REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 3
    assert result.stderr == (
        "Nothing was measured: nvidia-smi is not on PATH: install the NVIDIA driver with its tools\n"
    )
    assert not result.stdout
    assert not (tmp_path / "results").exists()


def test_a_gpu_that_zfcuda_cannot_use_is_not_measured(nvidia_smi, monkeypatch, tmp_path, capsys):
    nvidia_smi("echo 'NVIDIA Toy, 580.1, 9.0, 81559, 1980, 700.00'")
    monkeypatch.setattr(gpu_device, "state", lambda: "idle")
    monkeypatch.setattr("zfcuda.backends.status", lambda: {"cuda": "the CUDA backend cannot run: too old"})
    assert gpu.main(["--out", str(tmp_path / "results")]) == 3
    assert capsys.readouterr().err == "Nothing was measured: the CUDA backend cannot run: too old\n"
    assert not (tmp_path / "results").exists()


def test_description_of_the_gpu(nvidia_smi):
    nvidia_smi("echo 'NVIDIA Toy, 580.1, 9.0, 81559, 1980, 700.00'")
    assert gpu_device.describe() == {
        "name": "NVIDIA Toy",
        "driver": "580.1",
        "compute capability": "9.0",
        "memory, MiB": "81559",
        "greatest SM clock, MHz": "1980",
        "power limit, W": "700.00",
    }


def test_state_of_the_gpu(nvidia_smi):
    nvidia_smi("echo '1980, 2619, 61, 640.12'")
    assert gpu_device.state() == "SM clock, MHz 1980, memory clock, MHz 2619, temperature, C 61, power, W 640.12"


def test_a_failing_driver_is_reported(nvidia_smi):
    nvidia_smi("echo 'no devices were found'", "exit 6")
    with pytest.raises(gpu_device.NoGpuError, match="nvidia-smi fails: no devices were found"):
        gpu_device.describe()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conv", "cov"], "unknown part cov: choose from tests, conv"),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--networks", "vgg"], "invalid choice"),
        (["--precisions", "fp16"], "invalid choice"),
        (["--minutes", "0"], "--minutes must be positive, got 0"),
        (["--minutes", "nan"], "--minutes must be positive, got nan"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        gpu.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_parts():
    assert gpu.parse([]).parts == list(gpu.PARTS)
    assert gpu.parse(["norm", "pool"]).parts == ["norm", "pool"]


@pytest.fixture
def setting(monkeypatch):
    """ZFNet with hardly any units in layers 6 and 7, on small images, on the CPU."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    import gpu_setting

    from zfcuda import models

    def slim(*size):
        return models.scale_layers(models.zfnet_architecture(*size), {6: 1 / 64, 7: 1 / 64})

    monkeypatch.setitem(gpu_setting.ARCHITECTURES, "zfnet", slim)
    return gpu_setting.Setting(device="cpu", batch=2, networks=("zfnet",), compiled=False, image_size=64)


def check(case):
    assert case.error() <= case.tolerance, case.problem
    case.ours()
    for peer in case.peers.values():
        peer()


@pytest.mark.parametrize(
    ("part", "problems"), [("conv", 45), ("pool", 6), ("norm", 4), ("optimizer", 1), ("block", 18), ("forward", 3)]
)
def test_ours_agrees_with_the_peers(setting, part, problems):
    found = list(gpu.cases(part, setting))
    assert len(found) == problems
    for case in found:
        check(case)
        assert case.flops or case.moved


def test_training_step_agrees(setting):
    found = list(gpu.cases("step", setting))
    assert [(case.problem, case.precision) for case in found] == [(f"zfnet {p}", p) for p in gpu.PRECISIONS]
    for case in found:
        check(case)


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
    import gpu_networks

    (case,) = gpu_networks.projection(setting, maps=2, images=4, peer_batch=8)
    assert case.problem == "zfnet pool5, 8 projections"
    check(case)


def test_occlusion_agrees(setting):
    pytest.importorskip("captum", reason="needs Captum: pip install 'zfcuda[parity]'")
    import gpu_networks

    (case,) = gpu_networks.occlusion(setting, size=20, stride=12)
    check(case)


def test_work_counted(setting):
    from gpu_kernels import conv, pool

    first = next(conv(setting))
    assert first.flops == 2 * 2 * 30 * 30 * 96 * 147
    assert first.moved == 4 * (2 * 64 * 64 * 3 + 96 * 147 + 2 * 30 * 30 * 96)
    assert next(pool(setting)).moved == 2 * 96 * (4 * 30 * 30 + 5 * 15 * 15)


def test_work_of_the_whole_zfnet():
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    from gpu_networks import forward_flops

    from zfcuda import models

    assert forward_flops(models.zfnet_architecture(), 128) == pytest.approx(299e9, rel=0.01)


class Clock:
    """A clock that runs only where somebody says so."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def gpu_of_paper(setting, monkeypatch, tmp_path):
    """All but the GPU: described, with a made-up clock, and results in tmp_path."""
    monkeypatch.setattr("gpu_setting.Setting", lambda **_: setting)
    monkeypatch.setattr(gpu_device, "describe", lambda: {"name": "NVIDIA Toy 9000"})
    monkeypatch.setattr(gpu_device, "state", lambda: "warm")
    monkeypatch.setattr(gpu_device, "require", lambda: None)
    monkeypatch.setattr(gpu_device, "clear", lambda: None)
    monkeypatch.setattr(gpu_device, "ceilings", lambda: {"copy, GB/s": 1000.0, **RATES})
    monkeypatch.setattr(gpu_device, "time_alternating", lambda calls, seconds: {name: [2.0, 2.0] for name in calls})
    monkeypatch.setattr(gpu, "run_tests", lambda seconds: (False, "1 failed"))
    return tmp_path / "gpu-nvidia-toy-9000.md"


def test_results_of_a_part(gpu_of_paper, monkeypatch, tmp_path, capsys):
    assert gpu.main(["pool", "--out", str(tmp_path)]) == 0
    text = gpu_of_paper.read_text()
    assert text.startswith("# zfcuda on NVIDIA Toy 9000\n")
    assert "- copy, GB/s: 1000.0" in text
    assert "- plans of the convolutions: untuned" in text
    assert "- planned: 6 problems in 1 jobs, estimated at " in text
    assert text.count("| pool | zfnet pool") == 6
    assert "geometric mean of 6 | | | 1.00" in text

    def broken(_):
        raise MemoryError("no room\nand a trace")
        yield

    monkeypatch.setattr("gpu_kernels.norm", broken)
    assert gpu.main(["norm", "--out", str(tmp_path)]) == 1
    assert "| norm | cannot be made | not measured |" in gpu_of_paper.read_text()
    assert "MemoryError: no room" in capsys.readouterr().out
    assert gpu.main(["tests", "--out", str(tmp_path)]) == 1
    assert "1 failed" in capsys.readouterr().out


def test_what_is_not_reached_says_so(gpu_of_paper, monkeypatch, tmp_path):
    """Two problems of a part fit, then nothing more: that is no failure."""
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)

    def time(calls, seconds):
        clock.now += 25
        return {name: [2.0, 2.0] for name in calls}

    monkeypatch.setattr(gpu_device, "time_alternating", time)
    assert gpu.main(["pool", "norm", "--minutes", "1", "--out", str(tmp_path)]) == 0
    text = gpu_of_paper.read_text()
    assert text.count("| pool | zfnet pool") == 3  # the third ends late
    left_out = "not measured | not measured | not measured | no bound | not measured | not measured: out of time |"
    assert f"| pool | zfnet, 3 of 6 problems | {left_out}" in text
    assert f"| norm | zfnet, 4 of 4 problems | {left_out}" in text
    assert "- time: 75 s" in text


def test_tuning_first(gpu_of_paper, monkeypatch, tmp_path):
    """Each convolution of the network, with its time tuned and untuned."""
    from zfcuda import tuning
    from zfcuda.plans import Plan

    monkeypatch.setattr(tuning, "tune", lambda problems: [Plan(one, "128x64", 3, 0.5, 0.75) for one in problems])
    assert gpu.main(["optimizer", "--tune", "--precisions", "bf16", "--out", str(tmp_path)]) == 0
    text = gpu_of_paper.read_text()
    assert "- plans of the convolutions: tuned in this run" in text
    row = "| tune bf16 | conv2d bf16, images 2x64x64x3, filters 96x7x7x3, stride 2x2 | 0.5 | 0.75 (untuned) | 1.50 |"
    assert row in text
    assert "128x64, 3 splits" in text
    assert "| tune bf16 | geometric mean of 30 | | | 1.50 | | | |" in text
    assert text.index("tune bf16") < text.index("zfnet sgd")


def test_tests_that_take_too_long(monkeypatch):
    def run(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert gpu.run_tests(99.6) == (True, "not measured: out of time, not finished in 100 s")


# ---- What there is time for ------------------------------------------------------------------------------


@pytest.fixture
def whole(setting):
    """The plan of everything, as it is run if nothing is asked for."""
    return gpu_plan.plan(
        gpu.PARTS, dataclasses.replace(setting, networks=("zfnet", "alexnet"), image_size=224, compiled=True)
    )


def test_the_plan_counts_the_problems_that_are_made(setting):
    for job in gpu_plan.plan(["conv", "pool", "norm", "optimizer", "block"], setting):
        assert len(list(gpu.cases(job.part, job.setting))) == job.problems, job.name


def test_the_plan_has_every_part_most_important_network_first(whole):
    assert whole[0].part == "tests"
    assert {job.part for job in whole} == set(gpu.PARTS)
    networks = [job.setting.networks for job in whole[1:]]
    assert networks == sorted(networks, reverse=True)
    assert len(whole) == 1 + 2 * (4 * 3 + 5)


@dataclasses.dataclass
class Run:
    """A whole run in which every problem costs `pace` times what was estimated, and torch.compile too."""

    clock: Clock
    schedule: gpu_plan.Schedule
    rows: list

    @property
    def late(self):
        return [row for row in self.rows if gpu.OUT_OF_TIME in row.note]


def simulate(monkeypatch, jobs, pace):
    clock = Clock()
    schedule = gpu_plan.Schedule(jobs, 480, clock)
    monkeypatch.setattr(gpu_device, "clear", lambda: None)

    def cases(part, setting):
        job = next(job for job in jobs if job.part == part and job.setting.networks == setting.networks)
        seconds, compiling = gpu_plan._SECONDS[part]
        for _ in range(job.problems):
            clock.now += pace * (seconds + compiling * setting.compiled)
            yield types.SimpleNamespace(precision="fp32")

    monkeypatch.setattr(gpu, "cases", cases)
    monkeypatch.setattr(harness, "measure", lambda case, timer, limits: harness.Row("part", "problem", 0, 0, ours_ms=1))
    rows = []
    for job in jobs:
        if job.part == "tests":
            clock.now += min(schedule.tests_seconds(), pace * 120)
        else:
            rows += gpu.measure_job(job, schedule, {"fp32": None})
    return Run(clock, schedule, rows)


def test_eight_minutes_are_enough_for_zfnet_in_three_precisions(whole, monkeypatch):
    run = simulate(monkeypatch, whole, 1.0)
    assert run.schedule.used <= 480
    assert run.late
    assert all("alexnet" in row.problem for row in run.late)


@pytest.mark.parametrize("pace", [0.2, 0.5, 2.0, 5.0])
def test_the_time_is_kept_on_any_gpu(whole, monkeypatch, pace):
    run = simulate(monkeypatch, whole, pace)
    longest = max(sum(seconds) for seconds in gpu_plan._SECONDS.values())
    assert run.schedule.used <= 480 + pace * longest
    assert sum(row.ours_ms is not None for row in run.rows) + sum(
        int(row.problem.split(", ")[1].split(" ")[0]) for row in run.late
    ) == sum(job.problems for job in whole if job.part != "tests")


def test_a_fast_gpu_leaves_nothing_out(whole, monkeypatch):
    run = simulate(monkeypatch, whole, 0.1)
    assert not run.late
    assert not run.schedule.uncompiled


def test_a_slow_gpu_leaves_compiling_out(whole, monkeypatch):
    assert set(simulate(monkeypatch, whole, 2.0).schedule.uncompiled) >= {"block fp32", "step fp32"}


def test_what_is_asked_for_alone_is_compiled(setting, monkeypatch):
    jobs = gpu_plan.plan(["norm"], dataclasses.replace(setting, compiled=True))
    assert gpu_plan.Schedule(jobs, 480, Clock()).decides_to_compile(jobs[0])
    jobs = gpu_plan.plan(["norm"], setting)
    schedule = gpu_plan.Schedule(jobs, 480, Clock())
    assert not schedule.decides_to_compile(jobs[0])
    assert not schedule.uncompiled  # nobody asked


def test_fewer_rounds_when_late(whole):
    clock = Clock()
    schedule = gpu_plan.Schedule(whole, 480, clock)
    clock.now += 120  # the tests
    assert schedule.sampling(whole[1], 0) == 0.5
    clock.now -= 120
    alone = gpu_plan.Schedule(whole[1:2], 480, clock)
    assert alone.sampling(whole[1], 0) == 5.0
    clock.now += 420
    assert 0.5 < alone.sampling(whole[1], 5) < 5.0
