"""The same test before and after, made once."""

import json

import pytest

from aha.distill.before_after import Change, change_of, held_out_test
from aha.eval.suite import EvalSettings


def settings(n: int = 3) -> EvalSettings:
    return EvalSettings("countdown", {}, "test", n, 0, 1, 1.0, 8)


def test_a_test_is_made_once_and_again_where_it_was_stopped(student, tmp_path):
    first = held_out_test(tmp_path, "before", str(student), settings(), bool)
    assert first["problems"] == 3 and first["max_new_tokens"] == 8
    again = held_out_test(tmp_path, "before", "no such model", settings(), bool)
    assert again == json.loads(json.dumps(first))
    (tmp_path / "before.json").unlink()  # as if it had been stopped while it wrote completions
    assert held_out_test(tmp_path, "before", str(student), settings(), bool)["solve_rate"] == 0.0


def row(rate: float | None, tokens: float) -> dict:
    return {"solve_rate": rate, "mean_tokens": tokens, "truncated": 0.0, "seconds": 1.0} | {
        "problems": 40
    }


def test_a_change_has_an_interval_of_the_difference(tmp_path):
    for name, right in (("before", 10), ("after", 30)):
        lines = [{"id": str(n), "correct": n < right} for n in range(40)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    change = change_of(tmp_path, row(0.25, 100.0), row(0.75, 70.0))
    gain, low, high = change.gained
    assert gain == 0.5 and 0.3 < low < 0.5 < high < 0.7
    assert change.shorter == pytest.approx(-0.3) and change.seconds == 2.0
    assert "(-30%)" in change.lines()[1] and "no evidence" not in change.lines()[0]
    same = Change(row(0.25, 100.0), row(0.25, 100.0), (0.0, -0.1, 0.1))
    assert "no evidence of a change" in same.lines()[0]


def test_without_a_solve_rate_nothing_is_known(tmp_path):
    change = change_of(tmp_path, row(None, 1.0), row(0.5, 1.0))
    assert change.gained is None and "nothing is known" in change.lines()[0]
    assert change.as_row()["gained"] is None
