"""`aha grade`: rewards for completions of other programs."""

import sys

from aha.cli.parameters import BadRowsRule, DataFile, TaskName, TaskOptions, task_settings
from aha.cli.terminal_text import say_json, say_line


def grade(
    *,
    task: TaskName = "countdown",
    options: TaskOptions = "",
    data: DataFile = None,
    bad_rows: BadRowsRule = None,
) -> None:
    """Grade completions: reads JSON lines {numbers, target, completion}, prints a grade for each.

    For another task than Countdown, a line has the fields that `aha problems --task NAME` prints,
    and completion. A line without one is an error.
    """
    from aha.cli.finding_lines import print_notes
    from aha.tasks.catalog import make_task, notes_of
    from aha.tasks.problem_lines import grade_lines

    chosen = make_task(task, task_settings(options, None, data, bad_rows))
    print_notes(notes_of(chosen))
    if sys.stdin.isatty():
        say_line("aha: reading lines that are typed; Ctrl-D ends them", sys.stderr)
    for graded in grade_lines(chosen, task, sys.stdin.buffer):
        row = {"reward": graded.reward, "correct": graded.correct, "reason": graded.reason}
        say_json(row)
