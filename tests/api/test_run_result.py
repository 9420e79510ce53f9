"""A run as an object: its numbers, its completions, its report, its picture."""

import re
import sys

import pytest

import aha
from aha.api.run_result import as_table
from aha.core.errors import DataError, MissingExtra, RunError


@pytest.fixture
def run(train):
    return train(show=False, eval={"every": 1, "problems": 3, "final": 3})


def test_a_run_has_its_numbers(run):
    assert [row["step"] for row in run.rows] == [1, 2]
    assert [row["step"] for row in run.validations] == [1, 2]
    assert run.summary["steps"] == 2 and run.finished and run.findings == []
    assert run.config["steps"] == 2
    assert run.before["problems"] == run.after["problems"] == 3
    assert re.fullmatch(r"<run 'runs/digits': 2 steps; solve rate .* -> .*>", repr(run))


def test_completions_are_those_of_the_last_test_or_by_name(run):
    assert run.completions == run.completions_of("after") and len(run.completions) == 3
    assert len(run.completions_of(1)) == 6 and run.completions_of("before")
    for name in (9, "../config", "nothing"):
        with pytest.raises(DataError, match="no completions"):
            run.completions_of(name)


def test_a_run_that_is_not_finished_shows_its_last_step(run):
    (run.path / "summary.json").unlink()
    again = aha.open_run(run.path)
    assert again.completions == run.completions_of(2)
    assert "not finished" in repr(again) and again.summary is None


def test_the_metrics_are_a_data_frame(run):
    pandas = pytest.importorskip("pandas", reason="needs the extra [pandas]")
    assert isinstance(run.metrics, pandas.DataFrame)
    assert list(run.metrics["step"]) == [1, 2] and run.metrics["reward"].dtype == float


def test_without_pandas_the_rows_are_offered(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"pip install pandas.*\.rows") as caught:
        as_table([{"step": 1}])
    assert caught.value.extra == "pandas"


def test_the_report_is_one_file(run, tmp_path):
    assert run.report() == run.path / "report.html" and run.report().is_file()
    assert run.report(tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_the_picture_has_curves_and_completions(run):
    html = run._repr_html_()
    assert html.count("<svg") == 2 and html.count("<details") == 3
    assert html.count('class="interval diamond"') == 4  # both tests and two validations
    assert "<script" not in html and "http" not in html


def test_a_damaged_line_is_told(run):
    with (run.path / "metrics.jsonl").open("a") as out:
        out.write("{broken\n")
    with pytest.warns(RuntimeWarning, match="metrics.jsonl"):
        assert len(run.rows) == 2


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run in"):
        aha.open_run(tmp_path)


def test_the_trained_model_is_loaded(run):
    assert run.load().generate("1+1=", max_new_tokens=3)[0].tokens <= 3
