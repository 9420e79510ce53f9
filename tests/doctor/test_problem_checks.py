"""The doctor's look at a recipe's problems: planted faults are found, packaged tasks pass."""

from dataclasses import replace
from itertools import islice

import pytest

from aha.core.config import RunConfig
from aha.core.errors import DataError
from aha.core.findings import worst_level
from aha.core.records import Problem
from aha.doctor import problem_checks
from aha.doctor.problem_checks import check_problems, checks, in_time, shows_given
from aha.tasks.countdown import Countdown
from aha.tasks.multiply import Multiply

from ..tiny import StartsWith


def config(**sections) -> RunConfig:
    raw = {"rollout": {"prompts": 8}, "eval": {"final": 300}}
    return RunConfig.model_validate(raw | sections)


def found(task, **sections) -> dict:
    return {finding.check: finding for finding in check_problems(config(**sections), task)}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Held-out puzzles take some milliseconds each."""
    monkeypatch.setattr(problem_checks, "SECONDS", 0.2)
    monkeypatch.setattr(problem_checks, "NUM_TRAIN", 600)
    monkeypatch.setattr(problem_checks, "NUM_HELD_OUT", 300)


@pytest.mark.parametrize(
    "task",
    [Countdown((3, 4)), Countdown((3,), "r1"), Countdown((3,), "instruct"), Multiply()],
    ids=lambda task: f"{task.name} {task.template}",
)
def test_the_packaged_tasks_raise_no_alarm(task):
    findings = found(task)
    assert worst_level(list(findings.values())) == "ok" and set(findings) == set(checks)


class WithoutNumbers(StartsWith):
    def ask(self, problem):
        return "numbers\n<think>\n"


class OtherTarget(Countdown):
    """Asks for the next number, and grades what is given."""

    def ask(self, problem):
        given = dict(problem.given)
        return super().ask(replace(problem, given=given | {"target": given["target"] + 1}))


class ForgetsANumber(Countdown):
    def ask(self, problem):
        given = dict(problem.given)
        return super().ask(replace(problem, given=given | {"numbers": given["numbers"][1:]}))


class Questions:
    """Questions as from a file, all of them unlike."""

    name = "questions"

    def __init__(self, text="Question {i}?", size=10**6):
        self.text, self.size = text, size

    def problems(self, split: str, seed: int):
        first = {"train": 0, "validation": 1, "test": 2}[split] * 10**6
        for i in range(first, first + self.size):
            number = first + (i * 7919 + seed) % self.size
            yield Problem(f"q/{number}", "q", {"question": f"Question {number}?"})

    def ask(self, problem):
        return self.text.format(i=problem.given["question"].split()[1][:-1])


class SameEverywhere(Questions):
    """Forgets that there are splits."""

    def problems(self, split, seed):
        return super().problems("train", seed)


class LeaksLate(Questions):
    """Its test problems are training problems from the 250th on, in other words and under other
    ids."""

    def problems(self, split, seed):
        if split != "test":
            yield from super().problems(split, seed)
            return
        yield from islice(super().problems(split, seed), 250)
        for problem in islice(super().problems("train", 0), 50):
            shouted = {"question": problem.given["question"].upper()}
            yield replace(problem, id=f"test/{problem.id}", given=shouted)

    def ask(self, problem):
        return problem.given["question"] + "  "


class Permuted(Countdown):
    """Its test puzzles are training puzzles with the numbers the other way round."""

    def problems(self, split, seed):
        for problem in super().problems("train", 0):
            numbers = problem.given["numbers"]
            given = dict(problem.given) | {"numbers": numbers[::-1] if split == "test" else numbers}
            yield replace(problem, id=f"{split}/{problem.id}", given=given)


class SameForEver(Questions):
    """Draws without its seed."""

    def problems(self, split, seed):
        return super().problems(split, 0)


class RepeatsWithinAStep(Questions):
    """Gives every problem four times, under other ids."""

    def problems(self, split, seed):
        for problem in super().problems(split, seed):
            yield from (replace(problem, id=f"{problem.id}/{copy}") for copy in range(4))


class NoTest(Questions):
    def problems(self, split, seed):
        return iter(()) if split == "test" else super().problems(split, seed)


FAULTS = {
    "prompts without their numbers": ("prompt_given", "fail", WithoutNumbers("0")),
    "prompts for another target": ("prompt_given", "fail", OtherTarget((3,))),
    "prompts without one number": ("prompt_given", "fail", ForgetsANumber((3,))),
    "prompts for another question": ("prompt_given", "fail", Questions("Question 1{i}?")),
    "the same eight problems for ever": ("problems", "fail", SameForEver()),
    "the same problems within a step": ("problems", "fail", RepeatsWithinAStep()),
    "eight problems": ("problems", "warn", Questions(size=8)),
    "three problems": ("problems", "warn", Questions(size=3)),
    "no splits": ("splits", "fail", SameEverywhere()),
    "test problems under other ids, after the first 200": ("splits", "fail", LeaksLate()),
    "test puzzles in another order": ("splits", "fail", Permuted((3,))),
    "no test": ("splits", "warn", NoTest()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault):
    check, level, task = FAULTS[fault]
    finding = found(task)[check]
    assert finding.level == level and finding.fix, finding


def test_every_check_has_a_planted_fault():
    assert set(checks) == {check for check, _, _ in FAULTS.values()}


def test_problems_of_another_kind_with_one_prompt_are_told():
    class Secret(Questions):
        def problems(self, split, seed):
            for problem in super().problems(split, seed):
                yield replace(problem, given={"secret": problem.id})

        def ask(self, problem):
            return "guess\n"

    assert found(Secret())["prompt_given"].level == "warn"


def test_a_curriculum_may_draw_problems_again():
    cfg = {"algo": {"curriculum": "pools", "pool": 8}}
    assert found(SameForEver(), **cfg)["problems"].level == "ok"


def test_the_numbers_of_a_prompt_are_whole():
    problem = Problem("p", "countdown", {"numbers": (7, 7, 25), "target": 8})
    assert shows_given(problem, "numbers 7 25 7 target 8")
    assert not shows_given(problem, "numbers 7 25 target 8")  # the second 7 is not there
    assert not shows_given(problem, "numbers 7 7 25 target 82")


def test_a_task_without_data_is_a_finding():
    class Broken(Questions):
        def problems(self, split, seed):
            raise DataError("no data", "some", "--task.data FILE")

    assert [f.level for f in check_problems(config(), Broken())] == ["fail"]


def test_slow_puzzles_are_compared_as_far_as_time_allows():
    assert list(in_time(iter(range(5)), seconds=-1)) == [0]
    assert list(in_time(iter(range(5)), seconds=60)) == [0, 1, 2, 3, 4]
