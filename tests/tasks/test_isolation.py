"""Isolation: whatever a stranger's grader does, the next verdict is right."""

import math
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from pathlib import Path
from timeit import repeat

import numpy as np
import pytest
import torch

from aha.core.errors import DataError
from aha.core.records import Graded, Problem
from aha.tasks.catalog import make_task
from aha.tasks.isolation import IsolatedTask, LostTime, checked
from aha.tasks.worker import CallFailed, CallTimedOut, Worker
from aha.tasks.worker_process import Nonsense

OUTSIDE = str(Path(__file__).with_name("outside.py"))
PATIENCE_S = 60.0  # of what does not hang, on a busy machine
NEVER_CALLED = Worker("aha.tasks.catalog:build_grader", ("shaky", {}), 5.0)
SEVEN = Problem("outside/7", "outside", {"number": 7})


@pytest.fixture(scope="module")
def task():
    return make_task(OUTSIDE, {}, seconds=PATIENCE_S)


def good(task) -> Graded:
    found = task.grade(SEVEN, "7")
    assert found == Graded(1.0, True, "as it is", {"length": 1.0})
    assert task.grade(SEVEN, "8").reward == 0.0
    return found


def test_a_verdict_comes_through_as_it_is(task):
    good(task)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise", "raised ValueError: two lines"),
        ("exit", "raised SystemExit: 3"),
        ("hang", "took more than 2 s"),
        ("crash", "the grader ended its process with exit code 7"),
        ("None", "returned None (NoneType) in place of a Graded"),
        ("nan", "returned the reward nan (float) in place of a finite number"),
        ("text", "returned '1.0' (str) in place of a Graded"),
        ("parts", "returned the part 'a' (str) 'b' (str), no finite number"),
        ("reason", "returned the reason 5 (int) in place of text"),
        ("infinite", "returned the reward inf (float) in place of a finite number"),
        ("lambda", "(function) in place of a Graded"),
    ],
)
def test_what_a_grader_does_wrong_costs_that_completion_alone(task, text, reason):
    good(task)
    task.worker.seconds = 2.0 if text == "hang" else PATIENCE_S
    found = task.grade(SEVEN, text)
    task.worker.seconds = PATIENCE_S
    assert found.reward == 0.0 and not found.correct and reason in found.reason
    late = {"grade_timeout": 1.0} if text == "hang" else {}
    assert found.parts == {"grade_error": 1.0} | late and "\n" not in found.reason
    good(task)


@pytest.mark.parametrize(
    ("number", "reward"),
    [
        (True, 1.0),
        (3, 3.0),
        (-1000.0, -1000.0),
        (Fraction(1, 2), 0.5),
        (Decimal("0.25"), 0.25),
        (np.bool_(True), 1.0),
        (np.float32(0.5), 0.5),
        (np.int64(-7), -7.0),
        (np.array(0.125), 0.125),
        (torch.tensor(2.0), 2.0),
        (1e6, 1e6),
    ],
)
def test_what_clearly_is_one_number_is_a_reward(number, reward):
    expected = Graded(reward, reward >= 1.0, f"reward {reward:g}")
    assert checked(number) == expected and type(checked(number).reward) is float
    graded = checked(Graded(number, np.bool_(True), "why", {"part": number}))
    assert graded == Graded(reward, True, "why", {"part": reward})


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "returned None (NoneType) in place of a Graded or a number"),
        ("1.0", "returned '1.0' (str) in"),
        ([1.0], "returned [1.0] (list) in"),
        ({"score": 1.0}, "returned {'score': 1.0} (dict) in"),
        ((1.0, {"acc": 1}), "returned (1.0, {'acc': 1}) (tuple) in"),
        (1j, "returned 1j (complex) in"),
        (np.array([1.0]), "returned array([1.]) (ndarray) in"),
        (math.nan, "returned the reward nan (float) in place of a finite number"),
        (-math.inf, "returned the reward -inf (float) in place of a finite number"),
        (np.float32("nan"), "returned the reward nan (float) in place of a finite number"),
        (10**400, "returned the reward inf (float) in place of a finite number"),
        (Decimal("sNaN"), "returned the reward nan (float) in place of a finite number"),
        (1e39, "returned the reward 1e+39, and at most 1e+06 can be learnt"),
        (-1_000_001, "returned the reward -1e+06, and at most 1e+06 can be learnt"),
        (Graded("1", True, ""), "returned the reward '1' (str) in place of a finite number"),
        (Graded(1.0, "no", ""), "returned correct 'no' (str) in place of True or False"),
        (Graded(1.0, None, ""), "returned correct None (NoneType) in place of True or False"),
        (Graded(1.0, True, b"why"), "returned the reason b'why' (bytes) in place of text"),
        (Graded(1.0, True, "", [1]), "returned the parts [1] (list) in place of names"),
        (Graded(1.0, True, "", {3: 1.0}), "returned the part 3 (int) in place of a name"),
        (Graded(1.0, True, "", {"a\nb": 1}), "returned the part 'a\\nb' (str) in place of a name"),
        (Graded(1.0, True, "", {"a": math.inf}), "returned the part 'a' (str) inf (float), no fin"),
        (Graded(1.0, True, "", dict.fromkeys(map(str, range(51)), 1.0)), "returned 51 parts"),
    ],
)
def test_anything_else_is_refused_with_its_reason(result, reason):
    with pytest.raises(Nonsense) as refused:
        checked(result)
    assert str(refused.value).startswith(reason) and len(str(refused.value)) < 200


