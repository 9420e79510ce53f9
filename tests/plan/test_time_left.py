"""The time that is left, against runs whose time is known."""

import pytest

from aha.algo.recipe import load_recipe
from aha.plan.time_left import TimeLeft, share_done

STEPS = 100


def lengths(first: float, last: float) -> list[float]:
    return [first + (last - first) * (step - 0.5) / STEPS for step in range(1, STEPS + 1)]


def estimates(tokens: list[float], expected: float, test_s: float = 0.0) -> list[float]:
    """The estimate after each step of a run in which a token of the mean takes .01 s."""
    cfg = load_recipe(None, {"steps": STEPS, "rollout.expected_tokens": expected})
    left, elapsed, out = TimeLeft(cfg), 0.0, []
    if test_s:
        left.add_test({"seconds": test_s, "mean_tokens": tokens[0]})
    for step, mean in enumerate(tokens, 1):
        elapsed += mean / 100
        row = {"step": step, "mean_tokens": mean, "elapsed_s": elapsed, "generated": 0}
        left.add(row)
        out.append(left.seconds())
    return out


@pytest.mark.parametrize("last", [50.0, 100.0, 250.0])
def test_a_run_whose_length_goes_as_planned_is_right_from_the_first_step(last):
    tokens = lengths(50.0, last)
    for step, left in enumerate(estimates(tokens, sum(tokens) / STEPS), 1):
        assert left == pytest.approx(sum(tokens[step:]) / 100, rel=0.03, abs=0.3)


def test_without_a_planned_length_the_steps_of_late_decide():
    tokens = lengths(50.0, 250.0)
    left = estimates(tokens, 0.0)
    assert left[0] == pytest.approx(99 * 0.51, rel=0.01)  # far too little: nobody knew
    assert left[-1] == 0.0 and left[80] == pytest.approx(sum(tokens[81:]) / 100, rel=0.15)


def test_the_last_test_counts_with_the_length_of_the_end():
    tokens = lengths(50.0, 150.0)
    left = estimates(tokens, 100.0, test_s=20.0)
    assert left[-1] == pytest.approx(60.0, rel=0.02)  # three times as long as before training
    assert estimates(tokens, 0.0, test_s=20.0)[-1] == 20.0


def test_after_a_resume_nothing_is_said_until_there_is_a_pace():
    left = TimeLeft(load_recipe(None, {"steps": STEPS}))
    row = {"step": 41, "mean_tokens": 50.0, "elapsed_s": 400.0, "generated": 0}
    left.add(row)
    assert left.seconds() is None
    left.add(row | {"step": 42, "elapsed_s": 402.0})
    assert left.seconds() == pytest.approx(2.0 * 58)


def test_what_is_left_is_what_ends_first():
    row = {"step": 10, "generated": 300.0}
    assert share_done(row, load_recipe(None, {"steps": 40})) == 0.25
    assert share_done(row, load_recipe(None, {"steps": 40, "tokens": 1_000})) == 0.3
    assert share_done(row, load_recipe(None, {"steps": 20, "tokens": 1_000})) == 0.5
    assert share_done(row, load_recipe(None, {"steps": 20, "tokens": 200})) == 1.0
