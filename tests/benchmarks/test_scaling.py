"""benchmarks/scaling.py: the model on numbers made by hand, the tables' form, and what goes wrong. How long something
takes decides nothing here."""

import dataclasses
import json
import math
import sys
import types

import numpy as np
import pytest
import scaling_model as model
import scaling_worker as worker

from zfcuda.nn import Network
from zfcuda.training import Ranks
from zfcuda.training.buckets import bucket_names

scaling = pytest.importorskip("scaling", reason="needs PyTorch")

MIB = 1 << 20

# A step of one second on two images: two buckets of 4 MiB, full after half of it and at its end.
STEP = model.Step(
    2, 1.0, {"fc.weight": (1024, 1024), "conv.weight": (64, 4, 4, 1024)}, {"fc.weight": 0.5, "conv.weight": 1.0}, 1.0
)
FP32, BF16, COLUMNS, BF16_COLUMNS = model.WAYS


def link(seconds, **options):
    """One over which 4 MiB take so long."""
    return model.Link("link", 4 * MIB / seconds / 1e9, options.pop("latency_us", 0.0), **options)


# ---- The model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ready", "seconds", "end", "exposed"),
    [
        ([1, 2], [3, 1], 4, 1),  # the second waits for the first
        ([1, 3], [1, 0.5], 4, 0),  # all hidden
        ([4], [2], 4, 2),  # nothing hidden
        ([], [], 4, 0),
    ],
)
def test_exposed(ready, seconds, end, exposed):
    assert model.exposed_s(ready, seconds, end) == exposed


def test_the_buckets_are_the_trainers():
    sizes = {name: math.prod(shape) for name, shape in STEP.shapes.items()}
    assert bucket_names(sizes) == [["fc.weight"], ["conv.weight"]]
    assert bucket_names({"a": MIB - 1, "b": 1, "c": 5, "d": MIB, "e": 1}) == [["a", "b"], ["c", "d"], ["e"]]


def test_a_step_of_two():
    """2 (N - 1) / N = 1: each bucket takes what 4 MiB take, and the last has nothing to hide behind."""
    found = model.predict(STEP, 2, link(0.25), FP32)
    assert found.exposed == pytest.approx(0.25)
    assert found.seconds == pytest.approx(1.25)
    assert found.images_per_second == pytest.approx(2 * 2 / 1.25)
    assert found.sent == 8 * MIB
    assert not found.reads


@pytest.mark.parametrize(
    ("n", "options", "way", "exposed"),
    [
        (4, {}, FP32, 0.375),  # 2 * 3 / 4 of the bytes
        (2, {}, BF16, 0.125),
        (2, {"hides": False}, FP32, 0.5),
        (2, {"latency_us": 1e5}, FP32, 0.45),
        (1, {}, FP32, 0.0),
        # The convolution's gradient; to the other process 2 images of 3 * 1024 values, in 3 exchanges.
        (2, {}, COLUMNS, 0.25 + 0.25 * 2 * 3 / 1024),
        (2, {"latency_us": 1e5}, COLUMNS, 0.25 + 0.25 * 2 * 3 / 1024 + 0.2 + 0.3),
        (2, {}, BF16_COLUMNS, 0.125 * (1 + 2 * 3 / 1024)),
        (1, {}, COLUMNS, 0.0),
    ],
)
def test_what_is_exposed(n, options, way, exposed):
    assert model.predict(STEP, n, link(0.25, **options), way).exposed == pytest.approx(exposed)


def test_a_bucket_waits_for_the_one_before():
    """0.75 s each: 0.5 to 1.25, then to 2."""
    assert model.predict(STEP, 2, link(0.75), FP32).exposed == pytest.approx(1.0)


def test_reading_can_take_longest():
    found = model.predict(STEP, 2, link(0.25), FP32, reading=1.0)
    assert (found.seconds, found.images_per_second, found.reads) == (2.0, 2.0, True)
    assert model.predict(STEP, 2, link(0.25), FP32, reading=2.0).seconds == pytest.approx(1.25)


@pytest.mark.parametrize("n", [2, 7])
def test_columns_send_as_much_as_gradients_at_the_break_even(n):
    step = dataclasses.replace(STEP, images=model.break_even(STEP) / n)
    conv = 2 * (n - 1) / n * 4 * math.prod(STEP.shapes["conv.weight"])
    gradients = model.predict(step, n, link(1), FP32).sent - conv
    assert model.predict(step, n, link(1), COLUMNS).sent - conv == pytest.approx(gradients)


