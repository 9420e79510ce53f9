"""Problems and completions as JSON lines: what `aha problems` prints and `aha grade` reads."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from aha.core.errors import DataError
from aha.core.records import Graded, Problem
from aha.tasks.countdown import grade_countdown
from aha.tasks.protocol import Task

COUNTDOWN_LINE = '{"numbers": [3, 7, 25], "target": 82, "completion": "..."}'


def task_line(name: str) -> str:
    return f"a line of `aha problems --task {name}` with a completion"


def problem_row(problem: Problem) -> dict[str, Any]:
    """The line of a problem: id, and what is given."""
    given = dict(problem.given)
    if problem.task == "countdown":
        given = {"numbers": list(given["numbers"]), "target": given["target"]}
    return {"id": problem.id, **given}


def read_row(line: bytes) -> dict[str, Any]:
    return json.loads(line.decode("utf-8", errors="replace"))


def read_problem(line: bytes, task: str, where: str, number: int) -> tuple[Problem, Any]:
    """A problem as `aha problems` prints it, and the completion where one was added."""
    try:
        row = read_row(line)
        given = {key: row[key] for key in row if key not in ("id", "completion")}
        return Problem(str(row.get("id", number)), task, given), row.get("completion")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{where}: {line[:60]!r}", task_line(task)) from None


def grade_countdown_lines(lines: Iterable[bytes]) -> Iterator[Graded]:
    """One verdict for every line that is not empty, in order, whatever the completion holds.

    Raises DataError for the first line that names no puzzle.
    """
    for number, line in numbered(lines):
        try:
            row = read_row(line)
            numbers, target = row["numbers"], row["target"]
            assert all(type(n) is int for n in [*numbers, target])
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
            raise DataError(f"line {number}: {line[:60]!r}", COUNTDOWN_LINE) from None
        yield grade_countdown(row.get("completion"), tuple(numbers), target)


def grade_task_lines(task: Task, name: str, lines: Iterable[bytes]) -> Iterator[Graded]:
    """The same for any task: all of a line but its id and completion is what is given."""
    for number, line in numbered(lines):
        problem, completion = read_problem(line, name, f"line {number}", number)
        try:
            yield task.grade(problem, completion)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"line {number}: {line[:60]!r}", task_line(name)) from None


def numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, numbered from 1 with all others."""
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())
