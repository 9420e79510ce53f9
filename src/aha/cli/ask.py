"""`aha ask`: one problem to one model, streamed and graded."""

from typing import Any

from aha.cli.parameters import (
    DataFile,
    ModelName,
    ProblemSeed,
    TaskName,
    TaskOptions,
    Temperature,
    task_settings,
)
from aha.cli.terminal_text import say, say_line
from aha.core.errors import ConfigError, DataError
from aha.core.records import Problem, Prompt
from aha.tasks.protocol import Task


def ask(
    *numbers: int,
    target: int | None = None,
    task: TaskName = "countdown",
    options: TaskOptions = "",
    data: DataFile = None,
    given: str = "",
    model: ModelName = "aha-tiny",
    seed: ProblemSeed = 0,
    temperature: Temperature = 1.0,
    max_new_tokens: int = 1024,
) -> None:
    """Give one problem to a model and watch its answer appear: `aha ask 3 7 25 --target 82`.

    Parameters
    ----------
    numbers
        Countdown: the numbers of the puzzle.
    target
        Countdown: the number to reach.
    given
        Another task: the problem as `aha problems --task NAME` prints it, a JSON object. Without
        it, a test problem drawn by the seed.
    max_new_tokens
        Token limit of the completion; at most the positions that the model has left.
    """
    if task == "countdown" and not given:
        asked_task, problem = typed_countdown(numbers, target)
    elif numbers or target is not None:
        raise ConfigError(
            f"numbers and target with the task {task!r}", "--given with a JSON object", ""
        )
    else:
        asked_task, problem = task_problem(task, task_settings(options, None, data), given, seed)
    print_completion(model, asked_task, problem, seed, temperature, max_new_tokens)


def typed_countdown(numbers: tuple[int, ...], target: int | None) -> tuple[Task, Problem]:
    from aha.tasks.countdown import Countdown, as_problem

    if not 2 <= len(numbers) <= 6 or target is None or min((*numbers, target)) < 1:
        raise ConfigError(
            f"numbers {list(numbers)}, target {target}",
            "2 to 6 positive numbers and a target",
            "aha ask 3 7 25 --target 82",
        )
    return Countdown((len(numbers),)), as_problem(tuple(numbers), target)


def task_problem(
    name: str, settings: dict[str, Any], given: str, seed: int
) -> tuple[Task, Problem]:
    """The task, and the problem in `given` or else one of the test split."""
    from aha.tasks.catalog import make_task
    from aha.tasks.problem_lines import read_problem

    task = make_task(name, settings)
    if given:
        return task, read_problem(given.encode(), name, "--given", 1)[0]
    problem = next(iter(task.problems("test", seed)), None)
    if problem is None:
        raise DataError(f"the task {name!r} without a test problem", "at least one", "use --given")
    return task, problem


def print_completion(
    name: str, task: Task, problem: Problem, seed: int, temperature: float, max_new_tokens: int
) -> None:
    from aha.model.folders import resolve_model
    from aha.model.weights import load_model
    from aha.rollout.engine import Sampling
    from aha.rollout.native import open_engine

    model = load_model(resolve_model(name))
    prompt = prompt_of(task, problem, model.tokenizer)
    say(prompt.text, end="")
    positions = model.policy.config.max_position_embeddings - len(prompt.tokens)
    sampling = Sampling(min(max_new_tokens, positions), 1, temperature, seed)
    pieces = []
    for piece in open_engine(model.policy, model.tokenizer).stream(prompt, sampling):
        pieces.append(piece)
        say(piece, end="")
    graded = task.grade(prompt.problem, "".join(pieces))
    say()
    say_line(f"{'right' if graded.correct else 'wrong'}: {graded.reason}")


def prompt_of(task: Task, problem: Problem, tokenizer: Any) -> Prompt:
    """The prompt. Raises an `AhaError` if the task cannot read the typed problem."""
    try:
        return Prompt.of(problem, task, tokenizer)
    except (KeyError, TypeError, AttributeError) as error:
        fault = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"the problem {dict(problem.given)}: {fault}",
            "a problem of the task",
            "see `aha problems --task NAME`",
        ) from error
