"""benchmarks/gpu.py as far as a machine without a GPU can tell: its problems are right, and it invents no number."""

import subprocess
import sys
from pathlib import Path

import gpu
import gpu_device
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


def test_results_of_a_part(setting, monkeypatch, tmp_path, capsys):
    """The whole path but for the GPU: described, measured with a made-up clock, written."""
    monkeypatch.setattr("gpu_setting.Setting", lambda **_: setting)
    monkeypatch.setattr(gpu_device, "describe", lambda: {"name": "NVIDIA Toy 9000"})
    monkeypatch.setattr(gpu_device, "state", lambda: "warm")
    monkeypatch.setattr(gpu_device, "require", lambda: None)
    monkeypatch.setattr(gpu_device, "clear", lambda: None)
    monkeypatch.setattr(gpu_device, "ceilings", lambda: {"copy, GB/s": 1000.0, **RATES})
    monkeypatch.setattr(gpu_device, "time_alternating", lambda calls: {name: [2.0, 2.0] for name in calls})
    monkeypatch.setattr(gpu, "run_tests", lambda: (False, "1 failed"))
    assert gpu.main(["pool", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "gpu-nvidia-toy-9000.md").read_text()
    assert text.startswith("# zfcuda on NVIDIA Toy 9000\n")
    assert "- copy, GB/s: 1000.0" in text
    assert text.count("| pool | zfnet pool") == 6
    assert "geometric mean of 6 | | | 1.00" in text

    def broken(_):
        raise MemoryError("no room\nand a trace")
        yield

    monkeypatch.setattr("gpu_kernels.norm", broken)
    assert gpu.main(["norm", "--out", str(tmp_path)]) == 1
    assert "| norm | cannot be made | not measured |" in (tmp_path / "gpu-nvidia-toy-9000.md").read_text()
    assert "MemoryError: no room" in capsys.readouterr().out
    assert gpu.main(["tests", "--out", str(tmp_path)]) == 1
    assert "1 failed" in capsys.readouterr().out
