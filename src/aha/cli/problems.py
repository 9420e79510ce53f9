"""`aha problems`: prints a task's problems as JSON lines."""

from itertools import islice

from aha.cli.parameters import (
    BadRowsRule,
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
    bad_rows: BadRowsRule = None,
) -> None:
    """Print a task's problems as JSON lines; a task that has `--data` reads them again.

    A line has the id and the fields of the problem: numbers and target for Countdown, question and
    answer for math.
    """
    from aha.cli.finding_lines import print_notes
    from aha.tasks.catalog import make_task, notes_of
    from aha.tasks.problem_lines import problem_row

    chosen = make_task(task, task_settings(options, numbers, data, bad_rows))
    print_notes(notes_of(chosen))
    for problem in islice(chosen.problems(split, seed), n):
        say_json(problem_row(problem))
