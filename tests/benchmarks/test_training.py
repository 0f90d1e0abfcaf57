"""benchmarks/training.py: both libraries see the same, and one that computes something else is noticed."""

import json

import numpy as np
import pytest
from PIL import Image

training = pytest.importorskip("training", reason="needs PyTorch")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for half, each in (("train", 16), ("test", 2)):
        for name in ("a", "b"):
            (folder / half / name).mkdir(parents=True)
            for i in range(each):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / half / name / f"{i}.png")
    return folder


def test_both_learn_the_same(pictures, tmp_path, capsys):
    words = [str(pictures), "--batch-size", "8", "--epochs", "1", "--lr", "0.01", "--out", str(tmp_path / "found.json")]
    assert training.main(words) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    ours, theirs = (np.array(found["loss"][side]) for side in ("zfcuda", "torch"))
    assert len(ours) == 4
    np.testing.assert_allclose(ours[:3], theirs[:3], rtol=training.SAME)
    assert ours[0] != ours[1]
    assert [len(found["accuracy"][side]) for side in ("zfcuda", "torch")] == [1, 1]
    assert found["median_step_ms"]["zfcuda"] > 0
    assert "epoch 1: accuracy zfcuda" in capsys.readouterr().out


def test_other_losses_are_noticed(pictures, monkeypatch, capsys):
    monkeypatch.setattr(training, "their_step", lambda module: lambda x, labels, lr: 1.0)
    assert training.main([str(pictures), "--batch-size", "2"]) == 1
    assert "the first losses are not the same" in capsys.readouterr().err


def test_rate_rises_and_falls():
    rates = [training.rate(step, 100, 0.1) for step in range(100)]
    assert np.argmax(rates) in (19, 20)
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] < 1e-4


def test_wrong_data(tmp_path, capsys):
    assert training.main([str(tmp_path / "nothing")]) == 2
    for half in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / half / name).mkdir(parents=True)
            Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(tmp_path / half / name / "0.png")

    assert training.main([str(tmp_path)]) == 2
    assert "must be square and coloured, not 16 x 20 x 3" in capsys.readouterr().err