def test_of_a_net_without_fully_connected_layers():
    step = dataclasses.replace(STEP, shapes={"conv.weight": (64, 4, 4, 1024)})
    assert model.break_even(step) == 0
    assert model.predict(step, 2, link(0.25), COLUMNS) == model.predict(step, 2, link(0.25), FP32)


def test_values_of_zfnet():
    net = {"fc8.weight": (1000, 4096), "fc8.bias": (1000,), "fc7.weight": (4096, 4096), "fc6.weight": (4096, 9216)}
    step = model.Step(1, 1.0, net | {"conv5.bias": (256,)}, {}, 1.0)
    assert step.dense == list(net)
    assert step.exchanged == (2 * (9216 + 4096 + 4096) + 1000, 7)


def test_another_rate():
    step = model.at_rate(STEP, 6, 2.0)
    assert (step.images, step.seconds, step.ready) == (6, 3.0, STEP.ready)


# ---- The bound of a GPU ------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """Every row takes a millisecond."""
    rows = [*model._UP, *(name for names in model._DOWN.values() for name in names)]
    split = [name.split(" ", 2) for name in rows]
    layers = [
        {"layer": f"{net} {layer}", "direction": direction, "precision": "fp32", "ms": {"GPU": 1.0}}
        for net, layer, direction in split
    ]
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"facts": {"batch": 128}, "layers": layers}))
    return path


def test_the_step_of_a_bound(table):
    """8 rows on the way up, 13 down: two of each fully connected layer first."""
    shapes = {"fc8.weight": (1, 1), "fc6.bias": (1,), "conv1.weight": (1, 1, 1, 1)}
    step = model.bound(table, "GPU", "fp32", 64, shapes)
    assert step.seconds == pytest.approx(0.021 / 2)
    assert step.ready == {"fc8.weight": 10 / 21, "fc6.bias": 14 / 21, "conv1.weight": 1.0}


@pytest.mark.parametrize(("gpu", "precision"), [("another", "fp32"), ("GPU", "fp64")])
def test_a_bound_that_is_not_in_the_table(table, gpu, precision):
    with pytest.raises(ValueError, match=r"gpu.json has no .* in fp"):
        model.bound(table, gpu, precision, 64, {})


def test_the_bound_that_is_used():
    step = model.bound(scaling.BOUND, scaling.GPU, "bf16", 128, {"fc6.weight": (2, 2), "conv5.bias": (2,)})
    assert 0 < step.seconds < 1
    assert 0 < step.ready["fc6.weight"] < step.ready["conv5.bias"] < 1


# ---- Tables ------------------------------------------------------------------------------------------------------

# What processes have found, in the form that they print.
ONE = {
    "steps_s": {"2": [0.6, 0.5, 0.5], "4": [0.9, 0.9, 0.9]},
    "shapes": {name: list(shape) for name, shape in STEP.shapes.items()},
    "ready_s": {"fc.weight": 0.4, "conv.weight": 0.8},
    "pass_s": 0.8,
}
SEVERAL = {
    "exchange_s": {"fp32": [0.1] * 3, "bf16": [0.05] * 3},
    "message_s": 1e-5,
    "beside_s": {"2": [0.5] * 3, "4": [1.2] * 3},
    "together_s": {"2": [0.6] * 3, "4": [1.5] * 3},
}


OVER_NCCL = {"nccl_s": {"fp32": [0.05] * 3, "bf16": [0.025] * 3}}


def lines_of(table):
    """Cells of a Markdown table, its head first."""
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    assert len({len(cells) for cells in lines}) == 1
    return [[cell.strip() for cell in cells] for cells in [lines[0], *lines[2:]]]


def test_table_of_one_process():
    text = scaling.one_process(ONE)
    assert lines_of(text)[1:] == [["2", "500", "250", "4.0"], ["4", "900", "225", "4.4"]]
    assert "About 100 ms and 200 ms an image." in text
    assert "After 50% of the pass 50% of the gradients" in text


def test_table_of_sums():
    """8 MiB in 0.1 s between two."""
    mpi, rounded, *nccl = lines_of(scaling.sums({2: SEVERAL}, 2 * MIB))[1:]
    assert mpi == ["2", "MPI, host memory", "8.4", "100", "0.0839", "10"]
    assert rounded == ["2", "MPI, host memory, as bf16", "4.2", "50", "0.0839", "10"]
    assert [cells[3:] for cells in nccl] == 2 * [["not measured", "not measured", ""]]
    *_, exact, rounded = lines_of(scaling.sums({2: SEVERAL | OVER_NCCL}, 2 * MIB))
    assert exact[1:] == ["NCCL", "8.4", "50", "0.168", ""]
    assert rounded[1:] == ["NCCL, as bf16", "4.2", "25", "0.168", ""]


