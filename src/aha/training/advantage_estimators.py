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
from aha.algo.filters import ZERO_VARIANCE, counted
from aha.batching.batch import (
    PlacedRow,
    TrainingRow,
    gather_rows,
    num_completion_tokens,
    num_drawn_tokens,
)
from aha.core.config import AlgoSection
from aha.machine.micro_batch import MicroBatchSize
from aha.model.optimizer import Optimizer
from aha.training.reference import Reference
from aha.training.rollouts import Groups, Scores


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


@dataclass(frozen=True)
class TokenEstimate(Estimate):
    """An estimate whose rows have one advantage for each token."""

    def token_advantages(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        return tuple(
            tuple(tuple(row.advantages_T.tolist()) for row in group) for group in self.rows
        )


class GroupEstimator:
    """One advantage for each completion, by the registered function `algo.advantage`.

    With `algo.kl = "reward"` the KL of each completion to the reference is subtracted from its
    reward before rewards are compared. An advantage that names `kl_PGT` gets the KL token by token,
    and gives each token an advantage of its own.
    """

    phase = "grade"
    first_version = 0

    def __init__(self, algo: AlgoSection, reference: Any, pad_id: int, micro_batch: MicroBatchSize):
        self.algo, self.reference = algo, reference
        self.pad_id, self.micro_batch = pad_id, micro_batch
        self.optimizers: list[Optimizer] = []

    def estimate(self, groups: Groups, scores: Scores) -> Estimate:
        algo, rewards_PG = self.algo, scores.rewards_PG
        advantage = ADVANTAGES[algo.advantage]
        inputs = advantage.settings(algo)
        inputs["lengths_PG"] = scores.lengths_PG
        inputs["drops_flat"] = ZERO_VARIANCE[algo.zero_variance].facts.drops
        if algo.kl == "reward" and "kl_PGT" in advantage.parameters:
            inputs["kl_PGT"] = algo.kl_coef * self._measured(
                partial(kl_of_tokens, self.reference), groups
            )
        elif algo.kl == "reward":
            rewards_PG = rewards_PG - algo.kl_coef * self._measured(
                self.reference.distances, groups
            )
        return self.estimate_from(groups, scores, advantage(rewards_PG, **inputs).float())

    def estimate_from(self, groups: Groups, scores: Scores, advantages: torch.Tensor) -> Estimate:
        """The estimate whose advantages are given: [P, G], or [P, G, T] with 0 after a completion's
        end."""
        if advantages.dim() == 2:
            rows = [
                [TrainingRow.of(*pair) for pair in zip(group, own, strict=True)]
                for group, own in zip(groups, advantages.tolist(), strict=True)
            ]
            return Estimate(advantages, counted_by(self.algo, advantages, scores), rows)
        rows = [
            [
                TrainingRow(graded, own_T[: num_drawn_tokens(graded)])
                for graded, own_T in zip(*pair, strict=True)
            ]
            for pair in zip(groups, advantages, strict=True)
        ]
        means_PG = advantages.sum(2) / scores.lengths_PG
        return TokenEstimate(means_PG, counted_by(self.algo, means_PG, scores), rows)

    def _measured(self, measure: Callable[..., torch.Tensor], groups: Groups) -> torch.Tensor:
        """`measure(groups, pad_id, tokens)`, in micro-batches that fit; each rank measures its
        share."""
        assert isinstance(self.reference, Reference), "a KL in the reward without a reference"
        world, place = self.reference.world, "the KL of each completion"
        with world.joint(place):
            part = self.micro_batch.fit(partial(measure, groups, self.pad_id), clear=lambda: None)
        world.add_up(part, place)
        return part

    def learn(self, share: Estimate, learning_rate: Callable[[float], float]) -> dict[str, float]:
        """There is no critic, so nothing to update."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def kl_of_tokens(reference: Reference, groups: Groups, pad_id: int, tokens: int) -> torch.Tensor:
    """[P, G, T] in float64: old - ref log-probs of each token, in nats, 0 after a completion's end:
    the k1 estimate of the KL.

    Of the rows of other ranks 0. Computed in micro-batches of at most `tokens`.
    """
    rows = [PlacedRow(graded, i) for i, graded in enumerate(g for gs in groups for g in gs)]
    longest = max(num_drawn_tokens(row.graded) for row in rows)
    gaps_NT = torch.zeros(len(rows), longest, dtype=torch.float64)
    own = reference.world.deal(rows, num_completion_tokens)
    for dealt, part in reference.parts(own, pad_id, tokens):
        gaps_BT = (part.old_logprobs_BT - reference.logprobs(part)).cpu()
        gaps = gather_rows(gaps_BT, part.mask_BT.cpu())[: len(dealt)]
        for row, own_T in zip(dealt, gaps, strict=True):
            gaps_NT[row.place, : len(own_T)] = own_T
    return gaps_NT.view(len(groups), -1, longest)


def counted_by(algo: AlgoSection, advantages_PG: torch.Tensor, scores: Scores) -> torch.Tensor:
    """[P, G] of 0 and 1: which completions count, by the recipe's rules for truncated completions
    and for flat groups."""
    rules = (algo.overlong, algo.zero_variance)
    compared_PG = scores.compared(algo.zero_variance)
    return counted(advantages_PG, scores.truncated_PG, *rules, compared_PG)
