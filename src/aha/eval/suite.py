"""Evaluation of a model on held-out problems: solve rate with interval, pass@k, behaviours.

`evaluate` is what training calls; `evaluate_model` also loads the model (`aha eval`, the lab).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch

from aha.core.config import TaskSection
from aha.core.errors import ConfigError, DataError
from aha.core.findings import Finding
from aha.core.records import Graded, Prompt
from aha.dist.local_ranks import LocalRanks, check_ranks, choose_ranks
from aha.dist.world import World
from aha.eval.behavior_numbers import behaviors_of, completion_of
from aha.eval.grade_errors import GradeErrors
from aha.eval.prompt_check import readable, skipped_problems
from aha.eval.prompt_limits import PromptLimits
from aha.eval.statistics import over_problems, pass_at_k
from aha.eval.thoughts import ThinkingNumbers, thinking_numbers
from aha.model.folders import resolve_model
from aha.model.tokenizer import Tokenizer
from aha.model.weights import LoadedModel, load_model
from aha.rollout.engine import Engine, Sampling
from aha.rollout.native import open_engine
from aha.rollout.shared_rollout import graded_groups
from aha.rollout.slot_engine import SlotEngine
from aha.rollout.thinking_budget import ThinkingBudget, lead_for
from aha.store.durable import check_new_file, to_json
from aha.tasks.catalog import make_task, notes_of
from aha.tasks.countdown import Countdown
from aha.tasks.protocol import Task
from aha.tasks.tags import ANSWER_OPEN
from aha.tasks.wording import unworded

PART = 512  # prompts that go to the engine together


class EvalNumbers(TypedDict):
    """The numbers of an evaluation, as they are written to evals.jsonl and summary.json."""

    solve_rate: float  # share of right completions
    interval: list[float]  # its 95 % interval over problems, [low, high]: `over_problems`
    mean_tokens: float  # per completion
    truncated: float  # share of completions that the token limit ended
    problems: int
    completions: int
    seconds: float
    grade_errors: int  # failed grades: error, time limit, no valid grade; the reward is then 0
    grade_error_reasons: NotRequired[dict[str, int]]  # the most frequent ones, where grades failed
    behaviors: dict[str, float]  # `behaviors_of`; empty for tasks without arithmetic
    pass_at_k: NotRequired[dict[str, float]]  # by k; with more than one completion per problem
    thinking: NotRequired[ThinkingNumbers]  # of an evaluation with a thinking budget


@dataclass(frozen=True)
class EvalReport:
    """The result of an evaluation: its numbers, and every graded completion in problem order."""

    numbers: EvalNumbers
    graded: list[list[Graded]]

    def grade_errors(self) -> GradeErrors:
        """The grades that failed."""
        return GradeErrors.of(graded for group in self.graded for graded in group)

    def correct(self) -> list[bool]:
        """Whether the first completion of each problem is right, in problem order."""
        return [group[0].correct for group in self.graded]


def held_out(task: Task, tokenizer: Tokenizer, split: str, n: int, seed: int) -> list[Prompt]:
    """The first n prompts of a split; the same ones for every model.

    Raises `ConfigError` for n below 1, `DataError` for a split without problems.
    """
    if n < 1:
        raise ConfigError(f"{n} problems", "at least one")
    prompts = [
        Prompt.of(problem, task, tokenizer) for problem in islice(task.problems(split, seed), n)
    ]
    if not prompts:
        raise DataError(
            f"no problems in the split {split!r}",
            "at least one",
            "more rows in its file; `aha eval MODEL --split all` tests with all of them",
        )
    return prompts


def evaluate(
    engine: Engine,
    task: Task,
    prompts: list[Prompt],
    sampling: Sampling,
    progress: Callable[[int, int], None] | None = None,
    part: int = PART,
    max_grade_errors: float = 1.0,
) -> EvalReport:
    """Generate `sampling.group_size` completions of every prompt and grade them.

    `progress(problems done, problems)` is called after every `part` prompts, which go to the engine
    together. Raises `RunStopped` after a part where a larger share of the grades than
    `max_grade_errors` has failed.
    """
    rollout = partial(graded_groups, World(), engine, task)
    return evaluate_by(rollout, prompts, sampling, progress, part, max_grade_errors)


def evaluate_by(
    rollout: Callable[[list[Prompt], Sampling], list[list[Graded]]],
    prompts: list[Prompt],
    sampling: Sampling,
    progress: Callable[[int, int], None] | None = None,
    part: int = PART,
    max_grade_errors: float = 1.0,
) -> EvalReport:
    """`evaluate`, where `rollout` generates and grades."""
    started = time.perf_counter()
    graded: list[list[Graded]] = []
    for first in range(0, len(prompts), part):
        graded += rollout(prompts[first : first + part], sampling)
        if progress:
            progress(len(graded), len(prompts))
        flat = [row for group in graded for row in group]
        errors = GradeErrors.of(flat)
        errors.check(max_grade_errors)
    right = sum(row.correct for row in flat)
    completions = [completion_of(row) for row in flat]
    numbers: EvalNumbers = {
        "solve_rate": right / len(flat),
        "interval": list(over_problems([[row.correct for row in group] for group in graded])),
        "mean_tokens": sum(len(c.tokens) for c in completions) / len(flat),
        "truncated": sum(c.finish == "length" for c in completions) / len(flat),
        "problems": len(prompts),
        "completions": len(flat),
        "seconds": time.perf_counter() - started,
        "grade_errors": errors.failed,
        "behaviors": behaviors_of(flat),
    }
    if errors.failed:
        numbers["grade_error_reasons"] = errors.reasons
    G = sampling.group_size
    if G > 1:
        numbers["pass_at_k"] = {
            str(k): sum(pass_at_k(G, sum(x.correct for x in g), k) for g in graded) / len(graded)
            for k in (1, 2, 4, 8, 16, 32, 64)
            if k <= G
        }
    return EvalReport(numbers, graded)


def completion_row(graded: Graded) -> dict[str, Any]:
    """A graded completion as one JSON line: the problem, the texts, the grade."""
    completion = completion_of(graded)
    parts = graded.reward_parts()
    return {
        "id": completion.prompt.problem.id,
        **completion.prompt.problem.given,
        "prompt": completion.prompt.text,
        "completion": completion.text,
        "tokens": len(completion.tokens),
        "finish": completion.finish,
        "reward": graded.reward,
        "correct": graded.correct,
        "reason": graded.reason,
        **({"parts": parts} if parts else {}),
        **({"forced": list(completion.forced)} if completion.forced else {}),
    }


def write_completions(path: Path, report: EvalReport) -> None:
    """Write every completion of an evaluation as JSON lines, in problem order."""
    with path.open("w", encoding="utf-8") as out:
        for group in report.graded:
            for graded in group:
                out.write(to_json(completion_row(graded)) + "\n")


# -- a model by its name -------------------------------------------------------------------------

MOST_COMPLETIONS = 10_000_000  # they are all held in memory
RANK_COMPLETIONS = 256  # at least, for each rank that is chosen: starting one takes seconds
CPU = torch.device("cpu")
DEFAULT_PROBLEMS = 1000
MAX_GRADE_ERRORS = TaskSection().max_grade_errors  # an evaluation alone has no recipe
SHORT_LIMIT, LONG_LIMIT = 320, 1024  # tokens; aha-tiny writes at most 320 for three numbers


@dataclass(frozen=True)
class EvalSettings:
    """The problems and the sampling settings of an evaluation.

    `task_settings` are the keyword arguments of the task's constructor. `n` None: DEFAULT_PROBLEMS,
    or every row of the split "all". `max_new_tokens` None: a limit that suits the size of the
    puzzles, see `token_limit`. `budget` is that of each thought; how its answer begins follows
    from model and prompts.
    """

    task: str
    task_settings: dict[str, Any]
    split: str
    n: int | None
    seed: int
    group_size: int
    temperature: float
    max_new_tokens: int | None
    budget: ThinkingBudget | None = None

    @property
    def token_limit(self) -> int:
        """`max_new_tokens`, or without it SHORT_LIMIT for small puzzles and else LONG_LIMIT. A file
        may have puzzles of any size."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        drawn = () if self.task_settings.get("data") else (3,)
        sizes = self.task_settings.get("numbers", drawn)
        short = self.task == "countdown" and bool(sizes) and max(sizes) <= 3
        return SHORT_LIMIT if short else LONG_LIMIT