def test_the_model_against_a_measurement():
    """A prediction of 0.5 + 0.1 s that is right, and one of 0.9 + 0.1 s where it took 1.5, which is explained."""
    text, rows = scaling.compared(ONE, 2, SEVERAL)
    assert [row["ratio"] for row in rows] == pytest.approx([1.0, 1.5])
    assert [row["hidden"] for row in rows] == pytest.approx([0.0, -2.0])
    assert [cells[8] for cells in lines_of(text)[1:]] == ["1.00", "1.50"]
    (why,) = [line for line in text.splitlines() if line.startswith("- ")]
    assert why.startswith("- 4 images: 50% off. A process takes 1.33 times as long while the others compute")
    assert "(with that, predicted / measured is 1.15); sums add 300 ms to it, 3.00 times what they take alone" in why


def test_the_model_against_a_measurement_of_sums_by_nccl():
    """Of two buckets of 0.025 s each the first one is hidden; what a step takes longer is 2 and 6 times 0.05 s."""
    _, rows = scaling.compared(ONE, 2, SEVERAL | OVER_NCCL)
    assert [row["predicted"] for row in rows] == pytest.approx([4 / 0.525, 8 / 0.925])
    assert [row["hidden"] for row in rows] == pytest.approx([-1.0, -5.0])


def test_table_of_predictions():
    step = dataclasses.replace(STEP, seconds=0.01)
    text, rows = scaling.predictions(step, scaling.LINKS, 180.0)
    head, *lines = lines_of(text)
    assert head[3:] == [way.name for way in model.WAYS]
    counts = {one.name: [n for n in scaling.COUNTS if one.most is None or n <= one.most] for one in scaling.LINKS}
    assert [(cells[0], int(cells[1])) for cells in lines] == [(name, n) for name, of in counts.items() for n in of]
    assert len(rows) == len(lines)
    assert lines[0][3].startswith("360 (reads), ")
    assert "(reads)" not in lines[-1][3]


def test_decisions():
    """Over the slow link half the bytes are nearly twice as fast; over the fast one nothing is."""
    slow, fast = dataclasses.replace(link(100), name="slow"), dataclasses.replace(link(1e-6), name="fast", most=2)
    bf16, columns, _, even, *so = scaling.decisions(STEP, [slow, fast]).splitlines()
    assert bf16 == "- Gradients as bf16, times as fast: " + "; ".join(f"N = {n}: slow 2.0" for n in scaling.COUNTS)
    assert columns.endswith("N = 2: slow 2.0; N = 8: slow 1.9; N = 64: slow 1.7")
    assert "below 683 images of the whole batch" in even
    assert [line.rpartition(": ")[2] for line in so] == ["slow", "slow"]
    assert scaling.decisions(STEP, [fast]).count("nowhere") == 3 * len(scaling.COUNTS) + 2


def test_through_the_hosts_memory():
    """A second alone, and a tenth for the sums."""
    text = scaling.through_host(STEP, 2, SEVERAL)
    assert "at the 100 ms of 2 processes here, 2 do 4 images/s, 91% of 2 times one" in text


def test_columns_that_pay_for_few_processes_only_are_not_advised():
    step = dataclasses.replace(STEP, images=60)
    _, columns, _, _, bf16, split = scaling.decisions(step, [link(100)]).splitlines()
    assert columns.endswith("N = 2: link 1.7; N = 8: link 1.2; N = 64: nowhere")
    assert bf16.endswith(": link")
    assert split.endswith(": nowhere")


# ---- The command -------------------------------------------------------------------------------------------------


@pytest.fixture
def no_reading(monkeypatch):
    monkeypatch.setattr(scaling, "reading", lambda images, rounds: {"packed": 1e9, "JPEG": 1.0, "crops": 1.0})


@pytest.mark.usefixtures("no_reading")
def test_two_processes(tmp_path, capsys):
    if scaling.mpirun() is None or scaling.importlib.util.find_spec("mpi4py") is None:
        pytest.skip("needs mpi4py and mpirun: pip install -e '.[test]' has both")
    words = ["--quick", "--batches", "2", "4", "--oversubscribe", "--images-per-second", "100", "--batch-size", "8"]
    assert scaling.main([*words, "--out", str(tmp_path / "results" / "here")]) == 0
    written = json.loads((tmp_path / "results" / "here.json").read_text())
    assert [row["images"] for row in written["compared"]] == [2, 4]
    assert all(row["ratio"] > 0 for row in written["compared"])
    ((title, rows),) = written["predicted"].items()
    assert title == "100 images/s as given, not measured here"
    assert rows[-1]["link"] == scaling.LINKS[-1].name
    page = (tmp_path / "results" / "here.md").read_text()
    assert page.strip() == capsys.readouterr().out.strip()
    for heading in ("One process", "The sum of gradients", "Together", "Model: 100 images/s"):
        assert f"## {heading}" in page
    assert "- Through the host's memory" in page


