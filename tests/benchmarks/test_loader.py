"""benchmarks/loader.py: every contestant makes the same crops, and one that makes others gets no time."""

import json
import re

import numpy as np
import pytest

loader = pytest.importorskip("loader", reason="needs PyTorch")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    loader.make_pictures(folder, 12)
    return folder


def test_made_pictures_are_like_photographs(made):
    sizes = [path.stat().st_size for path in made.glob("*/*.jpg")]
    assert len(sizes) == 12
    assert 30_000 < np.mean(sizes) < 150_000
    with loader.Image.open(made / "a" / "000000.jpg") as picture:
        assert picture.size == loader.SIZE


def test_contestants_are_compared(made, tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "BATCH", 5)
    rows, rates = loader.compare(made, tmp_path, workers=0, rounds=2)
    assert [(row.problem, row.error, row.note) for row in rows] == [("packed", 0, ""), ("JPEG", 0, "")]
    assert list(rates) == ["packed", "JPEG"]
    for rate, part in zip(rates.values(), ("the crops", "decoding"), strict=True):
        against, share = rate.split("; ")
        assert re.fullmatch(r"[\d,]+ images/s, DataLoader \(.*\) [\d,]+: [\d.]+ times as fast", against)
        assert re.fullmatch(rf"\d+% of the rate of {part} alone, [\d,]+", share)


def test_other_crops_get_no_time(made, tmp_path, monkeypatch):
    crops = loader.Preprocess.crops
    monkeypatch.setattr(loader.Preprocess, "crops", lambda self, *arrays: crops(self, *arrays) + 1)
    rows, rates = loader.compare(made, tmp_path, workers=0, rounds=2)
    assert [row.note for row in rows] == 2 * ["wrong: error 1.0e+00, at most 0e+00 is allowed"]
    assert rates == {}


def test_results_are_written(made, tmp_path, monkeypatch, capsys):
    words = ["--data", str(made), "--workers", "0", "--rounds", "2", "--out", str(tmp_path / "found")]
    monkeypatch.setattr("sys.argv", ["loader.py", *words])
    loader.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["problem"] for row in found["rows"]] == ["packed", "JPEG"]
    printed, page = capsys.readouterr().out, (tmp_path / "found.md").read_text()
    for problem in ("packed", "JPEG"):
        line = f"{problem}: {found['environment'][problem]}"
        assert line in printed
        assert line in page


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--data", "none"], "none: no such data set"), (["--rounds", "1"], "--rounds must be at least 2, got 1")],
)
def test_wrong_arguments(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["loader.py", *words])
    with pytest.raises(SystemExit) as stop:
        loader.main()
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
