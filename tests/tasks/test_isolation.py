"""Isolation: whatever a stranger's grader does, the next verdict is right."""

from itertools import islice
from pathlib import Path
from timeit import repeat

import pytest

from aha.core.errors import DataError
from aha.core.records import Graded, Problem
from aha.tasks.catalog import make_task
from aha.tasks.isolation import IsolatedTask
from aha.tasks.worker import Worker

OUTSIDE = str(Path(__file__).with_name("outside.py"))
NEVER_CALLED = Worker("aha.tasks.catalog:build_grader", ("shaky", {}), 5.0)
SEVEN = Problem("outside/7", "outside", {"number": 7})


@pytest.fixture(scope="module")
def task():
    return make_task(OUTSIDE, {}, seconds=2.0)


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
    found = task.grade(SEVEN, text)
    assert found.reward == 0.0 and not found.correct and reason in found.reason
    late = {"grade_timeout": 1.0} if text == "hang" else {}
    assert found.parts == {"grade_error": 1.0} | late and "\n" not in found.reason
    good(task)


def test_a_plain_number_is_a_reward(task):
    assert task.grade(SEVEN, "number") == Graded(0.5, False, "reward 0.5", {})
    assert task.grade(SEVEN, "true") == Graded(1.0, True, "reward 1", {})


def test_printing_does_no_harm(task, capfd):
    assert not task.grade(SEVEN, "print").correct
    good(task)
    assert capfd.readouterr().out == ""


def test_a_verdict_takes_less_than_a_millisecond(task):
    """The fastest of ten rounds: what a busy machine adds is not counted."""
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


def test_splits_that_share_nothing_pass(task):
    held_out = {p.id for p in task.problems("test", 0)}
    assert len(held_out) == 100
    assert held_out.isdisjoint(p.id for p in islice(task.problems("train", 0), 500))
