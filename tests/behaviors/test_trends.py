"""Means, shares and ratios worked out by hand."""

import json

import pytest

from aha.behaviors.detector import Behaviours
from aha.behaviors.trends import rates, summarise

BUSY = Behaviours(
    attempts=4,
    lines=10,
    line_errors=1,
    illegal=2,
    checks=4,
    true_checks=3,
    explicit_checks=1,
    backtracks_root=2,
    backtracks_intermediate=1,
    repeats=1,
    subgoals=2,
    subgoals_achieved=1,
    attempts_until_solved=3,
)
QUIET = Behaviours(attempts=1, lines=2, attempts_until_solved=1, answered=True)


def test_rates():
    found = rates(BUSY, num_tokens=200)
    assert found["checks_per_attempt"] == 1.0
    assert found["lines_per_attempt"] == 2.5
    assert found["checks_per_100_tokens"] == 2.0  # 4 in 200
    assert found["backtracks_per_100_tokens"] == 1.5  # 2 + 1 in 200


def test_rates_leave_out_what_has_no_denominator():
    assert rates(Behaviours(), num_tokens=0) == {}
    assert all(name.endswith("_per_attempt") for name in rates(QUIET, num_tokens=0))
    assert all(name.endswith("_per_100_tokens") for name in rates(Behaviours(), num_tokens=9))


def test_summary():
    found = summarise([BUSY, QUIET])
    assert found["completions"] == 2
    assert found["attempts"] == 2.5
    assert found["checks"] == 2.0
    assert found["backtracks"] == 1.5
    assert found["share_with_checks"] == 0.5
    assert found["share_with_backtracks"] == 0.5
    assert found["share_with_backward_chains"] == 0.0
    assert found["line_accuracy"] == pytest.approx(11 / 12)
    assert found["line_legality"] == pytest.approx(10 / 12)
    assert found["verdict_truth"] == 0.75
    assert found["explicit_share"] == 0.25
    assert found["subgoal_success"] == 0.5
    assert found["repeat_share"] == pytest.approx(1 / 5)
    assert found["attempts_until_solved"] == 2.0
    assert (found["share_solved"], found["share_answered"]) == (1.0, 0.5)
    assert found["share_solved_not_answered"] == 0.5


def test_a_summary_takes_any_iterable_and_is_plain_json():
    found = summarise(row for row in [BUSY])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all(type(value) is float for value in found.values())


def test_ratios_without_a_denominator_are_left_out():
    found = summarise([Behaviours()])
    ratios = {"line_accuracy", "verdict_truth", "subgoal_success", "attempts_until_solved"}
    assert not ratios & set(found)
    assert found["checks"] == 0.0
    assert summarise([]) == {"completions": 0.0}
