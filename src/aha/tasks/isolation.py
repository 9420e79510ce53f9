"""The grading of a task from outside, in another process, with its faults as grades.

If `grade` raises, exceeds the limit, crashes or returns an invalid grade, the reward is 0, `reason`
says why, and `parts["grade_error"]` counts it; `grade_timeout` counts those over the time limit.
Where faults have cost too much time, no other text is tried: `grade_untried` counts those. The
other process has its own task object, so a grade must depend on the problem and the text alone.
`problems`, `ask` and `solve` run in this process; a fault in them is an error with the task's name.
"""

import json
import math
import reprlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any

from aha.core.errors import AhaError, DataError
from aha.core.records import Graded, Problem
from aha.tasks.protocol import Task
from aha.tasks.worker import CallFailed, CallTimedOut, Worker
from aha.tasks.worker_process import Nonsense, plain_line

HELD_OUT = ("test", "validation")
MAX_REASON = 500  # characters
MAX_PARTS = 50
# Far below float32's largest number, so that sums and squares of rewards can be computed too.
MAX_REWARD = 1e6


class LostTime:
    """The seconds that failed calls have taken: in a row, and of the last hundred.

    A grader that hangs costs its time limit for every completion. `too_much` becomes and stays true
    after `IN_A_ROW` limits without a verdict between, or `OF_THE_LAST` limits in `CALLS` calls. A
    limit counts as `LEAST_S` at least, which is what a start of the process may take.
    """

    IN_A_ROW, OF_THE_LAST, CALLS, LEAST_S = 5, 20, 100, 1.0

    def __init__(self, limit_s: float):
        self.limit_s = max(limit_s, self.LEAST_S)
        self.in_a_row, self.too_much = 0.0, False
        self.last: deque[float] = deque(maxlen=self.CALLS)

    def count(self, lost_s: float) -> None:
        """Count a call that has lost so many seconds; 0 for one with a verdict."""
        self.in_a_row = self.in_a_row + lost_s if lost_s else 0.0
        self.last.append(lost_s)
        limits = max(self.in_a_row / self.IN_A_ROW, sum(self.last) / self.OF_THE_LAST)
        self.too_much = self.too_much or limits >= self.limit_s


@dataclass
class IsolatedTask:
    """A task whose faults become rewards of 0 (in `grade`) or errors with its name (elsewhere).

    `worker` is called as `worker(problem, text)` and returns what `checked_grader` does.
    """

    inner: Task
    name: str
    worker: Worker
    held_out: dict[str, str] = field(default_factory=dict)  # problem id -> its split

    def __post_init__(self) -> None:
        self.lost, self.last_fault = LostTime(self.worker.seconds), ""

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

    @property
    def solve(self) -> Callable[[Problem], str | None] | None:
        """The task's right completion of a problem; None for a task without `solve`.

        The function raises `DataError` where the task raises or returns no text.
        """
        inner = getattr(self.inner, "solve", None)
        if inner is None:
            return None

        def solve(problem: Problem) -> str | None:
            try:
                text = inner(problem)
            except Exception as error:
                raise self.fault(f"solve({problem.id!r})", error) from error
            if not isinstance(text, str | None):
                raise DataError(f"the task {self.name!r} solves with {text!r:.60}", "text or None")
            return text

        return solve

    def grade(self, problem: Problem, text: str) -> Graded:
        """The task's grade, or a reward of 0 with the fault as its reason. Never raises."""
        if self.lost.too_much:
            return failed(
                f"the grader was given up after many like this: it {self.last_fault}",
                "grade_untried",
            )
        started = time.monotonic()
        try:
            graded = graded_of(self.worker(problem, text))
        except CallFailed as fault:
            self.lost.count(time.monotonic() - started + self.worker.restart_s)
            self.last_fault = str(fault)
            late = ("grade_timeout",) if isinstance(fault, CallTimedOut) else ()
            return failed(f"the grader {fault}", *late)
        self.lost.count(0.0)
        return graded

    def fault(self, call: str, error: Exception) -> DataError:
        """An exception of the task's own code, in one line with its name."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return DataError(f"the task {self.name!r}, {call}: {reason}", "a task without faults")


def failed(reason: str, *parts: str) -> Graded:
    """The grade of a text whose grading failed."""
    return Graded(0.0, False, reason, dict.fromkeys(("grade_error", *parts), 1.0))


def graded_of(row: Any) -> Graded:
    """The grade that `checked_grader` has sent. Raises `CallFailed` for anything else, because
    foreign code runs in the process that it comes from."""
    try:
        graded = Graded(row["reward"], row["correct"], row["reason"], row["parts"])
        return checked(graded)
    except (Nonsense, TypeError, KeyError) as error:
        raise CallFailed(f"sent {plain_line(str(error), MAX_REASON)}") from None


# -- in the worker's process ----------------------------------------------------------------


def checked_grader(task: Task) -> Callable[[Problem, str], dict[str, Any]]:
    """The task's `grade` with its results checked, as rows for the run."""

    def grade(problem: Problem, text: str) -> dict[str, Any]:
        graded = checked(task.grade(problem, text))
        return {
            "reward": graded.reward,
            "correct": graded.correct,
            "reason": graded.reason,
            "parts": dict(graded.parts),
        }

    return grade