@pytest.mark.usefixtures("no_reading")
def test_the_model_alone(monkeypatch, capsys):
    """Needs no MPI; the GPU's step is a bound, and says so."""
    net = Network(worker.ARCHITECTURES["zfnet"](), seed=0).parameters()
    shapes = {name: net[name].shape for name in reversed(net)}
    found = {"steps_s": {"1": [0.1]}, "shapes": shapes, "ready_s": dict.fromkeys(shapes, 0.05), "pass_s": 0.1}
    monkeypatch.setattr(scaling, "run", lambda options, n, device: found)
    monkeypatch.setattr(scaling, "mpirun", lambda: None)
    monkeypatch.setattr(scaling.backends, "status", lambda: {"cuda": "no GPU"})
    monkeypatch.setattr(scaling, "default_path", lambda facts: None)
    assert scaling.main(["--processes", "--batches", "1"]) == 0
    text = capsys.readouterr().out
    assert text.count("images/s, a bound from the machine code, not measured; 128 images a GPU") == 3
    assert "below 3,274 images of the whole batch" in text
    assert "Through the host's memory" not in text


def test_reading(monkeypatch):
    monkeypatch.setattr(scaling.loader, "BATCH", 5)
    rates = scaling.reading(12, 2)
    assert list(rates) == ["packed", "JPEG", "crops"]
    assert all(0 < rate < math.inf for rate in rates.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "1"], "--processes must be at least 2, got 1"),
        (["--processes", "2", "4096"], r"4096 processes of 1 threads need 4096 processors, and here are \d+"),
        (["--threads", "0"], "--threads must be positive and finite, got 0"),
        (["--images-per-second", "inf"], "--images-per-second must be positive and finite, got inf"),
        (["--launch", "srun -n 2"], r"--launch needs \{n\}, where the number of processes goes, got 'srun -n 2'"),
        (["--batches", "0"], "--batches must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        scaling.parse(words)
    assert stop.value.code == 2
    assert scaling.re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("missing", "said"),
    [("mpirun", "there is no mpirun: pip install mpich"), ("mpi4py", "there is no mpi4py: pip install 'zfcuda[mpi]'")],
)
def test_without_mpi(missing, said, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "mpirun", lambda: None if missing == "mpirun" else "/usr/bin/mpirun")
    monkeypatch.setattr(scaling.importlib.util, "find_spec", lambda name: None if missing == "mpi4py" else name)
    with pytest.raises(SystemExit) as stop:
        scaling.main(["--oversubscribe"])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert scaling.parse(["--processes"]).processes == []


def test_processes_that_fail(monkeypatch, capsys):
    options = scaling.parse(["--processes", "--quick"])
    options.launch = f"{sys.executable} -c 'import sys; sys.exit(\"no such host\")' {{n}}"
    with pytest.raises(scaling.FailedError, match=r"^3 processes end with 1: no such host$"):
        scaling.run(options, 3, "cpu")

    def fails(*_):
        raise scaling.FailedError("2 processes end with 1")

    monkeypatch.setattr(scaling, "run", fails)
    assert scaling.main(["--processes"]) == 1
    assert capsys.readouterr().err == "2 processes end with 1\n"


def test_results_are_named_by_the_machine():
    facts = {"processor": "AMD EPYC (TM)", "device": "cpu", "processors": "2"}
    assert scaling.default_path(facts).name == "scaling-amd-epyc-tm-cpu-2-processors"


# ---- What a process does -----------------------------------------------------------------------------------------


def test_one_process():
    process = worker.Process(worker.Job("zfnet_small", (1, 2), 3), Ranks())
    found = worker.alone(process)
    assert {n: len(samples) for n, samples in found["steps_s"].items()} == {"1": 3, "2": 3}
    assert next(iter(found["shapes"])) == "fc8.weight"
    assert found["ready_s"].keys() == found["shapes"].keys() == process.net.parameters().keys()
    ready = [found["ready_s"][name] for name in found["shapes"]]
    assert ready == sorted(ready)
    assert ready[-1] <= found["pass_s"]


def test_a_sum_that_is_wrong_is_not_timed():
    gradients = {"a": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)}
    process = types.SimpleNamespace(ranks=types.SimpleNamespace(rank=0, size=2))
    with pytest.raises(AssertionError, match="the sum of b is wrong"):
        worker._check(process, lambda: gradients["a"].fill(1.5), gradients)
