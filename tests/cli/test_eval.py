"""The line of `aha eval`."""

import json
from pathlib import Path

import pytest

from aha.cli.eval import solve_rate_line
from aha.dist.local_ranks import can_meet

from ..tiny import tiny_folder

ROOT = Path(__file__).resolve().parents[2]
ROW = {
    "solve_rate": 0.25,
    "interval": [0.2, 0.3],
    "problems": 1000,
    "available": None,
    "mean_tokens": 60.2,
    "truncated": 0.0,
}


def test_pass_at_k_is_in_the_text_too():
    assert "pass@" not in solve_rate_line("m", ROW)
    passed = {"pass_at_k": {"1": 0.25, "2": 0.4, "4": 0.5678}}
    assert solve_rate_line("m", ROW | passed) == (
        "m: solve rate 0.250 [0.200, 0.300] on 1,000 problems, 60 tokens each, 0.0% truncated, "
        "pass@2 0.400, pass@4 0.568"
    )


@pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")
def test_two_ranks_write_what_one_writes(aha, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))  # a started process has this one's sys.path
    model = tiny_folder(tmp_path / "tiny")
    words = ("eval", model, "--n", 9, "--max-new-tokens", 20, "--json")
    rows = []
    for ranks in (1, 2):
        done = aha(*words, "--ranks", ranks, "--out", f"{ranks}.jsonl")
        assert done.code == 0, done.err
        rows.append({key: value for key, value in json.loads(done.out).items() if key != "seconds"})
    assert rows[0] == rows[1]
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_numbers_of_ranks_that_cannot_work_are_one_line(aha, tmp_path):
    model = tiny_folder(tmp_path / "tiny")
    for number in ("0", "two", "100000"):
        done = aha("eval", model, "--n", 1, "--ranks", number)
        assert done.code == 2 and "--ranks" in done.err and done.err.count("\n") == 1


# -- thinking budgets -------------------------------------------------------------------------

THINKING = {
    "max_tokens": 64,
    "min_tokens": 0,
    "mean_tokens": 41.2,
    "control": 1.0,
    "closed_by_budget": 0.25,
    "not_closed": 0.0,
    "mean_waits": 0.0,
}


def test_a_budget_is_in_the_text_too():
    assert solve_rate_line("m", ROW | {"thinking": THINKING}).endswith(
        "; 41 tokens of thinking each, 100.0% of the thoughts within 0 to 64 tokens, 25.0% closed "
        "by the budget"
    )
    more = THINKING | {"mean_waits": 1.5, "not_closed": 0.01}
    line = solve_rate_line("m", ROW | {"thinking": more})
    assert line.endswith(", 1.50 waits each, 1.0% not closed")


def test_aha_eval_keeps_a_budget_and_marks_forced_tokens(aha, tmp_path):
    model = tiny_folder(tmp_path / "tiny")
    words = ("eval", model, "--n", 12, "--max-new-tokens", 60, "--json")
    done = aha(*words, "--think-max", 8, "--out", "rows.jsonl")
    assert done.code == 0, done.err
    row = json.loads(done.out)
    assert row["thinking"]["control"] == 1.0 and row["thinking"]["max_tokens"] == 8
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    closed = [one for one in rows if one.get("forced")]
    assert len(closed) / 12 == pytest.approx(row["thinking"]["closed_by_budget"])
    assert closed and all("</think>\n<answer>" in one["completion"] for one in closed)
    row = json.loads(aha(*words, "--think-min", 12, "--think-max", 20).out)
    assert row["thinking"]["control"] == 1.0 and 12 <= row["thinking"]["mean_tokens"] <= 20
    assert "thinking" not in json.loads(aha(*words).out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--think-max", 29), "--max-new-tokens 61"),
        (("--think-max", 5, "--think-min", 6), "a minimum of 5"),
        (("--think-min", 5, "--waits", 0), "leave the number of waits out"),
        (("--think-max", "-1"), "--think-max"),
        (("--wait-text", "so"), "--waits 1"),
        (("--waits", 1, "--wait-text", "\u00e9"), "cannot write"),
    ],
)
def test_budgets_that_cannot_be_kept_are_one_line(aha, tmp_path, words, message):
    model = tiny_folder(tmp_path / "tiny")
    done = aha("eval", model, "--n", 2, "--max-new-tokens", 60, *words)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1
