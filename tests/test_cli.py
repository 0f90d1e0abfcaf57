"""The command line: which commands there are, help, and how it ends."""

import os
import subprocess
import sys

import pytest

from zfcuda import cli

from .commands.conftest import run


def test_the_package_runs_as_the_script_does():
    done = subprocess.run([sys.executable, "-m", "zfcuda", "info"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("zfcuda ")
    done = subprocess.run([sys.executable, "-m", "zfcuda", "--help"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("usage: zfcuda ")


def test_a_reader_that_has_seen_enough_is_no_error():
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run([sys.executable, "-m", "zfcuda", "info"], stdout=writes, stderr=subprocess.PIPE, check=False)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, b"")


def test_info_says_what_can_run_and_why_the_rest_cannot(capsys, monkeypatch):
    monkeypatch.setattr(
        "zfcuda.backends.status", lambda: {"cpu": "", "cuda": "no NVIDIA driver was found", "emulated": ""}
    )
    monkeypatch.setattr("zfcuda.backends.get", lambda name: type("B", (), {"module": _Module}))
    assert run("info") == 0
    text = capsys.readouterr().out
    assert "cpu       usable: 2 threads" in text
    assert "cuda      not usable: no NVIDIA driver was found" in text
    assert "install the CUDA toolkit" in text
    assert "built from " in text
    assert "numpy" in text


class _Module:
    @staticmethod
    def description():
        return "2 threads"


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help(command, capsys):
    assert run(*filter(None, [command]), "--help") == 0
    assert "usage: zfcuda" in capsys.readouterr().out


def test_ctrl_c(monkeypatch, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("zfcuda.commands.info.run", interrupt)
    assert run("info") == 130
    assert capsys.readouterr().err == "zfcuda info: interrupted\n"


@pytest.mark.parametrize("words", [(), ("fly",), ("train",)])
def test_usage(words, capsys):
    assert run(*words) == 2
    assert "usage: zfcuda" in capsys.readouterr().err
