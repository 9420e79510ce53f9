"""How hard a problem is: whether solver models miss it.

s1 drops what Qwen2.5-7B or 32B solves in one try (arXiv 2501.19393); here every try counts, and a
right answer is one by the task's own grader.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from aha.core.errors import DataError, ModelError
from aha.core.findings import Finding, warn
from aha.core.records import Problem, Prompt
from aha.core.seeds import seed_for
from aha.dist.world import World
from aha.distill.rejection import check_grades, known_rows
from aha.machine.device import gpu_name
from aha.model.folders import resolve_model
from aha.model.weights import LoadedModel, load_model
from aha.plan.machines import Cost, price_of, row_of
from aha.rollout.engine import Sampling
from aha.rollout.native import open_engine
from aha.rollout.shared_rollout import graded_groups
from aha.store.checksums import digests
from aha.store.run_folder import append, drop_half_line, read_rows
from aha.tasks.protocol import Task

PART = 128  # problems whose results are kept together
Row = dict[str, Any]


class Solver:
    """A model of ours that tries the problems of a pool; its results are kept in a file."""

    def __init__(self, name: str, sampling: Sampling, file: Path):
        # A solver that is the teacher itself would draw the teacher's own answers again.
        own_seed = seed_for(sampling.seed, "solver")
        self.name, self.sampling, self.file = name, replace(sampling, seed=own_seed), file
        self.folder = resolve_model(name)
        weights = digests(sorted(self.folder.glob("*.safetensors"))).values()
        limits = (sampling.max_new_tokens, sampling.group_size, sampling.temperature)
        self.identity = "-".join(map(str, (*(d[:12] for d in weights), *limits, own_seed)))

    def solved(
        self,
        problems: Mapping[str, Problem],
        task: Task,
        progress: Callable[[int, int], None],
    ) -> dict[str, int | None]:
        """How many of its tries were right, by the problems' ids; None for a problem that it
        cannot read. Raises `RunStopped` where the grader fails too often."""
        drop_half_line(self.file)
        known = {
            key.removeprefix(f"{self.identity} "): row["right"]
            for key, row in known_rows(self.file, read_rows).items()
            if key.startswith(f"{self.identity} ")
        }
        left = [problem for name, problem in problems.items() if name not in known]
        if left:
            known |= self.try_all(left, task, progress)
        return {name: known.get(name) for name in problems}

    def try_all(
        self, problems: Sequence[Problem], task: Task, progress: Callable[[int, int], None]
    ) -> dict[str, int | None]:
        model = load_model(self.folder)
        generate = partial(graded_groups, World(), open_engine(model.policy, model.tokenizer), task)
        gpu = gpu_name(model.policy.device)
        # Of a GPU that the table lacks nobody has said what an hour costs.
        price = price_of(gpu, None, None) if row_of(gpu) else None
        right: dict[str, int | None] = {}
        for first in range(0, len(problems), PART):
            part = problems[first : first + PART]
            limit = self.sampling.max_new_tokens
            prompts = [prompt for one in part if (prompt := readable(one, task, model, limit))]
            started = time.perf_counter()
            groups = generate(prompts, self.sampling)
            seconds = (time.perf_counter() - started) / len(part)
            cost = Cost.of(seconds, *price) if price else None
            check_grades([graded for group in groups for graded in group])
            counts = {
                prompt.problem.id: sum(graded.correct for graded in group)
                for prompt, group in zip(prompts, groups, strict=True)
            }
            results = {problem.id: counts.get(problem.id) for problem in part}
            costs = {"usd": cost and cost.usd, "kwh": cost and cost.kwh, "solver": self.name}
            append(
                self.file,
                [
                    {"key": f"{self.identity} {name}", "id": name, "right": count, **costs}
                    for name, count in results.items()
                ],
            )
            right |= results
            progress(min(first + PART, len(problems)), len(problems))
        return right

    def cost(self) -> tuple[float | None, float | None]:
        """(USD, kWh) of all its tries in the file; None where one of them is not known."""
        rows = [
            row
            for key, row in known_rows(self.file, read_rows).items()
            if key.startswith(f"{self.identity} ")
        ]
        usd, kwh = ([row[key] for row in rows] for key in ("usd", "kwh"))
        return None if None in usd else sum(usd), None if None in kwh else sum(kwh)


def readable(problem: Problem, task: Task, model: LoadedModel, limit: int) -> Prompt | None:
    """The prompt of a problem; None where the model cannot read it, or has no room for a completion
    of `limit` tokens after it."""
    try:
        prompt = Prompt.of(problem, task, model.tokenizer)
    except ModelError:
        return None
    fits = len(prompt.tokens) + limit <= model.policy.config.max_position_embeddings
    return prompt if fits else None


def unread(solver: str, right: Mapping[str, int | None], limit: int) -> Finding | None:
    """What is to be said of problems that a solver could not try: they count as unsolved. Raises
    `DataError` where it could try none."""
    count = sum(tries is None for tries in right.values())
    got = f"{count:,} of {len(right):,} problems that {solver} cannot read and answer in {limit:,}"
    fix = "a smaller --max-new-tokens, or another --solver"
    if count and count == len(right):
        raise DataError(f"{got} tokens", "problems that it can try", fix)
    return warn(f"{got} tokens: they stay as if it had missed them", fix) if count else None
