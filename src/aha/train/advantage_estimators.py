"""Advantages of a step: graded groups in, training rows out.

`GroupEstimator` compares the completions of a group, or of the whole step. `CriticEstimator`
(in `train.critic`) gives every token an advantage of its own.

Shapes: P prompts, G completions of a prompt, T own tokens of a completion.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol, Self

import torch

from aha.algo.advantages import ADVANTAGES
from aha.algo.filters import counted
from aha.batching.batch import TrainingRow
from aha.core.config import AlgoSection
from aha.machine.micro_batch import MicroBatchSize
from aha.model.optimizer import Optimizer
from aha.train.reference import Reference
from aha.train.rollouts import Groups, Scores


@dataclass(frozen=True)
class Estimate:
    """The advantages of a step. All fields have P as their first dimension.

    `advantages_PG` has one number for each completion (with a critic: the mean over the
    completion's tokens); `rows` has the training rows; `counted_PG` is 1 for the completions that
    are in the loss and in its denominators.
    """

    advantages_PG: torch.Tensor
    counted_PG: torch.Tensor
    rows: list[list[TrainingRow]]

    def share(self, first: int, num_shares: int) -> Self:
        """Every `num_shares`-th group, beginning with `first`."""
        groups = slice(first, None, num_shares)
        return replace(self, **{f.name: getattr(self, f.name)[groups] for f in fields(self)})

    def counted_rows(self) -> list[TrainingRow]:
        """The rows of the completions that count, group by group."""
        flat = [row for group in self.rows for row in group]
        return [row for row, counts in zip(flat, self.counted_PG.flatten(), strict=True) if counts]

    def informative_share(self) -> float:
        """Share of the groups in which an advantage is not 0."""
        return float((self.advantages_PG != 0).any(1).float().mean())

    def token_advantages(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """One advantage for each token. Empty if all tokens of a completion share one."""
        return ()


class AdvantageEstimator(Protocol):
    """Turns graded groups into training rows; a critic also learns from them."""

    phase: str  # the name under which `StepReport.seconds` counts the estimate
    first_version: int  # at which the policy is updated; before it only the critic learns
    optimizers: list[Optimizer]  # the critic's, where there is one

    def estimate(self, groups: Groups, scores: Scores) -> Estimate: ...

    def learn(self, share: Any, learning_rate: Callable[[float], float]) -> dict[str, float]:
        """Update the critic from a share of the step's own `Estimate`; the report's numbers.

        `learning_rate(peak)` is the rate of this step.
        """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class GroupEstimator:
    """One advantage for each completion, by the registered function `algo.advantage`.

    With `algo.kl = "reward"` the KL of each completion to the reference is subtracted from its
    reward before rewards are compared.
    """

    phase = "grade"
    first_version = 0

    def __init__(self, algo: AlgoSection, reference: Any, pad_id: int, micro_batch: MicroBatchSize):
        self.algo, self.reference = algo, reference
        self.pad_id, self.micro_batch = pad_id, micro_batch
        self.optimizers: list[Optimizer] = []

    def estimate(self, groups: Groups, scores: Scores) -> Estimate:
        rewards_PG = scores.rewards_PG
        if self.algo.kl == "reward":
            rewards_PG = rewards_PG - self.algo.kl_coef * self._kl_of_completions(groups)
        advantage = ADVANTAGES[self.algo.advantage]
        settings = advantage.settings(self.algo)
        advantages_PG = advantage(rewards_PG, lengths_PG=scores.lengths_PG, **settings)
        return self.estimate_from(groups, scores, advantages_PG)

    def estimate_from(
        self, groups: Groups, scores: Scores, advantages_PG: torch.Tensor
    ) -> Estimate:
        """The estimate whose advantages are given."""
        rows = [
            [TrainingRow.of(*pair) for pair in zip(group, advantages, strict=True)]
            for group, advantages in zip(groups, advantages_PG.tolist(), strict=True)
        ]
        counted_PG = counted_by(self.algo, advantages_PG, scores)
        return Estimate(advantages_PG, counted_PG, rows)

    def _kl_of_completions(self, groups: Groups) -> torch.Tensor:
        assert isinstance(self.reference, Reference), "a KL in the reward without a reference"
        measure = partial(self.reference.distances, groups, self.pad_id)
        return self.micro_batch.fit(measure, clear=lambda: None)

    def learn(self, share: Estimate, learning_rate: Callable[[float], float]) -> dict[str, float]:
        """There is no critic, so nothing to update."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def counted_by(algo: AlgoSection, advantages_PG: torch.Tensor, scores: Scores) -> torch.Tensor:
    """[P, G] of 0 and 1: which completions count, by the recipe's rules for truncated completions
    and for groups of equal rewards."""
    return counted(advantages_PG, scores.truncated_PG, algo.overlong, algo.zero_variance)
