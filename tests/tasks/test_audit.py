"""The audit of rewards: what leaks is found, and our own verifier passes."""

import random
import time

import pytest

from aha.core.findings import worst_level
from aha.core.records import Graded, Problem
from aha.tasks.audit import Audit, audit, checks
from aha.tasks.audit_cases import GARBAGE, PUZZLES
from aha.tasks.countdown import Countdown
from aha.tasks.isolation import IsolatedTask
from aha.tasks.worker import CallFailed, CallTimedOut


class Custom:
    """A third party's task: its reward is one function."""

    name = "custom"

    def __init__(self, grade):
        self.judge = grade

    def problems(self, split: str, seed: int):
        yield Problem("one", "custom", {"answer": "8128"})

    def ask(self, problem: Problem) -> str:
        return "the fourth perfect number, as <answer>6</answer>?"

    def grade(self, problem: Problem, text: str):
        return self.judge(text)


def graded(reward, correct=False, reason="") -> Graded:
    return Graded(reward, correct, reason)


def findings(task, **options) -> dict:
    return {finding.check: finding for finding in checks.run(audit(task, **options))}


def strict(text: str) -> Graded:
    right = text.rpartition("<answer>")[2].partition("</answer>")[0].strip() == "8128"
    return graded(float(right), right)


def for_form(text: str) -> Graded:
    return graded(0.1 * ("<answer>" in text))


def echo(text: str) -> Graded:
    return graded(float("perfect number" in text))


def hang(text: str) -> Graded:
    if "**" in text:
        time.sleep(600)
    return graded(0.0)


def fussy(text: str) -> Graded:
    text.encode()  # fails on a lone surrogate
    return graded(0.0)


def hog(text: str) -> Graded:
    if "**" in text:
        started = time.process_time()
        while time.process_time() - started < 0.6:
            pass
    return graded(0.0)


FAULTS = {
    "pays for any answer": ("reward_paid", "warn", for_form, "only tags"),
    "finds the answer anywhere": (
        "reward_paid",
        "fail",
        lambda t: graded(float("<answer>1999</answer>" in t), True),
        "every number as an answer",
    ),
    "pays for nothing": ("reward_paid", "fail", lambda t: graded(1.0, True), "nothing"),
    "believes the prompt": ("reward_paid", "fail", echo, "prompt"),
    "raises": ("reward_valid", "fail", fussy, "UnicodeEncodeError"),
    "returns a number": ("reward_valid", "fail", lambda t: 1.0, "not Graded"),
    "a reward of text": ("reward_valid", "fail", lambda t: graded("1.0"), "no number"),
    "NaN": ("reward_valid", "fail", lambda t: graded(float("nan")), "nan"),
    "a reason of no text": ("reward_valid", "fail", lambda t: graded(0.0, reason=None), "NoneType"),
    "hangs": ("reward_quick", "fail", hang, "a tower of powers"),
    "slow": ("reward_quick", "warn", hog, "a tower of powers"),
    "a coin": ("reward_steady", "fail", lambda t: graded(random.random()), "nothing"),
}  # fmt: skip


