"""Evaluating a model on held-out problems: one completion each, counted as it falls."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from aha.behaviors.detector import count_behaviours
from aha.behaviors.trends import summarise
from aha.core.errors import ConfigError, DataError
from aha.core.records import Graded, Prompt
from aha.eval.statistics import pass_at_k, wilson
from aha.model.tokenizer import Tokenizer
from aha.rollout.engine import Engine, Sampling
from aha.tasks.protocol import Task


@dataclass(frozen=True)
class EvalReport:
    """What an evaluation found: the numbers, and every graded completion in problem order."""

    numbers: dict
    graded: list[list[Graded]]

    def correct(self) -> list[bool]:
        """First completion of each problem: right or wrong, in problem order."""
        return [group[0].correct for group in self.graded]


def held_out(task: Task, tokenizer: Tokenizer, split: str, n: int, seed: int) -> list[Prompt]:
    """The first n prompts of a split; the same ones for every model."""
    if n < 1:
        raise ConfigError(f"{n} problems", "at least one")
    prompts = [
        Prompt.of(problem, task, tokenizer) for problem in islice(task.problems(split, seed), n)
    ]
    if not prompts:
        raise DataError(f"no problems in the split {split!r}", "at least one", "use more data")
    return prompts


def evaluate(
    engine: Engine,
    task: Task,
    prompts: list[Prompt],
    sampling: Sampling,
    progress: Callable[[int, int], None] | None = None,
    part: int = 512,
) -> EvalReport:
    """Write `sampling.group_size` completions of every prompt and grade them.

    `solve_rate` is the share of right completions, with Wilson's 95 % interval over completions;
    with more than one per problem `pass_at_k` holds the unbiased pass@k. `part` prompts are
    handed to the engine at a time, so that progress can be told.
    """
    started = time.perf_counter()
    graded: list[list[Graded]] = []
    for first in range(0, len(prompts), part):
        groups = engine.generate(prompts[first : first + part], sampling)
        graded += [[Graded.of(completion, task) for completion in group] for group in groups]
        if progress:
            progress(len(graded), len(prompts))
    flat = [one for group in graded for one in group]
    right = sum(one.correct for one in flat)
    tokens = sum(len(one.completion.tokens) for one in flat)
    numbers = {
        "solve_rate": right / len(flat),
        "interval": list(wilson(right, len(flat))),
        "mean_tokens": tokens / len(flat),
        "truncated": sum(one.completion.finish == "length" for one in flat) / len(flat),
        "problems": len(prompts),
        "completions": len(flat),
        "seconds": time.perf_counter() - started,
        "grade_errors": grade_errors(flat),
        "behaviors": behaviors_of(flat),
    }
    G = sampling.group_size
    if G > 1:
        numbers["pass_at_k"] = {
            str(k): sum(pass_at_k(G, sum(x.correct for x in g), k) for g in graded) / len(graded)
            for k in (1, 2, 4, 8, 16, 32, 64)
            if k <= G
        }
    return EvalReport(numbers, graded)


def grade_errors(graded: list[Graded]) -> int:
    """Completions whose grader raised, hung or returned nonsense; their reward is 0."""
    return sum(one.parts.get("grade_error", 0.0) > 0 for one in graded)


def behaviors_of(graded: list[Graded]) -> dict[str, float]:
    """What the completions do, counted exactly, where the task's traces are arithmetic."""
    found = []
    for one in graded:
        given = one.completion.prompt.problem.given
        if {"numbers", "target"} <= given.keys():
            found.append(count_behaviours(one.completion.text, given["numbers"], given["target"]))
    return summarise(found) if found else {}


def completion_row(one: Graded) -> dict:
    """A graded completion as one JSON line: problem, text, verdict."""
    completion = one.completion
    return {
        "id": completion.prompt.problem.id,
        **{key: value for key, value in completion.prompt.problem.given.items()},
        "prompt": completion.prompt.text,
        "completion": completion.text,
        "tokens": len(completion.tokens),
        "finish": completion.finish,
        "reward": one.reward,
        "correct": one.correct,
        "reason": one.reason,
    }


def write_completions(path: Path, report: EvalReport) -> None:
    with path.open("w", encoding="utf-8") as out:
        for group in report.graded:
            for one in group:
                out.write(json.dumps(completion_row(one)) + "\n")
