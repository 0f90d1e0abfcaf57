"""Ctrl-C during every command that takes long: the report that it leaves, which says that it is partial. Other ends of
a process: what they leave is whole."""

import contextlib
import json
import multiprocessing.resource_tracker
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from zfcuda import cli
from zfcuda.analysis import progress
from zfcuda.data import Preprocess
from zfcuda.files import write_atomically
from zfcuda.nn import Network, load, models
from zfcuda.report import page

CLASSES = ("cat", "dog")
CTRL_C = 130


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of 28 x 28 images: 8 each to train on, 6 each to test on."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for half, count in (("train", 8), ("test", 6)):
        for name in CLASSES:
            (root / half / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8)).save(root / half / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_net(tmp_path_factory.mktemp("net") / "net.safetensors", (28, 28, 3), (28, 28))


def save_net(path, shape, crop):
    net = Network(models.zfnet_small_architecture(len(CLASSES), (*crop, 3)))
    net.preprocess = Preprocess(np.full(shape, 128, np.float32), crop=crop, scale=1 / 64)
    net.classes = CLASSES
    net.save(path)
    return path


@pytest.fixture
def stopped(monkeypatch, tmp_path, capsys):
    """Runs a command and presses Ctrl-C at the end of the given steps, counted over all of its loops."""

    def run(*words, at):
        done = []

        class Pressed(progress.tqdm):
            def update(self, n=1):
                done.append(n)
                if len(done) in at:
                    raise KeyboardInterrupt
                return super().update(n)

        monkeypatch.setattr(progress, "tqdm", Pressed)
        assert cli.main([str(word) for word in (*words, "--out", tmp_path, "--quiet")]) == CTRL_C
        numbers = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "this report is partial: " + "; ".join(numbers["partial"]) + "." in page
        assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("interrupted: ")] == [
            f"interrupted: {how_far}" for how_far in numbers["partial"]
        ]
        return numbers["partial"], numbers["sections"]

    return run


def test_visualize_while_it_ranks(stopped, checkpoint, folder):
    words = ("visualize", checkpoint, "--data", folder, "--batch-size", 4, "--maps", 2)
    partial, sections = stopped(*words, at=[2])
    assert partial == ["8 of 12 images ranked"]
    assert list(sections) == [f"Block {block}" for block in range(1, 6)]
    for section in sections.values():
        assert np.shape(section["indices"]) == (2, 8)  # of the 9 winners asked for, the 8 images seen
        assert np.max(section["indices"]) < 8


def test_visualize_while_it_projects(stopped, checkpoint, folder, tmp_path):
    words = ("visualize", checkpoint, "--data", folder, "--batch-size", 12, "--maps", 3, "--top", 6)
    # A batch ranked; two maps of block 1 (a batch of winners, the maps), then one; two of block 2.
    partial, sections = stopped(*words, at=[1 + 2 + 2 + 2])
    assert partial == ["2 of 3 maps of pool2 projected"]
    assert list(sections) == [f"Block {block}" for block in range(1, 6)]
    assert (tmp_path / "top-pool1.png").exists()
    assert np.shape(sections["Block 2"]["values"]) == (2, 6)
    assert np.shape(sections["Block 5"]["values"]) == (128, 6)  # the ranking of all its maps
    assert not (tmp_path / "top-pool5.png").exists()


def test_a_second_ctrl_c_ends_what_the_first_left(stopped, checkpoint, folder):
    words = ("visualize", checkpoint, "--data", folder, "--batch-size", 4, "--maps", 2, "--top", 4)
    partial, _ = stopped(*words, at=[2, 4])
    assert partial == ["8 of 12 images ranked", "1 of 2 maps of pool1 projected"]


def test_visualize_while_it_checks_the_rules(stopped, checkpoint, folder):
    words = ("visualize", checkpoint, "--data", folder, "--batch-size", 64, "--maps", 1, "--layers", "pool1")
    # A batch ranked, a batch of winners, their map; then two images.
    partial, sections = stopped(*words, at=[1 + 2 + 2])
    assert partial == ["2 of 5 images compared"]
    assert list(sections) == ["Block 1", "How far to trust such pictures"]
    assert len(sections["How far to trust such pictures"]["units"]) == 2


