"""benchmarks/gpu.py as far as a machine without a GPU can tell: its problems are right, and it invents no number."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import cases
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
        (["--families", "vgg"], "invalid choice"),
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


# ZFNet's layers, small.
LAYERS = cases._family(
    "zfnet",
    2,
    cases._conv("conv1", 23, 3, 16, 7, 2, 1),
    cases._pool("pool1", 10, 16, 3, 2, 1),
    cases._norm("norm1", 5, 16),
    cases._conv("conv2", 9, 5, 7, 3, 2),
    cases._dense("fc6", 36, 20),
    cases.Average(layer="average", size=7, channels=5, window=3, stride=2, padding=1),
    cases.BatchNorm(layer="batchnorm", size=6, channels=5),
    cases.Joint(layer="joint", size=6, channels=5),
    cases.Depthwise(layer="depthwise", size=9, channels=5, stride=2),
)
WHOLE = [cases.Net(family="zfnet", n=2), cases.Update(family="zfnet")]


@pytest.fixture
def setting(monkeypatch):
    """The layers above, and ZFNet with hardly any units in layers 6 and 7, on small images, on the CPU."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'zfcuda[parity]'")
    import networks
    import setting

    from zfcuda import models

    def slim():
        return models.scale_layers(models.zfnet_architecture(1000, 64), {6: 1 / 64, 7: 1 / 64})

    monkeypatch.setattr(cases, "CASES", [*LAYERS, *WHOLE])
    monkeypatch.setitem(networks.ARCHITECTURES, "zfnet", slim)
    return setting.Setting(device="cpu", compiled=False)


def check(calls):
    assert calls.error() <= calls.tolerance
    calls.ours()
    for peer in calls.peers.values():
        peer()


def problems(*parts):
    """With the precision of each."""
    jobs = gpu_plan.plan(parts, ["zfnet"], gpu.PRECISIONS, 2)
    return [(problem, job.precision) for job in jobs for problem in job.problems]


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("conv", 18),
        ("depthwise", 3),
        ("dense", 9),
        ("pool", 4),
        ("norm", 5),
        ("joint", 2),
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
        calls = gpu.make(problem, dataclasses.replace(setting, precision=precision))
        check(calls)
        assert calls.flops or calls.moved


def test_both_memory_formats_are_peers_on_the_cpu(setting):
    from setting import CPU

    for problem, _ in problems("pool", "block"):
        assert set(gpu.make(problem, CPU).peers) == {"channels_last", "contiguous"}


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
    import networks

    case = cases.Projection(family="zfnet", layer="pool5", n=4, maps=4, peer_maps=2)
    calls = networks.projection(setting, case, batch=8)
    check(calls)
    assert calls.peer_share == 0.5


def test_occlusion_agrees(setting):
    pytest.importorskip("captum", reason="needs Captum: pip install 'zfcuda[parity]'")
    import networks

    check(networks.occlusion(setting, cases.Occlusion(family="zfnet", square=20, stride=12)))


def test_work_counted(setting):
    import layers

    conv, pool = LAYERS[:2]
    calls = layers.fprop(setting, conv)
    assert calls.flops == 2 * 2 * 10 * 10 * 16 * 147
    assert calls.moved == 4 * (2 * 23 * 23 * 3 + 16 * 147 + 2 * 10 * 10 * 16)
    assert layers.pool(setting, pool).moved == 2 * 16 * (4 * 10 * 10 + 5 * 5 * 5)


