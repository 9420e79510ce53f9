"""Tasks from outside, isolated: what they do wrong costs one completion, not the run.

`grade` runs in a process of its own with a time limit; when it raises, hangs, crashes or returns
nonsense, the reward is 0, the reason says so, and `parts["grade_error"]` counts it. That process
has a task object of its own, so a grade must follow from the problem and the text alone.
`problems` and `ask` run here: a fault there is the task's, and an error with the task's name.
"""

import json
import math
from collections.abc import Callable, Iterator
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
    """A task whose faults become rewards of 0 (in `grade`) or errors with its name (elsewhere).

    `worker` is called as `worker(problem, text)` and returns what `checked_grader` does.
    """

    inner: Task
    name: str
    worker: Worker
    held_out: dict[str, str] = field(default_factory=dict)  # problem id -> its split

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """The problems of the task. Raises `DataError` for a value that is no problem, and for a
        problem of the training split that a held-out split has given as well."""
        try:
            for problem in self.inner.problems(split, seed):
                self.check_problem(problem, split)
                yield problem
        except AhaError:
            raise
        except Exception as error:
            raise self.fault(f"problems({split!r}, {seed})", error) from error

    def check_problem(self, problem: Problem, split: str) -> None:
        """Raises `DataError` as `problems` does."""
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
        """The task's prompt. Raises `DataError` where the task raises or returns no text."""
        try:
            text = self.inner.ask(problem)
        except Exception as error:
            raise self.fault(f"ask({problem.id!r})", error) from error
        if not isinstance(text, str):
            raise DataError(f"the task {self.name!r} asks {text!r:.60}", "text")
        return text

    def grade(self, problem: Problem, text: str) -> Graded:
        """The task's grade, or a reward of 0 with the fault as its reason."""
        try:
            graded: Graded = self.worker(problem, text)
        except CallFailed as fault:
            return Graded(0.0, False, f"the grader {fault}", {"grade_error": 1.0})
        return graded

    def fault(self, call: str, error: Exception) -> DataError:
        """An exception of the task's own code, in one line with its name."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return DataError(f"the task {self.name!r}, {call}: {reason}", "a task without faults")


# -- in the worker's process ----------------------------------------------------------------


def checked_grader(task: Task) -> Callable[[Problem, str], Graded]:
    """The task's `grade` with its results checked, before they are sent to the run."""

    def grade(problem: Problem, text: str) -> Graded:
        return checked(task.grade(problem, text))

    return grade


def checked(result: object) -> Graded:
    """A grader's result as the run can use it; a plain number is taken as the reward.

    Raises `Nonsense` for any other type, a number that is not finite, or a reason that is no text.
    """
    if isinstance(result, Real):  # a bool is one too
        result = Graded(float(result), float(result) >= 1.0, f"reward {float(result):g}")
    if not isinstance(result, Graded):
        raise Nonsense(f"{type(result).__name__} in place of a Graded or a number")
    numbers = {"reward": result.reward, **result.parts}
    for key, value in numbers.items():
        if not isinstance(key, str) or not isinstance(value, Real) or not math.isfinite(value):
            raise Nonsense(f"{key} {value!r:.40} in place of a finite number")
    if not isinstance(result.reason, str):
        raise Nonsense(f"the reason {result.reason!r:.40} in place of text")
    parts = {key: float(value) for key, value in result.parts.items()}
    return Graded(float(result.reward), bool(result.correct), result.reason[:MAX_REASON], parts)


class Nonsense(Exception):
    """A grader returned something that is no grade."""