def check_count(n: int, group_size: int) -> None:
    """Raises `ConfigError` for more completions than a memory holds."""
    if n * group_size > MOST_COMPLETIONS:
        raise ConfigError(
            f"{n:,} problems with group_size {group_size:,}",
            f"at most {MOST_COMPLETIONS:,} completions",
            "a smaller --n or --group-size",
        )


def readable_prompts(
    task: Task,
    model: LoadedModel,
    settings: EvalSettings,
    n: int,
    on_finding: Callable[[Finding], object],
) -> tuple[list[Prompt], dict[str, int]]:
    """The problems of an evaluation, and how many were left out because the model cannot read them:
    `dropped` rows of a file, `skipped` problems of a generator. Raises as `readable` does."""
    limits = PromptLimits(
        model.tokenizer,
        model.policy.config.max_position_embeddings,
        settings.token_limit,
        model.path.name,
        option="--max-new-tokens",
    )
    rule = settings.task_settings.get("bad_rows", "refuse")
    can_be_read, findings = readable(
        task,
        limits,
        settings.task_settings,
        (settings.split,),
        rule,
        lambda *skip: on_finding(skipped_problems(*skip)),
    )
    for finding in findings:
        on_finding(finding)
    prompts = held_out(can_be_read, model.tokenizer, settings.split, n, settings.seed)
    skipped = sum(can_be_read.skipped.values())
    left_out = {"dropped": len(can_be_read.bad or ()), "skipped": skipped}
    return prompts, {name: count for name, count in left_out.items() if count}


