"""The end of a run: model text only ever as text, numbers a person can read, three sentences."""

import io
import json

import pytest
from rich.console import Console

from aha.algo.recipe import load_recipe
from aha.behaviors.turn import NoTurn, Share, Turn
from aha.cli.report_card import (
    card_rows,
    clock,
    completion_panel,
    plain_sentences,
    print_changed_completions,
    print_report_card,
)
from aha.core.records import Completion, Graded
from aha.eval.suite import EvalReport
from aha.store.run_folder import Run
from aha.training.outcome import Outcome
from aha.web.runs import RunFolder
from aha.web.ways_of_run import turn_of_run

from ..tiny import ask
from ..web.turning import make_turning_run


def graded(text: str, correct: bool = False, reason: str = "because") -> Graded:
    completion = Completion(ask(3, 7, 25, target=82), (1,) * 9, (-1.0,) * 9, text, "stop")
    return Graded(float(correct), correct, reason, completion=completion)


def shown(panel) -> str:
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(panel)
    return out.getvalue()


@pytest.mark.parametrize(
    "text", ["[bold]x[/bold]", "[/nonsense]", "[red", "a\\[b]", "[link=http://x]y"]
)
def test_model_text_is_never_markup(text):
    """Neither swallowed nor an error, wherever it stands."""
    assert text in shown(completion_panel(graded(text), "step 1"))
    assert text in shown(completion_panel(graded("x", reason=text), "step 1"))


def test_a_panel_says_what_was_asked_and_how_it_ended():
    text = shown(completion_panel(graded("25*3=75", correct=True), "step 7"))
    assert "numbers 3 7 25 target 82" in text and "(step 7)" in text and "right: because" in text
    assert "wrong: because" in shown(completion_panel(graded("x"), "step 7"))


def test_a_long_thought_is_cut_in_the_middle_and_says_so():
    text = shown(completion_panel(graded("\n".join(f"line {n}" for n in range(100))), "x"))
    assert "line 7" in text and "line 92" in text and "... 84 more lines ..." in text
    assert "line 50" not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3725, "62:05")]
)
def test_the_clock(seconds, text):
    assert clock(seconds) == text


def numbers(**behaviors: float) -> dict:
    return {
        "solve_rate": 0.25,
        "interval": [0.2, 0.3],
        "mean_tokens": 33.4,
        "truncated": 0.125,
        "behaviors": behaviors,
    }


def test_the_card_by_hand():
    before = numbers(attempts=1.0, checks=0.5, backtracks_intermediate=0.0, line_accuracy=0.98)
    after = numbers(attempts=4.26, checks=4.0, backtracks_intermediate=1.5, verdict_truth=1.0)
    rows = {name: cells for name, cells in card_rows(before, after)}
    assert rows["solve rate, 95 % interval"] == ["0.250 [0.200, 0.300]"] * 2
    assert rows["tokens of a completion"] == ["33", "33"]
    assert rows["truncated at the limit"] == ["12.5%", "12.5%"]
    assert rows["attempts of a completion"] == ["1.0", "4.3"]
    # Who wrote no line, or no check, has no rate of right ones.
    assert rows["lines with right arithmetic"] == ["98.0%", "-"]
    assert rows["checks that are true"] == ["-", "100.0%"]


def test_the_card_of_a_task_without_behaviours_leaves_them_out():
    assert [name for name, _ in card_rows(numbers(), numbers())] == [
        "solve rate, 95 % interval",
        "tokens of a completion",
        "truncated at the limit",
    ]


def test_the_card_has_the_ways_of_search_that_some_completion_goes():
    before = numbers(way_by_chance=0.9, way_none=0.1, way_look=0.0, tokens_per_solve=187.6)
    after = numbers(way_by_chance=0.0, way_none=0.0, way_look=0.0, way_glance=1.0)
    rows = dict(card_rows(before, after))
    assert rows["search: by chance"] == ["90.0%", "0.0%"]
    assert rows["search: with a glance"] == ["-", "100.0%"]
    assert "search: with a look" not in rows
    assert rows["tokens for each right answer"] == ["188", "-"]


@pytest.mark.parametrize("turn", [12, 100], ids=["turns", "does-not"])
def test_the_report_card_ends_with_the_turn_or_why_there_is_none(tmp_path, capsys, turn):
    path = make_turning_run(tmp_path / "run", steps=20, turn=turn)
    summary = json.loads((path / "summary.json").read_text())
    summary |= {"before": None, "after": None, "seconds": 40.0, "steps": 20, "plan": {}}
    outcome = Outcome(Run(path), summary, None, None)
    cfg = load_recipe(None, {"usd_per_hour": "0.2", "watts": "50"})
    print_report_card(outcome, cfg)
    words = turn_of_run(RunFolder(path)).sentence()
    assert words.startswith("step 1" if turn == 12 else "no turn: ")
    assert f"search: {words}" in capsys.readouterr().out


def test_puzzles_that_turned_from_wrong_to_right_are_shown_side_by_side(capsys):
    def report(*verdicts: bool) -> EvalReport:
        groups = [[graded(f"text {n}", right)] for n, right in enumerate(verdicts)]
        return EvalReport({}, groups)

    print_changed_completions(report(False, True, False), report(True, True, False))
    out = capsys.readouterr().out
    assert out.count("(before: no search)") == out.count("(after: no search)") == 1
    assert "text 0" in out
    print_changed_completions(report(True, False), report(True, False))
    assert capsys.readouterr().out == ""


def summary(before: float | None, after: float | None, **more) -> dict:
    def test_of(rate: float | None) -> dict | None:
        if rate is None:
            return None
        return {"solve_rate": rate, "problems": 1000, "mean_tokens": 70.0}

    costs = {"wall_s": 174.0, "cost_usd": 0.0039, "steps": 150}
    return {"before": test_of(before), "after": test_of(after), **costs, **more}


TURN = Turn(17, "glance", "none", Share(0.03, 0.02, 0.04, 9), Share(0.61, 0.6, 0.62, 9))


def test_three_sentences_say_the_result_the_change_and_the_cost():
    lines = plain_sentences(summary(0.223, 0.967), (0.716, 0.772), TURN).splitlines()
    assert lines == [
        "Of 1,000 problems that it never trained on, the model solved 22.3% before training and "
        "96.7% after it: it has learned (+74.4 points [+71.6, +77.2]).",
        "It changed from no search to searching in order with a glance at step 17 of 150.",
        "That took 2:54 minutes and 0.39 cents on this machine.",
    ]


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ((0.01, 0.2), "it has learned"),
        ((-0.01, 0.2), "no evidence that it learned"),
        ((0.0, 0.2), "no evidence that it learned"),
        ((-0.2, -0.01), "it has got worse"),
    ],
)
def test_the_result_claims_no_more_than_the_interval_allows(gain, words):
    assert words in plain_sentences(summary(0.3, 0.4), gain, None)


def test_a_run_without_tests_claims_nothing_about_what_it_learned():
    text = plain_sentences(summary(None, None), None, NoTurn("few steps"))
    assert "nobody knows" in text and "trained for 150 steps" in text and "%" not in text
