"""Files and folders that mean harm, or look like it: each is read right or refused with one clear line, within a
gigabyte and a time that no slow processor needs. `hostile.py` has them all."""

import json
import re
import select
import subprocess
import sys

import pytest

from .hostile import CASES, DAMAGED, fifo

# Of processor time: the slowest, nine pictures that Pillow reads in Python, take 8 on a Zen 3.
SECONDS, BYTES = 30.0, 2**30


@pytest.fixture(scope="module")
def server():
    command = [sys.executable, "-m", "tests.data.reading"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("name", CASES)
def test_hostile(tmp_path, server, name):
    make, expected = CASES[name]
    path = make(tmp_path / "set")
    for on_error in ("raise", "skip") if isinstance(expected, str) else ("raise",):
        print(json.dumps({"data": str(path), "on_error": on_error}), file=server.stdin, flush=True)
        assert select.select([server.stdout], [], [], 90)[0], "it takes more than 90 seconds"
        found = json.loads(server.stdout.readline())
        assert found["seconds"] < SECONDS
        assert found["bytes"] < BYTES
        if on_error == "skip" and isinstance(expected, str) and expected.startswith(DAMAGED):
            assert (found["images"], found["left out"]) == ([6, 2], 1)
        elif isinstance(expected, str):
            line = " ".join(found["error"].split())
            assert found["kind"] in ("DataError", "DamagedFiles", "NoClassFolders", "FileNotFoundError"), found
            assert line.startswith(str(path).replace("\0", "\N{REPLACEMENT CHARACTER}"))
            assert re.search(expected, line), line
            assert line.isprintable()
        else:
            assert (found["images"], found["left out"]) == (expected, 0)


def test_the_command_line_says_one_line_and_its_own_option(tmp_path):
    path = fifo(tmp_path / "set")
    for rest in ([], ["--skip-damaged"]):
        command = [
            sys.executable,
            "-m",
            "zfcuda.cli",
            "train",
            "--data",
            str(path),
            "--out",
            str(tmp_path / "out"),
            *rest,
        ]
        shown = subprocess.run([*command, "--epochs", "1", "--quiet"], capture_output=True, text=True, timeout=100)
        if rest:
            assert shown.stderr.splitlines()[:1] == [f"left out {path}/a/x.png: is a FIFO, not a file"]
            assert shown.stderr.count("left out") == 1
        else:
            assert shown.stderr.splitlines() == [
                f"zfcuda train: {path}: 1 of 9 files cannot be read (--skip-damaged goes on without them): "
                f"{path}/a/x.png: is a FIFO, not a file"
            ]
            assert shown.returncode == 2