def evaluate_model(
    name: str,
    settings: EvalSettings,
    out: Path | None,
    on_finding: Callable[[Finding], object] = bool,
    ranks: int | None = 1,
) -> dict[str, Any]:
    """The settings and the report's numbers as one row; every completion is written to `out`.

    `ranks` processes share the problems, each of which makes the task by its name; None chooses, as
    `choose_ranks` does. `available` is how many problems the split has and `rows` how many the
    files have together, None where the task makes its problems. What the task says about its
    problems, those that the model cannot read, and failed grades are handed to `on_finding`; where
    all grades failed, the solve rate and its interval are None. Raises as `check_new_file`,
    `choose_ranks` and `readable_prompts` do.
    """
    check_ranks(ranks or 1, CPU, "--ranks 1")
    if out is not None:
        check_new_file(out)
    task = make_task(settings.task, settings.task_settings)
    for note in notes_of(task):
        on_finding(note)
    available, rows = num_problems(task, settings.split), num_problems(task, "all")
    n = settings.n
    if n is None:
        n = available if settings.split == "all" and available else DEFAULT_PROBLEMS
    check_count(n, settings.group_size)
    opened = open_model(name, task, settings, n, on_finding)
    most = n * settings.group_size // RANK_COMPLETIONS
    number = choose_ranks(ranks, CPU, opened.parameters, most)
    with LocalRanks(number, partial(evaluate_share, name, settings, n), again="--ranks 1") as world:
        report = opened.evaluate(world)
    add_thoughts(report, opened.engine, opened.sampling)
    if out is not None:
        write_completions(out, report)
    row: dict[str, Any] = {"model": name, "task": settings.task}
    game = unworded(task)
    if isinstance(game, Countdown):
        row |= {"numbers": None if game.splits else game.numbers, "data": None}
    row |= settings.task_settings
    row |= {
        "split": settings.split,
        "n": n,
        "available": available,
        "rows": rows,
        "seed": settings.seed,
        "group_size": settings.group_size,
        "temperature": settings.temperature,
        "max_new_tokens": settings.token_limit,
    }
    row |= opened.left_out | report.numbers
    errors = report.grade_errors()
    finding = errors.finding(MAX_GRADE_ERRORS)
    if finding:
        on_finding(finding)
    if errors.failed == errors.graded:
        row |= {"solve_rate": None, "interval": None}
    return row


class OpenedModel(NamedTuple):
    """A model that is ready to be evaluated; `left_out` as `readable_prompts` has it."""

    engine: SlotEngine
    task: Task
    prompts: list[Prompt]
    sampling: Sampling
    left_out: dict[str, int]
    parameters: int

    def evaluate(self, world: World) -> EvalReport:
        """The report, the same in all ranks."""
        rollout = partial(graded_groups, world, self.engine, self.task)
        return evaluate_by(rollout, self.prompts, self.sampling)


def open_model(
    name: str,
    task: Task,
    settings: EvalSettings,
    n: int,
    on_finding: Callable[[Finding], object],
) -> OpenedModel:
    model = load_model(resolve_model(name))
    sampling = Sampling(
        settings.token_limit, settings.group_size, settings.temperature, settings.seed
    )
    prompts, left_out = readable_prompts(task, model, settings, n, on_finding)
    sampling = with_budget(sampling, settings.budget, prompts, model.tokenizer)
    engine, parameters = open_engine(model.policy, model.tokenizer), model.policy.num_parameters()
    return OpenedModel(engine, task, prompts, sampling, left_out, parameters)


def evaluate_share(name: str, settings: EvalSettings, n: int, world: World) -> None:
    """What a rank other than 0 does of `evaluate_model`."""
    task = make_task(settings.task, settings.task_settings)
    open_model(name, task, settings, n, bool).evaluate(world)


def add_thoughts(report: EvalReport, engine: SlotEngine, sampling: Sampling) -> None:
    """Put the numbers of its thoughts into the report of an evaluation with a budget."""
    if sampling.budget is not None:
        flat = [completion_of(row) for group in report.graded for row in group]
        report.numbers["thinking"] = thinking_numbers(flat, engine, sampling)


def with_budget(
    sampling: Sampling, budget: ThinkingBudget | None, prompts: list[Prompt], tokenizer: Tokenizer
) -> Sampling:
    """The sampling with a budget whose forced close begins the answer as these prompts want it.
    Raises `ConfigError` where the limit leaves no room for the answer."""
    if budget is None:
        return sampling
    in_vocabulary = tokenizer.fast.token_to_id(ANSWER_OPEN) is not None
    lead = lead_for((prompt.text for prompt in prompts), in_vocabulary)
    return replace(sampling, budget=replace(budget, answer_lead=lead))


def num_problems(task: Task, split: str) -> int | None:
    """How many problems a split has; None for a task that makes them, or does not say."""
    count = getattr(task, "num_problems", None)
    number = count(split) if callable(count) else None
    return number if type(number) is int else None
