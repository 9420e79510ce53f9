"""Problems as JSON lines, graded line by line; and puzzles that a user types."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from aha.core.errors import AhaError, ConfigError, DataError
from aha.core.records import Graded, Problem
from aha.tasks.countdown import Countdown, as_problem
from aha.tasks.protocol import Task
from aha.tasks.wording import KEYS, WordedTask, Wording

COUNTDOWN_LINE = '{"numbers": [3, 7, 25], "target": 82, "completion": "..."}'


def expected_line(name: str) -> str:
    """What a line should hold, for errors."""
    if name == "countdown":
        return COUNTDOWN_LINE
    return f"a line of `aha problems --task {name}` with a completion"


def problem_row(problem: Problem) -> dict[str, Any]:
    """A problem as an object for one line: its id, and the fields of `given`.

    A task that reads files reads these rows as well."""
    given = dict(problem.given)
    if problem.task == "countdown":
        given = {"numbers": list(given["numbers"]), "target": given["target"]}
    return {"id": problem.id, **given}


def read_row(line: bytes, name: str, where: str) -> dict[str, Any]:
    """A line as an object; bytes that are no UTF-8 are replaced. Raises `DataError` for a line that
    is none."""
    try:
        row = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(f"{where}: {line[:60]!r}", expected_line(name))
    return row


def read_problem(line: bytes, name: str, where: str, number: int) -> tuple[Problem, dict[str, Any]]:
    """A problem as `aha problems` prints it, and the row that it is from. Raises `DataError`."""
    row = read_row(line, name, where)
    given = {key: row[key] for key in row if key not in ("id", "completion")}
    if name == "countdown":
        numbers, target = row.get("numbers", row.get("nums")), row.get("target")
        cells = [*numbers, target] if isinstance(numbers, list) else [None]
        if not all(type(cell) is int for cell in cells):
            raise DataError(f"{where}: {line[:60]!r}", expected_line(name))
        given = {"numbers": tuple(cells[:-1]), "target": cells[-1]}
    return Problem(str(row.get("id", number)), name, given), row


def grade_lines(task: Task, name: str, lines: Iterable[bytes]) -> Iterator[Graded]:
    """One verdict for every line that is not empty, in order, whatever the completion holds.

    Raises `DataError` for the first line that has no completion or names no problem of the task.
    """
    for number, line in numbered(lines):
        problem, row = read_problem(line, name, f"line {number}", number)
        if "completion" not in row:
            raise DataError(
                f"line {number} without a completion: {line[:60]!r}",
                expected_line(name),
                "give the line a field 'completion'",
            )
        try:
            yield task.grade(problem, row["completion"])
        except AhaError as error:
            raise DataError(f"line {number}: {error.got}", error.wanted, error.fix) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"line {number}: {line[:60]!r}", expected_line(name)) from None


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


def countdown_from_config(section: object) -> Task | None:
    """The Countdown task of a run, from the `task` section of its config.json.

    So prompts and grading are those of the run. None for a run on another task. A setting that this
    version does not have is left out.
    """
    settings = section if isinstance(section, dict) else {}
    if settings.get("name") != "countdown":
        return None
    known = {key: settings[key] for key in ("template", "verifier") if key in settings}
    options = settings.get("options")
    words = (
        {key: options[key] for key in KEYS if key in options} if isinstance(options, dict) else {}
    )
    try:
        game = Countdown(**known)
        return WordedTask(game, Wording.of(words)) if words else game
    except ConfigError:  # of a newer version, or damaged
        return Countdown()
