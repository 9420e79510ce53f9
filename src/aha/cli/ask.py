"""`aha ask`: one problem to one model, streamed and graded."""

from typing import Any

from aha.cli.parameters import (
    BadRowsRule,
    Count,
    DataFile,
    ModelName,
    ProblemSeed,
    TaskOfModel,
    TaskOptions,
    Temperature,
    Whole,
    task_settings,
)
from aha.cli.terminal_text import say, say_line
from aha.core.errors import ConfigError, DataError
from aha.core.records import Problem, Prompt
from aha.tasks.protocol import Task

LIMIT = 1_024  # tokens, where no run says how long its completions may be


def ask(
    *numbers: Whole,
    target: Whole | None = None,
    task: TaskOfModel | None = None,
    options: TaskOptions = "",
    data: DataFile = None,
    bad_rows: BadRowsRule = None,
    given: str = "",
    model: ModelName = "aha-tiny",
    seed: ProblemSeed = 0,
    temperature: Temperature = 1.0,
    max_new_tokens: Count | None = None,
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
        Token limit of the completion; at most the positions that the model has left. Default:
        that of the run; of any other model, 1024.
    """
    from aha.api.run_task import choose_task

    chosen = choose_task(model, task, task_settings(options, None, data, bad_rows))
    run_limit = chosen.max_new_tokens
    if numbers or target is not None or (chosen.name == "countdown" and not (given or data)):
        if given or task not in (None, "countdown"):
            raise ConfigError(
                f"numbers and target with {'--given' if given else f'the task {task!r}'}",
                "one problem: numbers, or --given with a JSON object",
                "leave the numbers and --target out",
            )
        if data is not None or bad_rows is not None:
            word = "--data" if data is not None else "--bad-rows"
            raise ConfigError(f"numbers with {word}", "one or the other", f"leave {word} out")
        if chosen.name != "countdown":
            chosen, run_limit = choose_task(model, "countdown", {}), None
        settings = chosen.settings
        asked_task, problem = typed_countdown(numbers, target, settings)
    else:
        asked_task, problem = task_problem(chosen.name, chosen.settings, given, seed)
    limit = max_new_tokens or run_limit or LIMIT
    print_completion(model, asked_task, problem, seed, temperature, limit)


def typed_countdown(
    numbers: tuple[int, ...], target: int | None, settings: dict[str, Any]
) -> tuple[Task, Problem]:
    """The puzzle that was typed, in a game with these settings."""
    from aha.tasks.catalog import make_task
    from aha.tasks.countdown import as_problem

    if not 2 <= len(numbers) <= 6 or target is None or min((*numbers, target)) < 1:
        raise ConfigError(
            f"numbers {list(numbers)}, target {target}",
            "2 to 6 positive numbers and a target",
            "aha ask 3 7 25 --target 82",
        )
    files = ("data", "test_data", "bad_rows")
    settings = {name: value for name, value in settings.items() if name not in files}
    task = make_task("countdown", {**settings, "numbers": (len(numbers),)})
    return task, as_problem(tuple(numbers), target)


def task_problem(
    name: str, settings: dict[str, Any], given: str, seed: int
) -> tuple[Task, Problem]:
    """The task, and the problem in `given` or else one of the test split."""
    from aha.cli.finding_lines import print_notes
    from aha.tasks.catalog import make_task, notes_of
    from aha.tasks.problem_lines import read_problem

    task = make_task(name, settings)
    print_notes(notes_of(task))
    if given:
        return task, read_problem(given.encode(errors="replace"), name, "--given", 1)[0]
    problem = next(iter(task.problems("test", seed)), None)
    if problem is None:
        raise DataError(
            f"the task {name!r} without a test problem",
            "at least one",
            f"--given with the JSON of a problem, as `aha problems --task {name}` prints it",
        )
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
    graded = task.grade(prompt.problem, prompt.in_task_tags("".join(pieces)))
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
            f"see `aha problems --task {problem.task}`",
        ) from error