def test_a_reason_is_cut_and_loses_what_a_terminal_obeys():
    reason = "a\x1b[31mred\x1b[0m\r\nb\x07\x9b\u202ec\ud800\u2028d" + "z" * 10_000_000
    kept = checked(Graded(1.0, True, reason)).reason
    assert kept.startswith("ared b c dzzz") and len(kept) == 500


@pytest.mark.parametrize(
    "row",
    [
        None,
        7,
        {},
        {"reward": 1.0},
        {"reward": 1e39, "correct": True, "reason": "", "parts": {}},
        {"reward": "x", "correct": True, "reason": "", "parts": {}},
        {"reward": 1.0, "correct": True, "reason": "", "parts": 5},
    ],
)
def test_a_reply_that_is_no_grade_is_a_fault(row):
    graded = IsolatedTask(Shaky(""), "shaky", Stub(lambda: row)).grade(SEVEN, "")
    assert graded.parts == {"grade_error": 1.0} and graded.reward == 0.0


# -- a grader that costs too much time --------------------------------------------------------


class Stub:
    """In place of a worker: returns what its function does."""

    def __init__(self, call, seconds: float = 1.0):
        self.call, self.seconds, self.calls, self.restart_s, self.starts_s = (
            call,
            seconds,
            0,
            0.0,
            0.0,
        )

    def __call__(self, problem, text):
        self.calls += 1
        return self.call()


def test_a_grader_that_hangs_is_given_up(monkeypatch):
    clock = iter(range(0, 10_000, 5))  # every look at it is five seconds later
    monkeypatch.setattr("aha.tasks.isolation.time.monotonic", lambda: next(clock))

    def hang():
        raise CallTimedOut("took more than 5 s")

    stub = Stub(hang, seconds=5.0)
    task = IsolatedTask(Shaky(""), "shaky", stub)
    graded = [task.grade(SEVEN, "") for _ in range(20)]
    assert stub.calls == 5
    late, untried = graded[0], graded[-1]
    assert late.parts == {"grade_error": 1.0, "grade_timeout": 1.0}
    assert untried.parts == {"grade_error": 1.0, "grade_untried": 1.0}
    assert "given up" in untried.reason and "took more than 5 s" in untried.reason


def test_the_start_of_a_process_is_lost_to_the_fault_that_made_it_necessary(monkeypatch):
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr("aha.tasks.isolation.time.monotonic", lambda: next(clock))
    stub = Stub(lambda: None)
    task = IsolatedTask(Shaky(""), "shaky", stub)

    def crash():  # in a call whose process had to be started, which took all but a second
        stub.starts_s, stub.restart_s = stub.starts_s + 6.0, 6.0
        raise CallFailed("ended its process")

    stub.call = crash
    task.grade(SEVEN, "")
    assert task.lost.in_a_row == 1.0 + 6.0


