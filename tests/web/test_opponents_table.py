"""The report's table of searches without a model."""

import json

import pytest

from aha.web.opponents_table import opponents_table
from aha.web.report_page import report_html
from aha.web.runs import RunFolder


def point(rate, tokens, **more):
    interval = [max(0.0, rate - 0.02), min(1.0, rate + 0.02)]
    return {"solve_rate": rate, "interval": interval, "mean_tokens": tokens, **more}


def summary():
    rows = [
        {"search": "blind", **point(0.95, 116.2), "at_mean": point(0.6, 82.9)},
        {"search": "glance", **point(0.996, 66.0), "at_mean": point(0.996, 66.0)},
    ]
    opponents = {"tokens": 320, "mean_tokens": 83.1, "n": 1_000, "searches": rows}
    return {"after": point(0.926, 83.1), "opponents": opponents}


def test_the_model_stands_in_its_place():
    table = opponents_table(summary())
    assert (table["mean"], table["limit"], table["n"]) == ("83", "320", "1,000")
    assert [line["name"] for line in table["lines"]] == ["blind", "this model", "glance"]
    blind = table["lines"][0]
    assert (blind["at_mean"], blind["mean_used"]) == ("60.0% [58.0%, 62.0%]", "83")
    assert (blind["at_limit"], blind["limit_used"]) == ("95.0% [93.0%, 97.0%]", "116")


@pytest.mark.parametrize(
    "opponents", [None, 7, [], {}, {"searches": 3}, {"searches": [], "tokens": "many", "n": 1}]
)
def test_a_damaged_comparison_is_left_out(opponents):
    assert opponents_table({**summary(), "opponents": opponents}) is None


def test_a_run_of_earlier_has_none():
    assert opponents_table({"after": point(0.9, 80.0)}) is None
    assert opponents_table({"opponents": summary()["opponents"]}) is None


def test_damaged_rows_are_shown_as_missing():
    broken = summary()
    broken["opponents"]["searches"] = [5, {"search": ["x"], "at_mean": 3}, {}] * 50
    lines = opponents_table(broken)["lines"]
    assert len(lines) < 25 and lines[-1]["name"] == "this model"
    assert lines[0]["at_mean"] == lines[0]["mean_used"] == "–"


def test_it_is_on_the_page(run):
    path = run / "summary.json"
    kept = json.loads(path.read_text())
    assert "Among searches without a model" not in report_html(RunFolder(run))
    path.write_text(json.dumps({**kept, **summary()}))
    page = report_html(RunFolder(run))
    assert "Among searches without a model" in page
    assert "<td>60.0% [58.0%, 62.0%]</td>" in page
