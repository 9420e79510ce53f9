"""The chat: a puzzle that a visitor types, answered by a run's base or by its trained model.

What answers is handed in by the command line, so that this room opens without torch.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from starlette.concurrency import iterate_in_threadpool

from aha.core.errors import AhaError, ConfigError
from aha.core.records import Problem
from aha.tasks.protocol import Task
from aha.tasks.puzzle_input import countdown_from_config, parse_puzzle
from aha.web.completions import WHOLE_CHARS, shown
from aha.web.event_spans import visible
from aha.web.file_reader import dumps
from aha.web.runs import RunFolder, section

# (model's name, task, problem, how) -> {"origin"}, then {"text"} for every piece, then {"row"}: a
# graded completion. `how` has seed, temperature and max_new_tokens. Closing it ends the work.
Speak = Callable[[str, Task, Problem, dict], Iterator[dict]]

SIDES = ("before", "after")
MOST_TOKENS = 4096


async def answer_lines(
    speak: Speak, run: RunFolder, fields: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """A JSON object a line, as `speak` tells them; {"error"} where it cannot go on."""
    answer = None
    try:
        task, problem = asked_of(run, fields.get("puzzle", ""))
        answer = speak(side_of(run, fields.get("side", "")), task, problem, how_of(fields))
        async for told in iterate_in_threadpool(answer):
            yield dumps(as_shown(told)) + b"\n"
    except AhaError as error:
        yield dumps({"error": visible(str(error))}) + b"\n"
    except Exception as error:
        yield dumps({"error": visible(f"{type(error).__name__}: {error}")}) + b"\n"
    finally:
        if answer is not None:
            answer.close()


def as_shown(told: dict) -> dict:
    """Text as it may be shown; a row with its events, as on every other page."""
    if "row" in told:
        row = told["row"] | {key: list(v) for key, v in told["row"].items() if type(v) is tuple}
        return {"row": shown(row, 0, WHOLE_CHARS)}
    return {key: visible(str(value)) for key, value in told.items()}


def asked_of(run: RunFolder, typed: str) -> tuple[Task, Problem]:
    """The puzzle, and the game as the run asked and judged it."""
    task = countdown_from_config(section(run.read("config"), "task"))
    if task is None:
        raise ConfigError(
            f"{run.name}, a run on another task than Countdown",
            "a run on Countdown: its puzzles can be typed",
            f"aha ask --task NAME --model {run.path.name}",
        )
    return task, parse_puzzle(typed)


def side_of(run: RunFolder, side: str) -> str:
    """The name of the model before training, or of the run, which stands for its newest weights."""
    if side not in SIDES:
        raise ConfigError(f"side {side!r}", " or ".join(SIDES))
    if side == "after":
        return str(run.path)
    base = section(run.read("config"), "model").get("path")
    if not isinstance(base, str):
        raise ConfigError(f"config.json of {run.name} without model.path", "the base model's name")
    return base


def how_of(fields: Mapping[str, str]) -> dict:
    """seed, temperature and max_new_tokens out of an address."""
    seed, most = fields.get("seed") or "0", fields.get("max_new_tokens") or "1024"
    temperature = fields.get("temperature") or "1"
    try:
        how = {
            "seed": int(seed[:18]),
            "temperature": float(temperature),
            "max_new_tokens": int(most[:9]),
        }
        usable = 0 <= how["temperature"] <= 10 and 1 <= how["max_new_tokens"] <= MOST_TOKENS
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"seed {seed!r}, temperature {temperature!r}, max_new_tokens {most!r}",
            f"a whole number, a number from 0 to 10, a number from 1 to {MOST_TOKENS}",
        )
    return how