@pytest.fixture(scope="module")
def hung() -> Audit:
    """The audit of a grader that hangs once: it is waited for."""
    return audit(Custom(hang), patience_s=6.0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_leaking_reward_is_found(fault, request):
    check, level, judge, word = FAULTS[fault]
    if fault == "hangs":
        found = checks.run(request.getfixturevalue("hung"))
    else:
        found = checks.run(audit(Custom(judge), patience_s=60.0))
    (finding,) = [one for one in found if one.check == check]
    assert finding.level == level and word in finding.message and finding.fix, finding


@pytest.mark.parametrize("template", ["plain", "r1", "instruct"])
def test_our_verifier_passes(template):
    found = findings(Countdown((3, 4), template))
    assert worst_level(list(found.values())) == "ok", found
    assert set(found) == set(checks)
    assert f"{len(GARBAGE) + len(PUZZLES) + 1} cheats, none" in found["reward_paid"].message


def test_a_strangers_strict_reward_passes():
    found = findings(Custom(strict))
    assert found.pop("reward_solved").level == "warn"  # nobody knows what is right there
    assert worst_level(list(found.values())) == "ok" and "reward_right" not in found


def test_form_that_is_paid_on_purpose_is_told_and_no_alarm():
    paid = findings(Countdown((3, 4), format_reward=1.0))
    assert worst_level(list(paid.values())) == "ok", paid
    assert "task.format_reward" in paid["reward_paid"].message
    # The same reward without the choice is one that leaks.
    leaks = Countdown((3, 4), verifier="tinyzero", format_reward=1.0)
    assert findings(leaks)["reward_paid"].level == "fail"


def test_tinyzeros_holes_are_found():
    found = findings(Countdown((3, 4), verifier="tinyzero"))
    for hole in ("a power", "a floor division", "a decimal"):
        assert hole in found["reward_paid"].message
    assert found["reward_paid"].level == "fail"
    assert "a new line after it" in found["reward_right"].message
    assert found["reward_valid"].level == found["reward_quick"].level == "ok"


def test_after_a_hang_the_others_are_still_graded(hung):
    assert [v.name for v in hung.all if v.hangs] == ["a tower of powers"]
    assert not any(v.fault for v in hung.all)


def test_a_grader_that_dies_is_told_and_one_that_always_hangs_is_left():
    def die(text: str) -> Graded:
        import os

        if text == "":
            os._exit(3)
        return graded(0.0)

    seen = audit(Custom(die))
    assert "died" in seen.cheats[0].fault and not seen.cheats[1].fault
    stuck: Audit = audit(Custom(lambda t: time.sleep(600)), patience_s=0.2)
    assert sum(v.hangs for v in seen.all) == 0 and sum(v.hangs for v in stuck.all) == 3
    assert "not tried" in stuck.cheats[-1].fault


# -- an isolated task ---------------------------------------------------------------------------


class Isolated(Custom):
    """A custom task behind a worker that does what a function of the text does."""

    def __init__(self, call, solve=None):
        self.call, self.seconds, self.restart_s, self.starts_s = call, 1.0, 0.0, 0.0
        if solve is not None:
            self.solve = solve

    def __call__(self, problem, text):
        return self.call(text)


def row_of(graded: Graded) -> dict:
    return {"reward": graded.reward, "correct": graded.correct, "reason": "", "parts": {}}


def isolated(call, solve=None) -> IsolatedTask:
    task = Isolated(call, solve)
    return IsolatedTask(task, "custom", task)


def failing(error):
    def call(text):
        raise error

    return call


def test_a_grader_that_always_fails_is_told_and_no_reward_is_called_fine():
    found = findings(isolated(failing(CallFailed("raised KeyError: 'solution'"))))
    assert set(found) == {"reward_valid", "reward_solved"}
    assert found["reward_valid"].level == "fail"
    assert "raised KeyError: 'solution'" in found["reward_valid"].message


def test_a_grader_that_always_hangs_is_told_after_a_few():
    report = audit(isolated(failing(CallTimedOut("took more than 1 s"))))
    assert [text.hangs for text in report.all].count(True) == 3 and report.is_blind
    found = {finding.check: finding for finding in checks.run(report)}
    assert found["reward_quick"].level == "fail" and "reward_paid" not in found


def test_a_failed_grade_is_a_fault_and_no_verdict():
    def call(text):
        if "**" in text:
            raise CallFailed("ended its process with exit code 3")
        return row_of(strict(text))

    found = findings(isolated(call, lambda problem: "<answer>8128</answer>"))
    assert "33 cheats, none of them paid" in found["reward_paid"].message
    assert "exit code 3" in found["reward_valid"].message
    assert found["reward_solved"].level == "ok"


def test_waiting_counts_as_time(monkeypatch):
    monkeypatch.setattr("aha.tasks.audit.SLOW_S", 0.02)

    def call(text):
        time.sleep(0.03 * (text == ""))
        return row_of(strict(text))

    found = findings(isolated(call))["reward_quick"]
    assert found.level == "warn" and "nothing" in found.message


# -- the task's own completion ------------------------------------------------------------------

SOLVES = {
    "right": ("ok", lambda problem: "<answer>8128</answer>", "1 right completions"),
    "not paid": ("fail", lambda problem: "<answer>8,128</answer>", "one (0: "),
    "raises": ("fail", lambda problem: problem.given["solution"], "KeyError: 'solution'"),
    "knows none": ("warn", lambda problem: None, "knows none"),
    "is not there": ("warn", None, "has no `solve`"),
}


@pytest.mark.parametrize("case", SOLVES)
def test_what_the_task_itself_calls_right_must_be_paid(case):
    level, solve, words = SOLVES[case]
    task = Custom(strict)
    if solve:
        task.solve = solve
    finding = findings(task)["reward_solved"]
    assert finding.level == level and words in finding.message, finding