def test_sanity(stopped, checkpoint, folder, tmp_path):
    words = ("sanity", checkpoint, "--data", folder, "--images", 3, "--size", 14, "--stride", 14)
    partial, sections = stopped(*words, at=[2 * (9 + 1)])  # of each image a batch of places in each of nine nets
    assert partial == ["2 of 3 images compared"]
    assert len(sections["How far to trust such pictures"]["units"]) == 2
    assert (tmp_path / "sanity-02.png").exists()
    assert not (tmp_path / "sanity-03.png").exists()


def test_diagnose(stopped, checkpoint, folder, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(checkpoint.read_bytes())
    partial, sections = stopped("diagnose", checkpoint, other, "--data", folder, at=[1])
    assert partial == ["12 of 12 images measured"]
    assert list(sections) == [f"Diagnosis of {checkpoint}"]


def test_invariance(stopped, checkpoint, folder):
    words = ("invariance", checkpoint, "--data", folder, "--images", 4, "--steps", 3)
    partial, sections = stopped(*words, at=[3])
    assert partial == ["3 of 4 images transformed"]
    assert len(sections["Invariance"]["labels"]) == 3


def test_correspond(stopped, checkpoint, folder, tmp_path):
    parts = tmp_path / "parts.json"
    boxes = {"ear": [0, 0, 9, 9], "nose": [9, 9, 9, 9]}
    parts.write_text(json.dumps({str(folder / "test" / "cat" / f"{i}.png"): boxes for i in range(3)}))
    # The images as they are are a batch; then there is one for each mask.
    partial, sections = stopped("correspond", checkpoint, parts, at=[1 + 2])
    assert partial == ["1 of 12 masks compared"]
    assert {cell["part"] for cell in sections["Correspondence"]["cells"]} == {"ear"}


def test_occlude(stopped, checkpoint, folder):
    words = ("occlude", checkpoint, "--data", folder, "--images", 3, "--size", 14, "--stride", 14)
    partial, sections = stopped(*words, at=[2 + 2])  # a batch of places, then its image
    assert partial == ["2 of 3 images occluded"]
    assert len(sections["Occlusion"]) == 2


def test_occlude_while_it_points(stopped, folder, tmp_path):
    checkpoint = save_net(tmp_path / "net.safetensors", (40, 40, 3), (40, 40))
    words = ("occlude", checkpoint, "--data", folder, "--clutter", 40, "--images", 1, "--pointing", 3)
    # One image: a batch of places, the image, the batch that is ranked, the strongest map's winners, the map. Then a
    # batch of places and the image, twice of three times.
    partial, sections = stopped(*words, "--size", 20, "--stride", 20, at=[5 + 4])
    assert partial == ["2 of 3 images pointed at"]
    assert len(sections["Pointing"]["hits"]) == 2


def test_features(stopped, checkpoint, folder):
    words = ("--per-class", 2, 4, "--draws", 1, "--layers", "pool5", "--classifier", "softmax", "svm")
    # Each draw reads a batch to train on and one to test on.
    partial, sections = stopped("features", checkpoint, "--data", folder, *words, at=[3])
    assert partial == ["1 of 2 draws of training images measured"]
    assert list(sections) == ["Frozen features, softmax"]
    assert [score["per_class"] for score in sections["Frozen features, softmax"]["scores"]] == [2]


def test_ablate_and_the_run_after(stopped, folder, monkeypatch, tmp_path):
    words = ("ablate", "--data", folder, "--epochs", 1, "--variants", "as it is", "without layers 3,4")
    partial, sections = stopped(*words, at=[1])
    assert partial == ["1 of 2 runs finished"]
    assert [run["variant"] for run in sections["Ablation"]["runs"]] == ["as it is"]
    monkeypatch.undo()
    assert cli.main([str(word) for word in (*words, "--out", tmp_path, "--quiet")]) == 0
    numbers = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert numbers["partial"] == []
    assert numbers["sections"]["Ablation"]["runs"][0] == sections["Ablation"]["runs"][0]  # not trained again
    assert "partial" not in (tmp_path / "report.html").read_text(encoding="utf-8").partition("<main")[2]


def test_nothing_done_leaves_no_report(checkpoint, folder, monkeypatch, tmp_path, capsys):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("zfcuda.data.folders.FolderDataset.batch", pressed)
    words = ("visualize", checkpoint, "--data", folder, "--out", tmp_path, "--quiet")
    assert cli.main([str(word) for word in words]) == CTRL_C
    assert "zfcuda visualize: interrupted" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def open_once_it_is_read(pipe, process):
    """A descriptor to write to a named pipe, as soon as the process has it open for reading."""
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads
            time.sleep(0.01)
    raise AssertionError(f"the command has ended: {process.communicate()}")


_ENDLESS = """
import sys
from zfcuda import cli
from zfcuda.data import FolderDataset

pipe, *words = sys.argv[1:]
batch = FolderDataset.batch
FolderDataset.batch = lambda dataset, indices: open(pipe).read() if 8 in indices else batch(dataset, indices)
sys.exit(cli.main(words))
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes, to know when the command is where it is")
def test_a_real_signal(checkpoint, folder, tmp_path):
    """A batch that never ends: whoever reads it has ranked what comes before."""
    endless = tmp_path / "pipe"
    os.mkfifo(endless)
    words = ("visualize", checkpoint, "--data", folder, "--batch-size", 4, "--maps", 1, "--out", tmp_path / "out")
    command = [sys.executable, "-c", _ENDLESS, *map(str, (endless, *words))]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background may ignore Ctrl-C, and with them what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    rescue = threading.Timer(120, process.kill)
    rescue.start()
    writing = open_once_it_is_read(endless, process)
    process.send_signal(signal.SIGINT)
    first = process.stderr.readline()
    os.close(writing)
    report, errors = process.communicate()
    rescue.cancel()
    assert (first + errors).splitlines() == ["interrupted: 8 of 12 images ranked"]
    assert report == f"report: {(tmp_path / 'out' / 'report.html').resolve()}\n"
    assert process.returncode == CTRL_C
    about = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert about["partial"] == ["8 of 12 images ranked"]
    assert len(about["sections"]) == 5


# ---- Processes that end, in whatever way -------------------------------------------------------------------------

_SOON = 20  # seconds on a busy machine; the training that is stopped would go on for minutes
linux = pytest.mark.skipif(sys.platform != "linux", reason="finds processes as Linux shows them")


def started(*words):
    """The command in a process of its own, which is the only one to get a signal that is sent to it."""
    return subprocess.Popen(
        [sys.executable, "-m", "zfcuda.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def descendants(pid):
    """The processes that a process has started, and those that they have."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
            parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
    found, below = set(), {pid}
    while below := {child for child, parent in parents.items() if parent in below} - found:
        found |= below
    return found


def until(condition, what, process=None, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, f"the command has ended: {process.communicate()}"
        assert time.monotonic() < end, f"{what}: not within {seconds} seconds"
        time.sleep(0.02)


def ended(pid):
    """Whether a process is no more, or waits for nobody but init to notice."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


ABLATE = ("--epochs", 400, "--batch-size", 8, "--variants", "as it is", "--seeds", 0, 1, "--processes", 2, "--quiet")


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_ablate_ends_its_processes(folder, tmp_path, number):
    """At once, and what they have written is whole: a second run goes on with it."""
    process = started("ablate", "--data", folder, "--out", tmp_path, *ABLATE)
    until(lambda: len(list(tmp_path.glob("runs/*/metrics.jsonl"))) == 2, "two runs with an epoch", process)
    children = descendants(process.pid)
    assert len(children) >= 2
    process.send_signal(number)
    errors = process.communicate(timeout=_SOON)[1]
    until(lambda: all(map(ended, children)), "the end of its processes", seconds=_SOON)
    assert process.returncode == (CTRL_C if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert errors == "interrupted: 0 of 2 runs finished\nzfcuda ablate: interrupted\n"
    before = {path: path.read_text() for path in tmp_path.glob("runs/*/metrics.jsonl")}
    assert all(1 <= len(text.splitlines()) < 400 for text in before.values())

    process = started("ablate", "--data", folder, "--out", tmp_path, *ABLATE)
    until(lambda: all(len(path.read_text()) > len(text) for path, text in before.items()), "epochs", process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_SOON)
    for path, text in before.items():
        assert path.read_text().startswith(text)  # the epochs that were done are not done again
        load(path.with_name("checkpoint.safetensors"))


@linux
def test_ctrl_c_between_two_runs_ends_the_others(folder, tmp_path, monkeypatch):
    """While the parent does something else than wait."""
    multiprocessing.resource_tracker.ensure_running()  # which lives as long as this process
    seen, before = [], descendants(os.getpid())

    def pressed(run):
        seen.append(descendants(os.getpid()) - before)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("zfcuda.commands.ablate._say", pressed)
    words = ("--epochs", 1, "--batch-size", 8, "--seeds", 0, 1, 2, 3, 4, 5, "--processes", 2, "--quiet")
    words = ("ablate", "--data", folder, "--variants", "as it is", *words, "--out", tmp_path)
    assert cli.main([str(word) for word in words]) == CTRL_C
    until(lambda: all(map(ended, seen[1])), "the end of its processes", seconds=_SOON)
    assert len(list(tmp_path.glob("runs/*/row.json"))) < 6
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["partial"] == ["1 of 6 runs finished"]


# ---- While a report is being written --------------------------------------------------------------------------------


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_while_a_report_is_being_written(checkpoint, folder, tmp_path, monkeypatch, presses):
    """The first waits until it is there; a second one leaves what was there before."""
    words = ["diagnose", str(checkpoint), "--data", str(folder), "--out", str(tmp_path), "--quiet"]
    assert cli.main(words) == 0
    before = (tmp_path / "report.html").read_text(encoding="utf-8")
    whole = page.write_json

    def pressed(path, value):
        monkeypatch.setattr(page, "write_json", whole)
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)
        whole(path, value)

    monkeypatch.setattr(page, "write_json", pressed)
    assert cli.main([*words, "--images", "2"]) == CTRL_C
    after = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (after == before) == (presses == 2)
    assert after.rstrip().endswith("</html>")
    json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not list(tmp_path.glob(".*"))


_WRITES = """
import os, sys
from zfcuda.files import write_atomically
def fsync(descriptor):  # killed when all is in the file, but the file not yet in its place
    os.kill(os.getpid(), 9)
os.fsync = fsync
write_atomically(sys.argv[1], b"new")
"""


def test_what_a_killed_process_leaves_is_taken_away_by_the_next(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"old and longer")
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", _WRITES, path]).returncode == -signal.SIGKILL
        assert path.read_bytes() == b"old and longer"
        assert len(list(tmp_path.iterdir())) == 2
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


_MANY = """
import sys
from zfcuda.files import write_atomically
for i in range(200):
    write_atomically(sys.argv[1], sys.argv[2].encode() * 10_000)
"""


def test_two_processes_that_write_one_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"a")
    writers = [subprocess.Popen([sys.executable, "-c", _MANY, path, letter]) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        found = path.read_bytes()
        assert found in (b"a", b"a" * 10_000, b"b" * 10_000)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


_LIMITED = """
import resource, sys
from zfcuda import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("limit", "words", "name"),
    [
        (100_000, ("train", "--epochs", "1", "--batch-size", "8"), "checkpoint.safetensors"),
        (1000, ("diagnose", "NET"), "diagnosis-01.png"),
        (20_000, ("diagnose", "NET"), "report.html"),
    ],
)
def test_an_error_of_the_disk_names_the_file(checkpoint, folder, tmp_path, limit, words, name):
    """A limit on the size of files, as from a quota or a full disk."""
    words = [str(checkpoint) if word == "NET" else word for word in words]
    command = [sys.executable, "-c", _LIMITED, str(limit), *words, "--data", folder, "--out", tmp_path, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(rf"zfcuda {words[0]}: {re.escape(str(tmp_path))}/[^/]*: File too large", line)
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / name).exists()
