import base64
import json

import pytest

from zfcuda import DataError
from zfcuda.report.study import join

from .fakes import HOSTILE, make_report
from .test_page import Structure


@pytest.fixture
def runs(tmp_path):
    for name in ("a", "b"):
        make_report().save(tmp_path / name)
    return [tmp_path / "a", tmp_path / "b"]


def test_a_study_is_one_page_with_all_sections_and_numbers(runs, tmp_path):
    path = join(runs, tmp_path / "study", "Two runs <&>")
    page = path.read_text(encoding="utf-8")
    one = (runs[0] / "report.html").read_text(encoding="utf-8")
    assert page.count("<section") == 2 * one.count("<section") == 10
    assert "Two runs &lt;&amp;&gt;" in page
    identifiers = [f'id="r{run}s{section}"' for run in (1, 2) for section in range(1, 6)]
    assert all(page.count(identifier) == 1 for identifier in identifiers)
    numbers = json.loads((path.parent / "report.json").read_text(encoding="utf-8"))
    assert [run["sections"].keys() for run in numbers["runs"]] == [{"Maps"}, {"Maps"}]


def check_harmless(page):
    """Titles, commands and names of classes are text, not markup."""
    structure = Structure()
    structure.feed(page)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert structure.handlers == []
    assert [kind for kind, _ in structure.scripts if kind != "application/json"] == [None]  # the page's own
    assert all(address.startswith(("data:image/", "#")) for address in structure.addresses)


def test_hostile_names_stay_text_in_a_study_too(runs, tmp_path):
    check_harmless(join(runs, tmp_path / "study", HOSTILE).read_text(encoding="utf-8"))


def test_whatever_the_files_of_a_run_say_is_text(runs, tmp_path):
    """All words of page.json, and the pages themselves, which nobody reads."""

    def spoiled(value, key=""):
        if isinstance(value, dict):
            return {name: spoiled(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [spoiled(item) for item in value]
        return value if not isinstance(value, str) or key == "kind" or value.startswith("data:") else HOSTILE

    for name in ("page.json", "report.json"):
        path = runs[0] / name
        path.write_text(json.dumps(spoiled(json.loads(path.read_text(encoding="utf-8")))))
    (runs[0] / "report.html").write_text(f"<main>{HOSTILE}</main>")
    page = join(runs, tmp_path / "study").read_text(encoding="utf-8")
    check_harmless(page)
    assert page.count("<section") == 10


@pytest.mark.parametrize(
    "change",
    [
        {"picture": "https://example.org/x.png"},
        {"picture": "javascript:window.hacked = true"},
        {"picture": None},
        {"kind": "script"},
        {"size": [1]},
    ],
)
def test_a_picture_that_is_none_is_refused(runs, tmp_path, change):
    shown = json.loads((runs[0] / "page.json").read_text(encoding="utf-8"))
    picture = shown["sections"][1]["parts"][0]
    assert picture["kind"] == "picture"
    picture |= change
    (runs[0] / "page.json").write_text(json.dumps(shown))
    with pytest.raises(DataError, match="a holds no report of zfcuda"):
        join(runs, tmp_path / "study")


def test_a_chart_of_a_study_is_its_picture(runs, tmp_path):
    page = join(runs, tmp_path / "study").read_text(encoding="utf-8")
    png = base64.b64encode((runs[0] / "error.png").read_bytes()).decode()
    assert page.count(png) == 2
    assert "<svg" not in page


def test_a_study_of_a_study_is_refused_and_so_is_what_is_no_report(runs, tmp_path):
    for content in ("{", "[]", '{"title": "x", "command": ""}'):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "report.json").write_text(content)
        (tmp_path / "bad" / "page.json").write_text(content)
        with pytest.raises(DataError, match="bad"):
            join([tmp_path / "bad"], tmp_path / "study")
    with pytest.raises(DataError, match="holds no report"):
        join([tmp_path / "nowhere"], tmp_path / "study")
    with pytest.raises(ValueError, match="directories is empty"):
        join([], tmp_path / "study")
    join(runs, tmp_path / "study")
    with pytest.raises(DataError, match="holds no report"):
        join([tmp_path / "study"], tmp_path / "again")
