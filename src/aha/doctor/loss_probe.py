"""What an update does to each token: the gradient of the loss with respect to the log-probs.

A stand-in takes the policy's place in the trainer's own update. Its log-probs are the recorded
ones, so that every ratio is 1 and nothing is clipped, and they are the leaves of the graph: after
the update their gradients say which tokens are in the loss, and how much each counts. No model is
computed, no weight moves.

Shapes: B rows, T own tokens of a completion.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from aha.batching.batch import TrainingRow
from aha.batching.layout import Layout
from aha.core.records import Graded, StepReport
from aha.dist.world import World
from aha.training.advantage_estimators import Estimate, counted_by
from aha.training.rl import RLTrainer

WHOLE, SINGLE = 10**9, 1  # tokens of a micro-batch: all rows in one, each row in its own


@dataclass(frozen=True)
class TokenGradient:
    """d loss / d log-prob of one computed completion."""

    advantages_T: torch.Tensor
    own_T: torch.Tensor  # at its own tokens
    elsewhere: float  # the largest at any other token of its row


@dataclass(frozen=True)
class LossProbe:
    """The gradients of an update by completion."""

    rows: list[TokenGradient]
    strangers: int  # computed rows that are no completion of the step
    left_out: int  # completions with an advantage that the update did not compute
    spread: float  # in one micro-batch against one for each row, relative to the largest gradient


Gradients = dict[tuple[int, ...], list[TokenGradient]]  # by the tokens of prompt and completion


class StandIn:
    """In place of the policy: recorded log-probs as leaves. Entropies are 0, without gradient."""

    def __init__(self, policy: Any, rows: Sequence[TrainingRow]):
        self.device, self.supports_layout = policy.device, policy.supports_layout
        self.rows = {all_tokens(row.graded): row for row in rows}
        self.lengths = sorted({len(tokens) for tokens in self.rows}, reverse=True)
        self.passes: list[tuple[list[tuple[int, ...] | None], int, torch.Tensor]] = []

    def token_logprobs(
        self,
        tokens_BT: torch.Tensor,
        start: int = 1,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
        layout: Layout | None = None,
    ) -> torch.Tensor:
        """As `Policy.token_logprobs`; what the completions do not cover is 0."""
        batch = [self.name_of(tuple(tokens)) for tokens in tokens_BT.tolist()]
        leaf_BT = torch.zeros(len(batch), tokens_BT.shape[1] - start)
        for b, name in enumerate(batch):
            if name is not None:
                graded = self.rows[name].graded
                recorded = torch.tensor(graded.completion.logprobs)
                leaf_BT[b, own_columns(graded, start)] = recorded
        leaf_BT = leaf_BT.to(self.device).requires_grad_()
        self.passes.append((batch, start, leaf_BT))
        return leaf_BT

    def logprobs_and_entropy(
        self, tokens_BT: torch.Tensor, *inputs: Any, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Policy.logprobs_and_entropy`."""
        named.pop("entropy", None)
        leaf_BT = self.token_logprobs(tokens_BT, *inputs[:3], **named)
        return leaf_BT, torch.zeros_like(leaf_BT)

    def name_of(self, tokens: tuple[int, ...]) -> tuple[int, ...] | None:
        """The completion of a padded row; None where the step has none like it."""
        prefixes = (tokens[:length] for length in self.lengths)
        return next((prefix for prefix in prefixes if prefix in self.rows), None)

    def gradients(self) -> tuple[Gradients, int]:
        """(of each completion that was computed, the number of rows that are none)."""
        gradients: Gradients = {}
        strangers = 0
        for batch, start, leaf_BT in self.passes:
            grad_BT = torch.zeros_like(leaf_BT) if leaf_BT.grad is None else leaf_BT.grad
            for name, grad_T in zip(batch, grad_BT.cpu(), strict=True):
                if name is None:
                    strangers += 1
                    continue
                row = self.rows[name]
                own = own_columns(row.graded, start)
                others = grad_T.clone()
                others[own] = 0.0
                gradient = TokenGradient(row.advantages_T, grad_T[own], float(others.abs().max()))
                gradients.setdefault(name, []).append(gradient)
        return gradients, strangers


class Standstill:
    """In place of the optimiser: nothing moves."""

    def update(self, lr: float) -> float:
        return 0.0

    def add_up(self, world: World, sums: torch.Tensor, place: str) -> torch.Tensor:
        """Of one rank: there is nothing to add."""
        return sums

    def clear(self) -> None:
        """The gradients are the stand-in's own."""


def all_tokens(graded: Graded) -> tuple[int, ...]:
    """Prompt and completion."""
    return graded.completion.prompt.tokens + graded.completion.tokens


def own_columns(graded: Graded, start: int) -> slice:
    """The completion's own tokens in a batch whose columns begin at position `start`."""
    first = len(graded.completion.prompt.tokens) - start
    return slice(first, first + len(graded.completion.tokens))


def estimate_of(report: StepReport, trainer: RLTrainer) -> Estimate:
    """The estimate that the step was made with, as far as an update reads it."""
    groups = [list(group) for group in report.groups]
    advantages_PG = torch.tensor(report.advantages)
    if report.token_advantages:
        rows = [
            [TrainingRow(one, torch.tensor(own)) for one, own in zip(*pair, strict=True)]
            for pair in zip(groups, report.token_advantages, strict=True)
        ]
    else:
        rows = [
            [TrainingRow.of(one, advantage) for one, advantage in zip(*pair, strict=True)]
            for pair in zip(groups, report.advantages, strict=True)
        ]
    counted_PG = counted_by(trainer.cfg.algo, advantages_PG, trainer.rollout.scores(groups))
    return Estimate(advantages_PG, counted_PG, rows)


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Attributes with other values for a while."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def probe_update(report: StepReport, trainer: RLTrainer) -> LossProbe:
    """A step's rows once more, as the first and only update, with a stand-in for the policy."""
    share = estimate_of(report, trainer)
    counted = share.counted_rows()
    whole, strangers = gradients_of(share, counted, trainer, WHOLE)
    single, _ = gradients_of(share, counted, trainer, SINGLE)
    due = {all_tokens(row.graded) for row in counted if row.advantages_T.any()}
    rows = [gradient for gradients in whole.values() for gradient in gradients]
    return LossProbe(rows, strangers, len(due - whole.keys()), spread_of(whole, single))


def gradients_of(
    share: Estimate, counted: Sequence[TrainingRow], trainer: RLTrainer, tokens: int
) -> tuple[Gradients, int]:
    """The gradients of one update in micro-batches of at most `tokens`."""
    stand_in = StandIn(trainer.policy, counted)
    with (
        replaced(trainer.objective, policy=stand_in),
        replaced(trainer, optimizer=Standstill()),
        replaced(trainer.micro_batch, tokens=tokens),
    ):
        trainer.update(share, 0)
    return stand_in.gradients()


def spread_of(one: Gradients, other: Gradients) -> float:
    """The largest difference of two gradients against the largest of them; 0 for no gradient."""
    largest = difference = 0.0
    for name in one.keys() | other.keys():
        sums = [
            torch.stack([gradient.own_T for gradient in side[name]]).sum(0) if name in side else 0.0
            for side in (one, other)
        ]
        difference = max(difference, float(torch.as_tensor(sums[0] - sums[1]).abs().max()))
        largest = max(largest, float(torch.as_tensor(sums[0]).abs().max()))
    return difference / largest if largest else 0.0
