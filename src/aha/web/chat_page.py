"""The chat page: a puzzle that a visitor types, answered by a run's base model or trained model.

The command line passes in the function that runs the model, so that this room needs no torch.
"""

import shlex
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any

from starlette.concurrency import iterate_in_threadpool

from aha.core.control_characters import visible
from aha.core.errors import AhaError, ConfigError
from aha.core.records import Problem
from aha.store.run_folder import is_tuning
from aha.tasks.problem_lines import countdown_from_config, parse_puzzle
from aha.tasks.protocol import Task
from aha.web.completions import WHOLE_CHARS, completion_view
from aha.web.file_reader import dumps
from aha.web.runs import RunFolder, section

# (model's name, task, problem, options) -> {"origin"}, then {"text"} for every piece, then {"row"},
# the graded completion. `options` has seed, temperature and max_new_tokens. Closing the generator
# stops the generation.
StreamCompletion = Callable[
    [str, Task, Problem, dict[str, Any]], Generator[dict[str, Any], None, None]
]

SIDES = ("before", "after")
MAX_TOKENS = 4096


async def stream_answer(
    stream_completion: StreamCompletion, run: RunFolder, fields: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """One side's answer as JSON lines, as `stream_completion` yields them.

    `fields` are those of the address: puzzle, side, seed, temperature, max_new_tokens. An error, at
    the start or later, is the last line: {"error": message}.
    """
    stream = None
    try:
        task, problem = task_and_problem(run, fields.get("puzzle", ""))
        model = model_of_side(run, fields.get("side", ""))
        stream = stream_completion(model, task, problem, sampling_options(fields))
        async for event in iterate_in_threadpool(stream):
            yield dumps(displayable(event)) + b"\n"
    except AhaError as error:
        yield dumps({"error": visible(str(error))}) + b"\n"
    except Exception as error:
        yield dumps({"error": visible(f"{type(error).__name__}: {error}")}) + b"\n"
    finally:
        if stream is not None:
            stream.close()


def displayable(event: dict[str, Any]) -> dict[str, Any]:
    """The event with visible text; a row becomes the view of a completion, as on the other
    pages."""
    if "row" in event:
        row = event["row"] | {key: list(v) for key, v in event["row"].items() if type(v) is tuple}
        return {"row": completion_view(row, 0, WHOLE_CHARS)}
    return {key: visible(str(value)) for key, value in event.items()}


def task_and_problem(run: RunFolder, typed: str) -> tuple[Task, Problem]:
    """The run's task, with its prompt options and its grading, and the typed puzzle.

    Raises ConfigError for a run on another task than Countdown or on none, and for text that is no
    puzzle.
    """
    config = run.read("config")
    task = countdown_from_config(section(config, "task"))
    if task is None:
        tuned, place = is_tuning(config), shlex.quote(str(run.path))
        what = "a fine-tuning, which has no task" if tuned else "a run on another task"
        raise ConfigError(
            f"{run.name}, {what}",
            "a run on Countdown: its puzzles can be typed",
            f"aha chat {place}" if tuned else f"aha ask --model {place}",
        )
    return task, parse_puzzle(typed)


def model_of_side(run: RunFolder, side: str) -> str:
    """The name of the base model (`before`), or of the run (`after`): its newest weights.

    Raises ConfigError for another side, and where the run does not name its base model.
    """
    if side not in SIDES:
        raise ConfigError(f"side {side!r}", " or ".join(SIDES))
    if side == "after":
        return str(run.path)
    base = section(run.read("config"), "model").get("path")
    if not isinstance(base, str):
        raise ConfigError(f"config.json of {run.name} without model.path", "the base model's name")
    return base


def sampling_options(fields: Mapping[str, str]) -> dict[str, Any]:
    """seed, temperature and max_new_tokens from the fields of an address; empty fields have
    defaults. Raises ConfigError for a value out of its range."""
    seed, limit = fields.get("seed") or "0", fields.get("max_new_tokens") or "1024"
    temperature = fields.get("temperature") or "1"
    options: dict[str, Any] = {}
    try:
        options = {
            "seed": int(seed[:18]),
            "temperature": float(temperature),
            "max_new_tokens": int(limit[:9]),
        }
        valid = 0 <= options["temperature"] <= 10 and 1 <= options["max_new_tokens"] <= MAX_TOKENS
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            f"seed {seed!r}, temperature {temperature!r}, max_new_tokens {limit!r}",
            f"a whole number, a number from 0 to 10, a number from 1 to {MAX_TOKENS}",
        )
    return options
