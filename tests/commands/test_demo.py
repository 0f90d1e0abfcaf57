"""`zfcuda demo`: its report grows, the first pictures come while it trains, and nothing of that is left in the end."""

import json

import pytest

from zfcuda import data
from zfcuda.commands import demo

from .conftest import run

WORDS = ("demo", "--epochs", 2, "--quiet", "--out")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The demo on a few of its images."""
    whole = data.open(data.FASHION_MNIST)
    split = data.Split(data.sample(whole.train, 128), data.sample(whole.test, 60))
    monkeypatch.setattr(data, "open", lambda name: split)
    monkeypatch.setattr(demo, "_ABLATION_EPOCHS", 1)


@pytest.fixture
def after_epochs(monkeypatch):
    """Has a function called after every epoch, when the demo has looked at it."""

    def call(function):
        class Watched(demo.Trainer):
            def fit(self, *arguments, callbacks, **options):
                return super().fit(*arguments, callbacks=[*callbacks, function], **options)

        monkeypatch.setattr(demo, "Trainer", Watched)

    return call


def page_of(directory):
    return (directory / "report.html").read_text(encoding="utf-8")


def test_the_report_grows(tmp_path, monkeypatch, capsys):
    """It has pictures before the training has ended. Whenever its page is written, that is whole; the last one is not
    unfinished any more."""
    pages, save = [], demo.Report.write_page

    def write_page(report, directory, **options):
        path = save(report, directory, **options)
        pages.append((page_of(tmp_path), [section.title for section in report.sections]))
        return path

    monkeypatch.setattr(demo.Report, "write_page", write_page)
    assert run(*WORDS, tmp_path) == 0
    *growing, (finished, sections) = pages
    blocks = [f"Block {block}" for block in range(1, 6)]
    trust, last = "How far to trust such pictures", sections[-1]
    looked = ["Training", "The network", *blocks, trust]
    early = [f"Block {block} after one epoch" for block in (1, 2, 5)]
    assert [titles for _, titles in growing] == [
        [],
        ["Training", *early],
        ["Training", *early],
        looked,
        [*looked, "Occlusion"],
    ]
    for (page, titles), part in zip(growing, ("1/4", "1 of 2 epochs done", "2/4", "3/4", "4/4"), strict=True):
        assert page.rstrip().endswith("</html>")
        assert "Unfinished at " in page
        assert "location.reload()" in page
        assert page.count("<h2>") == len(titles)
        assert part in page
    first, _ = growing[1]
    assert first.count('class="map"') > 8
    assert 'data-layer="pool5"' in first
    assert sections == [*looked, "Occlusion", last]
    for words in ("Unfinished", "location.reload()", "after one epoch"):
        assert words not in finished
    lines = capsys.readouterr().out.splitlines()
    assert [line[:3] for line in lines if " to go)" in line] == ["1/4", "the", "2/4", "3/4", "4/4"]
    assert lines[-1] == f"report: {tmp_path / 'report.html'}"


def test_what_was_there_before_looks_unfinished_at_once(tmp_path, monkeypatch):
    """Also where the demo ends before it has anything to show."""
    (tmp_path / "report.html").write_text("an old report")
    monkeypatch.setattr(demo, "mean_image", lambda images: pytest.fail(page_of(tmp_path)))
    with pytest.raises(pytest.fail.Exception, match=r"Unfinished at .*, about \d+ \w+ to go"):
        run(*WORDS, tmp_path)


@pytest.mark.parametrize(("at", "done", "sections"), [(0, 0, 0), (1, 1, 4)])
def test_ctrl_c_while_it_trains(tmp_path, after_epochs, monkeypatch, at, done, sections):
    def pressed(*_):
        raise KeyboardInterrupt

    if at:
        after_epochs(pressed)
    else:
        monkeypatch.setattr(demo.Trainer, "_epoch", pressed)
    assert run(*WORDS, tmp_path) == 130
    page = page_of(tmp_path)
    assert f"this report is partial: {done} of 2 epochs trained." in page
    assert page.count("<h2>") == sections
    assert "Unfinished" not in page
    if sections:
        assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["partial"] == [
            f"{done} of 2 epochs trained"
        ]


def test_ctrl_c_in_the_first_look_ends_the_training(tmp_path, monkeypatch):
    def stopped(*arguments, **options):
        return True

    monkeypatch.setattr(demo, "add_visualization", stopped)
    assert run(*WORDS, tmp_path) == 130
    assert "this report is partial: 1 of 2 epochs trained." in page_of(tmp_path)
