"""`aha eval`, `aha ask`, `aha problems`, `aha grade`, `aha baseline`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from aha.cli.app import Count, Split, app
from aha.core.errors import ConfigError

Numbers = Annotated[list[int] | None, Parameter(consume_multiple=True)]


@app.command(name="eval")
def evaluate(
    model: str,
    *,
    task: str = "countdown",
    options: str = "",
    numbers: Numbers = None,
    split: Split = "test",
    n: Count = 1000,
    seed: int = 0,
    group_size: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    data: str | None = None,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Solve rate of a model or run on held-out problems, with a 95 % interval.

    Parameters
    ----------
    model
        aha-tiny, a run folder or a Hugging Face model folder.
    task
        countdown, multiply, math, gym:NAME, a Python file, or an installed task.
    options
        settings of the task, as in "digits = [2, 3]".
    numbers
        sizes of Countdown's puzzles, drawn evenly; 3 unless given.
    group_size
        completions of each problem; above 1, pass@k is reported too.
    max_new_tokens
        320 for Countdown with three numbers, 1024 otherwise, unless given.
    json
        print one JSON object.
    out
        file for every completion, as JSON lines.
    """
    from aha.cli.looking import evaluate_model, task_settings

    settings = task_settings(task, options, numbers, data)
    if max_new_tokens is None:
        short = task == "countdown" and max(settings.get("numbers", (3,))) <= 3
        max_new_tokens = 320 if short else 1024
    asked = {
        "split": split,
        "n": n,
        "seed": seed,
        "group_size": group_size,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
    }
    evaluate_model(model, task, settings, asked, as_json=json, out=out)


@app.command
def ask(
    *numbers: int,
    target: int | None = None,
    task: str = "countdown",
    options: str = "",
    data: str | None = None,
    given: str = "",
    model: str = "aha-tiny",
    seed: int = 0,
    temperature: float = 1.0,
    max_new_tokens: int = 1024,
) -> None:
    """Put one puzzle to a model and watch it think: `aha ask 3 7 25 --target 82`.

    Parameters
    ----------
    task
        another task than Countdown: its problem is `given`, or a held-out one that `seed`
        draws.
    given
        a problem as `aha problems --task NAME` prints it, a JSON object.
    """
    from aha.cli.looking import ask_model, puzzle, task_problem, task_settings

    if task == "countdown" and not given:
        asked = puzzle(numbers, target)
    else:
        if numbers or target is not None:
            raise ConfigError(
                f"numbers and target with the task {task!r}", "--given with a JSON object", ""
            )
        asked = task_problem(task, task_settings(task, options, None, data), given, seed)
    ask_model(model, *asked, seed, temperature, max_new_tokens)


@app.command
def problems(
    *,
    task: str = "countdown",
    options: str = "",
    split: Split = "test",
    numbers: Numbers = None,
    n: Count = 1000,
    seed: int = 0,
    data: str | None = None,
) -> None:
    """Print problems as JSON lines: id, and what is given (Countdown: numbers, target)."""
    from aha.cli.looking import print_problems, task_settings

    print_problems(task, task_settings(task, options, numbers, data), split, n, seed)


@app.command
def grade(*, task: str = "countdown", options: str = "", data: str | None = None) -> None:
    """Grade completions: JSON lines {numbers, target, completion} in, verdicts out.

    For another task than Countdown, what `aha problems --task NAME` prints takes the place of
    numbers and target.
    """
    from aha.cli.looking import grade_lines, grade_task_lines, task_settings

    if task == "countdown":
        grade_lines(sys.stdin.buffer, sys.stdout)
    else:
        settings = task_settings(task, options, None, data)
        grade_task_lines(task, settings, sys.stdin.buffer, sys.stdout)


@app.command
def baseline(
    *,
    numbers: Annotated[list[int], Parameter(consume_multiple=True)] = [3],  # noqa: B006
    tokens: int = 320,
    n: Count = 1000,
    seed: int = 0,
) -> None:
    """What random search solves within a budget of tokens, written in aha-tiny's grammar."""
    from aha.cli.looking import random_baseline

    random_baseline(tuple(numbers), tokens, n, seed)
