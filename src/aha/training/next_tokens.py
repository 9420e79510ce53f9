"""The trainer of next tokens, for pre-training and for fine-tuning: one update, whatever it reads.

Both learn to predict the tokens of texts that somebody has written. They differ in three things,
which a subclass gives: where the batches come from, what the optimiser is, and when it is done.

Shapes: B rows, T tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from aha.batching.layout import Layout
from aha.dist.world import World
from aha.model.policy import Policy


@dataclass(frozen=True)
class WeightedRows:
    """Rows of tokens, and how much each token counts in the loss, on the model's device.

    `tokens_BT` is [B, start + T]. Column t of `weights_BT` is about the token at `start + t`; 0 for
    tokens that are only read, and for padding.
    """

    tokens_BT: torch.Tensor
    start: int
    weights_BT: torch.Tensor
    layout: Layout | None = None


@dataclass(frozen=True)
class NextTokenBatch:
    """The rows of one update that this rank computes, in parts that are computed one by one.

    `total` is the sum of the weights of the whole update, those of other ranks' rows too;
    `num_tokens` counts the tokens that the whole update reads, without padding.
    """

    parts: Sequence[WeightedRows]
    total: torch.Tensor | float
    num_tokens: int


@dataclass(frozen=True)
class NextTokenReport:
    """One update, for the watchers.

    `loss` (weighted mean, nats a token) is a tensor of one number on the model's device, and
    `grad_norm` (before clipping) may be one: reading it waits for a GPU. `lr` is what the trainer's
    schedule gives: a rate, or a factor of the rates.
    """

    step: int
    tokens_seen: int
    loss: torch.Tensor
    grad_norm: torch.Tensor | float
    lr: float

    @property
    def version(self) -> int:
        """The number of updates, as in a report of RL."""
        return self.step


class NextTokenTrainer(ABC):
    """Next-token training on the model's device; `step` makes one update.

    The loss of an update is the sum of -log p(token) times its weight, over all its rows, divided
    by the sum of those weights. So it does not matter how the rows are cut into parts and shared
    between ranks, but for rounding.
    """

    def __init__(self, policy: Policy, dtype: torch.dtype, world: World | None = None):
        self.policy, self.dtype, self.world = policy, dtype, world or World()
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.step_count = self.tokens_seen = 0

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether there is nothing left to learn from."""

    @abstractmethod
    def learn(self) -> tuple[NextTokenBatch, torch.Tensor]:
        """Take the next batch and compute its gradient with `gradient`. Returns both: the batch,
        and this rank's part of the loss."""

    @abstractmethod
    def rate(self) -> float:
        """The learning rate of the next update, or the factor of the rates."""

    @abstractmethod
    def update(self, rate: float) -> torch.Tensor | float:
        """Change the weights by the gradient and clear it; returns its norm before clipping."""

    def steps(self) -> Iterator[NextTokenReport]:
        """Updates until it is done."""
        while not self.done:
            yield self.step()

    def step(self) -> NextTokenReport:
        """One update on the next batch."""
        rate = self.rate()
        batch, own_loss = self.learn()
        place = f"update {self.step_count + 1}"
        loss = self.world.sum_gradients(self.parameters, own_loss, place)
        norm = self.update(rate)
        self.step_count += 1
        self.tokens_seen += batch.num_tokens
        return NextTokenReport(self.step_count, self.tokens_seen, loss, norm, rate)

    def gradient(self, batch: NextTokenBatch) -> torch.Tensor:
        """Add the gradient of the batch to that of the weights; returns this rank's part of the
        loss of the whole update."""
        if not batch.parts:  # fewer rows than ranks
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)
            return torch.zeros((), device=self.policy.device)
        losses = []
        for part in batch.parts:
            logprobs_BT = self.policy.token_logprobs(
                part.tokens_BT, part.start, self.dtype, layout=part.layout
            )
            loss = -(logprobs_BT * part.weights_BT).sum() / batch.total
            loss.backward()
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()
