"""Files of text that are none, or that nobody should wait for."""

import os

import pytest

from tests.commands.conftest import run
from zfcuda.files import read_json, read_text


def test_text(tmp_path):
    (tmp_path / "x").write_bytes("ä\n".encode())
    assert read_text(tmp_path / "x") == "ä\n"
    (tmp_path / "x").write_bytes(b"[1.5]")
    assert read_json(tmp_path / "x") == [1.5]
    for content in (b"\xff", b"[" * 100_000, b"{"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match=r"codec|deeply|Expecting"):
            read_json(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "y")


def _fifo(path):
    os.mkfifo(path)
    return path


def _vast(path):
    with path.open("wb") as file:
        file.truncate(2**40)
    return path


@pytest.mark.parametrize(
    ("make", "message"), [(_fifo, "it is not a file"), (_vast, "it holds 1,099,511,627,776 bytes")]
)
def test_commands_wait_for_no_fifo_and_read_no_terabyte(tmp_path, capsys, make, message):
    run("train", "--data", "fashion-mnist", "--model", make(tmp_path / "net.json"), "--out", tmp_path / "out")
    (tmp_path / "run").mkdir()
    make(tmp_path / "run" / "report.json")
    run("study", tmp_path / "run", "--out", tmp_path / "out")
    (tmp_path / "packed").mkdir()
    make(tmp_path / "packed" / "packed.json")
    run("pack", tmp_path / "packed", "--verify")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(message in line for line in lines)
