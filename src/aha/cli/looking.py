"""`aha eval`, `aha ask`, `aha grade`, `aha baseline`: look at a model, or judge text."""

import json
import sys
import tomllib
from itertools import islice
from pathlib import Path

from aha.core.errors import ConfigError, DataError
from aha.core.records import Graded, Problem, Prompt
from aha.tasks.catalog import make_task
from aha.tasks.countdown import Countdown, as_problem, grade_countdown
from aha.tasks.protocol import Task


def task_settings(task: str, options: str, numbers: list[int] | None, data: str | None) -> dict:
    """What the flags say about a task, as keywords for its constructor."""
    try:
        settings = tomllib.loads(f"value = {{{options}}}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--options {options!r}: {error}", '"digits = [2, 3]"') from None
    if numbers is not None:
        settings["numbers"] = tuple(numbers)
    if data is not None:
        settings["data"] = data
    return settings


def evaluate_model(
    name: str, task_name: str, settings: dict, asked: dict, as_json: bool, out: Path | None
) -> None:
    from aha.eval.suite import evaluate, held_out, write_completions
    from aha.model.folders import resolve_model
    from aha.model.weights import load_model
    from aha.rollout.engine import Sampling
    from aha.rollout.factory import open_engine

    if out is not None and out.exists():
        raise ConfigError(f"{out} exists already", "a new file", "choose another --out")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"no folder {out.parent}", "a file in a folder", f"mkdir -p {out.parent}")
    task = make_task(task_name, settings)
    model = load_model(resolve_model(name))
    prompts = held_out(task, model.tokenizer, asked["split"], asked["n"], asked["seed"])
    sampling = Sampling(
        asked["max_new_tokens"], asked["group_size"], asked["temperature"], asked["seed"]
    )
    report = evaluate(open_engine(model.policy, model.tokenizer), task, prompts, sampling)
    if task_name == "countdown":
        settings = {"numbers": task.numbers, "data": None} | settings
    numbers = {"model": name, "task": task_name, **settings, **asked, **report.numbers}
    if out is not None:
        write_completions(out, report)
    if as_json:
        print(json.dumps(numbers))
    else:
        low, high = numbers["interval"]
        print(
            f"{name}: solve rate {numbers['solve_rate']:.3f} [{low:.3f}, {high:.3f}] on "
            f"{numbers['problems']} problems, {numbers['mean_tokens']:.0f} tokens each, "
            f"{numbers['truncated']:.1%} cut off"
        )


def puzzle(numbers: tuple[int, ...], target: int | None) -> tuple[Task, Problem]:
    """Countdown's puzzle as it was typed."""
    if not 2 <= len(numbers) <= 6 or target is None or min((*numbers, target)) < 1:
        raise ConfigError(
            f"numbers {list(numbers)}, target {target}",
            "2 to 6 positive numbers and a target",
            "aha ask 3 7 25 --target 82",
        )
    return Countdown((len(numbers),)), as_problem(tuple(numbers), target)


def task_problem(name: str, settings: dict, given: str, seed: int) -> tuple[Task, Problem]:
    """A task with the problem that `given` says, or with one of its test split."""
    task = make_task(name, settings)
    if given:
        return task, read_problem(given.encode(), name, "--given", 1)[0]
    problem = next(iter(task.problems("test", seed)), None)
    if problem is None:
        raise DataError(f"the task {name!r} without a test problem", "at least one", "use --given")
    return task, problem


def ask_model(
    name: str, task: Task, problem: Problem, seed: int, temperature: float, max_new_tokens: int
) -> None:
    from aha.model.folders import resolve_model
    from aha.model.weights import load_model
    from aha.rollout.engine import Sampling
    from aha.rollout.factory import open_engine

    model = load_model(resolve_model(name))
    prompt = prompt_of(task, problem, model.tokenizer)
    print(prompt.text, end="", flush=True)
    room = model.policy.config.max_position_embeddings - len(prompt.tokens)
    sampling = Sampling(min(max_new_tokens, room), 1, temperature, seed)
    pieces = []
    for piece in open_engine(model.policy, model.tokenizer).stream(prompt, sampling):
        pieces.append(piece)
        print(piece, end="", flush=True)
    graded = task.grade(prompt.problem, "".join(pieces))
    print(f"\n{'right' if graded.correct else 'wrong'}: {graded.reason}")


def prompt_of(task: Task, problem: Problem, tokenizer) -> Prompt:
    """The prompt; a problem that the task cannot ask is the user's, and an error in one line."""
    try:
        return Prompt.of(problem, task, tokenizer)
    except (KeyError, TypeError, AttributeError) as error:
        fault = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"the problem {dict(problem.given)}: {fault}",
            "a problem of the task",
            "see `aha problems --task NAME`",
        ) from error


def grade_lines(lines, out) -> None:
    """One line out for every line in, in order, whatever the completion holds."""
    for place, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        try:
            row = read_line(raw)
            numbers, target = row["numbers"], row["target"]
            assert all(type(n) is int for n in [*numbers, target])
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
            raise DataError(
                f"line {place}: {raw[:60]!r}",
                '{"numbers": [3, 7, 25], "target": 82, "completion": "..."}',
            ) from None
        graded = grade_countdown(row.get("completion"), tuple(numbers), target)
        write_verdict(out, graded)


def grade_task_lines(name: str, settings: dict, lines, out) -> None:
    """As `grade_lines`, for any task: what is in a line besides id and completion is given."""
    task = make_task(name, settings)
    for place, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        problem, completion = read_problem(raw, name, f"line {place}", place)
        try:
            graded = task.grade(problem, completion)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"line {place}: {raw[:60]!r}", WANTED_LINE.format(name=name)) from None
        write_verdict(out, graded)


WANTED_LINE = "a line of `aha problems --task {name}` with a completion"


def read_problem(raw: bytes, name: str, where: str, place: int) -> tuple[Problem, object]:
    """A problem as `aha problems` prints it, and the completion where one was added."""
    try:
        row = read_line(raw)
        given = {key: row[key] for key in row if key not in ("id", "completion")}
        return Problem(str(row.get("id", place)), name, given), row.get("completion")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{where}: {raw[:60]!r}", WANTED_LINE.format(name=name)) from None


def read_line(raw: bytes) -> dict:
    return json.loads(raw.decode("utf-8", errors="replace"))


def write_verdict(out, graded: Graded) -> None:
    verdict = {"reward": graded.reward, "correct": graded.correct, "reason": graded.reason}
    out.write(json.dumps(verdict) + "\n")
    out.flush()


def print_problems(name: str, settings: dict, split: str, n: int, seed: int) -> None:
    for problem in islice(make_task(name, settings).problems(split, seed), n):
        given = dict(problem.given)
        if name == "countdown":
            given = {"numbers": list(given["numbers"]), "target": given["target"]}
        print(json.dumps({"id": problem.id, **given}))


def random_baseline(numbers: tuple[int, ...], budget: int, n: int, seed: int) -> None:
    from aha.eval.random_search import random_search
    from aha.eval.statistics import wilson
    from aha.model.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()

    def count(text: str) -> int:
        return len(tokenizer.fast.encode(text, add_special_tokens=False).ids)

    task, solved = Countdown(numbers), 0
    for problem in islice(task.problems("test", seed), n):
        given = problem.given
        solved += random_search(given["numbers"], given["target"], seed, count, budget)[1]
    low, high = wilson(solved, n)
    row = {"numbers": list(numbers), "tokens": budget, "n": n, "solve_rate": solved / n}
    json.dump(row | {"interval": [low, high]}, sys.stdout)
    print()
