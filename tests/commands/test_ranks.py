"""Several processes leave the report that one leaves, byte for byte; and how they end when something goes wrong."""

import json
import re
import shutil
import signal
import sys

import pytest

import zfcuda
from tests import mpi
from tests.training import tiny
from zfcuda import cli
from zfcuda.nn import Architecture, ConvSpec, FullyConnectedSpec, MaxPoolSpec, ReLUSpec

from .conftest import run, write_fruit

# Steps that three processes do not share evenly.
COMMANDS = {
    "visualize": ["--batch-size", 5, "--maps", 6, "--top", 4],
    "diagnose": ["--split", "train"],
    "invariance": ["--steps", 5],
    "occlude": ["--images", 5, "--image-size", 20, "--clutter", 28, "--pointing", 7],
    "features": ["--per-class", 2, 4, "--draws", 2, "--classifier", "softmax", "svm", "--scratch-epochs", 1],
}

NET, FRUIT = "../net/checkpoint.safetensors", "../fruit"

# Those that do not share their work, and what they are given. `info` without a network may look at every machine.
ALONE = {
    "demo": [],
    "import": ["net.onnx", "--out", "net.safetensors"],
    "pack": [FRUIT, "--out", "packed"],
    "evolve": [NET],
    "faithfulness": [NET],
    "sanity": [NET],
    "correspond": [NET, "parts.json"],
    "study": ["one", "other"],
    "tune": [NET],
    "info": [NET, "--out", "out"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data and the checkpoint of a small net, as commands find them from a folder beside."""
    root = tmp_path_factory.mktemp("ranks")
    write_fruit(root / "fruit", {"train": 6, "test": 4})
    layers = (
        ConvSpec("conv1", 8, 5, stride=2, padding=2),
        ReLUSpec("relu1"),
        MaxPoolSpec("pool1", 2, 2),
        ConvSpec("conv2", 10, 3, padding=1),
        ReLUSpec("relu2"),
        FullyConnectedSpec("fc3", 16),
        ReLUSpec("relu3"),
        FullyConnectedSpec("fc4", 4),
    )
    (root / "net.json").write_text(json.dumps(Architecture((28, 28, 3), layers, initial="lecun").to_dict()))
    words = ("--model", root / "net.json", "--epochs", 4, "--batch-size", 8, "--lr", 0.02, "--quiet")
    assert run("train", "--data", root / "fruit", *words, "--out", root / "net") == 0
    return root


def words(name, *more):
    return ["zfcuda", name, NET, "--data", FRUIT, *COMMANDS[name], *more]


def left(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
def test_reports_do_not_depend_on_the_number_of_processes(name, place):
    found = []
    for n in (1, 2, 3):
        here = place / f"{name}-{n}"
        here.mkdir()
        done = mpi.run(mpi.command(n, *words(name, "--out", "out")), cwd=here)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"report: {here / 'out' / 'report.html'}\n"
        assert len(done.stderr.splitlines()) == (n > 1)  # which process each rank is
        found.append(left(here / "out"))
    assert {"report.html", "report.json", "page.json"} < found[0].keys()
    assert found[0] == found[1] == found[2]


FILES = [f"{FRUIT}/test/{name}/{number}.png" for name in ("apple", "date") for number in range(3)]
OF_FILES = ("zfcuda", "visualize", NET, "--image", *FILES, "--layers", "relu2", "pool1", "relu2", "--batch-size", 2)


def test_image_files_and_a_layer_that_is_named_twice(place):
    found = []
    for n in (1, 2):
        here = place / f"files-{n}"
        here.mkdir()
        done = mpi.run(mpi.command(n, *OF_FILES, "--out", "out"), cwd=here)
        assert done.returncode == 0, done.stderr
        found.append(left(here / "out"))
    assert found[0] == found[1]


# ---- A sweep -------------------------------------------------------------------------------------------------------

VARIANTS = ("--variants", "without layers 3,4", "as it is", "--seeds", 0, 1)
ABLATE = ("zfcuda", "ablate", "--data", FRUIT, *VARIANTS, "--epochs", 3, "--batch-size", 6, "--lr", 0.02)


def without_times(out):
    """What a sweep has left but for seconds: the table's numbers, and what each run has learned."""
    numbers = json.loads((out / "report.json").read_text())
    for rows in numbers["sections"]["Ablation"].values():
        for row in rows if isinstance(rows, list) else []:
            del row["seconds"]
    nets = {path.parent.name: zfcuda.load(path) for path in out.glob("runs/*/checkpoint.safetensors")}
    assert len(list(out.glob("runs/*/row.json"))) == len(nets) == 4
    return numbers, {name: (tiny.bits(net), net.origin) for name, net in nets.items()}, left(out).keys()


@pytest.fixture(scope="module")
def swept(place):
    """By one process."""
    (place / "sweep").mkdir()
    done = mpi.run(mpi.command(1, *ABLATE, "--out", "out"), cwd=place / "sweep")
    assert done.returncode == 0, done.stderr
    return without_times(place / "sweep" / "out"), sorted(done.stderr.splitlines())


@pytest.mark.parametrize("n", [2, 3])
def test_a_sweep(n, place, swept):
    here = place / f"sweep-{n}"
    here.mkdir()
    done = mpi.run(mpi.command(n, *ABLATE, "--out", "out"), cwd=here)
    assert done.returncode == 0, done.stderr
    found, said = swept
    assert without_times(here / "out") == found
    assert sorted(done.stderr.splitlines()[1:]) == [line for line in said if "epoch" not in line]
    again = mpi.run(mpi.command(n, *ABLATE, "--out", "out"), cwd=here)
    assert again.stderr.count(": taken from out/runs/") == 4
    assert without_times(here / "out") == found


@pytest.mark.parametrize("rank", [0, 1])
def test_a_sweep_that_is_killed_goes_on_with_any_number(rank, place, swept):
    here = place / f"killed-{rank}"
    here.mkdir()
    words = ("tests.commands.dying", rank, int(signal.SIGKILL), "zfcuda.analysis.ablation", "_run", *ABLATE[1:])
    killed = mpi.run(mpi.command(2, *words, "--out", "out"), cwd=here)
    assert killed.returncode != 0
    mpi.assert_all_end(mpi.ranks_of(killed.stderr.splitlines()[0]).values())
    rows = {path: path.read_bytes() for path in here.glob("out/runs/*/row.json")}
    assert 0 < len(rows) < 4
    assert not (here / "out" / "report.html").exists()
    done = mpi.run(mpi.command(3 - 2 * rank, *ABLATE, "--out", "out"), cwd=here)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": taken from ") == len(rows)
    assert rows == {path: path.read_bytes() for path in rows}
    assert without_times(here / "out") == swept[0]


def test_processes_of_ranks(place):
    (place / "processes").mkdir()
    done = mpi.run(mpi.command(2, *ABLATE, "--processes", 2, "--out", "out"), cwd=place / "processes")
    assert_refused(done, r"rank \d: processes must be 1 where 2 ranks share the runs, got 2")


# ---- What goes wrong -----------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(place, tmp_path):
    """What is in `place`, for a rank to find other things in."""
    for name in ("fruit", "net"):
        shutil.copytree(place / name, tmp_path / name)
    return tmp_path


def of_two(place, elsewhere, *command):
    """The command of two processes, of which the second one finds its files elsewhere."""
    command = command or (*words("visualize"), "--out", "two")
    folders = place / "two", elsewhere / "here"
    for folder in folders:
        folder.mkdir(exist_ok=True)
    each = [sys.executable, "-m", *map(str, command)]
    ranks = [["-n", "1", "-wdir", str(folder), *each] for folder in folders]
    return [mpi.mpirun(), *ranks[0], ":", *ranks[1]]


def assert_refused(done, said):
    """In one line, before any work."""
    assert done.returncode != 0
    (line,) = mpi.spoken(done)
    assert re.fullmatch(f"zfcuda: {said}", line), line
    assert "report:" not in done.stdout  # mpirun prints there, too


@pytest.mark.parametrize("name", COMMANDS)
def test_other_images(name, place, elsewhere):
    shutil.rmtree(elsewhere / "fruit")
    write_fruit(elsewhere / "fruit", {"train": 6, "test": 4}, seed=1)
    out = f"other-{name}"
    done = mpi.run(of_two(place, elsewhere, *words(name, "--out", out)))
    assert_refused(done, r"rank 1 differs from rank 0: .*images.* '\w+...\w+' instead of '\w+...\w+'.*")
    assert not (place / "two" / out).exists()
    assert not (elsewhere / "here" / out).exists()


def test_another_image_file(place, elsewhere):
    shutil.copy(elsewhere / "fruit/test/date/2.png", elsewhere / "fruit/test/apple/2.png")
    said = r"rank 1 differs from rank 0: images '\w+...\w+' instead of '\w+...\w+'"
    assert_refused(mpi.run(of_two(place, elsewhere, *OF_FILES, "--out", "files")), said)
    assert not (place / "two" / "files").exists()


def test_another_network(place, elsewhere):
    words = ("--model", place / "net.json", "--epochs", 1, "--batch-size", 8, "--quiet", "--out", elsewhere / "net")
    assert run("train", "--data", place / "fruit", *words) == 0
    said = r"rank 1 differs from rank 0: ../net/checkpoint.safetensors '\w+...\w+' instead of '\w+...\w+'"
    assert_refused(mpi.run(of_two(place, elsewhere)), said)


def test_other_options(place):
    both = of_two(place, place)
    both[-1:] = ["two", "--split", "train"]
    said = r"rank 1 differs from rank 0: split 'train' instead of None"
    assert_refused(mpi.run(both), said)


def test_a_sweep_of_other_images(place, elsewhere):
    shutil.copy(elsewhere / "fruit/train/date/2.png", elsewhere / "fruit/train/apple/2.png")
    said = r"rank 1 differs from rank 0: training images '\w+...\w+' instead of '\w+...\w+', settings .*"  # the scale
    assert_refused(mpi.run(of_two(place, elsewhere, *ABLATE, "--out", "out")), said)


def test_a_sweep_without_a_folder_of_all(place, elsewhere):
    said = "rank 1 does not see what rank 0 writes to out/runs, where all keep runs"
    assert_refused(mpi.run(of_two(place, elsewhere, *ABLATE, "--out", "out")), said)
    assert list((place / "two" / "out" / "runs").iterdir()) == []


def test_files_that_one_rank_does_not_find(place, elsewhere):
    shutil.rmtree(elsewhere / "fruit")
    assert_refused(mpi.run(of_two(place, elsewhere)), r"rank 1: ../fruit: no such data set.*")


def test_an_error_of_all(place):
    here = place / "error"
    here.mkdir()
    done = mpi.run(mpi.command(3, *words("visualize", "--layers", "pool9", "--out", "out")), cwd=here)
    assert_refused(done, r"rank \d: layer must be one of .*pool9.*")


def test_a_report_that_cannot_be_written(place):
    here = place / "blocked"
    (here / "out" / "report.html").mkdir(parents=True)
    done = mpi.run(mpi.command(2, *words("diagnose", "--out", "out")), cwd=here)
    assert_refused(done, r"rank 0: \[Errno 21\] Is a directory: 'out/report.html'")


def test_a_training_of_a_sweep_that_diverges(place):
    (place / "diverging").mkdir()
    command = mpi.command(2, *ABLATE, "--out", "out")
    command[command.index("--lr") + 1] = "1e14"
    done = mpi.run(command, cwd=place / "diverging")
    assert_refused(done, r"rank \d: the loss is .*")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_rank_that_is_killed(rank, number, place):
    """In its first batch. Of one that is killed mpirun says so, by its process."""
    here = place / f"dead-{rank}-{number.name}"
    here.mkdir()
    command = ("tests.commands.dying", rank, int(number), "zfcuda.analysis.deconvnet", "strongest")
    done = mpi.run(mpi.command(3, *command, *words("visualize", "--out", "out")[1:]), cwd=here)
    assert done.returncode != 0
    mpi.assert_all_end(mpi.ranks_of(done.stderr.splitlines()[0]).values())
    assert list((here / "out").iterdir()) == []
    assert mpi.spoken(done) == ([f"zfcuda: rank {rank}: interrupted"] if number == signal.SIGTERM else [])


@pytest.mark.parametrize("name", [*COMMANDS, "ablate"])
def test_several_processes_without_mpi4py(name, place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    for size in mpi.SIZES:
        monkeypatch.delenv(size, raising=False)
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.chdir(place / "net")
    command = ABLATE if name == "ablate" else words(name)
    assert cli.main([*map(str, command[1:]), "--out", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"zfcuda {name}: 4 processes were started, but MPI cannot be used: ")
    assert not (place / "net" / "out").exists()


# ---- Commands that do not share their work -------------------------------------------------------------------------


def test_every_command_either_shares_its_work_or_does_not():
    assert sorted(cli.COMMANDS) == sorted(["train", "ablate", *COMMANDS, *ALONE])


@pytest.mark.parametrize("name", ALONE)
def test_a_command_of_one_process(name, tmp_path, monkeypatch, capsys):
    """Before it looks for any file; the first of several processes speaks for all."""
    monkeypatch.chdir(tmp_path)
    for size in mpi.SIZES:
        monkeypatch.delenv(size, raising=False)
    monkeypatch.setenv("PMI_SIZE", "4")
    status = []
    for rank in ("0", "1", "3"):
        monkeypatch.setenv("PMI_RANK", rank)
        status.append(cli.main([name, *ALONE[name]]))
    assert status == [2, 0, 0]
    told = "4 processes were started, but this command does not share its work: start one, without mpirun"
    assert capsys.readouterr() == ("", f"zfcuda {name}: {told}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_command_of_one_process_under_mpirun(place):
    here = place / "alone"
    here.mkdir()
    done = mpi.run(mpi.command(3, "zfcuda", "sanity", NET, "--out", "out"), cwd=here)
    assert done.returncode != 0
    told = "3 processes were started, but this command does not share its work: start one, without mpirun"
    assert mpi.spoken(done) == [f"zfcuda sanity: {told}"]
    assert list(here.iterdir()) == []
