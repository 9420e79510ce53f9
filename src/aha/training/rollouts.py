"""The first half of a step: problems, prompts, completions, grades, and their scores as tensors.

Shapes: P prompts, G completions of a prompt.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch

from aha.algo.advantages import ADVANTAGES, informative
from aha.algo.filters import ZERO_VARIANCE, mixed_groups, overlong_rewards
from aha.batching.batch import num_drawn_tokens
from aha.core.config import AlgoSection, RolloutSection, training_limit
from aha.core.records import Graded, Problem, Prompt
from aha.core.seeds import seed_for
from aha.dist.world import World
from aha.eval.prompt_check import ReadableProblems
from aha.model.tokenizer import Tokenizer
from aha.rollout.engine import Engine, Sampling
from aha.rollout.shared_rollout import graded_groups
from aha.tasks.protocol import Task
from aha.training.draw_statistics import draw_numbers

Groups = list[list[Graded]]  # P lists of G graded completions


class PhaseClock:
    """Wall seconds of one step by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Add the time since the last call to `phase`."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


@dataclass(frozen=True)
class StepSeeds:
    """The seeds of one step: functions of the run's seed and the version alone, so that a resumed
    run draws the same problems and the same tokens."""

    run_seed: int
    version: int

    def seed(self, name: str, rollout_round: int = 0) -> int:
        """`rollout_round` counts the further rollouts of the same step (see `Rollout.collect`)."""
        names = (name, self.version, rollout_round) if rollout_round else (name, self.version)
        return seed_for(self.run_seed, *names)


class ProblemSource(Protocol):
    """Where the problems of a step come from."""

    def problems(self, seeds: StepSeeds, rollout_round: int = 0) -> list[Problem]: ...

    def record(self, groups: Groups) -> None:
        """Called with every graded completion of a step, discarded ones too."""

    def numbers(self) -> dict[str, float]:
        """For the step's report, which calls this once."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; empty where problems follow from the seed alone."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def take_skipped(stream: Iterator[Problem]) -> int:
    """How many problems a stream has skipped since this was last called; 0 for one that skips
    none."""
    return stream.take_skipped() if isinstance(stream, ReadableProblems) else 0


def skipped_number(count: int) -> dict[str, float]:
    """For the step's report; a step that skipped none does not mention it."""
    return {"skipped": float(count)} if count else {}


class FreshProblems:
    """`count` new problems of the train split for every rollout. Keeps no state."""

    def __init__(self, task: Task, count: int):
        self.task, self.count, self.skipped = task, count, 0

    def problems(self, seeds: StepSeeds, rollout_round: int = 0) -> list[Problem]:
        stream = self.task.problems("train", seeds.seed("problems", rollout_round))
        problems = list(islice(stream, self.count))
        self.skipped += take_skipped(stream)
        return problems

    def record(self, groups: Groups) -> None:
        """This source has no state."""

    def numbers(self) -> dict[str, float]:
        count, self.skipped = self.skipped, 0
        return skipped_number(count)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


@dataclass(frozen=True)
class Scores:
    """What the advantages are computed from: one number for each completion, [P, G].

    `rewards_PG`: rewards after the rule `algo.overlong` was applied; for an advantage that counts
    successes, 1 and 0 in place of the rewards. `correct_PG`: 1 where the answer is right.
    `truncated_PG` is 1 where the token limit ended the completion. It comes from the finish reason:
    the last token does not tell, because a completion may end with a stop token exactly at the
    limit.
    """

    rewards_PG: torch.Tensor
    correct_PG: torch.Tensor
    lengths_PG: torch.Tensor
    truncated_PG: torch.Tensor

    def compared(self, zero_variance: str) -> torch.Tensor:
        """[P, G]: what differs within a mixed group, by this rule for flat groups."""
        mixed_by = ZERO_VARIANCE[zero_variance].facts.mixed_by
        return self.correct_PG if mixed_by == "correct" else self.rewards_PG

    @classmethod
    def of(cls, groups: Groups, algo: AlgoSection, max_new_tokens: int) -> "Scores":
        rewards_PG = torch.tensor([[float(graded.reward) for graded in g] for g in groups])
        correct_PG = torch.tensor([[float(graded.correct) for graded in g] for g in groups])
        if ADVANTAGES[algo.advantage].facts.rewards == "binary":
            rewards_PG = correct_PG
        lengths_PG = torch.tensor(
            [[float(num_drawn_tokens(graded)) for graded in g] for g in groups]
        )
        truncated_PG = torch.tensor(
            [[float(graded.completion.finish == "length") for graded in g] for g in groups]
        )
        limits = (algo.overlong, max_new_tokens, algo.overlong_buffer)
        shaped_PG = overlong_rewards(rewards_PG, lengths_PG, truncated_PG, *limits)
        return cls(shaped_PG, correct_PG, lengths_PG, truncated_PG)


