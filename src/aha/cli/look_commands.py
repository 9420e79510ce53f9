"""`aha eval`, `aha ask`, `aha problems`, `aha grade`, `aha baseline`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from aha.cli.app import Count, Split, app


@app.command(name="eval")
def evaluate(
    model: str,
    *,
    task: Literal["countdown"] = "countdown",
    numbers: Annotated[list[int], Parameter(consume_multiple=True)] = [3],  # noqa: B006
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
    numbers
        sizes of the puzzles, drawn evenly.
    group_size
        completions of each problem; above 1, pass@k is reported too.
    max_new_tokens
        320 for three numbers, 1024 for more, unless given.
    json
        print one JSON object.
    out
        file for every completion, as JSON lines.
    """
    from aha.cli.looking import evaluate_model

    if max_new_tokens is None:
        max_new_tokens = 320 if max(numbers, default=0) <= 3 else 1024
    options = {
        "numbers": tuple(numbers),
        "split": split,
        "n": n,
        "seed": seed,
        "group_size": group_size,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "data": data,
    }
    evaluate_model(model, options, as_json=json, out=out)


@app.command
def ask(
    *numbers: int,
    target: int,
    model: str = "aha-tiny",
    seed: int = 0,
    temperature: float = 1.0,
    max_new_tokens: int = 1024,
) -> None:
    """Put one puzzle to a model and watch it think: `aha ask 3 7 25 --target 82`."""
    from aha.cli.looking import ask_model

    ask_model(model, numbers, target, seed, temperature, max_new_tokens)


@app.command
def problems(
    *,
    task: Literal["countdown"] = "countdown",
    split: Split = "test",
    numbers: Annotated[list[int], Parameter(consume_multiple=True)] = [3],  # noqa: B006
    n: Count = 1000,
    seed: int = 0,
    data: str | None = None,
) -> None:
    """Print problems as JSON lines: id, numbers, target."""
    from itertools import islice

    from aha.tasks.countdown import Countdown

    source = Countdown(tuple(numbers), data=data)
    for problem in islice(source.problems(split, seed), n):
        given = problem.given
        row = {"id": problem.id, "numbers": list(given["numbers"]), "target": given["target"]}
        print(json.dumps(row))


@app.command
def grade(*, task: Literal["countdown"] = "countdown") -> None:
    """Grade completions: JSON lines {numbers, target, completion} in, verdicts out."""
    from aha.cli.looking import grade_lines

    grade_lines(sys.stdin.buffer, sys.stdout)


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
