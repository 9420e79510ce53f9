"""Checks of a recipe's problems: new ones in every step, prompts that ask them, splits apart.

Problems are compared by what the model reads, not by their ids: the same problem may have two.
"""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aha.core.config import RunConfig
from aha.core.errors import AhaError
from aha.core.findings import Checklist, Finding, fail, failure_of, ok, warn
from aha.core.records import Problem
from aha.tasks.protocol import Task
from aha.training.rollouts import StepSeeds

checks = Checklist()

NUM_STEPS = 4  # of which the problems are drawn
NUM_TRAIN, NUM_HELD_OUT = 4_000, 1_000  # problems of a split that are compared, as far as
SECONDS = 1.5  # for one split allow: a puzzle of six numbers takes 30 ms
SPLITS = ("train", "validation", "test")
NEW = 0.5  # share of the problems of several steps that must be different

Key = tuple[Any, ...]


@dataclass(frozen=True)
class ProblemFacts:
    """The problems of a recipe with their prompts."""

    cfg: RunConfig
    steps: list[list[Problem]]  # of the first steps
    prompts: list[str]  # of all these problems, one after the other
    splits: dict[str, dict[Key, str]]  # by split: key -> id, of its first problems

    @classmethod
    def of(cls, cfg: RunConfig, task: Task) -> "ProblemFacts":
        """Draw the problems of the first steps, and as many of each split as time allows."""
        steps = [
            list(islice(task.problems("train", StepSeeds(cfg.seed, version).seed("problems")), n))
            for version, n in enumerate([cfg.rollout.prompts] * NUM_STEPS)
        ]
        prompts = [task.ask(problem) for step in steps for problem in step]
        splits = {}
        for split in SPLITS:
            train = split == "train"
            seed, most = (cfg.seed, NUM_TRAIN) if train else (cfg.eval.seed, NUM_HELD_OUT)
            drawn = in_time(islice(task.problems(split, seed), most), SECONDS)
            splits[split] = {key_of(problem, task.ask(problem)): problem.id for problem in drawn}
        return cls(cfg, steps, prompts, splits)

    @property
    def problems(self) -> list[Problem]:
        """Of all steps, in the order of their prompts."""
        return [problem for step in self.steps for problem in step]


def in_time(problems: Iterable[Problem], seconds: float) -> Iterator[Problem]:
    """The problems that can be drawn in so many seconds."""
    end = time.perf_counter() + seconds
    for problem in problems:
        yield problem
        if time.perf_counter() > end:
            return


def key_of(problem: Problem, prompt: str) -> Key:
    """What makes two problems the same: their numbers in any order, else the prompt's words."""
    given = problem.given
    if {"numbers", "target"} <= given.keys():
        return (*sorted(given["numbers"]), "->", given["target"])
    if given.keys() == {"a", "b"}:
        return tuple(sorted((given["a"], given["b"])))
    return tuple(prompt.casefold().split())


def shows_given(problem: Problem, prompt: str) -> bool:
    """Whether the prompt has what is given: all numbers and the target, or the question."""
    given = problem.given
    numbers = [*given.get("numbers", ()), *(given.get(key) for key in ("target", "a", "b"))]
    texts = [str(number) for number in numbers if type(number) is int]
    missing = Counter(texts) - Counter(re.findall(r"\d+", prompt))
    question = " ".join(str(given.get("question", "")).split())
    return not missing and question in " ".join(prompt.split())


@checks
def prompt_given(facts: ProblemFacts) -> Finding | None:
    """A prompt asks the problem that is graded: its numbers and target, or its question."""
    pairs = list(zip(facts.problems, facts.prompts, strict=True))
    wrong = [problem for problem, prompt in pairs if not shows_given(problem, prompt)]
    texts = len(set(facts.prompts))
    fix = "mend the task's `ask`: write what `given` holds, and grade the same"
    if wrong:
        message = f"{len(wrong)} of {len(pairs)} prompts do not have what is given: {wrong[0].id}"
        return fail(message, fix)
    ids = len({problem.id for problem in facts.problems})
    if texts < ids / 2:
        return warn(f"{ids} problems have only {texts} different prompts", fix)
    return ok(f"{len(pairs)} prompts have what is given")


@checks
def problems(facts: ProblemFacts) -> Finding | None:
    """A step has different problems, and the next step has others.

    A problem that comes again and again is memorised. A curriculum draws some again on purpose.
    """
    needed, first = facts.cfg.rollout.prompts, facts.steps[0]
    prompts = iter(facts.prompts)
    keys = [{key_of(problem, next(prompts)) for problem in step} for step in facts.steps]
    if 2 * len(keys[0]) < len(first):
        fix = "`problems` has to give different problems; see whether rows of task.data are equal"
        return fail(f"{len(keys[0])} different problems among the {len(first)} of a step", fix)
    if len(first) < needed:
        fix = f"more rows in task.data, or --rollout.prompts {max(1, len(first))}"
        return warn(f"a step needs {needed} problems, the train split has {len(first)}", fix)
    if facts.cfg.algo.curriculum != "off":
        return ok(f"{len(keys[0])} different problems in the first step, then by the curriculum")
    different, total = len(set().union(*keys)), sum(map(len, keys))
    message = f"{different} different problems in the first {len(keys)} steps of {needed}"
    if different > NEW * total:
        return ok(message)
    available = len(facts.splits["train"])
    if different < min(total, available) / 2:
        fix = "`problems` has to draw by its seed: each step has another one"
        return fail(f"{message}, though the train split has {available}", fix)
    return warn(f"{message}: the train split has {available}", "more rows in task.data")


@checks
def splits(facts: ProblemFacts) -> Finding:
    """No problem is in the training split and in a held-out one, whatever its id is."""
    train = facts.splits["train"]
    others = {split: keys for split, keys in facts.splits.items() if split != "train"}
    shared = {split: [key for key in keys if key in train] for split, keys in others.items()}
    overlaps = [
        f"{len(keys)} of {len(others[split])} in {split} (such as {others[split][keys[0]]})"
        for split, keys in shared.items()
        if keys
    ]
    if overlaps:
        message = f"training problems are held out too: {', '.join(overlaps)}"
        return fail(message, "splits by what the problem is, not by its id or its row")
    empty = [split for split, keys in facts.splits.items() if not keys]
    if empty:
        return warn(f"no problem in: {', '.join(empty)}", "more rows in task.data")
    sizes = ", ".join(f"{len(keys)} of {split}" for split, keys in facts.splits.items())
    return ok(f"no problem in two splits ({sizes} compared)")


def check_problems(cfg: RunConfig, task: Task) -> list[Finding]:
    """The findings about a recipe's problems."""
    try:
        facts = ProblemFacts.of(cfg, task)
    except AhaError as error:
        return [failure_of(error)]
    return checks.run(facts)
