"""`aha problems`: prints a task's problems as JSON lines."""

from itertools import islice

from aha.cli.parameters import (
    DataFile,
    Numbers,
    ProblemCount,
    ProblemSeed,
    Split,
    TaskName,
    TaskOptions,
    task_settings,
)
from aha.cli.terminal_text import say_json


def problems(
    *,
    task: TaskName = "countdown",
    options: TaskOptions = "",
    split: Split = "test",
    numbers: Numbers = None,
    n: ProblemCount = 1000,
    seed: ProblemSeed = 0,
    data: DataFile = None,
) -> None:
    """Print problems as JSON lines: id and the fields of the problem (Countdown: numbers,
    target)."""
    from aha.tasks.catalog import make_task
    from aha.tasks.problem_lines import problem_row

    chosen = make_task(task, task_settings(options, numbers, data))
    for problem in islice(chosen.problems(split, seed), n):
        say_json(problem_row(problem))