def checked(result: object) -> Graded:
    """A grader's result as a valid grade; a plain number becomes the reward.

    A number is what `number_of` takes. The reason is cut, and loses what a terminal would obey.
    Raises `Nonsense` for any other type, for a number that is not finite, for a reward beyond
    `MAX_REWARD`, which float32 may not be able to add up, and for more than `MAX_PARTS` parts.
    """
    if not isinstance(result, Graded):
        reward = number_of(result)
        if reward is None:
            raise Nonsense(f"returned {shown(result)} in place of a Graded or a number")
        result = Graded(reward, reward >= 1.0, f"reward {reward:g}")
    reward = number_of(result.reward)
    if reward is None or not math.isfinite(reward):
        raise Nonsense(f"returned the reward {shown(result.reward)} in place of a finite number")
    if abs(reward) > MAX_REWARD:
        raise Nonsense(f"returned the reward {reward:g}, and at most {MAX_REWARD:g} can be learnt")
    correct = number_of(result.correct)
    if correct not in (0.0, 1.0):
        raise Nonsense(f"returned correct {shown(result.correct)} in place of True or False")
    if not isinstance(result.reason, str):
        raise Nonsense(f"returned the reason {shown(result.reason)} in place of text")
    reason = plain_line(result.reason, MAX_REASON)
    return Graded(reward, bool(correct), reason, checked_parts(result.parts))


def checked_parts(parts: object) -> dict[str, float]:
    """The parts of a reward as plain numbers. Raises `Nonsense` as `checked` does."""
    if not isinstance(parts, Mapping):
        raise Nonsense(f"returned the parts {shown(parts)} in place of names with numbers")
    if len(parts) > MAX_PARTS:
        raise Nonsense(f"returned {len(parts)} parts, and at most {MAX_PARTS} are kept")
    numbers = {}
    for name, value in parts.items():
        number = number_of(value)
        if number is None or not math.isfinite(number):
            raise Nonsense(f"returned the part {shown(name)} {shown(value)}, no finite number")
        if not isinstance(name, str) or plain_line(name, MAX_REASON) != name:
            raise Nonsense(f"returned the part {shown(name)} in place of a name")
        numbers[name] = number
    return numbers


def number_of(value: object) -> float | None:
    """The value as a float where it clearly is one number, else None.

    These are Python's real numbers, a bool, a Fraction or a Decimal too, and a NumPy scalar, a
    tensor or an array without a dimension. An integer that no float holds becomes an infinity.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, Real | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (ValueError, ArithmeticError):  # a signalling NaN of Decimal
        return math.nan


def shown(value: object) -> str:
    """A value with its type in a few words, however large it is."""
    return f"{reprlib.repr(value)} ({type(value).__name__})"
