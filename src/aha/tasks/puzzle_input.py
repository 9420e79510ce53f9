"""Countdown puzzles as people type them, and the task as a run's config describes it."""

import re

from aha.core.errors import ConfigError, DataError
from aha.core.records import Problem
from aha.tasks.countdown import Countdown, as_problem

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
    """The task of a run, from the `task` section of its config.json, so that prompts and grading
    are the run's own. None for a run on another task; settings that this version does not know
    are those of the defaults."""
    settings = section if isinstance(section, dict) else {}
    if settings.get("name") != "countdown":
        return None
    known = {key: settings[key] for key in ("template", "verifier") if key in settings}
    try:
        return Countdown(**known)
    except ConfigError:  # of a newer version, or damaged
        return Countdown()
