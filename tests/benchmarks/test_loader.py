"""benchmarks/loader.py: every contestant makes the same crops, and one that makes others gets no time."""

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
    text = loader.compare(made, tmp_path, workers=0, rounds=2)
    for problem in ("packed", "JPEG"):
        assert re.search(rf"\| loader {problem} .* 0e\+00 \|  \|", text)
        assert re.search(rf"{problem}: [\d,]+ images/s, DataLoader \(.*\) [\d,]+: [\d.]+ times as fast", text)


def test_other_crops_get_no_time(made, tmp_path, monkeypatch):
    crops = loader.Preprocess.crops
    monkeypatch.setattr(loader.Preprocess, "crops", lambda self, *arrays: crops(self, *arrays) + 1)
    text = loader.compare(made, tmp_path, workers=0, rounds=2)
    assert text.count("wrong: error 1.0e+00, at most 0e+00 is allowed") == 2
    assert "images/s" not in text


def test_there_must_be_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["loader.py", "--data", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as stop:
        loader.main()
    assert stop.value.code == 2
    assert "none: no such data set" in capsys.readouterr().err
