"""`aha grade`: rewards for completions of other programs."""

import sys

from aha.cli.parameters import DataFile, TaskName, TaskOptions, task_settings
from aha.cli.terminal_text import say_json


def grade(
    *, task: TaskName = "countdown", options: TaskOptions = "", data: DataFile = None
) -> None:
    """Grade completions: reads JSON lines {numbers, target, completion}, prints a grade for each.

    For another task than Countdown, a line has the fields that `aha problems --task NAME` prints,
    and completion.
    """
    from aha.tasks.catalog import make_task
    from aha.tasks.problem_lines import grade_countdown_lines, grade_task_lines

    if task == "countdown":
        verdicts = grade_countdown_lines(sys.stdin.buffer)
    else:
        chosen = make_task(task, task_settings(options, None, data))
        verdicts = grade_task_lines(chosen, task, sys.stdin.buffer)
    for graded in verdicts:
        row = {"reward": graded.reward, "correct": graded.correct, "reason": graded.reason}
        say_json(row)
