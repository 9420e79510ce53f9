"""Problems as JSON lines, graded line by line; and puzzles that a user types."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from aha.core.errors import ConfigError, DataError
from aha.core.records import Graded, Problem
from aha.tasks.countdown import Countdown, as_problem, grade_countdown
from aha.tasks.protocol import Task

COUNTDOWN_LINE = '{"numbers": [3, 7, 25], "target": 82, "completion": "..."}'


def task_line(name: str) -> str:
    return f"a line of `aha problems --task {name}` with a completion"


def problem_row(problem: Problem) -> dict[str, Any]:
    """A problem as an object for one line: its id, and the fields of `given`."""
    given = dict(problem.given)
    if problem.task == "countdown":
        given = {"numbers": list(given["numbers"]), "target": given["target"]}
    return {"id": problem.id, **given}


def read_row(line: bytes) -> dict[str, Any]:
    """A line as JSON; bytes that are no UTF-8 are replaced. Raises `ValueError` for no JSON."""
    row: dict[str, Any] = json.loads(line.decode("utf-8", errors="replace"))
    return row


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
    """The same for any task: all fields of a line but id and completion become `given`."""
    for number, line in numbered(lines):
        problem, completion = read_problem(line, name, f"line {number}", number)
        try:
            yield task.grade(problem, completion)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"line {number}: {line[:60]!r}", task_line(name)) from None


def numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, each with its number in the file, from 1."""
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


LINE = re.compile(
    r"\s*(?:numbers?\b:?)?\s*(?P<numbers>\d{1,9}(?:[\s,]+\d{1,9})*?)"
    r"[\s,]*(?:\btarget\b:?|->|→|=|[\s,])\s*(?P<target>\d{1,9})\s*",
    re.ASCII | re.IGNORECASE,
)
MAX_TYPED, SHOWN = 200, 80  # characters


def parse_puzzle(text: str) -> Problem:
    """A puzzle in one line: `numbers 3 7 25 target 82`, `3 7 25 -> 82`, `3, 7, 25 = 82`, or
    `3 7 25 82`, whose last number is the target. Raises `DataError` for anything else."""
    match = LINE.fullmatch(text) if len(text) <= MAX_TYPED else None
    numbers = tuple(map(int, re.findall(r"\d+", match["numbers"]))) if match else ()
    target = int(match["target"]) if match else 0
    if not 2 <= len(numbers) <= 6 or min((*numbers, target)) < 1:
        raise DataError(
            f"{text[:SHOWN]!r}",
            "a puzzle: 2 to 6 positive whole numbers and a target",
            "numbers 3 7 25 target 82",
        )
    return as_problem(numbers, target)


def countdown_from_config(section: object) -> Countdown | None:
    """The Countdown task of a run, from the `task` section of its config.json.

    So prompts and grading are those of the run. None for a run on another task. A setting that this
    version does not have is left out.
    """
    settings = section if isinstance(section, dict) else {}
    if settings.get("name") != "countdown":
        return None
    known = {key: settings[key] for key in ("template", "verifier") if key in settings}
    try:
        return Countdown(**known)
    except ConfigError:  # of a newer version, or damaged
        return Countdown()
