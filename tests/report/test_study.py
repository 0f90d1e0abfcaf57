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


def test_hostile_names_stay_text_in_a_study_too(runs, tmp_path):
    page = join(runs, tmp_path / "study", HOSTILE).read_text(encoding="utf-8")
    structure = Structure()
    structure.feed(page)
    assert HOSTILE not in page
    assert structure.handlers == []
    assert all(address.startswith(("data:image/", "#")) for address in structure.addresses)


def test_a_study_of_a_study_is_refused_and_so_is_what_is_no_report(runs, tmp_path):
    for content in ("{", "[]", '{"title": "x", "command": ""}'):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "report.json").write_text(content)
        (tmp_path / "bad" / "report.html").write_text("<html></html>")
        with pytest.raises(DataError, match="bad"):
            join([tmp_path / "bad"], tmp_path / "study")
    with pytest.raises(DataError, match="holds no report"):
        join([tmp_path / "nowhere"], tmp_path / "study")
    with pytest.raises(ValueError, match="directories is empty"):
        join([], tmp_path / "study")
    join(runs, tmp_path / "study")
    with pytest.raises(DataError, match="holds no report"):
        join([tmp_path / "study"], tmp_path / "again")
