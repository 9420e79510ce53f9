"""Runs the grading of a task from outside in another process, with a time limit for each call.

If `grade` raises, exceeds the limit, crashes or returns an invalid grade, the reward is 0, `reason`
says why, and `parts["grade_error"]` counts it. The other process has its own task object, so a
grade must depend on the problem and the text alone. `problems` and `ask` run in this process; a
fault in them is an error with the task's name. `Worker` is the process, `IsolatedTask` the task.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from numbers import Real
from typing import Any

from aha.core.errors import AhaError, DataError
from aha.core.records import Graded, Problem
from aha.tasks.protocol import Task

START_SECONDS = 120.0  # heavy imports on a busy machine


class CallFailed(Exception):
    """A call raised, exceeded its time limit or crashed; the message says which, in one line."""


class Worker:
    """A function in another process; calling the worker calls it there.

    `build` names a builder as "module:function"; called there with `args`, it returns the function.
    Arguments and results travel as pickles. `seconds` is the time limit of one call.
    """

    def __init__(self, build: str, args: tuple[Any, ...], seconds: float):
        self.build, self.args, self.seconds = build, args, seconds
        self.process: subprocess.Popen[bytes] | None = None
        self.pipe: Connection[Any, Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """The result. Raises `CallFailed`, and whatever `build` raised when the process started."""
        if self.process is None:
            self.start()
        return self.exchange(args, self.seconds)

    def start(self) -> None:
        """Start the process and build in it; an error there is raised here, with its own type."""
        self.pipe, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "aha.tasks.isolation", str(theirs.fileno())]
        # Its own session: a Ctrl-C means "finish this step", and the step needs its graders.
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        theirs.close()
        try:
            self.exchange((self.build, self.args), START_SECONDS)
        except BaseException:
            self.close()
            raise

    def exchange(self, message: tuple[Any, ...], seconds: float) -> Any:
        """Send a message and wait for its reply; raises as `__call__` does."""
        assert self.process is not None and self.pipe is not None, "no process to talk to"
        process = self.process
        try:
            self.pipe.send(message)
            if not self.pipe.poll(seconds):
                raise CallFailed(f"took more than {seconds:g} s")
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):  # it may have closed the pipe and live on
                process.wait(1.0)
            code = process.poll()
            self.close()
            raise CallFailed(f"its process ended with exit code {code}") from None
        except BaseException:  # a Ctrl-C too: a late reply must not pass for the next one
            self.close()
            raise
        if kind == "user error":
            raise value
        if kind == "raised":
            raise CallFailed(value)
        return value

    def close(self) -> None:
        """End the process, even in the middle of a call. The next call starts another one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self.pipe is not None:
            self.pipe.close()
        self.process = self.pipe = None

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the interpreter its modules may be gone
            self.close()


# -- in the other process -------------------------------------------------------------------


def locate(name: str) -> Callable[..., Any]:
    """The function of a name such as "module:function"."""
    module, _, function = name.partition(":")
    located: Callable[..., Any] = getattr(import_module(module), function)
    return located


def attempt(function: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    """The result or the error of a call as a message. Catches `exit()` in a grader as well."""
    try:
        return "done", function(*args)
    except AhaError as error:
        return "user error", error
    except BaseException as error:
        text = " ".join(str(error).split())[:200]
        return "raised", f"raised {type(error).__name__}" + (f": {text}" if text else "")


def serve(pipe: "Connection[Any, Any]") -> None:
    """Build once, then answer calls until the other end is closed."""
    build, args = pipe.recv()
    built: list[Callable[..., Any]] = []
    kind, value = attempt(lambda: built.append(locate(build)(*args)))
    pipe.send((kind, value))
    while built:
        try:
            message = pipe.recv()
        except EOFError:
            return
        outcome = attempt(built[0], *message)
        try:
            pipe.send(outcome)
        except OSError:
            return
        except Exception as error:  # the result cannot be pickled
            pipe.send(("raised", f"returned what cannot be sent: {type(error).__name__}"))


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
    """A grader's result as a valid grade; a plain number becomes the reward.

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
    """A grader returned something that is not a grade."""


if __name__ == "__main__":
    # What a grader prints goes to the terminal's error stream: standard output is for results.
    os.dup2(2, 1)
    serve(Connection(int(sys.argv[1])))