class Clock:
    """A clock that runs only where somebody says so."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def gpu_of_paper(setting, monkeypatch, tmp_path):
    """All but the GPU: described, with a made-up clock, and results in tmp_path."""
    monkeypatch.setattr(
        "setting.Setting", lambda **changes: dataclasses.replace(setting, **{**changes, "compiled": False})
    )
    monkeypatch.setattr(gpu_device, "describe", lambda: {"name": "NVIDIA Toy 9000"})
    monkeypatch.setattr(gpu_device, "state", lambda: "warm")
    monkeypatch.setattr(gpu_device, "require", lambda: None)
    monkeypatch.setattr(gpu_device, "clear", lambda: None)
    monkeypatch.setattr(gpu_device, "ceilings", lambda: {"copy, GB/s": 1000.0, **RATES})
    monkeypatch.setattr(gpu_device, "time_alternating", lambda calls, seconds: {name: [2.0, 2.0] for name in calls})
    monkeypatch.setattr(gpu, "run_tests", lambda seconds: (False, "1 failed"))
    return tmp_path / "gpu-nvidia-toy-9000.md"


def test_results_of_a_part(gpu_of_paper, monkeypatch, tmp_path, capsys):
    assert gpu.main(["conv", "--precisions", "fp32", "--no-compile", "--out", str(tmp_path)]) == 0
    text = gpu_of_paper.read_text()
    assert text.startswith("# zfcuda on NVIDIA Toy 9000\n")
    assert "- copy, GB/s: 1000.0" in text
    assert "- plans of the convolutions: untuned" in text
    assert "- planned: 6 problems in 1 jobs, estimated at " in text
    assert "| zfnet conv1, batch 128 | image dgrad | fp32 | 2 ± 0% | 2 (channels_last) | 1.00 |" in text
    assert "| zfnet | fprop | 1.00 (1.00 of 2) |" in text

    def broken(*_):
        raise MemoryError("no room\nand a trace")

    monkeypatch.setitem(__import__("layers").MAKERS, "norm", broken)
    assert gpu.main(["norm", "--no-compile", "--out", str(tmp_path)]) == 1
    assert "| norm | fp32 | not measured |" in gpu_of_paper.read_text()
    assert "cannot be made: MemoryError: no room |" in capsys.readouterr().out
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
    options = ["--precisions", "fp32", "--minutes", "1", "--no-compile", "--out", str(tmp_path)]
    assert gpu.main(["conv", "pool", *options]) == 0
    text = gpu_of_paper.read_text()
    assert text.count("2 (channels_last)") == 3  # the third ends late
    left_out = (
        "fp32 | not measured | not measured | not measured | no bound | not measured | not measured: out of time |"
    )
    assert f"| zfnet 3 of 6 problems | conv | {left_out}" in text
    assert f"| zfnet 4 of 4 problems | pool | {left_out}" in text
    assert "- time: 75 s" in text


def test_tuning_first(gpu_of_paper, monkeypatch, tmp_path):
    """Each convolution of the network, with its time tuned and untuned."""
    from zfcuda import tuning
    from zfcuda.plans import Plan

    monkeypatch.setattr(tuning, "tune", lambda problems: [Plan(one, "128x64", 3, 0.5, 0.75) for one in problems])
    assert gpu.main(["optimizer", "--tune", "--precisions", "bf16", "--no-compile", "--out", str(tmp_path)]) == 0
    text = gpu_of_paper.read_text()
    assert "- plans of the convolutions: tuned in this run" in text
    name = "zfnet conv2d bf16, images 128x64x64x3, filters 96x7x7x3, stride 2x2"
    assert f"| {name} | tune | bf16 | 0.5 | 0.75 (untuned) | 1.50 |" in text
    assert "128x64, 3 splits" in text
    assert "| zfnet | tune | 1.50 (1.50 of 30) |" in text
    assert text.index(name) < text.index("zfnet parameters")


def test_tests_that_take_too_long(monkeypatch):
    def run(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert gpu.run_tests(99.6) == (True, "not measured: out of time, not finished in 100 s")


# ---- What there is time for ------------------------------------------------------------------------------


def plan(parts=gpu.PARTS, **options):
    return gpu_plan.plan(parts, ["zfnet", "alexnet"], gpu.PRECISIONS, 128, **options)


def test_the_plan_has_every_part_most_important_family_first():
    jobs = plan()
    assert jobs[0].part == "tests"
    assert {job.part for job in jobs} == set(gpu.PARTS) - {"joint", "depthwise"}  # of other networks
    families = [job.family for job in jobs[1:]]
    assert families == sorted(families, reverse=True)
    assert len(jobs) == 1 + (5 * 3 + 5) + (4 * 3 + 2)  # alexnet: no fully connected layers, analyses, parameters


def test_every_problem_has_a_part_or_is_of_the_cpu_alone():
    planned = {
        str(problem) for job in gpu_plan.plan(gpu.PARTS, cases.FAMILIES, ["fp32"], 8) for problem in job.problems
    }
    every = cases.problems([case.with_batch(8) for case in cases.CASES])
    assert {problem.direction for problem in every if str(problem) not in planned} == {"memory MiB"}


@dataclasses.dataclass
class Run:
    """A whole run in which every problem costs `pace` times what was estimated, and torch.compile too."""

    schedule: gpu_plan.Schedule
    rows: list

    @property
    def late(self):
        return [row for row in self.rows if gpu.OUT_OF_TIME in row.note]


def simulate(monkeypatch, jobs, pace):
    clock = Clock()
    schedule = gpu_plan.Schedule(jobs, 480, clock)
    monkeypatch.setattr(gpu_device, "clear", lambda: None)

    def make(problem, setting):
        part = next(job.part for job in jobs if problem in job.problems)
        seconds, compiling = gpu_plan._SECONDS[part]
        clock.now += pace * (seconds + compiling * setting.compiled)

    monkeypatch.setattr(gpu, "make", make)
    monkeypatch.setattr(harness, "measure", lambda name, *_: harness.Row(*name, ours_ms=1))
    rows = []
    for job in jobs:
        if job.part == "tests":
            clock.now += min(schedule.tests_seconds(), pace * 120)
        else:
            rows += gpu.measure_job(job, schedule, dict.fromkeys(gpu.PRECISIONS))
    return Run(schedule, rows)


def test_eight_minutes_are_enough_for_zfnet_in_three_precisions(monkeypatch):
    run = simulate(monkeypatch, plan(), 1.0)
    assert run.schedule.used <= 480
    assert run.late
    assert all(row.family == "alexnet" for row in run.late)


@pytest.mark.parametrize("pace", [0.2, 0.5, 2.0, 5.0])
def test_the_time_is_kept_on_any_gpu(monkeypatch, pace):
    jobs = plan()
    run = simulate(monkeypatch, jobs, pace)
    longest = max(sum(seconds) for seconds in gpu_plan._SECONDS.values())
    assert run.schedule.used <= 480 + pace * longest
    assert sum(row.ours_ms is not None for row in run.rows) + sum(
        int(row.problem.split(" ")[0]) for row in run.late
    ) == sum(job.count for job in jobs if job.part != "tests")


def test_a_fast_gpu_leaves_nothing_out(monkeypatch):
    run = simulate(monkeypatch, plan(), 0.1)
    assert not run.late
    assert not run.schedule.uncompiled


def test_a_slow_gpu_leaves_compiling_out(monkeypatch):
    uncompiled = simulate(monkeypatch, plan(), 2.0).schedule.uncompiled
    assert set(uncompiled) >= {"zfnet block fp32", "zfnet step fp32"}


def test_what_is_asked_for_alone_is_compiled():
    jobs = plan(["norm"])
    assert gpu_plan.Schedule(jobs, 480, Clock()).decides_to_compile(jobs[0])
    jobs = plan(["norm"], compiles=False)
    schedule = gpu_plan.Schedule(jobs, 480, Clock())
    assert not schedule.decides_to_compile(jobs[0])
    assert not schedule.uncompiled  # nobody asked


def test_fewer_rounds_when_late():
    clock = Clock()
    jobs = plan()
    schedule = gpu_plan.Schedule(jobs, 480, clock)
    clock.now += 120  # the tests
    assert schedule.sampling(jobs[1], 0) == 0.5
    clock.now -= 120
    alone = gpu_plan.Schedule(jobs[1:2], 480, clock)
    assert alone.sampling(jobs[1], 0) == 5.0
    clock.now += 420
    assert 0.5 < alone.sampling(jobs[1], 5) < 5.0