@dataclass(frozen=True)
class Collected:
    """The graded groups of one step. `tokens` counts those of discarded groups too."""

    groups: Groups
    scores: Scores
    tokens: int
    numbers: dict[str, float]


class Rollout:
    """Generates completions of problems and grades them, each rank its share of the groups.

    With an `algo.zero_variance` that resamples further problems are drawn until as many groups as
    the step wants are mixed: they hold right and wrong answers, or different rewards. It ends at
    `algo.resample_rounds`.
    Source: dynamic sampling of DAPO (arXiv 2503.14476).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        task: Task,
        engine: Engine,
        source: ProblemSource,
        rollout: RolloutSection,
        algo: AlgoSection,
        world: World | None = None,
    ):
        self.world = world or World()
        self.tokenizer, self.task, self.engine, self.source = tokenizer, task, engine, source
        self.cfg, self.algo = rollout, algo
        self.limit = training_limit(rollout, algo)
        self.resamples = ZERO_VARIANCE[algo.zero_variance].facts.resamples
        self.max_rounds = algo.resample_rounds if self.resamples else 1

    def sampling(self, seeds: StepSeeds, rollout_round: int = 0) -> Sampling:
        cfg = self.cfg
        seed = seeds.seed("rollout", rollout_round)
        return Sampling(self.limit, cfg.group_size, cfg.temperature, seed)

    def scores(self, groups: Groups) -> Scores:
        return Scores.of(groups, self.algo, self.cfg.max_new_tokens)

    def generate(
        self, problems: Sequence[Problem], sampling: Sampling, clock: PhaseClock
    ) -> Groups:
        """One graded group for each problem, in the same order."""
        prompts = [Prompt.of(problem, self.task, self.tokenizer) for problem in problems]
        shared = (self.world, self.engine, self.task)
        return graded_groups(*shared, prompts, sampling, clock.lap)

    def collect(self, problems: list[Problem], seeds: StepSeeds, clock: PhaseClock) -> Collected:
        """The graded groups of a step that starts with these problems."""
        groups, rounds = self.generate(problems, self.sampling(seeds), clock), 1
        while rounds < self.max_rounds and self._num_mixed(groups) < len(problems):
            further = self.source.problems(seeds, rounds)
            groups += self.generate(further, self.sampling(seeds, rounds), clock)
            rounds += 1
        # Only after the last round: recording changes which problems a pool gives next.
        self.source.record(groups)
        numbers = draw_numbers(groups) | ({"asked": float(rounds)} if self.resamples else {})
        tokens = sum(len(graded.completion.tokens) for group in groups for graded in group)
        # Without resampling this keeps all groups, flat ones too.
        kept = mixed_groups(self._compared(groups), len(problems))
        groups = [groups[p] for p in kept]
        return Collected(groups, self.scores(groups), tokens, numbers | self.source.numbers())

    def _compared(self, groups: Groups) -> torch.Tensor:
        return self.scores(groups).compared(self.algo.zero_variance)

    def _num_mixed(self, groups: Groups) -> int:
        return int(informative(self._compared(groups)).sum())
