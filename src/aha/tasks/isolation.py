"""A fence around tasks from outside: what they do wrong costs one completion, not the run.

`grade` runs in a process of its own with a time limit; when it raises, hangs, crashes or returns
nonsense, the reward is 0, the reason says so, and `parts["grade_error"]` counts it. That process
has a task of its own, so a verdict must follow from the problem and the text alone. `problems` and
`ask` run here: a fault there is the task's, and an error with the task's name.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Real

from aha.core.errors import AhaError, DataError
from aha.core.records import Graded, Problem
from aha.tasks.protocol import Task
from aha.tasks.subprocess_calls import CallFailed, Worker

HELD_OUT = ("test", "validation")
MAX_REASON = 500  # characters


@dataclass
class IsolatedTask:
    """The task `inner`, as `registry.find_task(name, settings)` built it, behind the fence."""

    inner: Task
    name: str
    settings: dict
    seconds: float = 5.0  # for one verdict
    held_out: dict[str, str] = field(default_factory=dict)  # problem id -> its split

    def __post_init__(self) -> None:
        self.worker = Worker(
            "aha.tasks.isolation:build_grader", (self.name, self.settings), self.seconds
        )

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Those of the task. Raises `DataError` for what is no problem, and for a problem of the
        training split that a held-out split has given as well."""
        try:
            for problem in self.inner.problems(split, seed):
                self.check_problem(problem, split)
                yield problem
        except AhaError:
            raise
        except Exception as error:
            raise self.fault(f"problems({split!r}, {seed})", error) from error

    def check_problem(self, problem: Problem, split: str) -> None:
        if not isinstance(problem, Problem):
            raise DataError(f"the task {self.name!r} gave {problem!r:.60}", "a Problem")
        try:
            json.dumps(dict(problem.given))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"the task {self.name!r}, problem {problem.id!r}: {error}",
                "a `given` that JSON can hold: it is written into the run",
            ) from error
        if split in HELD_OUT:
            before = self.held_out.setdefault(problem.id, split)
        else:
            before = self.held_out.get(problem.id, split)
        if before != split:
            raise DataError(
                f"the task {self.name!r} has the problem {problem.id!r} in the splits {before!r} "
                f"and {split!r}",
                "splits that share no problem",
                "let a hash of the problem decide about its split",
            )

    def ask(self, problem: Problem) -> str:
        try:
            text = self.inner.ask(problem)
        except Exception as error:
            raise self.fault(f"ask({problem.id!r})", error) from error
        if not isinstance(text, str):
            raise DataError(f"the task {self.name!r} asks {text!r:.60}", "text")
        return text

    def grade(self, problem: Problem, text: str) -> Graded:
        try:
            return self.worker(problem, text)
        except CallFailed as fault:
            return Graded(0.0, False, f"the grader {fault}", {"grade_error": 1.0})

    def fault(self, call: str, error: Exception) -> DataError:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return DataError(f"the task {self.name!r}, {call}: {reason}", "a task without faults")


def build_grader(name: str, settings: dict):
    """In the worker: the task's `grade`, with its results checked before they are sent."""
    from aha.tasks.catalog import find_task

    task = find_task(name, settings)

    def grade(problem: Problem, text: str) -> Graded:
        return sound(task.grade(problem, text))

    return grade


def sound(found: object) -> Graded:
    """A verdict as the run can use it; a plain number is a reward. Raises `Nonsense`."""
    if isinstance(found, Real):  # a bool is one too
        found = Graded(float(found), float(found) >= 1.0, f"reward {float(found):g}")
    if not isinstance(found, Graded):
        raise Nonsense(f"{type(found).__name__} in place of a Graded or a number")
    numbers = {"reward": found.reward, **found.parts}
    for key, value in numbers.items():
        if not isinstance(key, str) or not isinstance(value, Real) or not math.isfinite(value):
            raise Nonsense(f"{key} {value!r:.40} in place of a finite number")
    if not isinstance(found.reason, str):
        raise Nonsense(f"the reason {found.reason!r:.40} in place of text")
    parts = {key: float(value) for key, value in found.parts.items()}
    return Graded(float(found.reward), bool(found.correct), found.reason[:MAX_REASON], parts)


class Nonsense(Exception):
    """A grader returned what is no verdict."""