@pytest.mark.parametrize(
    ("lost_s", "calls"),
    [
        ([5.0], 5),  # all hang
        ([5.0, 0.0, 0.0], 58),  # a third of them: the 20th of the last hundred
        ([5.0] + 19 * [0.0], None),  # one in twenty: that goes on
        ([0.15], 167),  # all end their process
        ([0.15, 0.0, 0.0], None),
        ([120.0], 1),  # a start that hangs
    ],
)
def test_a_grader_is_given_up_for_the_time_that_its_faults_take(lost_s, calls):
    lost = LostTime(5.0)
    for number in range(1, 2_000):
        lost.count(lost_s[(number - 1) % len(lost_s)])
        if lost.too_much:
            break
    assert (number if lost.too_much else None) == calls


def test_a_plain_number_is_a_reward(task):
    assert task.grade(SEVEN, "number") == Graded(0.5, False, "reward 0.5", {})
    assert task.grade(SEVEN, "true") == Graded(1.0, True, "reward 1", {})


def test_printing_does_no_harm(task, capfd):
    assert not task.grade(SEVEN, "print").correct
    good(task)
    assert capfd.readouterr().out == ""


def test_verdicts_are_of_one_process(task):
    """To start one takes a hundred times as long as a verdict."""
    good(task)
    process = task.worker.process
    for _ in range(20):
        good(task)
    assert task.worker.process is process


@pytest.mark.bench
def test_a_verdict_takes_less_than_a_millisecond(task):
    """The fastest of ten rounds. Alone on a machine."""
    good(task)
    rounds = repeat(lambda: task.grade(SEVEN, "7"), repeat=10, number=20)
    assert min(rounds) / 20 < 0.001


def test_the_process_ends_with_its_task():
    task = make_task(OUTSIDE)
    good(task)
    process = task.worker.process
    del task
    assert process.poll() is not None


# -- problems and prompts -------------------------------------------------------------------


class Shaky:
    """One fault at a time."""

    name = "shaky"

    def __init__(self, fault: str):
        self.fault = fault

    def problems(self, split, seed):
        if self.fault == "problems":
            raise KeyError("level")
        if self.fault == "no problem":
            yield {"id": 1}
        given = {"set": {1}} if self.fault == "given" else {}
        yield Problem("shaky/1", "shaky", given)

    def ask(self, problem):
        return None if self.fault == "ask" else 1 / 0

    def grade(self, problem, text):
        return 1.0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("problems", "KeyError: 'level'"),
        ("no problem", "a Problem"),
        ("given", "JSON"),
        ("ask", "asks None"),
        ("ask raises", "ZeroDivisionError"),
    ],
)
def test_a_fault_in_problems_or_prompts_is_one_line_with_the_name(fault, words):
    task = IsolatedTask(Shaky(fault), "shaky", NEVER_CALLED)
    with pytest.raises(DataError, match=words) as caught:
        task.ask(next(task.problems("train", 0)))
    assert "'shaky'" in str(caught.value) and "\n" not in str(caught.value)


def test_a_problem_in_two_splits_is_refused():
    task = IsolatedTask(Shaky(""), "shaky", NEVER_CALLED)
    list(task.problems("test", 0))
    list(task.problems("test", 1))
    with pytest.raises(DataError, match="'shaky/1' in the splits 'test' and 'train'"):
        list(task.problems("train", 0))


class Solving(Shaky):
    def __init__(self, text):
        super().__init__("")
        self.text = text

    def solve(self, problem):
        return self.text() if callable(self.text) else self.text


def test_a_tasks_own_completion_comes_through_and_its_faults_are_told():
    assert IsolatedTask(Shaky(""), "shaky", NEVER_CALLED).solve is None
    for text in ("7", None):
        assert IsolatedTask(Solving(text), "shaky", NEVER_CALLED).solve(SEVEN) == text
    for text in (7, lambda: 1 / 0):
        with pytest.raises(DataError, match="the task 'shaky'.* solve"):
            IsolatedTask(Solving(text), "shaky", NEVER_CALLED).solve(SEVEN)


def test_splits_that_share_nothing_pass(task):
    held_out = {p.id for p in task.problems("test", 0)}
    assert len(held_out) == 100
    assert held_out.isdisjoint(p.id for p in islice(task.problems("train", 0), 500))
